//! Pushing images: layers side by side, then the configuration, then the manifest
//! (distribution-spec, "Pushing manifests"). What leaves is a digest that the
//! registry has confirmed.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderValue};

use crate::action::{Action, Phase};
use crate::auth::Access;
use crate::progress::Progress;
use crate::pull::content_digest;
use crate::transport::{Body, Request, Response};
use crate::upload::{BlobOutcome, BlobSource};
use crate::{Client, Descriptor, Digest, Error, Hasher, Reference, Repository};

/// One layer of an image that is pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerPush {
    /// What the manifest says of it.
    pub descriptor: Descriptor,
    /// Where its bytes are; not read when the registry has the layer.
    pub source: BlobSource,
    /// Repositories in which it is known to be.
    pub mount_from: Vec<Repository>,
}

/// An image that is to be pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePush {
    /// The bytes of the manifest.
    pub manifest: Bytes,
    /// The media type of the manifest.
    pub media_type: String,
    /// What the manifest says of the configuration.
    pub config: Descriptor,
    /// The bytes of the configuration.
    pub config_bytes: Bytes,
    /// The layers, in any order.
    pub layers: Vec<LayerPush>,
    /// How many layers are sent at once; 0 counts as 1.
    pub concurrency: usize,
}

/// What a push has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushedImage {
    /// The digest of the manifest, confirmed by the registry.
    pub digest: Digest,
    /// The tag named this very image before, so nothing was sent.
    pub unchanged: bool,
    /// Bytes of blobs that were sent.
    pub sent: u64,
}

impl Client {
    /// Pushes an image. Costs one request when the tag names the image already.
    pub async fn push_image(
        &self,
        reference: &Reference,
        image: &ImagePush,
        progress: &Progress,
    ) -> Result<PushedImage, Error> {
        let digest = digest_for(reference, &image.manifest)?;
        let there = self.head(reference).await?;
        let there = there.map(|descriptor| descriptor.digest);
        if self.judge_tag(reference, there.as_ref(), &digest)? {
            return Ok(PushedImage {
                digest,
                unchanged: true,
                sent: 0,
            });
        }
        let repository = reference.repository();
        let layers = self.push_layers(repository, image, progress).await?;
        let config = LayerPush {
            descriptor: image.config.clone(),
            source: BlobSource::Bytes(image.config_bytes.clone()),
            mount_from: Vec::new(),
        };
        let config = self.push_layer(repository, &config, progress).await?;
        let digest = self
            .push_manifest(reference, &image.media_type, &image.manifest)
            .await?;
        Ok(PushedImage {
            digest,
            unchanged: false,
            sent: layers + config,
        })
    }

    async fn push_layers(
        &self,
        repository: &Repository,
        image: &ImagePush,
        progress: &Progress,
    ) -> Result<u64, Error> {
        let mut seen = BTreeSet::new();
        let bears = self.transport.connector().limits(repository).uploads;
        let concurrency = bears.map_or(image.concurrency, |most| most.min(image.concurrency));
        let concurrency = concurrency.max(1);
        // Equal layers would race for the same blob. The largest starts first, so
        // that it is not the one that everything waits for in the end.
        let mut layers: Vec<&LayerPush> = image.layers.iter().collect();
        layers.retain(|layer| seen.insert(layer.descriptor.digest));
        layers.sort_by_key(|layer| std::cmp::Reverse(layer.descriptor.size));
        let uploads: Vec<_> = layers
            .into_iter()
            .map(|layer| self.push_layer(repository, layer, progress))
            .collect();
        stream::iter(uploads)
            .buffer_unordered(concurrency)
            .try_fold(0, async |sum, sent| Ok(sum + sent))
            .await
    }

    /// Pushes a layer; gives the number of bytes that were sent for it.
    async fn push_layer(
        &self,
        repository: &Repository,
        layer: &LayerPush,
        progress: &Progress,
    ) -> Result<u64, Error> {
        let LayerPush {
            descriptor,
            source,
            mount_from,
        } = layer;
        let outcome = self
            .push_blob(repository, descriptor, source, mount_from, progress)
            .await?;
        Ok(match outcome {
            BlobOutcome::Uploaded => descriptor.size,
            BlobOutcome::Exists | BlobOutcome::Mounted(_) => 0,
        })
    }

    /// Pushes a manifest or index under its tag, else under its digest, and gives the
    /// digest that the registry confirms. One that refers to another is listed there.
    pub async fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, Error> {
        let bytes = Bytes::copy_from_slice(bytes);
        let digest = digest_for(reference, &bytes)?;
        let response = match self.put_manifest(reference, media_type, &bytes).await {
            Ok(response) => response,
            Err(error) if self.has_landed(reference, &digest, &error).await => return Ok(digest),
            Err(error) => return Err(error),
        };
        let action = push_action(reference);
        let confirmed = match content_digest(&response, &action)? {
            Some(confirmed) => confirmed,
            // The header is optional; what the registry then shows must do.
            None => self.resolve_here(reference).await?.digest,
        };
        if confirmed != digest {
            return Err(Error::digest_mismatch(&action, digest, confirmed));
        }
        // Where the registry says so, it keeps the list of the subject itself.
        if response.header("oci-subject").is_none() {
            let repository = reference.repository();
            let listed = self.list_referrer(repository, media_type, &digest, &bytes);
            listed.await?;
        }
        Ok(digest)
    }

    pub(crate) async fn put_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &Bytes,
    ) -> Result<Response, Error> {
        let action = push_action(reference);
        let repository = reference.repository();
        let name = match (reference.tag(), reference.digest()) {
            (None, Some(digest)) => digest.to_string(),
            _ => reference.tag_or_latest().to_owned(),
        };
        let path = format!("manifests/{name}");
        let url = self.transport.url(repository, &path, &action)?;
        let media_type = HeaderValue::try_from(media_type).map_err(|_| Error::Protocol {
            action: action.clone(),
            problem: "the media type of the manifest cannot stand in a header",
        })?;
        let request = Request::new(action, Method::PUT, url, Access::push(repository))
            .header(CONTENT_TYPE, media_type)
            .body(Body::Bytes(bytes.clone()));
        self.transport.send(&request).await
    }

    /// Tells whether a tag names an image already that a registry refuses to take: where
    /// tags cannot be changed, an attempt before this one, or another push, has set it.
    async fn has_landed(&self, reference: &Reference, digest: &Digest, error: &Error) -> bool {
        let refused = error.status().is_some_and(|s| (400..500).contains(&s));
        if !refused || error.is_denied() {
            return false;
        }
        let there = self.head(reference).await.ok().flatten();
        there.is_some_and(|there| there.digest == *digest)
    }
}

fn push_action(reference: &Reference) -> Action {
    let text = format!("push manifest {reference}");
    Action::new(Phase::PushManifest, reference.repository(), text)
}

/// Computes a manifest's digest; one that the reference names has to agree.
fn digest_for(reference: &Reference, manifest: &[u8]) -> Result<Digest, Error> {
    let Some(expected) = reference.digest() else {
        return Ok(Digest::sha256(manifest));
    };
    let mut hasher = Hasher::new(expected.algorithm());
    hasher.update(manifest);
    let actual = hasher.finish();
    if actual == *expected {
        return Ok(actual);
    }
    let action = push_action(reference);
    Err(Error::digest_mismatch(&action, *expected, actual))
}
