//! How an output writes an image: compression of its layers, kind of media types,
//! annotations. What a layer is does not depend on it, so nothing is built again for it.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::RangeInclusive;

use super::Error;
use super::annotation::{Annotation, AnnotationPlace, of_place};
use crate::content::{ContentStore, Layer};
use crate::image::manifest::MediaTypes;
use crate::layer::{Compression, Encoding, Limits, Options, recompress};
use crate::registry::{Descriptor, Platform};

/// The levels as buildx takes them.
const GZIP_LEVELS: RangeInclusive<i32> = 0..=9;
const ZSTD_LEVELS: RangeInclusive<i32> = 0..=22;

/// How an output writes an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Form {
    /// The compression of layers that are built; without it new ones are gzip, and those that
    /// earlier builds made are as they are.
    pub compression: Option<Compression>,
    /// Its level, in the terms of the compression; alone it is gzip's.
    pub level: Option<i32>,
    /// Layers of bases, and those that a layer policy leaves uncompressed, are compressed
    /// so too; without it they are never touched.
    pub force: bool,
    /// Whose media types the documents have.
    pub media_types: MediaTypes,
    /// Annotations.
    pub annotations: Vec<Annotation>,
}

/// The compression that a layer is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Recipe {
    pub(crate) compression: Compression,
    pub(crate) level: Option<i32>,
}

impl Form {
    /// Gives the compression that is asked for, if one is.
    pub(crate) fn wanted(&self) -> Option<Recipe> {
        let usual = self.level.map(|_| Compression::Gzip);
        let compression = self.compression.or(usual)?;
        Some(Recipe {
            compression,
            level: self.level.filter(|_| compression != Compression::None),
        })
    }

    /// Tells what is to be done with a layer; nothing where it is as it is to be.
    /// `is_given` says that it is no layer of this build.
    pub(crate) fn change(&self, layer: &Layer, is_given: bool) -> Option<Recipe> {
        let wanted = self.wanted()?;
        let has = Compression::of_media_type(&layer.blob.media_type);
        let is_so = has == Some(wanted.compression) && wanted.level.is_none();
        (!is_so && (self.force || !is_given)).then_some(wanted)
    }

    /// Refuses what cannot be written, for one image or for an index of several.
    pub fn check(&self, several: bool) -> Result<(), Error> {
        self.check_level()?;
        let is_docker = self.media_types == MediaTypes::Docker;
        let of_index = |annotation: &Annotation| {
            matches!(
                annotation.place,
                AnnotationPlace::Index | AnnotationPlace::IndexDescriptor
            )
        };
        if is_docker && self.compression == Some(Compression::Zstd) {
            return Err(Error::Form("Docker's media types have none for zstd"));
        }
        if is_docker && !self.annotations.is_empty() {
            return Err(Error::Form("Docker's manifests have no annotations"));
        }
        if !several && self.annotations.iter().any(of_index) {
            return Err(Error::Form(
                "one image has no index that could be annotated: build several platforms, or set BUILDKIT_MULTI_PLATFORM=1",
            ));
        }
        Ok(())
    }

    fn check_level(&self) -> Result<(), Error> {
        let (compression, levels) = match self.compression {
            Some(Compression::Zstd) => ("zstd", ZSTD_LEVELS),
            _ => ("gzip", GZIP_LEVELS),
        };
        match self.level.filter(|level| !levels.contains(level)) {
            Some(level) => Err(Error::Level {
                compression,
                level,
                last: *levels.end(),
            }),
            None => Ok(()),
        }
    }

    /// Refuses layers for which the media types have no word.
    pub(crate) fn check_layers(&self, layers: &[Layer]) -> Result<(), Error> {
        let is_zstd = |layer: &Layer| {
            Compression::of_media_type(&layer.blob.media_type) == Some(Compression::Zstd)
        };
        match self.media_types == MediaTypes::Docker && layers.iter().any(is_zstd) {
            true => Err(Error::Form(
                "Docker's media types have none for zstd, which a layer of the base is: force another compression",
            )),
            false => Ok(()),
        }
    }

    /// Gives the annotations of a place.
    pub(crate) fn annotations_of(
        &self,
        place: AnnotationPlace,
        platform: Option<&Platform>,
    ) -> BTreeMap<String, String> {
        of_place(&self.annotations, place, platform)
    }
}

/// Gives a layer of the store another compression; one that it was given before is found
/// again. Blocks.
pub(crate) fn compressed(
    store: &ContentStore,
    layer: &Layer,
    wanted: Recipe,
    threads: usize,
) -> Result<Descriptor, Error> {
    let Recipe { compression, level } = wanted;
    let _lock = store.lock(&format!("form-{}", layer.diff_id.0.hex()))?;
    if let Some(known) = store.variant(layer.diff_id, compression, level) {
        return Ok(known);
    }
    let _room = store.reserve(layer.blob.size)?;
    let scratch = store.scratch()?;
    let path = scratch.path().join("blob");
    let file = File::create(&path).map_err(crate::layer::Error::Write)?;
    let options = Options {
        compression,
        level,
        threads,
        clamp_mtime: None,
    };
    let blob = store.open_blob(&layer.blob.digest)?;
    let encoding = Encoding::of_media_type(&layer.blob.media_type);
    let (made, _) = recompress(blob, encoding, &Limits::default(), &options, file)?;
    if made.diff_id != layer.diff_id {
        return Err(Error::WrongLayer {
            digest: layer.blob.digest,
            found: made.diff_id,
            wanted: layer.diff_id,
        });
    }
    store.adopt_blob(&path, &made.blob.digest)?;
    store.put_variant(layer.diff_id, compression, level, &made.blob)?;
    Ok(made.blob)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Origin;
    use crate::layer::DiffId;
    use crate::registry::{Digest, media_type};

    fn layer(media_type: &str) -> Layer {
        let digest = Digest::sha256(b"layer");
        Layer {
            diff_id: DiffId(digest),
            blob: Descriptor::new(media_type, digest, 1),
            origin: Origin::Store,
        }
    }

    #[test]
    fn what_is_there_is_left_alone_unless_it_is_asked_for() {
        use Compression::{Gzip, None as Plain, Zstd};
        let form = |compression, level, force| Form {
            compression,
            level,
            force,
            ..Form::default()
        };
        let change = |form: &Form, media_type, is_given| {
            let wanted = form.change(&layer(media_type), is_given)?;
            Some((wanted.compression, wanted.level))
        };
        let (gzip, docker) = (media_type::LAYER_GZIP, media_type::DOCKER_LAYER_GZIP);
        let zstd = form(Some(Zstd), None, false);
        for (form, media_type, is_given, want) in [
            (&Form::default(), media_type::LAYER_ZSTD, false, None),
            (&zstd, gzip, false, Some((Zstd, None))),
            (&zstd, gzip, true, None),
            (&zstd, media_type::LAYER_ZSTD, false, None),
            (&form(Some(Gzip), None, true), docker, true, None),
            (
                &form(Some(Zstd), None, true),
                docker,
                true,
                Some((Zstd, None)),
            ),
            (
                &form(None, Some(9), false),
                gzip,
                false,
                Some((Gzip, Some(9))),
            ),
            (
                &form(Some(Plain), Some(3), false),
                gzip,
                false,
                Some((Plain, None)),
            ),
            (&zstd, "application/x", false, Some((Zstd, None))),
        ] {
            assert_eq!(
                change(form, media_type, is_given),
                want,
                "{form:?} {media_type}"
            );
        }
    }
}
