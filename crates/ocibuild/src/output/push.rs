//! Pushing to a registry: a thin adapter. What the registry has, or can take over from
//! the repository that a base came from, is not even read here.

use bytes::Bytes;

use super::{Error, Finished};
use crate::content::ContentStore;
use crate::registry::{
    BlobSource, Client, Digest, ImagePush, LayerPush, Progress, Reference, Repository,
};
use crate::source::{Layer, Origin};

/// How many layers are sent at once.
const CONCURRENCY: usize = 4;

/// Pushes the image under a name; gives the digest that the registry confirmed.
pub async fn push(
    store: &ContentStore,
    client: &Client,
    image: &Finished,
    layers: &[Layer],
    reference: &Reference,
    progress: &Progress,
) -> Result<Digest, Error> {
    let documents = &image.documents;
    let layers = layers
        .iter()
        .zip(&documents.layers)
        .map(|(layer, descriptor)| LayerPush {
            descriptor: descriptor.clone(),
            source: BlobSource::File(store.blob_path(&layer.blob.digest)),
            mount_from: mount_from(layer, reference),
        })
        .collect();
    let push = ImagePush {
        manifest: Bytes::from(documents.manifest.bytes.clone()),
        media_type: documents.manifest.descriptor.media_type.clone(),
        config: documents.config.descriptor.clone(),
        config_bytes: Bytes::from(documents.config.bytes.clone()),
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
pub async fn missing<'a>(
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
