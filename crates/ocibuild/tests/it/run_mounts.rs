//! `RUN --mount` in whole builds, real commands over busybox. The numbers are those of
//! the behaviours of the reference builder that a test pins: B64 mounts, B65 caches,
//! B66 secrets, B67 agents.

mod agents;
mod binds;
mod caches;
mod secrets;

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use ocibuild::error::ErrorKind;
use ocibuild::testing::ContextDir;
use ocibuild::{Build, Event, EventSink, Secret};

use crate::built::Workshop;

/// A build of instructions over busybox.
fn build(workshop: &Workshop, instructions: &str) -> Build {
    let text = format!("FROM busybox\n{instructions}\n");
    // What a build needs of a context is read before it runs; this one is kept.
    let context = ContextDir::new()
        .file("Dockerfile", text)
        .file("f", "from the context\n")
        .file("dir/g", "deeper\n")
        .file(".dockerignore", "hidden\n")
        .file("hidden", "never seen\n");
    let build = workshop.build(&context);
    workshop.keep(context);
    build
}

fn message(workshop: &Workshop, build: Build) -> String {
    let error = workshop.fails(build);
    let mut text = error.to_string();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&error);
    while let Some(error) = cause {
        if !text.ends_with(&error.to_string()) {
            text = format!("{text}: {error}");
        }
        cause = error.source();
    }
    if let Some(hint) = error.hint() {
        text = format!("{text} ({hint})");
    }
    text
}

/// The paths of a store in whose files or names a text is.
fn files_with(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = path.symlink_metadata().unwrap().file_type();
        if kind.is_dir() {
            found.extend(files_with(&path, text));
        } else if path.to_string_lossy().contains(text)
            || (kind.is_file() && contains(&std::fs::read(&path).unwrap(), text))
        {
            found.push(path);
        }
    }
    found
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}

/// A connection that a command makes and that holds it until it is closed.
pub(crate) fn gate() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, format!("nc 127.0.0.1 {port} < /dev/null"))
}
