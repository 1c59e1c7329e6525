//! The rooms of the library one by one: what each does with an input of a usual shape, as a
//! value that can be called again and again. The bench target `rooms` measures them; `room` runs
//! one of them for whoever counts instructions.

use std::collections::HashMap;
use std::fs;
use std::hint::black_box;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ocibuild::context::Context;
use ocibuild::context::ignore::IgnoreMatcher;
use ocibuild::dockerfile::words::expand;
use ocibuild::dockerfile::{self, Escape};
use ocibuild::executor::Identity;
use ocibuild::graph::key::KeyBuilder;
use ocibuild::layer::{
    Compression, Encoding, EntryMeta, Kind, LayerWriter, Limits, Options, Toc, TreePath, read_layer,
};
use ocibuild::snapshot::{RootView, diff, unpack};
use tempfile::TempDir;

use crate::workload::{self, Random};

/// Every room, in the order in which data passes.
pub const ROOMS: [&str; 12] = [
    "parse", "expand", "ignore", "walk", "hash", "key", "tar", "gzip", "zstd", "unpack", "diff",
    "merge",
];

/// The rooms whose instructions are counted: they do nothing but compute.
pub const COUNTED: [&str; 3] = ["parse", "ignore", "tar"];

/// Work that can be done again and again.
pub struct Room {
    work: Box<dyn FnMut()>,
    /// Bytes that it goes through, where it goes through bytes.
    pub bytes: Option<u64>,
}

impl Room {
    fn new(work: impl FnMut() + 'static) -> Self {
        Self {
            work: Box::new(work),
            bytes: None,
        }
    }

    fn over(bytes: u64, work: impl FnMut() + 'static) -> Self {
        Self {
            bytes: Some(bytes),
            ..Self::new(work)
        }
    }

    /// Does the work once.
    #[inline(never)]
    pub fn enter(&mut self) {
        (self.work)();
    }
}

/// Makes a room ready; `size` is how much it has to do, 1 for a usual build.
///
/// # Panics
///
/// When there is no such room, or its input cannot be made.
pub fn room(name: &str, size: usize) -> Room {
    match name {
        "parse" => parse(size),
        "expand" => expansion(size),
        "ignore" => ignore(size),
        "walk" => walk(size),
        "hash" => hash(size),
        "key" => key(size),
        "tar" => tar(size),
        "gzip" => packed(Compression::Gzip, size),
        "zstd" => packed(Compression::Zstd, size),
        "unpack" => unpacked(size),
        "diff" => difference(size),
        "merge" => merge(size),
        other => panic!("there is no room {other:?}"),
    }
}

/// A Dockerfile of several stages with all that is usual in one.
fn dockerfile_text(stages: usize) -> String {
    let mut text = "# syntax=docker/dockerfile:1\nARG VERSION=3.11\n".to_owned();
    for stage in 0..stages {
        text += &format!(
            "FROM python:${{VERSION}}-slim AS stage{stage}\n\
             ENV PATH=/opt/venv/bin:$PATH \\\n    LANG=C.UTF-8\n\
             WORKDIR /app\n\
             COPY --chown=1000:1000 requirements.txt pyproject.toml ./\n\
             RUN --mount=type=cache,target=/root/.cache/pip \\\n    \
             apt-get update && apt-get install -y --no-install-recommends gcc libpq-dev \\\n    \
             # a comment between\n    && pip install -r requirements.txt\n\
             COPY [\"src/\", \"/app/src/\"]\n\
             RUN <<EOF\nset -e\necho \"building $VERSION\"\nmake all\nEOF\n\
             HEALTHCHECK --interval=30s CMD curl -f http://localhost/ || exit 1\n\
             EXPOSE 8080/tcp\nUSER 1000\n\
             LABEL org.opencontainers.image.title=\"an app\" version=$VERSION\n\
             CMD [\"python\", \"-m\", \"app\"]\n\n"
        );
    }
    text
}

fn parse(size: usize) -> Room {
    let text = dockerfile_text(10 * size);
    Room::over(text.len() as u64, move || {
        black_box(dockerfile::parse(&text).expect("a Dockerfile"));
    })
}

fn expansion(size: usize) -> Room {
    let names: HashMap<String, String> = (0..50)
        .map(|number| (format!("NAME_{number}"), format!("value of {number}")))
        .collect();
    let words: Vec<String> = (0..1_000 * size)
        .map(|number| {
            let name = number % 60;
            format!("/opt/${{NAME_{name}:-none}}/'quoted $x'/\"${{NAME_1%of*}}\"/\\$plain-$NAME_2")
        })
        .collect();
    Room::new(move || {
        let lookup = |name: &str| names.get(name).cloned();
        for word in &words {
            black_box(expand(word, Escape::Backslash, &lookup).expect("a word"));
        }
    })
}

fn ignore(size: usize) -> Room {
    let rules = "*.pyc\n**/__pycache__\n.git\nnode_modules\n**/*.log\n!keep.log\nbuild/**/out\n\
        docs/*.md\n!docs/README.md\n[a-c]*/tmp?\n**/test/**/*.snap\n*.swp\n";
    let rules = IgnoreMatcher::parse(rules).expect("rules");
    let folders = [
        "src",
        "docs",
        "build/a/out",
        "pkg/test/x",
        "node_modules/left-pad",
        "abc/tmp1",
    ];
    let names = [
        "main.py",
        "main.pyc",
        "README.md",
        "keep.log",
        "a.log",
        "x.snap",
    ];
    let paths: Vec<String> = (0..2_000 * size)
        .map(|number| {
            let folder = folders[number % folders.len()];
            format!(
                "{folder}/part{:03}/{}",
                number % 300,
                names[number % names.len()]
            )
        })
        .collect();
    Room::new(move || {
        let ignored = paths.iter().filter(|path| rules.matches(path)).count();
        black_box(ignored);
    })
}

/// Small files in a few folders.
fn files(size: usize) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let mut random = Random::new(3);
    for number in 0..1_000 * size {
        let path = format!(
            "d{:02}/s{:02}/file_{number:05}.txt",
            number % 20,
            number % 7
        );
        let length = 200 + random.below(4_800);
        workload::write(&folder.path().join(path), random.text(length).as_bytes()).expect("a file");
    }
    folder
}

fn walk(size: usize) -> Room {
    let folder = files(size);
    let rules = IgnoreMatcher::parse("*.pyc\n.git\n**/node_modules\n").expect("rules");
    Room::new(move || {
        let context = Context::scan(folder.path(), Some(&rules), None, None);
        black_box(context.expect("a context"));
    })
}

fn hash(size: usize) -> Room {
    let folder = files(size);
    Room::new(move || {
        let context = Context::scan(folder.path(), None, None, None).expect("a context");
        let paths: Vec<TreePath> = context
            .view()
            .walk(&TreePath::root())
            .filter(|found| matches!(found.entry.kind, Kind::File(_)))
            .map(|found| found.entry.path.clone())
            .collect();
        black_box(context.digests(&paths, 2).expect("digests"));
    })
}

fn key(size: usize) -> Room {
    let inputs: Vec<String> = (0..1_000 * size)
        .map(|number| format!("folder/file_{number:05}.txt\0 644 0 0 and a digest"))
        .collect();
    Room::new(move || {
        let key = KeyBuilder::new("copy")
            .part("below", "sha256:abc")
            .part("dest", "/app/");
        black_box(key.files("inputs", &inputs).finish());
    })
}

/// Entries in walk order with their contents.
fn entries(size: usize) -> Vec<(EntryMeta, Vec<u8>)> {
    let mut random = Random::new(5);
    let meta = |path: String, kind| EntryMeta {
        path: TreePath::parse(path.as_bytes()).expect("a path"),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: 1_700_000_000,
        xattrs: Vec::new(),
    };
    let mut entries = Vec::new();
    for folder in 0..20 {
        entries.push((meta(format!("d{folder:02}"), Kind::Dir), Vec::new()));
        for number in 0..50 * size {
            let length = 200 + random.below(8_000);
            let text = random.text(length).into_bytes();
            let path = format!("d{folder:02}/file_{number:05}");
            entries.push((meta(path, Kind::File(text.len() as u64)), text));
        }
    }
    entries
}

fn write(entries: &[(EntryMeta, Vec<u8>)], compression: Compression) -> (Vec<u8>, Arc<Toc>) {
    let options = Options {
        compression,
        threads: 1,
        ..Options::default()
    };
    let mut layer = LayerWriter::new(options, Vec::new()).expect("a layer");
    for (meta, text) in entries {
        let mut content = &text[..];
        let content =
            matches!(meta.kind, Kind::File(_)).then_some(&mut content as &mut dyn io::Read);
        layer.append(meta, content).expect("an entry");
    }
    let (finished, blob) = layer.finish().expect("a layer");
    (blob, finished.toc)
}

fn bytes_of(entries: &[(EntryMeta, Vec<u8>)]) -> u64 {
    entries.iter().map(|(_, text)| text.len() as u64).sum()
}

fn tar(size: usize) -> Room {
    packed(Compression::None, size)
}

fn packed(compression: Compression, size: usize) -> Room {
    let entries = entries(size);
    Room::over(bytes_of(&entries), move || {
        black_box(write(&entries, compression));
    })
}

fn unpacked(size: usize) -> Room {
    let entries = entries(size);
    let (blob, _) = write(&entries, Compression::Gzip);
    let folder = tempfile::tempdir().expect("a folder");
    let mut number = 0;
    Room::over(bytes_of(&entries), move || {
        // Removed when the room goes, not while it is measured.
        number += 1;
        let tree = folder.path().join(number.to_string());
        let options = unpack::Options::new(Identity::Single);
        black_box(unpack::unpack(&blob[..], &tree, &options).expect("a tree"));
    })
}

fn unpacked_tree(entries: &[(EntryMeta, Vec<u8>)], at: &Path) -> PathBuf {
    let (blob, _) = write(entries, Compression::None);
    let tree = at.join("tree");
    let options = unpack::Options::new(Identity::Single);
    unpack::unpack(&blob[..], &tree, &options).expect("a tree");
    fs::canonicalize(tree).expect("a path")
}

fn difference(size: usize) -> Room {
    let entries = entries(size);
    let folder = tempfile::tempdir().expect("a folder");
    let upper = unpacked_tree(&entries, folder.path());
    let lowers = RootView::new(&[write(&entries[..entries.len() / 2], Compression::None).1]);
    Room::over(bytes_of(&entries), move || {
        let _kept = &folder;
        let options = Options {
            compression: Compression::None,
            threads: 1,
            ..Options::default()
        };
        let mut layer = LayerWriter::new(options, io::sink()).expect("a layer");
        let how = diff::Options::new(Identity::Single);
        diff::diff(&upper, &lowers, &how, &mut layer).expect("a difference");
        black_box(layer.finish().expect("a layer").0);
    })
}

fn merge(size: usize) -> Room {
    let all = entries(2 * size);
    let layers: Vec<Arc<Toc>> = (0..8)
        .map(|number| {
            let part = all.iter().enumerate();
            let part = part.filter(|(at, (meta, _))| meta.kind.is_dir() || at % 8 >= number);
            let part: Vec<_> = part.map(|(_, entry)| entry.clone()).collect();
            let (blob, toc) = write(&part, Compression::None);
            let read = read_layer(&blob[..], Encoding::Plain, &Limits::default(), &mut ());
            assert_eq!(read.expect("a layer").toc, toc);
            toc
        })
        .collect();
    Room::new(move || {
        let view = RootView::new(&layers);
        black_box(view.walk(&TreePath::root()).count());
    })
}
