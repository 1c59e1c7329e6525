//! A cache in an OCI image layout in a directory.

use std::path::Path;
use std::{fs, io};

use super::document::MAX_CONFIG;
use super::shared::Error;
use crate::registry::{Descriptor, Digest, Index, Manifest};
use crate::source;

/// The annotation with the tag of an image in a layout.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Reads the manifest of a cache and its configuration.
pub(crate) fn read(path: &Path, tag: Option<&str>) -> Result<(Manifest, Vec<u8>), Error> {
    let refused = |reason: String| Error::Refused {
        place: path.display().to_string(),
        reason,
    };
    let index_path = path.join("index.json");
    if !index_path.exists() {
        return Err(Error::Missing(path.display().to_string()));
    }
    let bytes = bounded(&index_path)?;
    let index: Index = parse(&bytes).map_err(refused)?;
    let named = |image: &&Descriptor| {
        let name = image.annotations.get(REF_NAME).map(String::as_str);
        tag.is_none() || name == tag
    };
    let found: Vec<&Descriptor> = index.manifests.iter().filter(named).collect();
    let [image] = found[..] else {
        let tag = tag.unwrap_or_default();
        return Err(refused(format!(
            "{} of its images have the tag {tag:?}",
            found.len()
        )));
    };
    let bytes = blob(path, &image.digest)?;
    let manifest: Manifest = parse(&bytes).map_err(refused)?;
    let config = blob(path, &manifest.config.digest)?;
    Ok((manifest, config))
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

fn blob(layout: &Path, digest: &Digest) -> Result<Vec<u8>, Error> {
    let bytes = bounded(&source::layout_blob(layout, digest))?;
    if Digest::sha256(&bytes) != *digest {
        return Err(source::Error::Damaged {
            digest: *digest,
            path: layout.to_owned(),
        }
        .into());
    }
    Ok(bytes)
}

/// Reads a file that is not too large.
fn bounded(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| source::Error::Layout {
        path: path.to_owned(),
        source,
    };
    let file = fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    let read = io::Read::read_to_end(&mut io::Read::take(file, MAX_CONFIG + 1), &mut bytes);
    read.map_err(failed)?;
    if bytes.len() as u64 > MAX_CONFIG {
        return Err(failed(io::ErrorKind::FileTooLarge.into()).into());
    }
    Ok(bytes)
}
