//! COPY, ADD and WORKDIR: which files, whose, and where they go becomes a list of
//! entries; `files` makes a layer of it.

use std::collections::HashMap;

use super::files::{Files, Packing};
use super::{Shared, archives, layers};
use crate::cache::StepResult;
use crate::content::Layer;
use crate::copy::{self, Destination, Owner, PlacedFrom, Placement, Selected};
use crate::error::Error;
use crate::graph::CopyStep;
use crate::graph::key::{KeyBuilder, StepKey};
use crate::layer::{Kind, TreePath};
use crate::registry::Digest;
use crate::snapshot::RootView;

/// A copy whose sources are known.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    step: CopyStep,
    files: Files,
    selected: Vec<Selected>,
    /// What decides over the result, one text an entry.
    inputs: Vec<Vec<u8>>,
}

/// Finds the sources of a copy and the digests of their contents.
pub(crate) async fn prepare(
    session: &Shared,
    step: CopyStep,
    files: Files,
) -> Result<Prepared, Error> {
    let threads = session.threads;
    session
        .block(move || {
            let selected = copy::select(&step.sources, files.view())?;
            if let (true, Files::Context(context)) = (step.extracts, &files) {
                archives::refuse(context, &selected)?;
            }
            let inputs = inputs(&files, &selected, threads)?;
            Ok(Prepared {
                step,
                files,
                selected,
                inputs,
            })
        })
        .await
}

impl Prepared {
    /// Gives the key of the step over a stack of layers.
    pub(crate) fn key(&self, below: &str, epoch: Option<i64>) -> StepKey {
        let below = if self.step.link { "" } else { below };
        let inline = self.step.inline.iter();
        KeyBuilder::new("copy")
            .part("below", below)
            .part("dest", &self.step.dest)
            .part("chown", format!("{:?}", self.step.chown))
            .part("chmod", format!("{:?}", self.step.chmod))
            .part("link", format!("{:?}", self.step.link))
            .part("epoch", format!("{epoch:?}"))
            .list("inputs", &self.inputs)
            .list("inline names", inline.clone().map(|file| &file.name))
            .list("inline", inline.map(|file| &file.content))
            .finish()
    }
}

/// Gives one text for each thing that is copied: everything of it that ends in the
/// layer, but for its time.
pub(super) fn inputs(
    files: &Files,
    selected: &[Selected],
    threads: usize,
) -> Result<Vec<Vec<u8>>, Error> {
    let view = files.view();
    let digests = digests(files, selected, threads)?;
    let mut inputs = Vec::new();
    for one in selected {
        inputs.push(one.name.clone());
        for (below, entry) in copy::selected_entries(view, one) {
            let owner = format!(" {:o} {} {} ", entry.mode, entry.uid, entry.gid);
            let mut text = [below.as_bytes(), b"\0", owner.as_bytes()].concat();
            match (&entry.kind, view.content_of(&entry.path)) {
                (_, Some(place)) => {
                    let digest = digests.get(&place.path).unwrap_or(&place.content.digest);
                    text.extend_from_slice(digest.as_bytes());
                }
                (Kind::Symlink { target }, None) => text.extend_from_slice(target),
                (other, None) => text.extend_from_slice(format!("{other:?}").as_bytes()),
            }
            for (name, value) in &entry.xattrs {
                text.extend_from_slice(&[b"\0", name.as_slice(), b"=", value].concat());
            }
            inputs.push(text);
        }
    }
    Ok(inputs)
}

/// Gives the digests of files of a context; those of layers are in their tables.
fn digests(
    files: &Files,
    selected: &[Selected],
    threads: usize,
) -> Result<HashMap<TreePath, Digest>, Error> {
    let Files::Context(context) = files else {
        return Ok(HashMap::new());
    };
    let view = context.view();
    let mut paths: Vec<TreePath> = selected
        .iter()
        .flat_map(|one| copy::selected_entries(view, one))
        .filter_map(|(_, entry)| Some(view.content_of(&entry.path)?.path))
        .collect();
    paths.sort_unstable();
    paths.dedup();
    let digests = context.digests(&paths, threads)?;
    Ok(paths.into_iter().zip(digests).collect())
}

/// Lays the files over the stage and writes the layer.
pub(crate) async fn run(
    session: &Shared,
    prepared: Prepared,
    below: &[Layer],
) -> Result<StepResult, Error> {
    let Prepared {
        step,
        files,
        selected,
        ..
    } = prepared;
    let below = if step.link { &[] } else { below };
    let base = layers::view(session, below).await?;
    let dest = Destination {
        path: step.dest.clone(),
        owner: step
            .chown
            .as_ref()
            .map(|owner| copy::parse_owner(owner, &base))
            .transpose()?,
        mode: step.chmod.as_deref().map(copy::parse_mode).transpose()?,
    };
    let placement = copy::place(files.view(), &selected, &step.inline, &base, &dest)?;
    // A directory that the copy makes is as new as the newest thing that is copied, so that the
    // same files give the same layer at any time.
    let newest = placement
        .values()
        .filter(|placed| placed.origin == PlacedFrom::Source)
        .map(|placed| placed.entry.mtime)
        .max();
    let folder_time = newest.unwrap_or_else(|| session.created());
    let mut packing = Packing::new(session, placement, files, folder_time);
    packing.inline = step.inline;
    packing.into_layer(session).await
}

/// Writes a layer of directories that a step makes.
pub(crate) async fn write(
    session: &Shared,
    placement: Placement,
    files: Files,
    folder_time: i64,
) -> Result<StepResult, Error> {
    Packing::new(session, placement, files, folder_time)
        .into_layer(session)
        .await
}

/// Gives the owner of directories that WORKDIR makes for a user: a user that is not
/// known is root, as the reference builder has it.
pub(crate) fn owner_of_user(user: &str, view: &RootView) -> Result<Owner, Error> {
    if user.is_empty() {
        return Ok(Owner::default());
    }
    Ok(copy::parse_owner(user, view)?)
}
