//! An OCI image layout in a directory (image-spec, image-layout.md). A layout that is
//! there already keeps its other images; the new one is named in its index last, so
//! that a reader never finds a name without its blobs.

use std::fs;
use std::path::Path;

use super::{Error, Finished, at, write_whole};
use crate::content::{ContentStore, IMAGE_NAME};
use crate::registry::{Descriptor, Digest, Index};

pub(crate) const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Writes the image into the layout at `dest`.
pub fn write(store: &ContentStore, image: &Finished, dest: &Path) -> Result<(), Error> {
    let index_path = dest.join("index.json");
    let mut manifests = existing(dest, &index_path)?;
    let blobs = dest.join("blobs/sha256");
    at(fs::create_dir_all(&blobs), "create", &blobs)?;
    for layer in image.content.layers() {
        copy_blob(store, &layer.digest, &blobs.join(layer.digest.hex()))?;
    }
    for document in image.content.documents() {
        let path = blobs.join(document.descriptor.digest.hex());
        write_bytes(&path, &document.bytes)?;
    }
    let new = named_descriptors(image);
    let name = |descriptor: &Descriptor| descriptor.annotations.get(REF_NAME).cloned();
    manifests.retain(|old| new.iter().all(|new| name(new) != name(old)));
    manifests.extend(new);
    write_bytes(&dest.join("oci-layout"), LAYOUT)?;
    write_bytes(&index_path, &index_bytes(manifests))
}

/// Gives the descriptors under which an index names the image: one a name, at least one.
pub(crate) fn named_descriptors(image: &Finished) -> Vec<Descriptor> {
    let plain = Descriptor {
        annotations: image.annotations.clone(),
        ..image.content.top().descriptor.clone()
    };
    if image.names.is_empty() {
        return vec![plain];
    }
    image
        .names
        .iter()
        .map(|name| {
            let mut descriptor = plain.clone();
            let tag = name.rsplit_once(':').map_or(name.as_str(), |(_, tag)| tag);
            let named = [(IMAGE_NAME, name.as_str()), (REF_NAME, tag)];
            let named = named.map(|(key, value)| (key.to_owned(), value.to_owned()));
            descriptor.annotations.extend(named);
            descriptor
        })
        .collect()
}

/// Gives the bytes of an index.
pub(crate) fn index_bytes(manifests: Vec<Descriptor>) -> Vec<u8> {
    serde_json::to_vec(&Index::of(manifests)).expect("an index has only string keys")
}

/// Gives what the index at the destination names already. A directory with other
/// things in it is refused: it is somebody's, not a layout.
fn existing(dest: &Path, index: &Path) -> Result<Vec<Descriptor>, Error> {
    if !dest.join("oci-layout").exists() {
        let occupied = fs::read_dir(dest).is_ok_and(|mut entries| entries.next().is_some());
        return match occupied {
            true => Err(Error::Occupied {
                path: dest.to_owned(),
            }),
            false => Ok(Vec::new()),
        };
    }
    let bytes = at(fs::read(index), "read", index)?;
    let parsed: Result<Index, _> = serde_json::from_slice(&bytes);
    Ok(at(parsed, "read the index", index)?.manifests)
}

/// A hard link where the file systems allow it, else a copy. A blob never changes, so
/// a link is as good.
fn copy_blob(store: &ContentStore, digest: &Digest, dest: &Path) -> Result<(), Error> {
    if dest.exists() {
        return Ok(());
    }
    let from = store.blob_path(digest);
    if fs::hard_link(&from, dest).is_ok() {
        return Ok(());
    }
    write_whole(dest, |file| {
        let mut blob = store.open_blob(digest)?;
        at(std::io::copy(&mut blob, file), "copy to", dest)?;
        Ok(())
    })
}

fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write_whole(path, |file| {
        at(std::io::Write::write_all(file, bytes), "write", path)
    })
}
