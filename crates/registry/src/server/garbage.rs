//! Collecting garbage: what no manifest names any more goes, after a time of grace for
//! what is being pushed. While it runs, pushes wait at the moment of linking; pulls do
//! not, and a file that is being read stays until its reader is done.
//!
//! Whatever is removed first is what nothing leads to any more: a process that is killed
//! in the middle leaves garbage, never a name for something that is gone.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::route::Name;
use super::store::{Result, Store, StoreError, found, remove};
use crate::{Descriptor, Digest};

/// What counts as garbage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GarbagePolicy {
    /// What is younger stays, whatever it is.
    pub grace: Duration,
    /// Manifests go too that no tag leads to, directly or through an index, and that do
    /// not refer to one that stays.
    pub untagged: bool,
}

impl Default for GarbagePolicy {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(24 * 3600),
            untagged: false,
        }
    }
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Manifests that were taken from repositories.
    pub manifests: usize,
    /// Blobs that were taken from repositories.
    pub links: usize,
    /// Contents that were removed.
    pub contents: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// What of a manifest leads on.
#[derive(Deserialize)]
struct Document {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
    subject: Option<Descriptor>,
}

impl Store {
    /// Removes what nothing leads to. Blocks, for as long as it takes to read every
    /// manifest.
    pub fn collect_garbage(&self, policy: &GarbagePolicy) -> Result<Collected> {
        let _alone = self.alone();
        let sweep = Sweep {
            store: self,
            policy,
            now: SystemTime::now(),
        };
        let mut collected = Collected::default();
        let mut linked = HashSet::new();
        for text in self.repositories_with("")? {
            let Ok(name) = Name::parse(&text) else {
                continue;
            };
            sweep.repository(&name, &mut collected)?;
            linked.extend(self.links(&name, "_blobs")?);
            linked.extend(self.links(&name, "_manifests")?);
        }
        sweep.contents(&linked, &mut collected)?;
        self.recount()?;
        Ok(collected)
    }
}

struct Sweep<'a> {
    store: &'a Store,
    policy: &'a GarbagePolicy,
    now: SystemTime,
}

impl Sweep<'_> {
    fn repository(&self, name: &Name, collected: &mut Collected) -> Result<()> {
        let mut documents = self.documents(name)?;
        if self.policy.untagged {
            let kept = self.kept(name, &documents)?;
            let gone: Vec<Digest> = documents
                .keys()
                .copied()
                .filter(|d| !kept.contains(d))
                .collect();
            for digest in gone {
                if !self.is_old(&self.store.manifest_link(name, &digest))? {
                    continue;
                }
                let document = documents.remove(&digest);
                let subject = document.and_then(|document| document.subject);
                let subject = subject.map(|subject| subject.digest);
                self.store
                    .unlink_manifest(name, &digest, subject.as_ref())?;
                collected.manifests += 1;
            }
        }
        let named: HashSet<Digest> = documents
            .values()
            .flat_map(|document| document.layers.iter().chain(&document.config))
            .map(|blob| blob.digest)
            .collect();
        for digest in self.store.links(name, "_blobs")? {
            let link = self.store.blob_link(name, &digest);
            if !named.contains(&digest) && self.is_old(&link)? {
                remove(&link)?;
                collected.links += 1;
            }
        }
        Ok(())
    }

    /// Reads the manifests of a repository. One that cannot be read is an error: what it
    /// names must not be taken for garbage.
    fn documents(&self, name: &Name) -> Result<BTreeMap<Digest, Document>> {
        let mut documents = BTreeMap::new();
        for digest in self.store.links(name, "_manifests")? {
            let path = self.store.content(&digest);
            let Some(bytes) = found(fs::read(&path), "read", &path)? else {
                continue;
            };
            let document = serde_json::from_slice(&bytes)
                .map_err(|error| StoreError::new("decode", &path, error.into()))?;
            documents.insert(digest, document);
        }
        Ok(documents)
    }

    /// Follows the tags: through indexes, and from a subject to what refers to it.
    fn kept(
        &self,
        name: &Name,
        documents: &BTreeMap<Digest, Document>,
    ) -> Result<BTreeSet<Digest>> {
        let mut kept = BTreeSet::new();
        let mut waiting = self.store.tagged(name)?;
        while let Some(digest) = waiting.pop() {
            if !kept.insert(digest) {
                continue;
            }
            if let Some(document) = documents.get(&digest) {
                waiting.extend(document.manifests.iter().map(|entry| entry.digest));
            }
            let refers = |document: &Document| {
                document
                    .subject
                    .as_ref()
                    .is_some_and(|subject| subject.digest == digest)
            };
            let referrers = documents.iter().filter(|(_, document)| refers(document));
            waiting.extend(referrers.map(|(digest, _)| *digest));
        }
        Ok(kept)
    }

    fn contents(&self, linked: &HashSet<Digest>, collected: &mut Collected) -> Result<()> {
        for (digest, path) in self.store.contents()? {
            if linked.contains(&digest) || !self.is_old(&path)? {
                continue;
            }
            let size = found(fs::symlink_metadata(&path), "look at", &path)?;
            if remove(&path)? {
                collected.contents += 1;
                collected.bytes += size.map_or(0, |metadata| metadata.len());
            }
        }
        Ok(())
    }

    /// Tells whether the time of grace of a file is over. Where the clock was set back it
    /// is not.
    fn is_old(&self, path: &Path) -> Result<bool> {
        let metadata = found(fs::symlink_metadata(path), "look at", path)?;
        let Some(metadata) = metadata else {
            return Ok(false);
        };
        let modified = metadata
            .modified()
            .map_err(|source: io::Error| StoreError::new("look at", path, source))?;
        let age = self.now.duration_since(modified);
        Ok(age.is_ok_and(|age| age >= self.policy.grace))
    }
}
