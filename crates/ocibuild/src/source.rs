//! FROM: where the layers and the configuration of a base come from. A base is its
//! documents; the bytes of its layers move only when a step or an output needs them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::content::{self, ContentStore, Layer, Origin};
use crate::image::ImageConfig;
use crate::image::manifest::Document;
use crate::registry::{
    self, Arriving, Client, Descriptor, Digest, Index, Manifest, Platform, Progress, Reference,
    Repository, media_type,
};

/// What went wrong with a base.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The registry.
    #[error("load the base image {reference}")]
    Registry {
        /// The base.
        reference: String,
        /// What the registry said.
        source: registry::Error,
    },
    /// The registry, about an artifact.
    #[error("load the artifact {reference}")]
    Artifact {
        /// The artifact.
        reference: String,
        /// What the registry said.
        source: registry::Error,
    },
    /// A file of an image layout.
    #[error("read {path}")]
    Layout {
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A document of the base.
    #[error("{what} of the base image {reference} is not valid")]
    Document {
        /// Which document.
        what: &'static str,
        /// The base.
        reference: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The layout has no such image, or has several and none was named.
    #[error("the image layout {path} has no image {wanted:?}; it has: {}", .there.join(", "))]
    NotInLayout {
        /// The layout.
        path: PathBuf,
        /// What was asked for.
        wanted: String,
        /// The names that are there.
        there: Vec<String>,
    },
    /// No manifest for the platform.
    #[error("the base image {reference} has no manifest for {platform}; it has: {}", .there.join(", "))]
    Platform {
        /// The base.
        reference: String,
        /// What was asked for.
        platform: String,
        /// What there is.
        there: Vec<String>,
    },
    /// The bytes of a blob are not what its descriptor says.
    #[error("blob {digest} in {path} is damaged")]
    Damaged {
        /// What was asked for.
        digest: Digest,
        /// The layout.
        path: PathBuf,
    },
    /// Manifest and configuration do not fit.
    #[error("the base image {reference} has {layers} layers and {diff_ids} diff_ids")]
    Layers {
        /// The base.
        reference: String,
        /// Layers of the manifest.
        layers: usize,
        /// diff_ids of the configuration.
        diff_ids: usize,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] content::Error),
}

impl Error {
    fn of_base(reference: impl ToString, source: registry::Error) -> Self {
        Self::Registry {
            reference: reference.to_string(),
            source,
        }
    }

    /// Says that it was an artifact that was loaded, and not a base image.
    pub(crate) fn of_artifact(self, artifact: &Reference) -> Self {
        match self {
            Self::Registry { source, .. } => Self::Artifact {
                reference: artifact.to_string(),
                source,
            },
            other => other,
        }
    }
}

/// A base image.
#[derive(Debug, Clone)]
pub struct BaseImage {
    /// Its configuration.
    pub config: ImageConfig,
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
    /// Its manifest; empty for `scratch`.
    pub manifest: Document,
}

/// The largest configuration that is read.
const MAX_CONFIG: u64 = 8 << 20;

/// Loads the documents of an image in a registry. None that is known by its digest is asked
/// for.
pub async fn from_registry(
    store: &ContentStore,
    client: &Client,
    reference: &Reference,
    platform: &Platform,
) -> Result<BaseImage, Error> {
    let image = documents(store, client, reference, platform).await?;
    let config = &image.manifest.config;
    let bytes = match store.read_blob(&config.digest)? {
        Some(bytes) => bytes,
        None => {
            let repository = reference.repository();
            let bytes = client.blob_bytes(repository, config, MAX_CONFIG).await;
            let bytes = bytes.map_err(|source| Error::of_base(reference, source))?;
            store.put_blob(&bytes)?;
            bytes.to_vec()
        }
    };
    assemble(
        &reference.to_string(),
        Document::new(&image.descriptor.media_type, image.bytes.to_vec()),
        &bytes,
        Origin::Registry(reference.repository().clone()),
    )
}

/// Finds the manifest that a name means for a platform, through indexes if need be; the store
/// keeps these documents.
pub(crate) async fn documents(
    store: &ContentStore,
    client: &Client,
    reference: &Reference,
    platform: &Platform,
) -> Result<registry::Image, Error> {
    let known = |digest: &Digest| {
        let bytes = store.read_blob(digest).ok().flatten()?;
        Some(Bytes::from(bytes))
    };
    let image = client.image_unless_known(reference, platform, &known);
    let image = image
        .await
        .map_err(|source| Error::of_base(reference, source))?;
    for document in image.indexes.iter().chain([&image.bytes]) {
        if !store.has_content(&Digest::sha256(document), document.len() as u64) {
            store.put_blob(document)?;
        }
    }
    Ok(image)
}

/// Loads the documents of an image in an OCI image layout. `name` is the tag or digest
/// that its index gives the image; without one the layout must hold one image.
pub fn from_layout(
    layout: &Path,
    name: Option<&str>,
    platform: &Platform,
) -> Result<BaseImage, Error> {
    let shown = layout.display().to_string();
    let index_path = layout.join("index.json");
    let bytes = read(&index_path)?;
    let index: Index = parse("index", &shown, &bytes)?;
    let mut chosen = pick_name(layout, &index, name)?;
    if media_type::is_index(&chosen.media_type) {
        let bytes = read_blob(layout, &chosen)?;
        let inner: Index = parse("index", &shown, &bytes)?;
        chosen = pick_platform(&shown, &inner, platform)?;
    }
    let manifest = read_blob(layout, &chosen)?;
    let config = parse::<Manifest>("manifest", &shown, &manifest)?.config;
    let config = read_blob(layout, &config)?;
    assemble(
        &shown,
        Document::new(&chosen.media_type, manifest),
        &config,
        Origin::Layout(layout.to_owned()),
    )
}

/// Gives the path of a blob in an image layout.
pub fn layout_blob(layout: &Path, digest: &Digest) -> PathBuf {
    let algorithm = digest.algorithm().name();
    layout.join("blobs").join(algorithm).join(digest.hex())
}

fn assemble(
    reference: &str,
    document: Document,
    config: &[u8],
    origin: Origin,
) -> Result<BaseImage, Error> {
    let manifest: Manifest = parse("manifest", reference, &document.bytes)?;
    let config: ImageConfig = parse("configuration", reference, config)?;
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        return Err(Error::Layers {
            reference: reference.to_owned(),
            layers: manifest.layers.len(),
            diff_ids: diff_ids.len(),
        });
    }
    let layers = diff_ids
        .iter()
        .zip(manifest.layers)
        .map(|(diff_id, blob)| Layer {
            diff_id: *diff_id,
            blob,
            origin: origin.clone(),
        })
        .collect();
    Ok(BaseImage {
        config,
        layers,
        manifest: document,
    })
}

const REF_NAME: &str = "org.opencontainers.image.ref.name";

fn pick_name(layout: &Path, index: &Index, name: Option<&str>) -> Result<Descriptor, Error> {
    let has_name = |descriptor: &&Descriptor| match name {
        None => true,
        Some(name) => {
            let full = descriptor.annotations.get(REF_NAME).map(String::as_str);
            let tag = full
                .and_then(|full| full.rsplit_once(':'))
                .map(|(_, tag)| tag);
            full == Some(name) || tag == Some(name) || descriptor.digest.to_string() == name
        }
    };
    let found: Vec<&Descriptor> = index.manifests.iter().filter(has_name).collect();
    match found[..] {
        [one] => Ok(one.clone()),
        _ => Err(Error::NotInLayout {
            path: layout.to_owned(),
            wanted: name.unwrap_or_default().to_owned(),
            there: index
                .manifests
                .iter()
                .map(|descriptor| match descriptor.annotations.get(REF_NAME) {
                    Some(name) => name.clone(),
                    None => descriptor.digest.to_string(),
                })
                .collect(),
        }),
    }
}

fn pick_platform(reference: &str, index: &Index, platform: &Platform) -> Result<Descriptor, Error> {
    let fits = |descriptor: &&Descriptor| {
        descriptor
            .platform
            .as_ref()
            .is_some_and(|found| platform.matches(found))
    };
    index
        .manifests
        .iter()
        .find(fits)
        .cloned()
        .ok_or_else(|| Error::Platform {
            reference: reference.to_owned(),
            platform: platform.to_string(),
            there: index
                .manifests
                .iter()
                .filter_map(|descriptor| Some(descriptor.platform.as_ref()?.to_string()))
                .collect(),
        })
}

fn parse<T: serde::de::DeserializeOwned>(
    what: &'static str,
    reference: &str,
    bytes: &[u8],
) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|source| Error::Document {
        what,
        reference: reference.to_owned(),
        source,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Layout {
        path: path.to_owned(),
        source,
    })
}

fn read_blob(layout: &Path, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
    let bytes = read(&layout_blob(layout, &descriptor.digest))?;
    if Digest::sha256(&bytes) != descriptor.digest {
        return Err(Error::Damaged {
            digest: descriptor.digest,
            path: layout.to_owned(),
        });
    }
    Ok(bytes)
}

/// Brings the blob of a layer into the store, unless it is there.
pub async fn fetch(
    store: &ContentStore,
    client: &Client,
    layer: &Layer,
    progress: &Progress,
) -> Result<(), Error> {
    fetch_arriving(store, client, layer, progress, None).await
}

/// The same, with somebody who reads the blob meanwhile. Whoever reads gets nothing of a blob
/// that is there already, or that comes from a layout.
pub(crate) async fn fetch_arriving(
    store: &ContentStore,
    client: &Client,
    layer: &Layer,
    progress: &Progress,
    arriving: Option<Arc<Arriving>>,
) -> Result<(), Error> {
    if store.has_blob(&layer.blob) {
        return Ok(());
    }
    match &layer.origin {
        Origin::Store => Err(Error::Layout {
            path: store.blob_path(&layer.blob.digest),
            source: io::ErrorKind::NotFound.into(),
        }),
        Origin::Layout(folder) => copy_from_layout(store, folder, &layer.blob),
        Origin::Registry(repository) => {
            fetch_blob(store, client, repository, &layer.blob, progress, arriving).await
        }
    }
}

/// Brings a blob of a registry into the store; `arriving` is told how much of it is there.
pub(crate) async fn fetch_blob(
    store: &ContentStore,
    client: &Client,
    repository: &Repository,
    blob: &Descriptor,
    progress: &Progress,
    arriving: Option<Arc<Arriving>>,
) -> Result<(), Error> {
    let scratch = store.scratch()?;
    let file = scratch.path().join("blob");
    let loaded = client.download_arriving(repository, blob, &file, progress, arriving);
    loaded
        .await
        .map_err(|source| Error::of_base(repository, source))?;
    Ok(store.adopt_blob(&file, &blob.digest)?)
}

/// Copies and checks a blob of a layout: what is in the store is what its name says.
fn copy_from_layout(store: &ContentStore, layout: &Path, blob: &Descriptor) -> Result<(), Error> {
    let path = layout_blob(layout, &blob.digest);
    let failed = |source| Error::Layout {
        path: path.clone(),
        source,
    };
    let mut from = fs::File::open(&path).map_err(failed)?;
    let scratch = store.scratch()?;
    let file = scratch.path().join("blob");
    let mut to = fs::File::create(&file).map_err(failed)?;
    let mut hasher = crate::registry::Hasher::sha256();
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        let count = io::Read::read(&mut from, &mut buffer).map_err(failed)?;
        if count == 0 {
            break;
        }
        size += count as u64;
        hasher.update(&buffer[..count]);
        io::Write::write_all(&mut to, &buffer[..count]).map_err(failed)?;
    }
    if size != blob.size || hasher.finish() != blob.digest {
        return Err(Error::Damaged {
            digest: blob.digest,
            path: layout.to_owned(),
        });
    }
    Ok(store.adopt_blob(&file, &blob.digest)?)
}
