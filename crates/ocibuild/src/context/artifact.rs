//! An OCI artifact that is no image, as a context (image-spec, manifest.md, "Guidelines for
//! Artifact Usage"). Its manifest enters; what becomes of each of its layers leaves.
//!
//! Layers are read as `oras pull` reads them: one with the annotation
//! `io.deis.oras.content.unpack` is a tar of files, another one with a title is a file of
//! that name. A layer without a title, as Flux makes it, has to be a tar by its media type;
//! an only layer with a title is the archive of the whole context where it is an archive.

use crate::registry::{Descriptor, Manifest, media_type};

const TITLE: &str = "org.opencontainers.image.title";
const UNPACK: &str = "io.deis.oras.content.unpack";
const CREATED: &str = "org.opencontainers.image.created";
/// How the media types of tars end, the last as Docker writes it.
const TARS: [&str; 5] = ["tar", "tar+gzip", "tar+zstd", "tgz", "tar.gzip"];

/// Why an artifact is no context.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArtifactError {
    /// It is an image.
    #[error("it is an image, not an artifact with the files of a context")]
    Image,
    /// There are no files in it.
    #[error("it has no layers, so no files")]
    Empty,
    /// A layer of another kind.
    #[error(
        "its layer {digest} is of the type {media_type:?}: neither a tar nor a file with a title"
    )]
    Layer {
        /// Digest of the layer.
        digest: String,
        /// Its media type.
        media_type: String,
    },
    /// Its layers are larger than a context may be.
    #[error("its layers have {size} bytes, and a context has at most {limit}")]
    TooLarge {
        /// Bytes of all layers together.
        size: u64,
        /// Bytes of a context.
        limit: u64,
    },
}

impl ArtifactError {
    /// Gives what to do about it, where we know.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Image => Some("write docker-image:// for the files of an image"),
            Self::Empty | Self::Layer { .. } => {
                Some("push a folder with `oras push`, or a tar with `flux push artifact`")
            }
            Self::TooLarge { .. } => None,
        }
    }
}

/// What becomes of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Form {
    /// It is the tar of files.
    Tar,
    /// It is a file of this name.
    File(String),
    /// It is either, by its content.
    TarOrFile(String),
}

/// Gives the layers of an artifact, in their order, and what becomes of them.
pub(crate) fn layers(
    manifest: &Manifest,
    limit: u64,
) -> Result<Vec<(&Descriptor, Form)>, ArtifactError> {
    let config = manifest.config.media_type.as_str();
    if [media_type::CONFIG, media_type::DOCKER_CONFIG].contains(&config) {
        return Err(ArtifactError::Image);
    }
    let sizes = manifest.layers.iter().map(|layer| layer.size);
    let size = sizes.fold(0, u64::saturating_add);
    if size > limit {
        return Err(ArtifactError::TooLarge { size, limit });
    }
    let is_only = manifest.layers.len() == 1;
    let with_form = |layer| Ok((layer, form(layer, is_only)?));
    match manifest.layers.is_empty() {
        true => Err(ArtifactError::Empty),
        false => manifest.layers.iter().map(with_form).collect(),
    }
}

fn form(layer: &Descriptor, is_only: bool) -> Result<Form, ArtifactError> {
    let annotation = |name| layer.annotations.get(name).map(String::as_str);
    let is_unpacked = annotation(UNPACK) == Some("true");
    match annotation(TITLE) {
        Some(title) if !is_unpacked && is_only => Ok(Form::TarOrFile(title.to_owned())),
        Some(title) if !is_unpacked => Ok(Form::File(title.to_owned())),
        _ if is_unpacked || is_tar(&layer.media_type) => Ok(Form::Tar),
        _ => Err(ArtifactError::Layer {
            digest: layer.digest.to_string(),
            media_type: layer.media_type.chars().take(100).collect(),
        }),
    }
}

fn is_tar(media_type: &str) -> bool {
    let (kind, _) = media_type.split_once(';').unwrap_or((media_type, ""));
    let is_end = |end: &&str| {
        let rest = kind.trim().strip_suffix(*end);
        rest.is_some_and(|rest| rest.ends_with(['.', '/', '-']))
    };
    TARS.iter().any(is_end)
}

/// Gives when an artifact was made, in seconds since 1970, where it says so.
pub(crate) fn time(manifest: &Manifest) -> Option<i64> {
    crate::time::from_rfc3339(manifest.annotations.get(CREATED)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(media_type: &str, annotations: &[(&str, &str)]) -> Descriptor {
        let mut layer = Descriptor::of(media_type, media_type.as_bytes());
        let annotations = annotations.iter();
        layer.annotations = annotations
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        layer
    }

    fn artifact(config: &str, layers: Vec<Descriptor>) -> Manifest {
        Manifest {
            schema_version: 2,
            media_type: None,
            config: Descriptor::of(config, b"{}"),
            layers,
            annotations: Default::default(),
        }
    }

    fn forms(layers: Vec<Descriptor>) -> Result<Vec<Form>, ArtifactError> {
        let artifact = artifact("application/vnd.oci.empty.v1+json", layers);
        let layers = super::layers(&artifact, 1 << 20)?;
        Ok(layers.into_iter().map(|(_, form)| form).collect())
    }

    #[test]
    fn layers_are_what_oras_and_flux_mean() {
        let title = |name| (TITLE, name);
        let folder = layer(media_type::LAYER_GZIP, &[title("app"), (UNPACK, "true")]);
        let file = layer(media_type::LAYER_TAR, &[title("Dockerfile")]);
        let flux = layer("application/vnd.cncf.flux.content.v1.tar+gzip", &[]);
        let named = |name: &str| Form::File(name.to_owned());
        assert_eq!(forms(vec![folder.clone()]).unwrap(), [Form::Tar]);
        assert_eq!(
            forms(vec![folder, file.clone()]).unwrap(),
            [Form::Tar, named("Dockerfile")]
        );
        let only = Form::TarOrFile("Dockerfile".to_owned());
        assert_eq!(forms(vec![file]).unwrap(), [only]);
        assert_eq!(
            forms(vec![flux.clone(), flux]).unwrap(),
            [Form::Tar, Form::Tar]
        );
    }

    #[test]
    fn tars_are_known_by_their_media_types() {
        for (media_type, want) in [
            (media_type::LAYER_TAR, true),
            (media_type::LAYER_ZSTD, true),
            (media_type::DOCKER_LAYER_GZIP, true),
            ("application/x-tar", true),
            ("application/tar+gzip; charset=utf-8", true),
            ("application/guitar", false),
            ("application/vnd.oci.empty.v1+json", false),
            ("application/octet-stream", false),
            ("", false),
        ] {
            assert_eq!(is_tar(media_type), want, "{media_type}");
        }
    }

    #[test]
    fn what_is_no_context_is_refused() {
        let tar = || layer(media_type::LAYER_TAR, &[]);
        for config in [media_type::CONFIG, media_type::DOCKER_CONFIG] {
            let image = artifact(config, vec![tar()]);
            assert_eq!(layers(&image, 1 << 20), Err(ArtifactError::Image));
        }
        assert_eq!(forms(vec![]), Err(ArtifactError::Empty));
        let odd = layer("application/json", &[]);
        assert!(matches!(
            forms(vec![tar(), odd]),
            Err(ArtifactError::Layer { media_type, .. }) if media_type == "application/json"
        ));
        let huge = Descriptor {
            size: u64::MAX,
            ..tar()
        };
        assert!(matches!(
            forms(vec![tar(), huge]),
            Err(ArtifactError::TooLarge { size: u64::MAX, .. })
        ));
    }
}
