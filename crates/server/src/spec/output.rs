//! In which form an image is pushed, as `/v1` takes it and as a build process is told.

use ocibuild::layer::Compression;
use ocibuild::{Annotation, Form, InvalidAnnotation, MediaTypes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// In which form an image is pushed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OutputForm {
    /// The compression of layers that are built; without it new ones are gzip, and those that
    /// earlier builds made are as they are.
    pub compression: Option<LayerCompression>,
    /// Its level: 0 to 9 of gzip, 0 to 22 of zstd.
    #[schema(minimum = 0, maximum = 22)]
    pub compression_level: Option<i32>,
    /// Layers of bases are compressed so too.
    pub force_compression: bool,
    /// Whose media types the documents have.
    pub media_types: MediaTypesName,
    /// Texts in manifests and index, as buildx writes them: `[TYPE[[PLATFORM]],…:]KEY=VALUE`.
    #[schema(example = json!(["org.opencontainers.image.vendor=us", "index:team=ml"]))]
    pub annotations: Vec<String>,
}

/// How a layer can be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LayerCompression {
    /// With gzip, which everybody reads.
    Gzip,
    /// With Zstandard.
    Zstd,
    /// Not at all.
    Uncompressed,
}

/// Whose media types documents have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MediaTypesName {
    /// Those of OCI.
    #[default]
    Oci,
    /// Those of Docker, which know neither zstd nor annotations.
    Docker,
}

impl OutputForm {
    /// Gives the form in the terms of the library.
    pub fn to_form(&self) -> Result<Form, InvalidAnnotation> {
        let annotations = self.annotations.iter().map(|text| Annotation::parse(text));
        let annotations: Vec<Vec<Annotation>> = annotations.collect::<Result<_, _>>()?;
        Ok(Form {
            compression: self.compression.map(|compression| match compression {
                LayerCompression::Gzip => Compression::Gzip,
                LayerCompression::Zstd => Compression::Zstd,
                LayerCompression::Uncompressed => Compression::None,
            }),
            level: self.compression_level,
            force: self.force_compression,
            media_types: match self.media_types {
                MediaTypesName::Oci => MediaTypes::Oci,
                MediaTypesName::Docker => MediaTypes::Docker,
            },
            annotations: annotations.concat(),
        })
    }
}
