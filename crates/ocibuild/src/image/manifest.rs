//! Configuration and layers become a manifest; bytes and descriptors stay together,
//! because the digest of a document is the digest of the bytes that were written.

use std::collections::BTreeMap;

use super::ImageConfig;
use crate::registry::{Descriptor, Manifest, media_type};

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
    assemble_annotated(config, layers, BTreeMap::new())
}

/// Makes the manifest of an image, with annotations.
pub fn assemble_annotated(
    config: &ImageConfig,
    layers: Vec<Descriptor>,
    annotations: BTreeMap<String, String>,
) -> Documents {
    let config = Document::new(media_type::CONFIG, config.to_bytes());
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::MANIFEST.to_owned()),
        config: config.descriptor.clone(),
        layers: layers.iter().map(plain).collect(),
        annotations,
    };
    let bytes = serde_json::to_vec(&manifest).expect("a manifest has only string keys");
    Documents {
        manifest: Document::new(media_type::MANIFEST, bytes),
        config,
        layers,
    }
}

/// Gives the descriptor with an OCI media type and nothing that only its source knew.
fn plain(layer: &Descriptor) -> Descriptor {
    let media_type = match layer.media_type.as_str() {
        media_type::DOCKER_LAYER_GZIP => media_type::LAYER_GZIP,
        other => other,
    };
    Descriptor::new(media_type, layer.digest, layer.size)
}
