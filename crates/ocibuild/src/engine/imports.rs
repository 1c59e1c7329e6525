//! Caches that others left. They are read when the first step is not in the store, and
//! only what they say is read: the layers come when something needs their bytes.
//!
//! What such a cache says holds for this build alone and is not kept in the store. A layer
//! that then cannot be had, or is not what the cache said, is doubted: its steps are done
//! as if the cache had not known them.

use std::collections::HashSet;
use std::sync::Mutex;

use tokio::sync::OnceCell;

use super::Shared;
use crate::cache::document::{self, CachedStep, Records};
use crate::cache::local;
use crate::cache::shared::{CacheSource, Error};
use crate::cache::why::History;
use crate::causes::one_line;
use crate::content::{Layer, Origin};
use crate::graph::key::StepKey;
use crate::mutex::lock;
use crate::registry::{Digest, Reference};

/// The caches of one build for one platform.
pub(crate) struct Imports {
    sources: Vec<CacheSource>,
    loaded: OnceCell<Vec<(String, Records)>>,
    doubted: Mutex<Doubts>,
}

#[derive(Default)]
struct Doubts {
    layers: HashSet<Digest>,
    /// Some were added since somebody asked last.
    are_new: bool,
}

impl Imports {
    pub(crate) fn new(sources: Vec<CacheSource>) -> Self {
        Self {
            sources,
            loaded: OnceCell::new(),
            doubted: Mutex::default(),
        }
    }

    /// Tells whether nothing is to be imported.
    pub(crate) fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Finds a step, and which cache has it.
    pub(crate) async fn find(
        &self,
        session: &Shared,
        key: &StepKey,
    ) -> Option<(String, CachedStep)> {
        let caches = self.caches(session).await;
        caches.iter().find_map(|(name, records)| {
            let step = records.steps.get(&key.0)?;
            let is_doubted = lock(&self.doubted)
                .layers
                .contains(&step.result.blob.digest);
            (!is_doubted).then(|| (name.clone(), step.clone()))
        })
    }

    /// Finds the key of a step that has another name too.
    pub(crate) async fn same_as(&self, session: &Shared, name: &StepKey) -> Option<StepKey> {
        let caches = self.caches(session).await;
        caches
            .iter()
            .find_map(|(_, records)| records.same.get(&name.0).copied())
    }

    /// Adds what keys were made of.
    pub(crate) fn tell(&self, history: &mut History) {
        for (_, records) in self.loaded.get().into_iter().flatten() {
            for step in records.steps.values() {
                if let Some(record) = &step.made_of {
                    history.add(&step.key, record);
                }
            }
        }
    }

    /// Doubts a layer, if it is one that a cache named.
    pub(crate) fn doubt(&self, layer: &Layer) {
        let mut caches = self.loaded.get().into_iter().flatten();
        let is_ours = caches.any(|(_, records)| {
            let mut steps = records.steps.values();
            steps.any(|step| {
                step.result.blob.digest == layer.blob.digest && step.result.origin == layer.origin
            })
        });
        if is_ours {
            let mut doubted = lock(&self.doubted);
            doubted.are_new |= doubted.layers.insert(layer.blob.digest);
        }
    }

    /// Tells whether layers were doubted since this was asked last.
    pub(crate) fn has_new_doubts(&self) -> bool {
        std::mem::take(&mut lock(&self.doubted).are_new)
    }

    async fn caches(&self, session: &Shared) -> &[(String, Records)] {
        let load = || async {
            let mut caches = Vec::new();
            for source in &self.sources {
                caches.extend(load(session, source).await);
            }
            caches
        };
        self.loaded.get_or_init(load).await
    }
}

async fn load(session: &Shared, source: &CacheSource) -> Option<(String, Records)> {
    let step = session.step(format!("importing cache from {source}"));
    let read = match source {
        CacheSource::Registry(reference) => from_registry(session, reference).await,
        CacheSource::Local { path, tag } => {
            let (path, tag) = (path.clone(), tag.clone());
            let read = session.block(move || Ok(from_local(&path, tag.as_deref())));
            match read.await {
                Ok(read) => read,
                Err(error) => Err(Error::Refused {
                    place: source.to_string(),
                    reason: one_line(&error),
                }),
            }
        }
    };
    let records = match read {
        Ok(records) => Some((source.to_string(), records)),
        // A tag that nobody has pushed yet is how every cache begins.
        Err(Error::Missing(_)) => None,
        Err(error) => {
            session.warn(format!("no cache is imported: {}", one_line(&error)));
            None
        }
    };
    if let Some((_, Records { refused: 1.., .. })) = &records {
        session.warn(format!("the cache {source} has steps that cannot be used"));
    }
    // A cache that is not there does not fail a build.
    step.end_plain(Ok(())).ok()?;
    records
}

async fn from_registry(session: &Shared, reference: &Reference) -> Result<Records, Error> {
    let failed = |source: crate::registry::Error| match source.is_not_found() {
        true => Error::Missing(reference.to_string()),
        false => Error::Registry {
            doing: "import",
            place: reference.to_string(),
            source,
        },
    };
    let refused = |reason: String| Error::Refused {
        place: reference.to_string(),
        reason,
    };
    let image = session.client.image(reference, &session.platform);
    let manifest = image.await.map_err(failed)?.manifest;
    let origin = Origin::Registry(reference.repository().clone());
    if let Some(text) = manifest.annotations.get(document::INLINE) {
        return document::read(&manifest, text.as_bytes(), &origin).map_err(refused);
    }
    if manifest.config.media_type != document::CONFIG_TYPE {
        return Err(refused("it is an image without a cache".to_owned()));
    }
    if manifest.config.size > document::MAX_CONFIG {
        return Err(refused("its configuration is too large".to_owned()));
    }
    let (repository, limit) = (reference.repository(), document::MAX_CONFIG);
    let config = session
        .client
        .blob_bytes(repository, &manifest.config, limit);
    let config = config.await.map_err(failed)?;
    let read = move || Ok(document::read(&manifest, &config, &origin));
    let read = session.block(read).await;
    read.unwrap_or_else(|error| Err(one_line(&error)))
        .map_err(refused)
}

fn from_local(path: &std::path::Path, tag: Option<&str>) -> Result<Records, Error> {
    let (manifest, config) = local::read(path, tag)?;
    let origin = Origin::Layout(path.to_owned());
    let inline = manifest.annotations.get(document::INLINE);
    let text = match inline {
        Some(text) => text.as_bytes(),
        None => &config,
    };
    document::read(&manifest, text, &origin).map_err(|reason| Error::Refused {
        place: path.display().to_string(),
        reason,
    })
}
