//! A large layer is unpacked while it arrives, and is nothing before all of it is right.

use std::fs;
use std::path::{Path, PathBuf};

use ocibuild::error::ErrorKind;
use ocibuild::testing::ContextDir;
use ocibuild::{Cancel, Error, LayerSummary, Output};
use ocibuild_registry::testing::{Fault, Registry, noise};

use crate::built::{Workshop, skip, wait};
use crate::pipeline::{trees, until};

/// Larger than what is read only when all of it has come, and than one part of it.
const SIZE: usize = 20 << 20;

fn content() -> Vec<u8> {
    noise(1, SIZE)
}

/// Where a large base is, and the layer that makes it so.
struct Base {
    workshop: Workshop,
    registry: Registry,
    layer: LayerSummary,
}

impl Base {
    /// None where this process does not give the files of layers their owners itself.
    fn new() -> Option<Self> {
        let (workshop, registry) = (Workshop::new(), Registry::start().unwrap());
        let text = "FROM busybox\nRUN true\nCOPY files/ /files/\n";
        let context = ContextDir::new()
            .file("files/a", "first")
            .file("files/noise", content())
            .file("Dockerfile", text);
        let output = Output::Registry(registry.reference("base:1"));
        let build = workshop.build_in("other", &context).output(output);
        let image = wait(build.run()).unwrap();
        if !workshop.path("other").join("layers/real").exists() {
            skip("layers are unpacked by another process here");
            return None;
        }
        registry.clear_requests();
        let layer = image.layers.last().unwrap().clone();
        Some(Self {
            workshop,
            registry,
            layer,
        })
    }

    fn context(&self) -> ContextDir {
        let text = format!(
            "FROM {}/base:1\nCOPY f /f\nRUN sha256sum /files/noise > /sum\n",
            self.registry.host()
        );
        ContextDir::new().file("f", "text").file("Dockerfile", text)
    }

    fn blob(&self) -> String {
        format!("/v2/base/blobs/{}", self.layer.digest)
    }

    /// Nothing says that the layer is there.
    fn assert_absent(&self) {
        let (store, layer) = (self.workshop.store(), &self.layer);
        assert!(!store.join("blobs/sha256").join(layer.digest.hex()).exists());
        let unpacked = trees(&store);
        let hex = layer.diff_id.hex();
        assert!(unpacked.iter().all(|tree| !tree.ends_with(&hex)));
    }
}

/// Tells whether a file is in a tree that is work in progress.
fn grows(folder: &Path, name: &str) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folder.join(name).exists() || folders.any(|entry| grows(&entry.path(), name))
}

#[test]
fn a_large_layer_is_unpacked_while_it_arrives() {
    let Some(base) = Base::new() else {
        return;
    };
    base.registry
        .inject("GET", &base.blob(), 3, Fault::StallAfter(1000));
    let context = base.context();
    let cancel = Cancel::new();
    let build = base.workshop.build(&context).cancel(cancel.clone());
    let work = base.workshop.store().join("tmp");
    std::thread::scope(|scope| {
        let running = scope.spawn(|| wait(build.run()));
        assert!(until(|| grows(&work, "files/noise")), "it is waited for");
        base.assert_absent();
        let toc = base.workshop.store().join("tocs");
        assert!(!toc.join(base.layer.diff_id.hex()).exists());
        cancel.cancel();
        assert!(matches!(running.join().unwrap(), Err(Error::Cancelled)));
    });
    base.workshop.assert_tidy();
    base.assert_absent();

    let built = base.workshop.built(base.workshop.build(&context));
    let sum = ocibuild::registry::Digest::sha256(&content());
    assert_eq!(built.text("sum"), format!("{}  /files/noise\n", sum.hex()));
}

#[test]
fn a_large_layer_that_is_not_what_it_should_be_leaves_nothing() {
    let Some(base) = Base::new() else {
        return;
    };
    let stored = find(base.registry.folder(), base.layer.size).unwrap();
    let mut bytes = fs::read(&stored).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&stored, bytes).unwrap();
    let context = base.context();
    let error = base.workshop.fails(base.workshop.build(&context));
    assert_eq!(error.kind(), ErrorKind::Registry, "{error}");
    base.assert_absent();
}

/// Finds the file of so many bytes.
fn find(folder: &Path, bytes: u64) -> Option<PathBuf> {
    let mut entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries.find_map(|entry| match entry.metadata().unwrap() {
        found if found.is_dir() => find(&entry.path(), bytes),
        found => (found.len() == bytes).then(|| entry.path()),
    })
}

#[test]
fn builds_that_share_a_store_fetch_a_large_layer_once() {
    let Some(base) = Base::new() else {
        return;
    };
    let fetched = format!("[internal] fetch layer {}", &base.layer.digest.hex()[..12]);
    let (context, other) = (base.context(), base.context());
    let images = std::thread::scope(|scope| {
        let builds = [&context, &other].map(|context| {
            let build = base.workshop.build(context);
            scope.spawn(|| wait(build.run()))
        });
        builds.map(|build| build.join().unwrap().unwrap())
    });
    let steps = images.iter().flat_map(|image| &image.steps);
    assert_eq!(steps.filter(|step| step.name == fetched).count(), 1);
    base.workshop.assert_tidy();
}
