//! COPY, ADD and WORKDIR: which files, whose, and where they go becomes a list of
//! entries; `files` makes a layer of it.

use std::sync::Arc;

use super::accounts::accounts;
use super::archives::Extracted;
use super::files::{Files, Packing};
use super::inputs::{Inputs, digests};
use super::packed::Contents;
#[cfg(feature = "git")]
use super::remote;
use super::{Shared, layers};
use crate::cache::{self, StepResult};
use crate::content::Layer;
use crate::copy::{
    self, Destination, InlineFile, LayerPolicy, Mode, Owner, PlacedFrom, Placement, Selected,
};
use crate::error::Error;
use crate::graph::key::{KeyBuilder, StepKey};
use crate::graph::{CopySource, CopyStep};
use crate::layer::{Compression, is_archive};
use crate::snapshot::RootView;

/// A copy whose sources are known.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    step: CopyStep,
    files: Vec<Files>,
    found: Vec<Found>,
    /// What decides over the result, one text an entry.
    inputs: Arc<Inputs>,
    /// What the files of contexts hold.
    contents: Arc<Contents>,
}

/// Something that is to be copied.
#[derive(Debug, Clone)]
struct Found {
    /// Which of the files it is in.
    files: usize,
    selected: Selected,
    /// It is an archive to be extracted.
    is_archive: bool,
    /// Stands for the contents in the key of the step.
    identity: Option<String>,
}

impl Found {
    /// Looks whether something is an archive where archives are to be extracted; the
    /// content decides, not the name.
    fn new(all: &[Files], files: usize, selected: Selected, unpack: bool) -> Result<Self, Error> {
        let file = match unpack {
            true => all[files].open(&selected.root)?,
            false => None,
        };
        Ok(Self {
            files,
            selected,
            is_archive: file.is_some_and(is_archive),
            identity: None,
        })
    }

    fn name(&self) -> String {
        String::from_utf8_lossy(&self.selected.name).into_owned()
    }
}

/// Finds the sources of a copy and the digests of their contents. Paths are looked up in
/// `local`; what comes from a server is fetched.
pub(crate) async fn prepare(
    session: &Shared,
    step: CopyStep,
    local: Files,
) -> Result<Prepared, Error> {
    let mut prepared = Prepared {
        files: vec![local],
        found: Vec::new(),
        inputs: Arc::default(),
        contents: Arc::default(),
        step,
    };
    for source in prepared.step.sources.clone() {
        prepared = prepared.with(session, &source).await?;
    }
    let threads = session.threads;
    session
        .block(move || {
            let contents = digests_of(&prepared, threads)?;
            prepared.inputs = Arc::new(inputs(&prepared, &contents));
            prepared.contents = Arc::new(contents);
            Ok(prepared)
        })
        .await
}

impl Prepared {
    /// Adds what one source gives.
    async fn with(mut self, session: &Shared, source: &CopySource) -> Result<Self, Error> {
        let path = match source {
            CopySource::Path(path) => path.clone(),
            remote => return self.with_remote(session, remote).await,
        };
        session
            .block(move || {
                let selected = copy::select(&path, &self.step.choice, self.files[0].view())?;
                let unpack = self.step.unpack_local;
                for selected in selected {
                    let found = Found::new(&self.files, 0, selected, unpack)?;
                    self.found.push(found);
                }
                Ok(self)
            })
            .await
    }

    #[cfg(feature = "git")]
    async fn with_remote(mut self, session: &Shared, source: &CopySource) -> Result<Self, Error> {
        let checksum = self.step.checksum.as_deref();
        let (files, selected, identity) = match source {
            CopySource::Git(url) => remote::repository(session, url, &self.step).await?,
            other => {
                let (files, selected) = remote::file(session, other.text(), checksum).await?;
                (files, selected, None)
            }
        };
        self.files.push(files);
        session
            .block(move || {
                let (last, unpack) = (self.files.len() - 1, self.step.unpack_remote);
                let mut found = Found::new(&self.files, last, selected, unpack)?;
                found.identity = identity;
                self.found.push(found);
                Ok(self)
            })
            .await
    }

    #[cfg(not(feature = "git"))]
    async fn with_remote(self, _: &Shared, source: &CopySource) -> Result<Self, Error> {
        let text = format!("ADD of the remote source {:?}", source.text());
        Err(crate::graph::Error::Unsupported(text).into())
    }
}

impl Prepared {
    /// Tells whether something of it gets a layer of its own.
    pub(super) fn has_apart(&self, policy: &LayerPolicy) -> bool {
        self.found.iter().any(|found| {
            let mut entries = found.selected.entries(self.files[found.files].view());
            !found.is_archive && entries.any(|visible| policy.is_apart(visible.entry))
        })
    }

    /// Adds to a key what decides over the step above a stack of layers.
    pub(crate) fn key(&self, begun: KeyBuilder, below: &str, epoch: Option<i64>) -> KeyBuilder {
        let below = if self.step.link { "" } else { below };
        let inline = self.step.inline.iter();
        begun
            .part("below", below)
            .part("dest", &self.step.dest)
            .part("chown", format!("{:?}", self.step.chown))
            .part("chmod", format!("{:?}", self.step.chmod))
            .part("link", format!("{:?}", self.step.link))
            .part("epoch", format!("{epoch:?}"))
            .files("inputs", self.inputs.iter())
            .list("inline names", inline.clone().map(|file| &file.name))
            .list("inline", inline.map(|file| &file.content))
    }
}

/// Names a copy out of layers by what is known before these are looked into.
pub(crate) fn name(step: &CopyStep, source: &str, below: &str, epoch: Option<i64>) -> StepKey {
    let below = if step.link { "" } else { below };
    KeyBuilder::new("name of copy")
        .part("below", below)
        .part("source", source)
        .part("step", format!("{step:?}"))
        .part("epoch", format!("{epoch:?}"))
        .finish()
}

/// Gives the digests of all files of contexts that the key of a copy has.
fn digests_of(prepared: &Prepared, threads: usize) -> Result<Contents, Error> {
    let all = prepared.files.iter().enumerate().map(|(index, files)| {
        let found = prepared.found.iter();
        let found = found.filter(|found| found.files == index && found.identity.is_none());
        digests(files, found.map(|found| &found.selected), threads)
    });
    all.collect()
}

/// Gives one text for each thing that is copied: everything of it that ends in the
/// layer, but for its time.
fn inputs(prepared: &Prepared, all: &Contents) -> Inputs {
    let mut inputs = Inputs::default();
    for found in &prepared.found {
        inputs.push(&[&found.selected.name]);
        if found.is_archive {
            inputs.push(&[b"extracted"]);
        }
        match &found.identity {
            Some(identity) => {
                let exclude = &prepared.step.choice.exclude;
                inputs.push(&[format!("{identity} {exclude:?}").as_bytes()]);
            }
            None => {
                let view = prepared.files[found.files].view();
                inputs.push_contents(view, &found.selected, &all[found.files]);
            }
        }
    }
    inputs
}

/// Copies onto nothing, unless it is known what that gives; tells whether it was.
pub(crate) async fn made(
    session: &Shared,
    step: CopyStep,
    files: Files,
) -> Result<(bool, StepResult), Error> {
    let prepared = prepare(session, step, files).await?;
    let begun = KeyBuilder::new("copy");
    let key = prepared.key(begun, "scratch", session.epoch).finish();
    let known = cache::lookup(&session.store, &key).filter(|_| session.use_cache);
    if let Some(known) = known {
        return Ok((true, known));
    }
    let made = run(session, prepared, &[], false).await?;
    cache::remember(&session.store, &key, &made)?;
    Ok((false, made))
}

/// What is to become a layer.
pub(super) struct Laid {
    pub(super) placement: Placement,
    pub(super) files: Vec<Files>,
    pub(super) inline: Vec<InlineFile>,
    pub(super) archives: Vec<Extracted>,
    /// What the files of contexts hold.
    pub(super) contents: Arc<Contents>,
    pub(super) folder_time: i64,
    /// How it is compressed, if not as usual.
    pub(super) compression: Option<Compression>,
    /// The layer may be sent while it is written.
    pub(super) goes_ahead: bool,
}

impl Laid {
    /// Writes the layer.
    pub(super) async fn layer(self, session: &Shared) -> Result<StepResult, Error> {
        let mut packing = Packing::new(session, self.placement, self.files, self.folder_time);
        packing.inline = self.inline;
        packing.archives = self.archives;
        packing.contents = self.contents;
        packing.goes_ahead = self.goes_ahead;
        if let Some(compression) = self.compression {
            packing.options.compression = compression;
            packing.options.level = None;
        }
        packing.into_layer(session).await
    }
}

/// Lays the files over the stage and writes the layer, which may be sent meanwhile.
pub(crate) async fn run(
    session: &Shared,
    prepared: Prepared,
    below: &[Layer],
    goes_ahead: bool,
) -> Result<StepResult, Error> {
    let laid = lay(session, prepared, below).await?;
    Laid { goes_ahead, ..laid }.layer(session).await
}

/// Lays the files over the stage.
pub(super) async fn lay(
    session: &Shared,
    prepared: Prepared,
    below: &[Layer],
) -> Result<Laid, Error> {
    let below = if prepared.step.link { &[] } else { below };
    let base = layers::view(session, below).await?;
    let dest = destination(session, &prepared.step, below, &base).await?;
    let extracted = extract(session, &prepared).await?;
    let placement = place(&prepared, &extracted, &base, &dest)?;
    // A directory that the copy makes is as new as the newest thing that is copied, so that the
    // same files give the same layer at any time.
    let newest = placement
        .values()
        .filter(|placed| placed.origin == PlacedFrom::Source)
        .map(|placed| placed.entry.mtime)
        .max();
    let folder_time = newest.unwrap_or_else(|| session.created());
    let mut files = prepared.files;
    files.push(Files::Layers {
        layers: below.to_vec(),
        view: base,
    });
    Ok(Laid {
        placement,
        files,
        inline: prepared.step.inline,
        archives: extracted,
        contents: prepared.contents,
        folder_time,
        compression: None,
        goes_ahead: false,
    })
}

/// Reads the archives among the sources, in their order.
async fn extract(session: &Shared, prepared: &Prepared) -> Result<Vec<Extracted>, Error> {
    let archives = prepared.found.iter().filter(|found| found.is_archive);
    let mut extracted = Vec::new();
    for (index, found) in archives.enumerate() {
        let (found, files) = (found.clone(), prepared.files[found.files].clone());
        let (store, cancel) = (session.store.clone(), session.cancel.clone());
        let read = session.block(move || {
            let name = found.name();
            match files.open(&found.selected.root)? {
                Some(file) => Extracted::read(file, index, &name, &store, &cancel).map(Some),
                None => Ok(None),
            }
        });
        extracted.extend(read.await?);
    }
    Ok(extracted)
}

async fn destination(
    session: &Shared,
    step: &CopyStep,
    below: &[Layer],
    base: &Arc<RootView>,
) -> Result<Destination, Error> {
    let owner = step.chown.as_deref().unwrap_or_default();
    Ok(Destination {
        path: step.dest.clone(),
        owner: owner_of(session, owner, below, base).await?,
        mode: step.chmod.as_deref().map(Mode::parse).transpose()?,
    })
}

/// The stage's own files come last in the list of files.
fn place(
    prepared: &Prepared,
    extracted: &[Extracted],
    base: &Arc<RootView>,
    dest: &Destination,
) -> Result<Placement, Error> {
    let mut archives = extracted.iter().map(|extracted| &extracted.archive);
    let sources: Vec<copy::Source<'_>> = prepared
        .found
        .iter()
        .map(|found| copy::Source {
            files: found.files,
            view: prepared.files[found.files].view(),
            selected: &found.selected,
            archive: found.is_archive.then(|| archives.next()).flatten(),
        })
        .collect();
    let (inline, base_files) = (&prepared.step.inline, prepared.files.len());
    Ok(copy::place(&sources, inline, base, base_files, dest)?)
}

/// Writes a layer of directories that a step makes.
pub(crate) async fn write(
    session: &Shared,
    placement: Placement,
    folder_time: i64,
) -> Result<StepResult, Error> {
    Packing::new(session, placement, Vec::new(), folder_time)
        .into_layer(session)
        .await
}

/// Gives the ids of the owner that `--chown` names, or that USER is for WORKDIR; none where
/// there is none.
pub(crate) async fn owner_of(
    session: &Shared,
    owner: &str,
    layers: &[Layer],
    view: &Arc<RootView>,
) -> Result<Option<Owner>, Error> {
    if owner.is_empty() {
        return Ok(None);
    }
    let accounts = accounts(session, layers, view).await?;
    Ok(Some(copy::parse_owner(owner, view, &accounts)?))
}
