//! Pushing to a registry: a thin adapter. What the registry has, or can take over from
//! the repository that a base came from, is not even read here.

use bytes::Bytes;

use super::Error;
use crate::content::ContentStore;
use crate::content::{Layer, Origin};
use crate::image::manifest::{Document, Documents};
use crate::registry::{
    BlobSource, Client, Digest, ImagePush, LayerPush, Progress, Reference, RemoteBlob, Repository,
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
    scope: &str,
    progress: &Progress,
) -> Result<Digest, Error> {
    let wanted = index.descriptor.digest;
    let failed = |source| Error::Push {
        reference: reference.to_string(),
        source,
    };
    if client
        .has_already(reference, &wanted)
        .await
        .map_err(failed)?
    {
        return Ok(wanted);
    }
    // One after the other: layers that two of them share are then sent once.
    for Part { image, layers } in parts {
        let digest = image.manifest.descriptor.digest;
        let by_digest = reference.repository().with_digest(digest);
        push(store, client, image, layers, &by_digest, scope, progress).await?;
    }
    let media_type = &index.descriptor.media_type;
    let pushed = client.push_manifest(reference, media_type, &index.bytes);
    pushed.await.map_err(failed)
}

/// Pushes the image under a name; gives the digest that the registry confirmed. Layers
/// that are not here are taken over by the registry or go straight through: nobody here
/// needs their bytes. Which repositories have them is known and remembered of one scope.
pub async fn push(
    store: &ContentStore,
    client: &Client,
    image: &Documents,
    layers: &[Layer],
    reference: &Reference,
    scope: &str,
    progress: &Progress,
) -> Result<Digest, Error> {
    let layers = layers
        .iter()
        .zip(&image.layers)
        .map(|(layer, descriptor)| LayerPush {
            descriptor: descriptor.clone(),
            source: bytes_of(store, client, layer),
            mount_from: mount_from(store, scope, layer, reference),
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
    for layer in &image.layers {
        store.put_place(scope, &layer.digest, reference.repository())?;
    }
    Ok(pushed.digest)
}

/// Tells where the bytes of a layer are.
fn bytes_of(store: &ContentStore, client: &Client, layer: &Layer) -> BlobSource {
    match &layer.origin {
        Origin::Registry(repository) if !store.has_blob(&layer.blob) => {
            BlobSource::Remote(RemoteBlob {
                client: client.clone(),
                repository: repository.clone(),
            })
        }
        Origin::Layout(folder) if !store.has_blob(&layer.blob) => {
            BlobSource::File(source::layout_blob(folder, &layer.blob.digest))
        }
        _ => BlobSource::File(store.blob_path(&layer.blob.digest)),
    }
}

/// Gives where the registry has a layer already, as far as is known.
fn mount_from(
    store: &ContentStore,
    scope: &str,
    layer: &Layer,
    target: &Reference,
) -> Vec<Repository> {
    let origin = match &layer.origin {
        Origin::Registry(repository) => Some(repository.clone()),
        _ => None,
    };
    let mut all: Vec<Repository> = Vec::new();
    for place in origin
        .into_iter()
        .chain(store.places(scope, &layer.blob.digest))
    {
        if place.registry() == target.registry() && !all.contains(&place) {
            all.push(place);
        }
    }
    all
}
