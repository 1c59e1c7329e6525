//! Large files of a copy, each in a layer of its own above the layer of all others. What
//! names such a layer is the file alone, wherever the copy stands, so that nothing but a
//! change of the file makes another one.

use super::Shared;
use super::copy_step::Laid;
use super::files::Files;
use crate::copy::{Bytes, Placed, PlacedFrom};
use crate::error::Error;
use crate::graph::key::KeyBuilder;
use crate::layer::{Compression, Entry, Kind, TreePath};
use crate::registry::Digest;

/// A file with a layer of its own.
pub(super) struct Weight {
    laid: Laid,
    file: Named,
}

/// What names the layer of a file.
pub(super) struct Named {
    path: TreePath,
    entry: Entry,
    content: Digest,
}

impl Weight {
    /// Gives where the file comes to stand.
    pub(super) fn name(&self) -> String {
        self.file.path.as_path().display().to_string()
    }

    /// Gives what becomes the layer, and what names it.
    pub(super) fn named(self) -> (Laid, Named) {
        (self.laid, self.file)
    }
}

impl Named {
    /// Adds to a key what decides over the layer.
    pub(super) fn key(&self, begun: KeyBuilder, epoch: Option<i64>) -> KeyBuilder {
        let entry = &self.entry;
        let owner = format!("{:o} {} {}", entry.mode, entry.uid, entry.gid);
        let xattrs = entry.xattrs.iter().flat_map(|(name, value)| [name, value]);
        begun
            .part("dest", self.path.as_bytes())
            .part("owner", owner)
            .part("content", self.content.to_string())
            .list("attributes", xattrs)
            .part("epoch", format!("{epoch:?}"))
    }
}

/// Takes the large files out of what is to become a layer.
pub(super) async fn split(session: &Shared, mut laid: Laid) -> Result<(Laid, Vec<Weight>), Error> {
    let linked: Vec<TreePath> = laid.placement.values().filter_map(linked_to).collect();
    let apart: Vec<TreePath> = laid
        .placement
        .iter()
        .filter(|(path, placed)| {
            placed.origin == PlacedFrom::Source
                && session.layer_policy.is_apart(&placed.entry)
                && !linked.contains(path)
        })
        .map(|(path, _)| path.clone())
        .collect();
    let mut weights = Vec::new();
    for path in apart {
        let Some(placed) = laid.placement.remove(&path) else {
            continue;
        };
        let Bytes::Source(files, source) = placed.bytes.clone() else {
            laid.placement.insert(path, placed);
            continue;
        };
        let (from, threads) = (laid.files[files].clone(), session.threads);
        let content = session
            .block(move || digest(&from, &source, threads))
            .await?;
        let entry = placed.entry.clone();
        let placement = [(path.clone(), placed)].into_iter().collect();
        weights.push(Weight {
            laid: Laid {
                placement,
                files: laid.files.clone(),
                inline: Vec::new(),
                archives: Vec::new(),
                contents: laid.contents.clone(),
                folder_time: laid.folder_time,
                compression: Some(Compression::None),
                // It may be there: it is the same wherever the file is.
                goes_ahead: false,
            },
            file: Named {
                path,
                entry,
                content,
            },
        });
    }
    Ok((laid, weights))
}

/// A file with several names stays with them.
fn linked_to(placed: &Placed) -> Option<TreePath> {
    match &placed.entry.kind {
        Kind::Hardlink { target } => Some(target.clone()),
        _ => None,
    }
}

fn digest(files: &Files, path: &TreePath, threads: usize) -> Result<Digest, Error> {
    let missing = || Error::invalid(format!("{path} is gone"));
    let place = files.view().content_of(path).ok_or_else(missing)?;
    match files {
        Files::Context(context) => {
            let mut digests = context.digests(&[place.path], threads)?;
            digests.pop().ok_or_else(missing)
        }
        _ => Ok(place.content.digest),
    }
}
