//! Archives: a tar of an OCI image layout, and the tar that `docker load` reads. The
//! second is the first with Docker's `manifest.json` beside the index, so that every
//! tool finds what it knows.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Serialize;

use super::layout::{LAYOUT, index_bytes, named_descriptors};
use super::{Error, Finished, at, folder_of, persist, temporary};
use crate::content::ContentStore;
use crate::layer::{Compression, EntryMeta, Kind, LayerWriter, Options, TreePath};
use crate::registry::Digest;

/// Docker's own list of images.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// Writes a tar of an OCI image layout.
pub fn write_oci(store: &ContentStore, image: &Finished, dest: &Path) -> Result<(), Error> {
    write(store, image, dest, None)
}

/// Writes a tar that `docker load` reads.
pub fn write_docker(store: &ContentStore, image: &Finished, dest: &Path) -> Result<(), Error> {
    let images = image.content.images().iter().map(|documents| DockerImage {
        config: blob_name(&documents.config.descriptor.digest),
        repo_tags: image.names.clone(),
        layers: documents
            .layers
            .iter()
            .map(|layer| blob_name(&layer.digest))
            .collect(),
    });
    let images: Vec<DockerImage> = images.collect();
    let list = serde_json::to_vec(&images).expect("the list has only string keys");
    write(store, image, dest, Some(list))
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// What a file of the archive holds.
enum Member {
    Folder,
    Bytes(Vec<u8>),
    Blob { digest: Digest, size: u64 },
}

/// Gives the members in the order of the tar; layers that are one blob are one member.
fn members(image: &Finished, docker: Option<Vec<u8>>) -> BTreeMap<TreePath, Member> {
    let mut members = BTreeMap::new();
    let mut add = |name: &str, member| {
        let path = TreePath::parse(name).expect("our own names stay inside");
        members.insert(path, member);
    };
    add("blobs", Member::Folder);
    add("blobs/sha256", Member::Folder);
    for layer in image.content.layers() {
        let blob = Member::Blob {
            digest: layer.digest,
            size: layer.size,
        };
        add(&blob_name(&layer.digest), blob);
    }
    for document in image.content.documents() {
        let name = blob_name(&document.descriptor.digest);
        add(&name, Member::Bytes(document.bytes.clone()));
    }
    if let Some(list) = docker {
        add("manifest.json", Member::Bytes(list));
    }
    add("oci-layout", Member::Bytes(LAYOUT.to_vec()));
    let index = index_bytes(named_descriptors(image));
    add("index.json", Member::Bytes(index));
    members
}

fn write(
    store: &ContentStore,
    image: &Finished,
    dest: &Path,
    docker: Option<Vec<u8>>,
) -> Result<(), Error> {
    let file = temporary(folder_of(dest))?;
    let options = Options {
        compression: Compression::None,
        ..Options::default()
    };
    let mut tar = LayerWriter::new(options, at(file.reopen(), "open", dest)?)?;
    for (path, member) in members(image, docker) {
        append(store, &mut tar, path, &member, image.created)?;
    }
    tar.finish()?;
    persist(file, dest)
}

fn append(
    store: &ContentStore,
    tar: &mut LayerWriter<File>,
    path: TreePath,
    member: &Member,
    mtime: i64,
) -> Result<(), Error> {
    let folder = EntryMeta {
        mtime,
        ..EntryMeta::dir(path)
    };
    let file = |size| EntryMeta {
        kind: Kind::File(size),
        mode: 0o644,
        ..folder.clone()
    };
    match member {
        Member::Folder => tar.append(&folder, None)?,
        Member::Bytes(bytes) => {
            let mut content = bytes.as_slice();
            tar.append(
                &file(bytes.len() as u64),
                Some(&mut content as &mut dyn Read),
            )?;
        }
        Member::Blob { digest, size } => {
            let mut content = store.open_blob(digest)?;
            tar.append(&file(*size), Some(&mut content))?;
        }
    }
    Ok(())
}
