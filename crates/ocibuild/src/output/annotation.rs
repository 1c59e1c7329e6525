//! Annotations as buildx writes them: `[type[platform],…:]key=value`.

use std::collections::BTreeMap;

use crate::registry::Platform;

/// What an annotation is written into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AnnotationPlace {
    /// The manifest of an image.
    #[default]
    Manifest,
    /// Its descriptor: in the index of platforms, of a single image in that of a layout.
    ManifestDescriptor,
    /// The index of platforms.
    Index,
    /// The descriptor of that index, in the index of a layout.
    IndexDescriptor,
}

/// A text of an image or index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// Where it goes.
    pub place: AnnotationPlace,
    /// For this platform only.
    pub platform: Option<Platform>,
    /// Its name.
    pub key: String,
    /// The text.
    pub value: String,
}

/// A text that is no annotation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid annotation {text:?}: {reason}")]
pub struct InvalidAnnotation {
    /// The text.
    pub text: String,
    /// Why.
    pub reason: String,
}

const WANTED: &str = "want [TYPE[[PLATFORM]],…:]KEY=VALUE";

impl Annotation {
    /// Reads `[TYPE[[PLATFORM]],…:]KEY=VALUE`, where the types are `manifest`, `index`,
    /// `manifest-descriptor` and `index-descriptor`; gives one annotation for each.
    pub fn parse(text: &str) -> Result<Vec<Self>, InvalidAnnotation> {
        let invalid = |reason: String| InvalidAnnotation {
            text: text.to_owned(),
            reason,
        };
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| invalid(WANTED.to_owned()))?;
        let (places, key) = name.split_once(':').unwrap_or(("manifest", name));
        if key.is_empty() {
            return Err(invalid(WANTED.to_owned()));
        }
        let places = places.split(',').map(|place| {
            let (place, platform) = place_of(place).map_err(invalid)?;
            Ok(Self {
                place,
                platform,
                key: key.to_owned(),
                value: value.to_owned(),
            })
        });
        places.collect()
    }

    /// Reads the key of an output, `annotation[-TYPE][[PLATFORM]].KEY`; none where it is
    /// another key.
    pub fn of_output(key: &str, value: &str) -> Option<Result<Self, InvalidAnnotation>> {
        let rest = key.strip_prefix("annotation")?;
        let (place, key) = rest.split_once('.')?;
        let place = match place.strip_prefix('-') {
            Some(place) => place.to_owned(),
            None => format!("manifest{place}"),
        };
        let mut read = Self::parse(&format!("{place}:{key}={value}"));
        Some(
            read.as_mut()
                .map_err(|error| error.clone())
                .and_then(|all| {
                    all.pop().ok_or_else(|| InvalidAnnotation {
                        text: key.to_owned(),
                        reason: WANTED.to_owned(),
                    })
                }),
        )
    }
}

fn place_of(text: &str) -> Result<(AnnotationPlace, Option<Platform>), String> {
    let (place, platform) = match text.strip_suffix(']').and_then(|text| text.split_once('[')) {
        Some((place, platform)) => (place, Some(platform)),
        None => (text, None),
    };
    let place = match place {
        "manifest" => AnnotationPlace::Manifest,
        "manifest-descriptor" => AnnotationPlace::ManifestDescriptor,
        "index" => AnnotationPlace::Index,
        "index-descriptor" => AnnotationPlace::IndexDescriptor,
        other => return Err(format!("unknown type {other:?}")),
    };
    let platform = platform.map(|text| text.parse::<Platform>().map(Platform::normalized));
    let platform = platform.transpose().map_err(|error| error.to_string())?;
    Ok((place, platform))
}

/// Gives the annotations of a place, of a platform where it is one's.
pub(crate) fn of_place(
    all: &[Annotation],
    place: AnnotationPlace,
    platform: Option<&Platform>,
) -> BTreeMap<String, String> {
    let is_meant = |wanted: &Option<Platform>| match (wanted, platform) {
        (None, _) => true,
        (Some(wanted), Some(platform)) => wanted.matches(platform),
        (Some(_), None) => false,
    };
    all.iter()
        .filter(|annotation| annotation.place == place && is_meant(&annotation.platform))
        .map(|annotation| (annotation.key.clone(), annotation.value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(place: AnnotationPlace, platform: Option<&str>, key: &str, value: &str) -> Annotation {
        Annotation {
            place,
            platform: platform.map(|text| text.parse().unwrap()),
            key: key.to_owned(),
            value: value.to_owned(),
        }
    }

    #[test]
    fn annotations_have_the_forms_of_buildx() {
        use AnnotationPlace::{Index, IndexDescriptor, Manifest, ManifestDescriptor};
        let amd = Some("linux/amd64");
        for (text, want) in [
            ("a.b=c=d", vec![one(Manifest, None, "a.b", "c=d")]),
            ("index:a=", vec![one(Index, None, "a", "")]),
            (
                "index,manifest[linux/amd64]:a=b",
                vec![one(Index, None, "a", "b"), one(Manifest, amd, "a", "b")],
            ),
            (
                "manifest-descriptor,index-descriptor:a=b",
                vec![
                    one(ManifestDescriptor, None, "a", "b"),
                    one(IndexDescriptor, None, "a", "b"),
                ],
            ),
        ] {
            assert_eq!(Annotation::parse(text).unwrap(), want, "{text}");
        }
        for text in [
            "a",
            "=b",
            "index:=b",
            "layer:a=b",
            "manifest[x/y/z/w]:a=b",
            ":a=b",
        ] {
            assert!(Annotation::parse(text).is_err(), "{text}");
        }
        let of_output = |key| Annotation::of_output(key, "v").map(Result::unwrap);
        assert_eq!(
            of_output("annotation.org.x"),
            Some(one(Manifest, None, "org.x", "v"))
        );
        assert_eq!(
            of_output("annotation-manifest[linux/amd64].k"),
            Some(one(Manifest, amd, "k", "v"))
        );
        assert_eq!(
            of_output("annotation-index.k"),
            Some(one(Index, None, "k", "v"))
        );
        assert_eq!(of_output("dest"), None);
        assert!(
            Annotation::of_output("annotation-layer.k", "v")
                .unwrap()
                .is_err()
        );
    }
}
