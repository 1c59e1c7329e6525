//! Entries and the places of their contents become a tar. Contents come straight from
//! the context, or out of the layers of a stage or image without unpacking those.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
#[cfg(feature = "git")]
use std::path::PathBuf;
use std::sync::Arc;

use super::archives::Extracted;
use super::layer_files::LayerFiles;
use super::packed::{Contents, holds_files};
use super::{Shared, layers};
use crate::cache::{self, StepResult};
use crate::content::ContentStore;
use crate::content::{Layer, Origin};
use crate::context::Context;
use crate::copy::{Bytes, InlineFile, Placed, PlacedFrom, Placement};
use crate::error::Error;
use crate::layer::{self, Compression, Finished, Kind, LayerName, LayerWriter, Options, TreePath};
use crate::registry::Digest;
use crate::snapshot::RootView;

/// Where files are copied from.
#[derive(Debug, Clone)]
pub(crate) enum Files {
    /// A directory.
    Context(Arc<Context>),
    /// The root file system of a stage or image.
    Layers {
        layers: Vec<Layer>,
        view: Arc<RootView>,
    },
    /// A blob of the store under a name.
    #[cfg(feature = "git")]
    Blob {
        /// The file in its directory.
        view: Arc<RootView>,
        /// The blob.
        path: PathBuf,
    },
}

impl Files {
    /// Gives no files at all.
    pub(crate) fn none() -> Self {
        Self::Layers {
            layers: Vec::new(),
            view: Arc::new(RootView::new(&[])),
        }
    }

    pub(crate) fn view(&self) -> &Arc<RootView> {
        match self {
            Self::Context(context) => context.view(),
            Self::Layers { view, .. } => view,
            #[cfg(feature = "git")]
            Self::Blob { view, .. } => view,
        }
    }

    /// Opens a file that lies on this machine as it is; none that is in a layer.
    pub(crate) fn open(&self, path: &TreePath) -> Result<Option<File>, Error> {
        match self {
            Self::Context(context) => match context.view().content_of(path) {
                Some(place) => Ok(Some(context.open(&place.path)?)),
                None => Ok(None),
            },
            Self::Layers { .. } => Ok(None),
            #[cfg(feature = "git")]
            Self::Blob { path: blob, .. } => Ok(Some(open_blob(blob, path)?)),
        }
    }
}

#[cfg(feature = "git")]
fn open_blob(blob: &Path, path: &TreePath) -> Result<File, Error> {
    let opened = File::open(blob).map_err(|source| layer::Error::Content {
        path: path.clone(),
        source,
    });
    Ok(opened?)
}

/// What a tar has for each entry beside its content.
const HEADER: u64 = 512;

/// A tar that is to be written.
pub(crate) struct Packing {
    placement: Placement,
    /// What the entries of the placement count.
    files: Vec<Files>,
    /// Files whose content stands in the Dockerfile.
    pub(crate) inline: Vec<InlineFile>,
    /// Archives whose members are in the placement.
    pub(crate) archives: Vec<Extracted>,
    /// What the files of contexts hold, as far as that is known.
    pub(crate) contents: Arc<Contents>,
    /// The time of directories that the step makes.
    folder_time: i64,
    /// The time of files whose content stands in the Dockerfile.
    build_time: i64,
    pub(crate) options: Options,
    /// The layer may be sent while it is written.
    pub(crate) goes_ahead: bool,
    store: ContentStore,
    created: String,
}

impl Packing {
    pub(crate) fn new(
        session: &Shared,
        placement: Placement,
        files: Vec<Files>,
        folder_time: i64,
    ) -> Self {
        Self {
            placement,
            files,
            inline: Vec::new(),
            archives: Vec::new(),
            contents: Arc::default(),
            folder_time,
            build_time: session.created(),
            options: Options {
                compression: session
                    .packed
                    .map_or_else(Compression::default, |p| p.compression),
                level: session.packed.and_then(|packed| packed.level),
                threads: session.threads,
                clamp_mtime: session.epoch,
            },
            goes_ahead: false,
            store: session.store.clone(),
            created: session.created_text(),
        }
    }

    /// Gives the layer: the one in the store that has these very entries, or a new one.
    pub(crate) async fn into_layer(self, session: &Shared) -> Result<StepResult, Error> {
        let (packing, name) = session
            .block(move || {
                let name = self.name();
                Ok((self, name))
            })
            .await?;
        let created = packing.created.clone();
        // Boxed: what waits for it would hold it several times over.
        let written = Box::pin(packing.write_into(session));
        let Some(name) = name.filter(|_| session.use_cache) else {
            return written.await;
        };
        let flight = session.flights.of(name);
        let result = flight.get_or_init(|| async {
            match cache::packed(&session.store, &name, &created) {
                Some(known) => Ok(known),
                None => written.await.map_err(Arc::new),
            }
        });
        result.await.clone().map_err(Error::Shared)
    }

    /// Writes a layer into the store.
    async fn write_into(mut self, session: &Shared) -> Result<StepResult, Error> {
        self.fetch(session).await?;
        let _cores = session.cores.to_pack(self.bytes()).await;
        let sent_by = session.clone();
        session.block(move || self.write_layer(&sent_by)).await
    }

    /// Writes the tar into a file.
    pub(crate) async fn into_file(mut self, session: &Shared, file: File) -> Result<(), Error> {
        self.fetch(session).await?;
        session
            .block(move || {
                let scratch = self.store.scratch()?;
                self.write(scratch.path(), file).map(drop)
            })
            .await
    }

    /// Brings the layers here that files are taken from.
    async fn fetch(&mut self, session: &Shared) -> Result<(), Error> {
        for index in 0..self.files.len() {
            for needed in self.needed_layers(index).into_keys() {
                if let Files::Layers { layers, .. } = &mut self.files[index] {
                    layers[needed] = layers::fetch(session, &layers[needed]).await?;
                }
            }
        }
        Ok(())
    }

    /// Gives the files that are wanted out of each layer of one of the sources.
    fn needed_layers(&self, files: usize) -> BTreeMap<usize, Vec<TreePath>> {
        let view = self.files[files].view();
        let mut needed: BTreeMap<usize, Vec<TreePath>> = BTreeMap::new();
        for placed in self.placement.values() {
            if let Bytes::Source(index, path) = &placed.bytes
                && *index == files
                && let Some(place) = view.content_of(path)
            {
                needed.entry(place.layer).or_default().push(place.path);
            }
        }
        needed
    }

    fn write_layer(mut self, session: &Shared) -> Result<StepResult, Error> {
        let _room = self.store.reserve(self.bytes())?;
        let scratch = self.store.scratch()?;
        let blob = scratch.path().join("blob");
        let file = File::create(&blob).map_err(layer::Error::Write)?;
        let growth = match self.goes_ahead {
            true => session.early.growing(&blob),
            false => None,
        };
        let finished = self.write(scratch.path(), file)?;
        self.store.put_toc(finished.diff_id, &finished.toc)?;
        self.store.adopt_blob(&blob, &finished.digest)?;
        let blob = finished.descriptor();
        if let Some(growth) = growth {
            session.early.grown(session, growth, &blob);
        }
        let Options {
            compression, level, ..
        } = self.options;
        if level.is_some() {
            // Nothing about a blob tells its level.
            let layer = finished.diff_id;
            self.store.put_variant(layer, compression, level, &blob)?;
        }
        let made = StepResult {
            diff_id: finished.diff_id,
            blob,
            single_id: false,
            created: self.created,
            origin: Origin::Store,
        };
        // Named by what was read and not by what was expected: a file may have changed since.
        let entries = finished.toc.entries();
        if holds_files(entries)
            && let Some(name) = LayerName::of(&self.options, entries)
        {
            cache::remember_packed(&self.store, &name, &made)?;
        }
        Ok(made)
    }

    /// Names the layer by its entries. None where it holds no file, so that there is nothing
    /// to save, or where a content is not known before it is read.
    fn name(&self) -> Option<Digest> {
        let mut placed = self.placement.values();
        if !placed.any(|placed| matches!(placed.entry.kind, Kind::File(_))) {
            return None;
        }
        let mut name = LayerName::new(&self.options);
        for placed in self.placement.values() {
            let mut entry = placed.entry.clone();
            entry.mtime = self.time(placed);
            if let Kind::File(content) = &mut entry.kind {
                content.digest = self.digest(&placed.bytes)?;
            }
            name.add(entry)?;
        }
        Some(name.finish())
    }

    /// Gives the digest of a content, if it is known without reading it.
    fn digest(&self, bytes: &Bytes) -> Option<Digest> {
        match bytes {
            Bytes::None | Bytes::Member(..) => None,
            Bytes::Inline(index) => Some(Digest::sha256(&self.inline.get(*index)?.content)),
            Bytes::Source(index, path) => {
                let files = self.files.get(*index)?;
                let place = files.view().content_of(path)?;
                match files {
                    Files::Context(_) => self.contents.get(*index)?.get(&place.path).copied(),
                    _ => Some(place.content.digest),
                }
            }
        }
    }

    /// Gives the time that something has in the layer, in seconds since 1970.
    fn time(&self, placed: &Placed) -> i64 {
        match placed.origin {
            PlacedFrom::Source | PlacedFrom::Base => placed.entry.mtime,
            PlacedFrom::Made => self.folder_time,
            PlacedFrom::Dockerfile => self.build_time,
        }
    }

    /// Gives how much there is to write, as far as that is known before.
    fn bytes(&self) -> u64 {
        let placed = self.placement.values();
        let sizes = placed.map(|placed| match &placed.entry.kind {
            Kind::File(content) => content.size.saturating_add(HEADER),
            _ => HEADER,
        });
        sizes.fold(0, u64::saturating_add)
    }

    /// Writes what is placed. Each part of it goes as soon as it is in the layer, whose table
    /// of contents grows meanwhile.
    fn write(&mut self, scratch: &Path, file: File) -> Result<Finished, Error> {
        let openers = self.openers(scratch)?;
        let mut writer = LayerWriter::new(self.options.clone(), file)?;
        for placed in std::mem::take(&mut self.placement).into_values() {
            let mut meta = placed.entry.to_meta();
            meta.mtime = self.time(&placed);
            let mut content = self.content(&openers, &placed.bytes)?;
            let content = content.as_mut().map(|content| content as &mut dyn Read);
            writer.append(&meta, content)?;
        }
        Ok(writer.finish()?.0)
    }

    fn content<'a>(
        &'a self,
        openers: &[Opener],
        bytes: &Bytes,
    ) -> Result<Option<Box<dyn Read + 'a>>, Error> {
        Ok(match bytes {
            Bytes::None => None,
            Bytes::Member(archive, member) => {
                let archive = self.archives.get(*archive);
                let content = archive.and_then(|archive| archive.content(*member));
                content.map(|content| Box::new(content) as _)
            }
            Bytes::Inline(index) => {
                let text = self.inline.get(*index).map(|file| &file.content[..]);
                Some(Box::new(text.unwrap_or_default()))
            }
            Bytes::Source(index, path) => match openers.get(*index) {
                Some(opener) => Some(Box::new(opener.open(path)?)),
                None => None,
            },
        })
    }

    fn openers(&self, scratch: &Path) -> Result<Vec<Opener>, Error> {
        let openers = self.files.iter().enumerate().map(|(index, files)| {
            let (layers, view) = match files {
                Files::Context(context) => return Ok(Opener::Context(context.clone())),
                Files::Layers { layers, view } => (layers, view),
                #[cfg(feature = "git")]
                Files::Blob { path, .. } => return Ok(Opener::Blob(path.clone())),
            };
            let mut sources = HashMap::new();
            let scratch = scratch.join(format!("files-{index}"));
            for (layer, wanted) in self.needed_layers(index) {
                let source = LayerFiles::open(&self.store, &layers[layer], wanted, &scratch)?;
                sources.insert(layer, source);
            }
            Ok(Opener::Layers {
                view: view.clone(),
                sources,
            })
        });
        openers.collect()
    }
}

/// Opens the content of a source.
enum Opener {
    Context(Arc<Context>),
    #[cfg(feature = "git")]
    Blob(PathBuf),
    Layers {
        view: Arc<RootView>,
        sources: HashMap<usize, LayerFiles>,
    },
}

impl Opener {
    fn open(&self, path: &TreePath) -> Result<File, Error> {
        let missing = || {
            Error::from(layer::Error::Content {
                path: path.clone(),
                source: io::ErrorKind::NotFound.into(),
            })
        };
        match self {
            Self::Context(context) => {
                let place = context.view().content_of(path).ok_or_else(missing)?;
                Ok(context.open(&place.path)?)
            }
            #[cfg(feature = "git")]
            Self::Blob(blob) => open_blob(blob, path),
            Self::Layers { view, sources } => {
                let place = view.content_of(path).ok_or_else(missing)?;
                let source = sources.get(&place.layer).ok_or_else(missing)?;
                source.file(&place.path)
            }
        }
    }
}
