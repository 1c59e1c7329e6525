//! The mounts of a command before it is known whether it has to run: where their files
//! come from, and what of them decides over the result.

use std::path::PathBuf;

use super::Shared;
use super::files::{Files, Packing};
use super::inputs::{Inputs, digests};
use super::stage::chain_of;
use crate::copy::{self, Destination, Selected};
use crate::dockerfile::Mount;
use crate::dockerfile::mount::{CacheMount, Sharing};
use crate::error::Error;
use crate::layer::{Compression, Options};
use crate::snapshot::RootView;

/// A mount whose files are found.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub(crate) mount: Mount,
    pub(crate) source: Option<Source>,
}

/// Where the files of a mount come from.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) files: Files,
    /// The file or directory that is mounted.
    pub(crate) selected: Selected,
    /// What decides over the result of a command that sees them.
    inputs: Inputs,
}

impl Source {
    /// Finds a path among files, and the digests of what is there.
    pub(crate) async fn find(
        session: &Shared,
        files: Files,
        path: Option<&str>,
    ) -> Result<Self, Error> {
        let path = path.unwrap_or("/").to_owned();
        let threads = session.threads;
        session
            .block(move || {
                let selected = copy::select_path(&path, files.view())?;
                let inputs = match &files {
                    // All of them: their layers say the same in less words.
                    Files::Layers { layers, .. } if selected.root.is_root() => {
                        let mut inputs = Inputs::default();
                        inputs.push(&[chain_of(layers).as_bytes()]);
                        inputs
                    }
                    _ => inputs(&files, &selected, threads)?,
                };
                Ok(Self {
                    files,
                    selected,
                    inputs,
                })
            })
            .await
    }

    pub(crate) fn is_folder(&self) -> bool {
        let found = self.files.view().lookup(&self.selected.root);
        found.is_none_or(|found| found.entry.kind.is_dir())
    }

    /// Owner and mode of the directory itself; a root of which nothing is said is root's.
    pub(crate) fn attributes(&self) -> ((u32, u32), u32) {
        match self.files.view().lookup(&self.selected.root) {
            Some(found) => ((found.entry.uid, found.entry.gid), found.entry.mode),
            None => ((0, 0), 0o755),
        }
    }

    /// Writes the file, or what is in the directory, into a tar.
    pub(crate) async fn write_tar(&self, session: &Shared, path: PathBuf) -> Result<(), Error> {
        let dest = Destination {
            path: "/".to_owned(),
            owner: None,
            mode: None,
        };
        let nothing = RootView::new(&[]);
        let source = copy::Source {
            files: 0,
            view: self.files.view(),
            selected: &self.selected,
            archive: None,
        };
        let placement = copy::place(&[source], &[], &nothing, 1, &dest)?;
        let files = vec![self.files.clone()];
        let mut packing = Packing::new(session, placement, files, session.created());
        packing.options = Options {
            compression: Compression::None,
            clamp_mtime: None,
            ..packing.options
        };
        let file = std::fs::File::create(path).map_err(crate::layer::Error::Write)?;
        packing.into_file(session, file).await
    }
}

/// One text for everything that is seen, and one for the directory itself.
fn inputs(files: &Files, selected: &Selected, threads: usize) -> Result<Inputs, Error> {
    let view = files.view();
    let digests = digests(files, std::iter::once(selected), threads)?;
    let mut inputs = Inputs::default();
    inputs.push(&[&selected.name]);
    inputs.push_contents(view, selected, &digests);
    if let Some(found) = view.lookup(&selected.root) {
        let entry = found.entry;
        let text = format!("{:o} {} {}", entry.mode, entry.uid, entry.gid);
        inputs.push(&[text.as_bytes()]);
    }
    Ok(inputs)
}

impl Prepared {
    /// Says what decides over the result of a step. The value of a secret does not, nor
    /// does which cache it is and who shares it.
    pub(crate) fn key(&self) -> Vec<u8> {
        let mount = match &self.mount {
            Mount::Cache(mount) => Mount::Cache(CacheMount {
                id: String::new(),
                sharing: Sharing::default(),
                ..mount.clone()
            }),
            other => other.clone(),
        };
        let mut key = format!("{mount:?}").into_bytes();
        let inputs = self.source.iter().flat_map(|source| source.inputs.iter());
        for input in inputs {
            key.extend_from_slice(&(input.len() as u64).to_le_bytes());
            key.extend_from_slice(input);
        }
        key
    }
}
