//! Pushing to a registry: a thin adapter. What the registry has, or can take over from
//! the repository that a base came from, is not even read here.

use bytes::Bytes;

use super::Error;
use crate::content::ContentStore;
use crate::content::{Layer, Origin};
use crate::image::manifest::{Document, Documents};
use crate::registry::{
    BlobSource, Client, Digest, ImagePush, LayerPush, Progress, Reference, Repository,
};
use crate::source;

/// How many layers are sent at once.
const CONCURRENCY: usize = 4;

/// An image of an index, and where its layers are.
pub(crate) struct Part<'a> {
    pub(crate) image: &'a Documents,
    pub(crate) layers: &'a [Layer],
}

/// Pushes the images of an index by their digests, then the index under a name; gives
/// the digest of the index, which the registry confirmed.
pub(crate) async fn push_index(
    store: &ContentStore,
    client: &Client,
    index: &Document,
    parts: &[Part<'_>],
    reference: &Reference,
    progress: &Progress,
) -> Result<Digest, Error> {
    let wanted = index.descriptor.digest;
    let there = client.head(reference).await.ok().flatten();
    if there.is_some_and(|found| found.digest == wanted) {
        return Ok(wanted);
    }
    // One after the other: layers that two of them share are then sent once.
    for Part { image, layers } in parts {
        let digest = image.manifest.descriptor.digest;
        let by_digest = reference.repository().with_digest(digest);
        push(store, client, image, layers, &by_digest, progress).await?;
    }
    let media_type = &index.descriptor.media_type;
    let pushed = client.push_manifest(reference, media_type, &index.bytes);
    pushed.await.map_err(|source| Error::Push {
        reference: reference.to_string(),
        source,
    })
}

/// Pushes the image under a name; gives the digest that the registry confirmed. Layers
/// that are not here are fetched only if the registry needs them from us.
pub async fn push(
    store: &ContentStore,
    client: &Client,
    image: &Documents,
    layers: &[Layer],
    reference: &Reference,
    progress: &Progress,
) -> Result<Digest, Error> {
    let is_absent = |layer: &&Layer| !store.has_blob(&layer.blob);
    if !layers.iter().any(|layer| is_absent(&layer)) {
        return send(store, client, image, layers, reference, progress).await;
    }
    let wanted = image.manifest.descriptor.digest;
    let there = client.head(reference).await.ok().flatten();
    if there.is_some_and(|found| found.digest == wanted) {
        return Ok(wanted);
    }
    for layer in missing(store, client, layers, reference).await? {
        source::fetch(store, client, layer, progress).await?;
    }
    let sent = send(store, client, image, layers, reference, progress).await;
    let absent: Vec<&Layer> = layers.iter().filter(is_absent).collect();
    if sent.is_ok() || absent.is_empty() {
        return sent;
    }
    // The registry would not take a layer over from where its base came.
    for layer in absent {
        source::fetch(store, client, layer, progress).await?;
    }
    send(store, client, image, layers, reference, progress).await
}

async fn send(
    store: &ContentStore,
    client: &Client,
    image: &Documents,
    layers: &[Layer],
    reference: &Reference,
    progress: &Progress,
) -> Result<Digest, Error> {
    let layers = layers
        .iter()
        .zip(&image.layers)
        .map(|(layer, descriptor)| LayerPush {
            descriptor: descriptor.clone(),
            source: BlobSource::File(store.blob_path(&layer.blob.digest)),
            mount_from: mount_from(layer, reference),
        })
        .collect();
    let push = ImagePush {
        manifest: Bytes::from(image.manifest.bytes.clone()),
        media_type: image.manifest.descriptor.media_type.clone(),
        config: image.config.descriptor.clone(),
        config_bytes: Bytes::from(image.config.bytes.clone()),
        layers,
        concurrency: CONCURRENCY,
    };
    let pushed = client.push_image(reference, &push, progress).await;
    let pushed = pushed.map_err(|source| Error::Push {
        reference: reference.to_string(),
        source,
    })?;
    Ok(pushed.digest)
}

fn mount_from(layer: &Layer, target: &Reference) -> Vec<Repository> {
    match &layer.origin {
        Origin::Registry(repository) if repository.registry() == target.registry() => {
            vec![repository.clone()]
        }
        _ => Vec::new(),
    }
}

/// Gives the layers whose bytes must be here before a push: those that the target has
/// not, and cannot take over from where they came.
async fn missing<'a>(
    store: &ContentStore,
    client: &Client,
    layers: &'a [Layer],
    reference: &Reference,
) -> Result<Vec<&'a Layer>, Error> {
    let mut missing = Vec::new();
    for layer in layers {
        if store.has_blob(&layer.blob) || !mount_from(layer, reference).is_empty() {
            continue;
        }
        let exists = client
            .exists(reference.repository(), &layer.blob.digest)
            .await;
        let exists = exists.map_err(|source| Error::Push {
            reference: reference.to_string(),
            source,
        })?;
        if !exists {
            missing.push(layer);
        }
    }
    Ok(missing)
}
