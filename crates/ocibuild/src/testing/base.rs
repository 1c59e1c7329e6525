//! A base image of busybox in an OCI image layout (image-spec, image-layout.md), made
//! from the statically linked busybox of the machine.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use ocibuild_registry::{Descriptor, Digest, Index, Manifest, Platform, media_type};
use tar::{Builder, EntryType, Header};

const BUSYBOX: &str = "/bin/busybox";
const MTIME: u64 = 1_700_000_000;

/// Tells whether this machine has a busybox to make images of.
pub fn has_busybox() -> bool {
    Path::new(BUSYBOX).is_file()
}

/// Writes an image layout with one image named `tag` into `dir` and gives the descriptor
/// of its manifest. The image has every applet of busybox in `/bin`, `/etc/passwd`,
/// `/etc/group`, a `/tmp` for everyone, and `sh` as its command.
///
/// # Panics
///
/// If there is no static busybox at `/bin/busybox`, or `dir` cannot be written.
pub fn busybox_layout(dir: &Path, tag: &str) -> Descriptor {
    let busybox = fs::read(BUSYBOX).expect("/bin/busybox: install busybox-static");
    let layer = layer(&busybox).expect("a tar in memory");
    let diff_id = Digest::sha256(&layer);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&layer).expect("gzip in memory");
    let layer = gzip.finish().expect("gzip in memory");

    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("make the blob directory");
    let store = |media_type: &str, bytes: &[u8]| {
        let descriptor = Descriptor::of(media_type, bytes);
        fs::write(blobs.join(descriptor.digest.hex()), bytes).expect("write a blob");
        descriptor
    };
    let manifest = json(&Manifest {
        schema_version: 2,
        media_type: Some(media_type::MANIFEST.to_owned()),
        config: store(media_type::CONFIG, &config(&diff_id)),
        layers: vec![store(media_type::LAYER_GZIP, &layer)],
        annotations: Default::default(),
    });
    let manifest = store(media_type::MANIFEST, &manifest);

    let mut named = manifest.clone();
    named.annotations.insert(
        "org.opencontainers.image.ref.name".to_owned(),
        tag.to_owned(),
    );
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type::INDEX.to_owned()),
        manifests: vec![named],
        annotations: Default::default(),
    };
    fs::write(dir.join("index.json"), json(&index)).expect("write index.json");
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
        .expect("write oci-layout");
    manifest
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain data becomes JSON")
}

fn config(diff_id: &Digest) -> Vec<u8> {
    let platform = Platform::host();
    json(&serde_json::json!({
        "created": "2023-11-14T22:13:20Z",
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["sh"],
        },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        "history": [{ "created": "2023-11-14T22:13:20Z", "created_by": "busybox" }],
    }))
}

fn layer(busybox: &[u8]) -> io::Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for directory in [
        "bin", "dev", "etc", "home", "proc", "sys", "usr", "usr/bin", "var",
    ] {
        directory_entry(&mut tar, directory, 0o755)?;
    }
    directory_entry(&mut tar, "root", 0o700)?;
    directory_entry(&mut tar, "tmp", 0o1777)?;
    file_entry(&mut tar, "bin/busybox", 0o755, busybox)?;
    for applet in applets() {
        let mut header = header(EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n";
    file_entry(&mut tar, "etc/passwd", 0o644, passwd.as_bytes())?;
    let group = "root:x:0:\nnogroup:x:65534:\n";
    file_entry(&mut tar, "etc/group", 0o644, group.as_bytes())?;
    tar.into_inner()
}

/// Lists what this busybox can do, in the order in which it says it.
fn applets() -> Vec<String> {
    let listed = Command::new(BUSYBOX)
        .arg("--list")
        .output()
        .expect("run busybox --list");
    String::from_utf8_lossy(&listed.stdout)
        .lines()
        .filter(|name| !name.is_empty() && *name != "busybox")
        .map(str::to_owned)
        .collect()
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(MTIME);
    header.set_size(size);
    header
}

fn directory_entry(tar: &mut Builder<Vec<u8>>, path: &str, mode: u32) -> io::Result<()> {
    let mut header = header(EntryType::Directory, mode, 0);
    tar.append_data(&mut header, format!("{path}/"), io::empty())
}

fn file_entry(tar: &mut Builder<Vec<u8>>, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut header = header(EntryType::Regular, mode, content.len() as u64);
    tar.append_data(&mut header, path, content)
}
