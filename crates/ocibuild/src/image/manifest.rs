//! Configuration and layers become a manifest; bytes and descriptors stay together,
//! because the digest of a document is the digest of the bytes that were written.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ImageConfig;
use crate::registry::{Descriptor, Manifest, media_type};

/// Whose media types the documents of an image have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaTypes {
    /// Those of the OCI image specification.
    #[default]
    Oci,
    /// Those of Docker's image manifest, version 2, schema 2.
    Docker,
}

impl MediaTypes {
    /// Gives the type of an index.
    pub fn index(self) -> &'static str {
        match self {
            Self::Oci => media_type::INDEX,
            Self::Docker => media_type::DOCKER_INDEX,
        }
    }

    /// Gives the type of a manifest.
    pub fn manifest(self) -> &'static str {
        match self {
            Self::Oci => media_type::MANIFEST,
            Self::Docker => media_type::DOCKER_MANIFEST,
        }
    }

    /// Gives the type of a configuration.
    pub fn config(self) -> &'static str {
        match self {
            Self::Oci => media_type::CONFIG,
            Self::Docker => media_type::DOCKER_CONFIG,
        }
    }

    /// Gives the type of a layer that has another one now; a type that is none of ours, or
    /// for which there is no other word, stays.
    pub fn layer(self, text: &str) -> &str {
        match (self, text) {
            (Self::Oci, media_type::DOCKER_LAYER_GZIP) => media_type::LAYER_GZIP,
            (Self::Oci, media_type::DOCKER_LAYER_TAR) => media_type::LAYER_TAR,
            (Self::Docker, media_type::LAYER_GZIP) => media_type::DOCKER_LAYER_GZIP,
            (Self::Docker, media_type::LAYER_TAR) => media_type::DOCKER_LAYER_TAR,
            (_, other) => other,
        }
    }
}

/// A document and its descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Type, digest and size.
    pub descriptor: Descriptor,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Document {
    /// Describes `bytes`.
    pub fn new(media_type: &str, bytes: Vec<u8>) -> Self {
        Self {
            descriptor: Descriptor::of(media_type, &bytes),
            bytes,
        }
    }
}

/// Manifest, configuration and layers of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    /// The manifest.
    pub manifest: Document,
    /// The configuration.
    pub config: Document,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
}

/// Makes the manifest of an image.
pub fn assemble(config: &ImageConfig, layers: Vec<Descriptor>) -> Documents {
    assemble_as(
        config.to_bytes(),
        layers,
        MediaTypes::default(),
        BTreeMap::new(),
    )
}

/// Makes the manifest of an image with these media types and annotations, from the bytes of
/// its configuration.
pub fn assemble_as(
    config: Vec<u8>,
    layers: Vec<Descriptor>,
    media_types: MediaTypes,
    annotations: BTreeMap<String, String>,
) -> Documents {
    let config = Document::new(media_types.config(), config);
    let plain = |layer: &Descriptor| plain(layer, media_types);
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_types.manifest().to_owned()),
        config: config.descriptor.clone(),
        layers: layers.iter().map(plain).collect(),
        annotations,
    };
    let bytes = serde_json::to_vec(&manifest).expect("a manifest has only string keys");
    Documents {
        manifest: Document::new(media_types.manifest(), bytes),
        config,
        layers,
    }
}

/// Gives the descriptor with one of these media types and nothing that only its source knew.
fn plain(layer: &Descriptor, media_types: MediaTypes) -> Descriptor {
    let media_type = media_types.layer(&layer.media_type);
    Descriptor::new(media_type, layer.digest, layer.size)
}
