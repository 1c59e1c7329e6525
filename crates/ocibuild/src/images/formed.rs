//! An image of the store in another form: its files and its configuration stay, the blobs
//! of its layers and its manifest are others.

use super::{Error, Images, StoredImage, StoredIndex};
use crate::cache::document;
use crate::content::{Layer, Origin};
use crate::image::manifest::{Document, MediaTypes, assemble_as};
use crate::output::form::{self, Recipe};
use crate::output::{self, AnnotationPlace, Form};
use crate::registry::{Client, Descriptor, Index, Manifest, Progress};
use crate::source;

impl Images {
    /// Brings an image into a form, with all of its layers: none of them is being built.
    /// Annotations that it has stay, unless it gets Docker's media types, which have none.
    pub async fn formed(
        &self,
        client: &Client,
        image: &StoredImage,
        form: &Form,
    ) -> Result<StoredImage, Error> {
        form.check(false)?;
        self.reform(client, image, form).await
    }

    /// Brings the images of an index into a form, and the index with them.
    pub async fn formed_index(
        &self,
        client: &Client,
        index: &StoredIndex,
        form: &Form,
    ) -> Result<StoredIndex, Error> {
        form.check(true)?;
        let mut images = Vec::with_capacity(index.images.len());
        for image in &index.images {
            images.push(self.reform(client, image, form).await?);
        }
        let parsed: Index = parse(&index.index)?;
        let entries = parsed.manifests.iter().zip(&images);
        let entries = entries.map(|(entry, image)| {
            let platform = entry.platform.as_ref();
            let mut annotations = entry.annotations.clone();
            annotations.extend(form.annotations_of(AnnotationPlace::ManifestDescriptor, platform));
            Descriptor {
                platform: entry.platform.clone(),
                annotations,
                ..image.manifest.descriptor.clone()
            }
        });
        let media_type = form.media_types.index();
        let mut new = Index {
            media_type: Some(media_type.to_owned()),
            manifests: entries.collect(),
            ..parsed.clone()
        };
        new.annotations
            .extend(form.annotations_of(AnnotationPlace::Index, None));
        let bytes = serde_json::to_vec(&new).expect("an index has only string keys");
        Ok(StoredIndex {
            index: Document::new(media_type, bytes),
            images,
        })
    }

    async fn reform(
        &self,
        client: &Client,
        image: &StoredImage,
        form: &Form,
    ) -> Result<StoredImage, Error> {
        let mut layers = Vec::with_capacity(image.layers.len());
        for layer in &image.layers {
            layers.push(match form.change(layer, false) {
                None => layer.clone(),
                Some(recipe) => self.compressed(client, layer, recipe).await?,
            });
        }
        form.check_layers(&layers)?;
        let parsed: Manifest = parse(&image.manifest)?;
        let mut annotations = parsed.annotations;
        if layers != image.layers {
            // It names the blobs that the layers were.
            annotations.remove(document::INLINE);
        }
        let platform = Some(&image.config.platform);
        annotations.extend(form.annotations_of(AnnotationPlace::Manifest, platform));
        if form.media_types == MediaTypes::Docker {
            annotations.clear();
        }
        let blobs = layers.iter().map(|layer| layer.blob.clone());
        let config = image.config_document.bytes.clone();
        let documents = assemble_as(config, blobs.collect(), form.media_types, annotations);
        Ok(StoredImage {
            manifest: documents.manifest,
            config_document: documents.config,
            config: image.config.clone(),
            layers,
        })
    }

    async fn compressed(
        &self,
        client: &Client,
        layer: &Layer,
        recipe: Recipe,
    ) -> Result<Layer, Error> {
        source::fetch(&self.0, client, layer, &Progress::none()).await?;
        let (store, wanted) = (self.0.clone(), layer.clone());
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let made =
            tokio::task::spawn_blocking(move || form::compressed(&store, &wanted, recipe, threads));
        let lost = |error: tokio::task::JoinError| output::Error::Lost(error.to_string());
        Ok(Layer {
            diff_id: layer.diff_id,
            blob: made.await.map_err(lost)??,
            origin: Origin::Store,
        })
    }
}

fn parse<T: serde::de::DeserializeOwned>(document: &Document) -> Result<T, Error> {
    serde_json::from_slice(&document.bytes).map_err(|error| Error::Damaged {
        name: document.descriptor.digest.to_string(),
        reason: error.to_string(),
    })
}
