//! From one registry to another, byte for byte: manifests are read, blobs go straight
//! through, and what the target has, or can take over by itself, is not moved at all.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;

use crate::action::{Action, Phase};
use crate::progress::Progress;
use crate::upload::{BlobSource, RemoteBlob};
use crate::{
    BlobOutcome, Client, Descriptor, Digest, Error, Index, Platform, Reference, Repository,
    media_type,
};

/// Indexes may name indexes, and referrers may have referrers; more levels are nonsense.
const MAX_DEPTH: usize = 4;
const CONCURRENCY: usize = 4;
/// How BuildKit says to which image of an index an entry belongs.
const BELONGS_TO: &str = "vnd.docker.reference.digest";

/// What is copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copy {
    /// The platforms of an index; without any all of it. One gives an image in place of
    /// the index, several a smaller index.
    pub platforms: Vec<Platform>,
    /// Take along what refers to the images: signatures and the like.
    pub referrers: bool,
}

/// What came of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// The digest of what the new name stands for, confirmed by the registry.
    pub digest: Digest,
    /// Bytes of blobs that were moved.
    pub moved: u64,
}

/// What of a manifest names other content.
#[derive(Deserialize)]
struct Document {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Layer>,
}

/// A layer that names where it is elsewhere need not be in the registry.
#[derive(Deserialize)]
struct Layer {
    #[serde(flatten)]
    descriptor: Descriptor,
    #[serde(default)]
    urls: Vec<serde::de::IgnoredAny>,
}

/// One copy on its way.
struct Work<'a> {
    client: &'a Client,
    from: &'a Repository,
    to: &'a Repository,
    referrers: bool,
    progress: &'a Progress,
}

impl Client {
    /// Copies what a name stands for to another name.
    pub async fn copy(
        &self,
        from: &Reference,
        to: &Reference,
        what: &Copy,
        progress: &Progress,
    ) -> Result<Copied, Error> {
        let (descriptor, bytes) = self.manifest(from).await?;
        let (media_type, bytes) = match what.platforms.is_empty() {
            true => (descriptor.media_type, bytes),
            false => {
                self.chosen(from, descriptor, bytes, &what.platforms)
                    .await?
            }
        };
        let digest = Digest::sha256(&bytes);
        let there = self.head(to).await?.map(|there| there.digest);
        let unchanged = self.judge_tag(to, there.as_ref(), &digest)?;
        if unchanged && !what.referrers {
            return Ok(Copied { digest, moved: 0 });
        }
        let work = Work {
            client: self,
            from: from.repository(),
            to: to.repository(),
            referrers: what.referrers,
            progress,
        };
        let mut moved = work.below(&media_type, &bytes, 0).await?;
        let digest = self.push_manifest(to, &media_type, &bytes).await?;
        if what.referrers {
            moved += work.referrers_of(&digest, 0).await?;
        }
        Ok(Copied { digest, moved })
    }

    /// Gives the image of a platform, or an index of some.
    async fn chosen(
        &self,
        from: &Reference,
        descriptor: Descriptor,
        bytes: Bytes,
        platforms: &[Platform],
    ) -> Result<(String, Bytes), Error> {
        if let ([only], true) = (platforms, media_type::is_index(&descriptor.media_type)) {
            let image = self.image(from, only).await?;
            return Ok((image.descriptor.media_type, image.bytes));
        }
        if !media_type::is_index(&descriptor.media_type) {
            return Ok((descriptor.media_type, bytes));
        }
        let text = format!("find platforms in {from}");
        let action = Action::new(Phase::PullManifest, from.repository(), text);
        let index: Index = serde_json::from_slice(&bytes).map_err(|source| Error::Document {
            action: action.clone(),
            source,
        })?;
        let smaller = choose(index, platforms, &action)?;
        let bytes = serde_json::to_vec(&smaller).unwrap_or_default();
        Ok((descriptor.media_type, bytes.into()))
    }
}

/// Keeps the entries for some platforms, with what belongs to them, and all there is
/// beside the entries.
fn choose(index: Index, platforms: &[Platform], action: &Action) -> Result<Index, Error> {
    let mut kept = BTreeSet::new();
    for wanted in platforms {
        let fits = |entry: &&Descriptor| entry.platform.as_ref().is_some_and(|p| wanted.matches(p));
        let found = index.manifests.iter().find(fits);
        let found = found.ok_or_else(|| Error::NoSuchPlatform {
            action: action.clone(),
            wanted: Box::new(wanted.clone()),
            available: index
                .manifests
                .iter()
                .filter_map(|entry| entry.platform.clone())
                .collect(),
        })?;
        kept.insert(found.digest.to_string());
    }
    let stays = |entry: &Descriptor| {
        let owner = entry.annotations.get(BELONGS_TO);
        kept.contains(&entry.digest.to_string()) || owner.is_some_and(|owner| kept.contains(owner))
    };
    let manifests = index.manifests.iter().filter(|entry| stays(entry));
    Ok(Index {
        manifests: manifests.cloned().collect(),
        ..index
    })
}

impl Work<'_> {
    /// Copies everything that a document names; gives the bytes that were moved.
    async fn below(&self, media_type: &str, bytes: &[u8], depth: usize) -> Result<u64, Error> {
        if depth > MAX_DEPTH {
            return Err(Error::Protocol {
                action: self.action(),
                problem: "an index names an index, which names another, and so on",
            });
        }
        let unreadable = |source| Error::Document {
            action: self.action(),
            source,
        };
        if media_type::is_index(media_type) {
            let index: Index = serde_json::from_slice(bytes).map_err(unreadable)?;
            let mut moved = 0;
            for entry in index.manifests {
                moved += Box::pin(self.manifest(&entry.digest, depth + 1)).await?;
            }
            return Ok(moved);
        }
        let document: Document = serde_json::from_slice(bytes).map_err(unreadable)?;
        let here = |layer: &Layer| layer.urls.is_empty();
        let layers = document.layers.into_iter().filter(here);
        let all = layers.map(|layer| layer.descriptor).chain(document.config);
        let mut seen = BTreeSet::new();
        let blobs: Vec<Descriptor> = all.filter(|blob| seen.insert(blob.digest)).collect();
        let blobs: Vec<_> = blobs.iter().map(|blob| self.blob(blob)).collect();
        stream::iter(blobs)
            .buffer_unordered(CONCURRENCY)
            .try_fold(0, async |sum, moved| Ok(sum + moved))
            .await
    }

    /// Copies a manifest that another one names.
    async fn manifest(&self, digest: &Digest, depth: usize) -> Result<u64, Error> {
        let to = self.to.with_digest(*digest);
        let mut moved = 0;
        if self.client.head(&to).await?.is_none() {
            let from = self.from.with_digest(*digest);
            let (descriptor, bytes) = self.client.manifest(&from).await?;
            moved += self.below(&descriptor.media_type, &bytes, depth).await?;
            let pushed = self
                .client
                .push_manifest(&to, &descriptor.media_type, &bytes);
            pushed.await?;
        }
        if self.referrers {
            moved += self.referrers_of(digest, depth).await?;
        }
        Ok(moved)
    }

    async fn referrers_of(&self, subject: &Digest, depth: usize) -> Result<u64, Error> {
        let mut moved = 0;
        if depth < MAX_DEPTH {
            for entry in self.client.referrers(self.from, subject).await? {
                moved += Box::pin(self.manifest(&entry.digest, depth + 1)).await?;
            }
        }
        Ok(moved)
    }

    async fn blob(&self, blob: &Descriptor) -> Result<u64, Error> {
        let source = BlobSource::Remote(RemoteBlob {
            client: self.client.clone(),
            repository: self.from.clone(),
        });
        let mount_from = std::slice::from_ref(self.from);
        let pushed = self
            .client
            .push_blob(self.to, blob, &source, mount_from, self.progress);
        Ok(match pushed.await? {
            BlobOutcome::Uploaded => blob.size,
            BlobOutcome::Exists | BlobOutcome::Mounted(_) => 0,
        })
    }

    fn action(&self) -> Action {
        let text = format!("copy an image from {} to {}", self.from, self.to);
        Action::new(Phase::PullManifest, self.from, text)
    }
}
