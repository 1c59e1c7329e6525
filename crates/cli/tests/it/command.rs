//! What the tests share: the command with a store, a base image and a home of its own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ocibuild::images::Images;
use ocibuild::registry::{Client, Reference};
use ocibuild::testing::{ContextDir, busybox_layout};
use ocibuild::{Build, ContextSource, NamedContext, Output};
use tempfile::TempDir;

/// A place to run the command in.
pub(crate) struct Place {
    folder: TempDir,
}

/// How the command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        busybox_layout(&folder.path().join("base"), "1");
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// The command with an environment of this place only; paths are relative to it.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ocibuild"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        ended(self.command(arguments).output().unwrap())
    }

    /// Runs the command with something on its standard input.
    pub(crate) fn run_with(&self, input: &[u8], arguments: &[&str]) -> Ended {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input).unwrap();
        drop(stdin);
        ended(child.wait_with_output().unwrap())
    }

    /// Runs `build` over a context with the store `store` and the base image `busybox`.
    pub(crate) fn build(&self, context: &ContextDir, more: &[&str]) -> Ended {
        self.build_of(context.path().to_str().unwrap(), more)
    }

    pub(crate) fn build_of(&self, context: &str, more: &[&str]) -> Ended {
        self.run(&build_arguments(context, more))
    }

    /// The folder of the work in progress is empty.
    pub(crate) fn assert_tidy(&self) {
        let left = std::fs::read_dir(self.path("store/tmp"))
            .into_iter()
            .flatten();
        assert_eq!(left.count(), 0, "work in progress is left");
    }

    /// Checks every claim of an image of the store.
    pub(crate) fn verify(&self, image: &str) -> serde_json::Value {
        let ended = self.run(&["inspect", "--root", "store", "--verify", image]);
        assert_eq!(ended.status, 0, "{}", ended.err);
        serde_json::from_str(&ended.out).unwrap()
    }

    /// Puts the base image into a registry.
    pub(crate) fn push_base(&self, reference: Reference) {
        let context = ContextDir::new().file("Dockerfile", "FROM busybox\n");
        let base = NamedContext::OciLayout {
            path: self.path("base"),
            name: None,
        };
        let source = ContextSource::Directory(context.path().to_owned());
        let build = Build::new(source, self.path("pushed-from"))
            .named_context("busybox", base)
            .output(Output::Registry(reference));
        wait(build.run()).unwrap();
    }
}

/// The arguments of a build over the base image `busybox`.
pub(crate) fn build_arguments<'a>(context: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let named = [
        "build",
        "--root",
        "store",
        "--build-context",
        "busybox=oci-layout://base:1",
    ];
    [&named, more, &[context]].concat()
}

pub(crate) fn ended(output: std::process::Output) -> Ended {
    Ended {
        status: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Waits for something asynchronous.
pub(crate) fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(work)
}

/// Pulls an image of a registry into a fresh store and checks every claim of it; gives
/// the digest of its manifest.
pub(crate) fn pull_and_validate(reference: &Reference) -> String {
    let folder = tempfile::tempdir().unwrap();
    let images = Images::open(folder.path()).unwrap();
    let client = Client::builder().build().unwrap();
    let platform = ocibuild::registry::Platform::host();
    let pulled = wait(images.pull(&client, reference, &platform)).unwrap();
    pulled.manifest.descriptor.digest.to_string()
}

/// Reads a JSON file.
pub(crate) fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
