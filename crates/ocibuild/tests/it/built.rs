//! What the tests of whole builds share: a place to build in, and an image with every
//! claim of it checked.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output as Ended};
use std::sync::{Arc, Mutex};

use ocibuild::executor::Helper;
use ocibuild::image::{ImageConfig, validate::validate};
use ocibuild::layer::{Encoding, Kind, Limits, Toc, TreePath, read_layer};
use ocibuild::registry::{Descriptor, Digest, Index, Manifest, Reference};
use ocibuild::snapshot::RootView;
use ocibuild::testing::{ContextDir, busybox_layout};
use ocibuild::{Build, ContextSource, Error, Image, NamedContext, Output};
use ocibuild_registry::testing::not_installed;
use tempfile::TempDir;

/// A store and a base image `busybox` in a folder of their own.
pub(crate) struct Workshop {
    folder: TempDir,
    contexts: Mutex<Vec<ContextDir>>,
}

impl Workshop {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        busybox_layout(&folder.path().join("base"), "1");
        Self {
            folder,
            contexts: Mutex::default(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The store of every build of this workshop.
    pub(crate) fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// The layout of the base image.
    pub(crate) fn base(&self) -> NamedContext {
        NamedContext::OciLayout {
            path: self.path("base"),
            name: None,
        }
    }

    /// Begins a build in which `busybox` is the base image.
    pub(crate) fn build(&self, context: &ContextDir) -> Build {
        self.build_in("store", context)
    }

    /// Keeps a context until this workshop goes.
    pub(crate) fn keep(&self, context: ContextDir) {
        self.contexts.lock().unwrap().push(context);
    }

    /// Begins a build with a store of another name.
    pub(crate) fn build_in(&self, store: &str, context: &ContextDir) -> Build {
        let context = ContextSource::Directory(context.path().to_owned());
        self.build_from(store, context)
    }

    pub(crate) fn build_from(&self, store: &str, context: ContextSource) -> Build {
        Build::new(context, self.path(store))
            .named_context("busybox", self.base())
            .helper(Helper::Program(example("sandbox_helper")))
    }

    /// Builds, writes the image layout and checks everything that it claims.
    pub(crate) fn built(&self, build: Build) -> Built {
        let layout = tempfile::tempdir_in(self.folder.path()).unwrap();
        let dest = layout.path().join("oci");
        let image = wait(build.output(Output::OciDirectory(dest.clone())).run()).unwrap();
        let built = Built::read(&dest, image.digest);
        assert_eq!(built.config, image.config);
        Built {
            image: Some(image),
            _guard: Some(layout),
            ..built
        }
    }

    /// Builds a Dockerfile over a context.
    pub(crate) fn dockerfile(&self, context: ContextDir, text: &str) -> Built {
        self.built(self.build(&context.file("Dockerfile", text)))
    }

    /// Builds what must fail, and sees that the failure leaves no work in progress.
    pub(crate) fn fails(&self, build: Build) -> Error {
        let error = wait(build.run()).unwrap_err();
        self.assert_tidy();
        error
    }

    /// Nothing half-done is in the store.
    pub(crate) fn assert_tidy(&self) {
        assert_tidy(&self.store());
    }
}

/// Nothing half-done is in a store.
pub(crate) fn assert_tidy(store: &Path) {
    let left = std::fs::read_dir(store.join("tmp")).into_iter().flatten();
    let left: Vec<PathBuf> = left.map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "left in the store: {left:?}");
}

/// Builds a Dockerfile over a context, in a workshop that goes with the test.
pub(crate) fn built(context: ContextDir, dockerfile: &str) -> Built {
    Workshop::new().dockerfile(context, dockerfile).detached()
}

/// The digest of the one image of a layout.
pub(crate) fn only_image(layout: &Path) -> Digest {
    let index = std::fs::read(layout.join("index.json")).unwrap();
    let index: Index = serde_json::from_slice(&index).unwrap();
    let digests: BTreeSet<_> = index.manifests.iter().map(|image| image.digest).collect();
    assert_eq!(digests.len(), 1, "{index:?}");
    *digests.first().unwrap()
}

fn blob_path(layout: &Path, digest: &Digest) -> PathBuf {
    layout.join("blobs/sha256").join(digest.hex())
}

/// An image that was read back from its layout.
pub(crate) struct Built {
    pub(crate) image: Option<Image>,
    pub(crate) config: ImageConfig,
    pub(crate) layers: Vec<Arc<Toc>>,
    pub(crate) view: RootView,
    /// The layers as plain tars.
    tars: Vec<Vec<u8>>,
    _guard: Option<TempDir>,
}

impl Built {
    /// Reads an image of a layout, after `image::validate` has found nothing wrong with it.
    pub(crate) fn read(layout: &Path, digest: Digest) -> Self {
        let bytes = std::fs::read(blob_path(layout, &digest)).unwrap();
        let descriptor = Descriptor {
            digest,
            ..Descriptor::of(ocibuild::registry::media_type::MANIFEST, &bytes)
        };
        let open = |digest: &Digest| {
            Ok(Box::new(File::open(blob_path(layout, digest))?) as Box<dyn Read + Send>)
        };
        validate(&descriptor, &open).unwrap();
        Self::read_foreign(layout, digest)
    }

    /// Reads an image that another program wrote, however well.
    pub(crate) fn read_foreign(layout: &Path, digest: Digest) -> Self {
        let blob = |digest: &Digest| blob_path(layout, digest);
        let manifest = std::fs::read(blob(&digest)).unwrap();
        let manifest: Manifest = serde_json::from_slice(&manifest).unwrap();
        let config = std::fs::read(blob(&manifest.config.digest)).unwrap();
        let config = ImageConfig::parse(&config).unwrap();
        let layers: Vec<Arc<Toc>> = manifest
            .layers
            .iter()
            .map(|layer| {
                let encoding = Encoding::of_media_type(&layer.media_type);
                let file = File::open(blob(&layer.digest)).unwrap();
                let read = read_layer(file, encoding, &Limits::default(), &mut ());
                read.unwrap().toc
            })
            .collect();
        let tars = manifest.layers.iter().map(|layer| {
            let mut tar = Vec::new();
            // Read by others than those who wrote it.
            let mut file = File::open(blob(&layer.digest)).unwrap();
            let read = match layer.media_type.rsplit(['.', '+']).next() {
                Some("gzip") => flate2::read::MultiGzDecoder::new(file).read_to_end(&mut tar),
                Some("zstd") => zstd::stream::copy_decode(file, &mut tar).map(|()| 0),
                _ => file.read_to_end(&mut tar),
            };
            read.unwrap();
            tar
        });
        Self {
            image: None,
            config,
            tars: tars.collect(),
            view: RootView::new(&layers),
            layers,
            _guard: None,
        }
    }

    /// Reads the one image of a layout, as other tools find it.
    pub(crate) fn read_only(layout: &Path) -> Self {
        Self::read(layout, only_image(layout))
    }

    /// Lets go of the folder: everything has been read.
    fn detached(mut self) -> Self {
        self._guard = None;
        self
    }

    pub(crate) fn image(&self) -> &Image {
        self.image.as_ref().unwrap()
    }

    pub(crate) fn digest(&self) -> Digest {
        self.image().digest
    }

    /// What is at a path: mode, owner and type; `-` where nothing is.
    pub(crate) fn at(&self, path: &str) -> String {
        let path = TreePath::parse(path).unwrap();
        self.view
            .lookup(&path)
            .map_or_else(|| "-".to_owned(), |found| describe(found.entry))
    }

    /// Everything below a directory, one line each: path, mode, owner and type.
    pub(crate) fn list(&self, path: &str) -> Vec<String> {
        let path = TreePath::parse(path).unwrap();
        self.view
            .walk(&path)
            .map(|found| line(found.entry))
            .collect()
    }

    /// The lines of one layer: entries, then whiteouts with a `!`.
    pub(crate) fn layer(&self, index: usize) -> Vec<String> {
        let toc = &self.layers[index];
        let entries = toc.entries().iter().filter(|entry| !entry.implicit);
        let entries = entries.map(line);
        let removed = toc
            .whiteouts()
            .iter()
            .map(|path| format!("!{}", path.as_path().display()));
        entries.chain(removed).collect()
    }

    pub(crate) fn last_layer(&self) -> Vec<String> {
        self.layer(self.layers.len() - 1)
    }

    /// The content of a file as text.
    pub(crate) fn text(&self, path: &str) -> String {
        let path = TreePath::parse(path).unwrap();
        let place = self.view.content_of(&path);
        let place = place.unwrap_or_else(|| panic!("no file {path}"));
        let mut tar = tar::Archive::new(self.tars[place.layer].as_slice());
        let mut entries = tar.entries().unwrap().map(Result::unwrap);
        let mut entry = entries
            .find(|entry| &*entry.path_bytes() == place.path.as_bytes())
            .unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        text
    }

    /// The texts of the history, without those of the base.
    pub(crate) fn history(&self) -> Vec<&str> {
        let ours = |entry: &&ocibuild::image::History| entry.comment.is_some();
        let texts = self.config.history.iter().filter(ours);
        texts.filter_map(|e| e.created_by.as_deref()).collect()
    }

    /// Of the steps that make a layer: its name without the prefix, and whether it was cached.
    pub(crate) fn cached(&self) -> Vec<(&str, bool)> {
        let steps = self.image().steps.iter();
        steps
            .filter(|step| step.layer.is_some())
            .map(|step| (step.name.split_once("] ").unwrap().1, step.cached))
            .collect()
    }
}

/// What is at a path, with the path before it.
fn line(entry: &ocibuild::layer::Entry) -> String {
    format!("{} {}", entry.path.as_path().display(), describe(entry))
}

/// `0644 0:0 file`, `0755 0:0 dir`, `0777 0:0 -> target`, `0644 0:0 = other`.
fn describe(entry: &ocibuild::layer::Entry) -> String {
    let kind = match &entry.kind {
        Kind::Dir => "dir".to_owned(),
        Kind::File(_) => "file".to_owned(),
        Kind::Symlink { target } => format!("-> {}", String::from_utf8_lossy(target)),
        Kind::Hardlink { target } => format!("= {}", target.as_path().display()),
        other => format!("{other:?}"),
    };
    format!("{:04o} {}:{} {kind}", entry.mode, entry.uid, entry.gid)
}

/// Waits for something asynchronous, so that tests and their servers need no runtime.
pub(crate) fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(work)
}

/// An example program of this crate; cargo puts it beside the folder of the tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap();
    let program = folder.join("examples").join(name);
    assert!(
        program.is_file(),
        "{} is missing: build it with --examples",
        program.display()
    );
    program
}

/// Says why a test does nothing.
#[expect(clippy::print_stderr, reason = "a skipped test has to be seen")]
pub(crate) fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}

/// Runs skopeo, which must succeed; none where it is not installed.
pub(crate) fn skopeo(arguments: &[&str]) -> Option<Ended> {
    let run = Command::new("skopeo")
        .arg("--insecure-policy")
        .args(arguments)
        .output();
    match run {
        Ok(ended) => {
            let error = String::from_utf8_lossy(&ended.stderr);
            assert!(ended.status.success(), "skopeo {arguments:?}: {error}");
            Some(ended)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            not_installed("skopeo");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Lets skopeo read an image of a registry and gives the digest that it finds.
pub(crate) fn skopeo_digest(reference: &Reference) -> Option<String> {
    let name = format!("docker://{reference}");
    let ended = skopeo(&["inspect", "--tls-verify=false", &name])?;
    let found: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    Some(found["Digest"].as_str().unwrap().to_owned())
}
