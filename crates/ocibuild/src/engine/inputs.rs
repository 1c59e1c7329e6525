//! What of files decides over the result of a step: one text for each of them, of which there
//! may be very many.

use super::files::Files;
use crate::copy::Selected;
use crate::error::Error;
use crate::layer::{ByPath, Kind, TreePath};
use crate::registry::Digest;
use crate::snapshot::{Found, RootView};

/// The texts, in one piece of memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Inputs {
    bytes: Vec<u8>,
    /// Where each text ends.
    ends: Vec<usize>,
}

impl Inputs {
    /// Gives each text.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        let places = begins.zip(&self.ends);
        places.map(|(begin, &end)| &self.bytes[begin..end])
    }

    /// Adds a text, in parts.
    pub(super) fn push(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.ends.push(self.bytes.len());
    }

    /// Adds one text for each thing that is selected: all that it is, but for its time.
    pub(super) fn push_contents(
        &mut self,
        view: &RootView,
        selected: &Selected,
        digests: &ByPath<Digest>,
    ) {
        let mut next = 0;
        for found in selected.entries(view) {
            let Found { entry, .. } = found;
            let owner = format!("\0 {:o} {} {} ", entry.mode, entry.uid, entry.gid);
            let text = &mut self.bytes;
            text.extend_from_slice(entry.path.below(&selected.root));
            text.extend_from_slice(owner.as_bytes());
            match (&entry.kind, view.content(found)) {
                (_, Some(place)) => {
                    let digest = digests.get_next(&mut next, &place.path);
                    text.extend_from_slice(digest.unwrap_or(&place.content.digest).as_bytes());
                }
                (Kind::Symlink { target }, None) => text.extend_from_slice(target),
                (other, None) => text.extend_from_slice(format!("{other:?}").as_bytes()),
            }
            for (name, value) in &entry.xattrs {
                text.extend_from_slice(&[b"\0", name.as_slice(), b"=", value].concat());
            }
            self.ends.push(self.bytes.len());
        }
    }
}

/// Gives the digests of files of a context; those of layers are in their tables.
pub(super) fn digests<'a>(
    files: &Files,
    selected: impl Iterator<Item = &'a Selected>,
    threads: usize,
) -> Result<ByPath<Digest>, Error> {
    let Files::Context(context) = files else {
        return Ok(ByPath::default());
    };
    let view = context.view();
    let mut paths: Vec<TreePath> = selected
        .flat_map(|selected| selected.entries(view))
        .filter_map(|found| Some(view.content(found)?.path))
        .collect();
    paths.sort_unstable();
    paths.dedup();
    let digests = context.digests(&paths, threads)?;
    Ok(ByPath::from_sorted(
        paths.into_iter().zip(digests).collect(),
    ))
}
