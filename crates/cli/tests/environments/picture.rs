//! An image in words that two builds can be compared by.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use ocibuild::layer::{Encoding, Entry, Kind, Limits, Toc, TreePath, read_layer};
use ocibuild::registry::{Descriptor, Digest, Index, Manifest};
use ocibuild::snapshot::RootView;
use serde_json::Value;

/// One image of a layout.
pub(crate) struct Picture {
    pub(crate) digest: String,
    layout: PathBuf,
    config: Value,
    /// Without those of the base image, which nobody has changed.
    layers: Vec<(Descriptor, Arc<Toc>)>,
}

impl Picture {
    /// Reads an image by the digest of its manifest; layers of `bases` are passed over.
    pub(crate) fn read(layout: &Path, digest: &str, bases: &[Digest]) -> Self {
        let json = |digest: &str| -> Vec<u8> {
            let file = blob(layout, digest);
            std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        };
        let manifest: Manifest = serde_json::from_slice(&json(digest)).unwrap();
        let config: Value =
            serde_json::from_slice(&json(&manifest.config.digest.to_string())).unwrap();
        let own = |layer: &Descriptor| !bases.contains(&layer.digest);
        let layers = manifest.layers.into_iter().filter(own).map(|layer| {
            let encoding = Encoding::of_media_type(&layer.media_type);
            let file = BufReader::new(File::open(blob(layout, &layer.digest.to_string())).unwrap());
            let toc = read_layer(file, encoding, &Limits::default(), &mut ())
                .unwrap()
                .toc;
            (layer, toc)
        });
        Self {
            digest: digest.to_owned(),
            layout: layout.to_owned(),
            config,
            layers: layers.collect(),
        }
    }

    /// What is different in another one, if that may differ in the content of some files.
    pub(crate) fn differences(&self, other: &Self, varying: &[String]) -> Vec<String> {
        if self.digest == other.digest {
            return Vec::new();
        }
        let (one, two) = (self.lines(varying), other.lines(varying));
        let only =
            |mark: char, lines: &BTreeMap<String, String>, rest: &BTreeMap<String, String>| {
                let lines = lines
                    .iter()
                    .filter(|(path, line)| rest.get(*path) != Some(*line));
                lines
                    .map(|(path, line)| format!("{mark} {path} {line}"))
                    .collect::<Vec<_>>()
            };
        let mut found = [only('-', &one, &two), only('+', &two, &one)].concat();
        found.sort_by(|one, two| one[2..].cmp(&two[2..]));
        found
    }

    /// A line for every entry and every value of the configuration.
    fn lines(&self, varying: &[String]) -> BTreeMap<String, String> {
        let mut lines = BTreeMap::new();
        for (number, (_, toc)) in self.layers.iter().enumerate() {
            for entry in toc.entries().iter().filter(|entry| !entry.implicit) {
                let content = match &entry.kind {
                    Kind::File(_) if varies(&entry.path, varying) => "varies".to_owned(),
                    Kind::File(content) => content.digest.to_string(),
                    _ => String::new(),
                };
                let line = format!("{} {} {content}", describe(entry), entry.mtime);
                lines.insert(format!("{number}:{}", entry.path), line);
            }
            for path in toc.whiteouts() {
                lines.insert(format!("{number}:!{path}"), String::new());
            }
        }
        let mut config = self.config.clone();
        // They tell of the bytes of the layers, which were compared.
        if let Some(config) = config.as_object_mut() {
            config.remove("rootfs");
        }
        lines.insert("config".to_owned(), config.to_string());
        lines
    }

    /// Whether a text is anywhere in the configuration or in what our layers hold.
    pub(crate) fn contains(&self, text: &str) -> bool {
        let within = |bytes: &[u8]| {
            bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes())
        };
        self.config.to_string().contains(text)
            || self.layers.iter().any(|(layer, _)| {
                let file = File::open(blob(&self.layout, &layer.digest.to_string())).unwrap();
                let mut tar = Vec::new();
                MultiGzDecoder::new(BufReader::new(file))
                    .read_to_end(&mut tar)
                    .unwrap();
                within(&tar)
            })
    }

    /// What is at a path; none where no layer of ours has it.
    pub(crate) fn at(&self, path: &str) -> Option<String> {
        let path = TreePath::parse(path).unwrap();
        let tocs: Vec<_> = self.layers.iter().map(|(_, toc)| toc.clone()).collect();
        RootView::new(&tocs)
            .lookup(&path)
            .map(|found| describe(found.entry))
    }

    /// Whether any layer of ours says something of a path, if only that it is gone.
    pub(crate) fn mentions(&self, path: &str) -> bool {
        let path = TreePath::parse(path).unwrap();
        let mut tocs = self.layers.iter().map(|(_, toc)| toc);
        tocs.any(|toc| {
            toc.get(&path).is_some_and(|entry| !entry.implicit) || toc.whiteouts().contains(&path)
        })
    }

    /// What one layer of ours has: entries, then whiteouts with a `!`.
    pub(crate) fn layer(&self, number: usize) -> Option<Vec<String>> {
        let (_, toc) = self.layers.get(number)?;
        let entries = toc.entries().iter().filter(|entry| !entry.implicit);
        let removed = toc.whiteouts().iter().map(|path| format!("!{path}"));
        Some(
            entries
                .map(|entry| entry.path.to_string())
                .chain(removed)
                .collect(),
        )
    }

    /// The content of a file in the uppermost layer that has it.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        let wanted = TreePath::parse(path).unwrap();
        let has = |toc: &Toc| toc.get(&wanted).is_some_and(|entry| !entry.implicit);
        let (layer, _) = self.layers.iter().rev().find(|(_, toc)| has(toc))?;
        let file = File::open(blob(&self.layout, &layer.digest.to_string())).unwrap();
        let mut tar = tar::Archive::new(MultiGzDecoder::new(BufReader::new(file)));
        let mut entries = tar.entries().unwrap().map(Result::unwrap);
        let mut entry = entries.find(|entry| *entry.path_bytes() == *wanted.as_bytes())?;
        let mut text = Vec::new();
        entry.read_to_end(&mut text).unwrap();
        Some(String::from_utf8_lossy(&text).into_owned())
    }
}

fn blob(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs").join(digest.replace(':', "/"))
}

fn varies(path: &TreePath, varying: &[String]) -> bool {
    let path = path.to_string();
    let path = path.trim_start_matches('/');
    varying.iter().any(|name| match name.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => path == *name,
    })
}

/// `0644 0:0 file`, `0777 0:0 -> target`, `0666 0:0 char 1:3`, and attributes.
fn describe(entry: &Entry) -> String {
    let kind = match &entry.kind {
        Kind::Dir => "dir".to_owned(),
        Kind::File(_) => "file".to_owned(),
        Kind::Symlink { target } => format!("-> {}", String::from_utf8_lossy(target)),
        Kind::Hardlink { target } => format!("= {target}"),
        Kind::Char { major, minor } => format!("char {major}:{minor}"),
        Kind::Block { major, minor } => format!("block {major}:{minor}"),
        Kind::Fifo => "fifo".to_owned(),
    };
    let hex = |value: &[u8]| {
        value
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let attributes: String = entry
        .xattrs
        .iter()
        .map(|(name, value)| format!(" {}={}", String::from_utf8_lossy(name), hex(value)))
        .collect();
    format!(
        "{:04o} {}:{} {kind}{attributes}",
        entry.mode, entry.uid, entry.gid
    )
}

/// The layers of the images of a layout.
pub(crate) fn layers_of(layout: &Path) -> Vec<Digest> {
    let index = std::fs::read(layout.join("index.json")).unwrap();
    let index: Index = serde_json::from_slice(&index).unwrap();
    let images = index.manifests.iter().map(|image| {
        let manifest = std::fs::read(blob(layout, &image.digest.to_string())).unwrap();
        serde_json::from_slice::<Manifest>(&manifest).unwrap()
    });
    images
        .flat_map(|image| image.layers)
        .map(|layer| layer.digest)
        .collect()
}
