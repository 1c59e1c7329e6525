//! Images that are in the store under a name: found, checked, pushed again, pulled in.
//! Builds leave their images here; the bytes of base layers may still be where the base
//! came from, and are fetched when they are needed.

mod formed;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use futures::future::try_join_all;

use crate::content::Layer;
use crate::content::{self, ContentStore, IMAGE_NAME};
use crate::image::ImageConfig;
use crate::image::manifest::{Document, Documents};
use crate::image::validate::{Problem, validate};
use crate::layer::DiffId;
use crate::output::push::Part;
use crate::output::{self, Content, Finished, layout, push};
use crate::registry::{
    Client, Descriptor, Digest, Index, Manifest, Platform, Progress, Reference, media_type,
};
use crate::source;

/// Whose pushes these are: everybody's who has the store.
const NO_SCOPE: &str = "";

/// What went wrong with an image of the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no image of that name.
    #[error("the store has no image {0}")]
    NotFound(String),
    /// A document of the image is gone or is not one.
    #[error("the image {name} is damaged in the store: {reason}")]
    Damaged {
        /// The image.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The name stands for several images.
    #[error("{name} is an index of several platforms, not one image: {}", .platforms.join(", "))]
    IsIndex {
        /// The name.
        name: String,
        /// The platforms.
        platforms: Vec<String>,
    },
    /// A registry does not give an image or index.
    #[error("load {reference}")]
    Registry {
        /// Its name.
        reference: String,
        /// What the registry said.
        source: crate::registry::Error,
    },
    /// The image is not what it claims.
    #[error("the image is not valid")]
    Invalid(#[from] Problem),
    /// The store.
    #[error(transparent)]
    Store(#[from] content::Error),
    /// Where the image came from.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// Where it was to go.
    #[error(transparent)]
    Output(#[from] output::Error),
}

/// The images of one store.
#[derive(Debug, Clone)]
pub struct Images(ContentStore);

/// One image.
#[derive(Debug, Clone)]
pub struct StoredImage {
    /// Its manifest.
    pub manifest: Document,
    /// Its configuration as it is stored.
    pub config_document: Document,
    /// Its configuration.
    pub config: ImageConfig,
    /// Its layers.
    pub layers: Vec<Layer>,
}

/// The images of several platforms under one name.
#[derive(Debug, Clone)]
pub struct StoredIndex {
    /// The index.
    pub index: Document,
    /// What it names, in its order.
    pub images: Vec<StoredImage>,
}

impl Images {
    /// Opens the store at `root`.
    pub fn open(root: &Path) -> Result<Self, Error> {
        Ok(Self(ContentStore::open(root)?))
    }

    /// Finds an image by its name, or by the digest of its manifest. That of an index is
    /// an error: [`Images::find_index`] finds it.
    pub fn find(&self, name: &str) -> Result<StoredImage, Error> {
        let descriptor = self.descriptor(name)?;
        match media_type::is_index(&descriptor.media_type) {
            false => self.load(name, &descriptor),
            true => Err(Error::IsIndex {
                name: name.to_owned(),
                platforms: self
                    .read_index(name, &descriptor)?
                    .1
                    .manifests
                    .iter()
                    .filter_map(|image| Some(image.platform.as_ref()?.to_string()))
                    .collect(),
            }),
        }
    }

    /// Finds the images of several platforms by their common name, or by the digest of
    /// their index; none where the name is that of one image.
    pub fn find_index(&self, name: &str) -> Result<Option<StoredIndex>, Error> {
        let descriptor = self.descriptor(name)?;
        if !media_type::is_index(&descriptor.media_type) {
            return Ok(None);
        }
        let (index, parsed) = self.read_index(name, &descriptor)?;
        let images = parsed.manifests.iter();
        let images = images.map(|descriptor| self.load(name, descriptor));
        Ok(Some(StoredIndex {
            images: images.collect::<Result<_, _>>()?,
            index,
        }))
    }

    fn descriptor(&self, name: &str) -> Result<Descriptor, Error> {
        let full = name.parse::<Reference>().map(|name| name.to_string());
        let full = full.as_deref().unwrap_or(name);
        let named = |image: &Descriptor| {
            let stored = image.annotations.get(IMAGE_NAME).map(String::as_str);
            stored == Some(full) || image.digest.to_string() == name
        };
        let found = self.0.images()?.into_iter().find(named);
        found.ok_or_else(|| Error::NotFound(name.to_owned()))
    }

    fn read_index(&self, name: &str, descriptor: &Descriptor) -> Result<(Document, Index), Error> {
        let damaged = |reason: String| Error::Damaged {
            name: name.to_owned(),
            reason,
        };
        let bytes = self.0.read_blob(&descriptor.digest)?;
        let bytes = bytes.ok_or_else(|| damaged(format!("{} is gone", descriptor.digest)))?;
        let parsed =
            serde_json::from_slice(&bytes).map_err(|error| damaged(format!("index: {error}")))?;
        Ok((Document::new(&descriptor.media_type, bytes), parsed))
    }

    fn load(&self, name: &str, descriptor: &Descriptor) -> Result<StoredImage, Error> {
        let damaged = |reason: String| Error::Damaged {
            name: name.to_owned(),
            reason,
        };
        let document = |media_type: &str, digest: &Digest| -> Result<Document, Error> {
            match self.0.read_blob(digest)? {
                Some(bytes) => Ok(Document::new(media_type, bytes)),
                None => Err(damaged(format!("{digest} is gone"))),
            }
        };
        let manifest = document(&descriptor.media_type, &descriptor.digest)?;
        let parsed: Manifest = serde_json::from_slice(&manifest.bytes)
            .map_err(|error| damaged(format!("manifest: {error}")))?;
        let config_document = document(&parsed.config.media_type, &parsed.config.digest)?;
        let config = ImageConfig::parse(&config_document.bytes)
            .map_err(|error| damaged(format!("configuration: {error}")))?;
        let layers = config.rootfs.diff_ids.iter().zip(parsed.layers);
        let layers = layers.map(|(diff_id, blob)| self.layer(*diff_id, blob));
        Ok(StoredImage {
            layers: layers.collect(),
            manifest,
            config_document,
            config,
        })
    }

    fn layer(&self, diff_id: DiffId, blob: Descriptor) -> Layer {
        Layer {
            origin: self.0.origin(&blob.digest),
            diff_id,
            blob,
        }
    }

    /// Recomputes every digest and size of an image, and fetches what is not here.
    pub async fn verify(&self, client: &Client, image: &StoredImage) -> Result<(), Error> {
        self.fetch(client, image).await?;
        validate(&image.manifest.descriptor, &|digest| self.open_blob(digest))?;
        Ok(())
    }

    fn open_blob(&self, digest: &Digest) -> io::Result<Box<dyn io::Read + Send>> {
        Ok(Box::new(File::open(self.0.blob_path(digest))?))
    }

    async fn fetch(&self, client: &Client, image: &StoredImage) -> Result<(), Error> {
        let progress = Progress::none();
        let layers = image.layers.iter();
        try_join_all(layers.map(|layer| source::fetch(&self.0, client, layer, &progress))).await?;
        Ok(())
    }

    /// Pushes an image under a name; gives the digest that the registry confirmed.
    pub async fn push(
        &self,
        client: &Client,
        image: &StoredImage,
        reference: &Reference,
    ) -> Result<Digest, Error> {
        let documents = image.documents();
        let progress = Progress::none();
        let layers = &image.layers;
        Ok(push::push(
            &self.0, client, &documents, layers, reference, NO_SCOPE, &progress,
        )
        .await?)
    }

    /// Pushes an index and its images under a name; gives the digest of the index, which
    /// the registry confirmed.
    pub async fn push_index(
        &self,
        client: &Client,
        index: &StoredIndex,
        reference: &Reference,
    ) -> Result<Digest, Error> {
        let documents: Vec<Documents> = index.images.iter().map(StoredImage::documents).collect();
        let parts = documents.iter().zip(&index.images);
        let parts: Vec<Part<'_>> = parts
            .map(|(image, stored)| Part {
                image,
                layers: &stored.layers,
            })
            .collect();
        let progress = Progress::none();
        Ok(push::push_index(
            &self.0,
            client,
            &index.index,
            &parts,
            reference,
            NO_SCOPE,
            &progress,
        )
        .await?)
    }

    /// Brings an image of a registry into the store, whole, under its name.
    pub async fn pull(
        &self,
        client: &Client,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<StoredImage, Error> {
        let base = source::from_registry(&self.0, client, reference, platform).await?;
        self.0.put_blob(&base.manifest.bytes)?;
        self.0.put_origins(&base.layers)?;
        let image = self.load(&reference.to_string(), &base.manifest.descriptor)?;
        self.verify(client, &image).await?;
        let finished = Finished {
            content: Content::Image(Box::new(image.documents())),
            names: vec![reference.to_string()],
            annotations: BTreeMap::new(),
            created: 0,
        };
        self.0.name_images(layout::named_descriptors(&finished))?;
        Ok(image)
    }
}

impl StoredImage {
    fn documents(&self) -> Documents {
        let blobs = self.layers.iter().map(|layer| layer.blob.clone());
        Documents {
            manifest: self.manifest.clone(),
            config: self.config_document.clone(),
            layers: blobs.collect(),
        }
    }
}
