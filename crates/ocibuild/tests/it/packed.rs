//! A layer with the same entries as one that was packed before is that one, whatever it lies
//! above; and it is never another than would be packed.

use std::fs::{self, FileTimes, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use ocibuild::testing::ContextDir;
use ocibuild::{Build, Image, Output};
use ocibuild_registry::testing::Registry;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustix::fs::inotify::WatchFlags;

use crate::built::{Workshop, wait};
use crate::cache::push_base;
use crate::pipeline::Watched;
use crate::properties::edits;

const DOCKERFILE: &str = "FROM scratch AS base\nCOPY base /base\n\
     FROM base\nARG OWNER=0\nCOPY --chown=$OWNER src/ /to/\nCOPY <<EOF /to/text\nx\nEOF\n";

/// The file that a layer of an image is in the store; one that is packed again is another.
fn inode(store: &Path, image: &Image, layer: usize) -> u64 {
    let hex = image.layers[layer].digest.hex();
    let path = store.join("blobs/sha256").join(hex);
    fs::metadata(path).unwrap().ino()
}

fn above(context: &ContextDir, base: &str) {
    fs::write(context.path().join("base"), base).unwrap();
}

#[test]
fn a_copy_over_another_base_is_not_packed_again() {
    let workshop = Workshop::new();
    let context = ContextDir::new()
        .file("src/f", "f")
        .file("base", "1")
        .file("Dockerfile", DOCKERFILE);
    let build = |change: fn(Build) -> Build| wait(change(workshop.build(&context)).run()).unwrap();
    let first = build(|build| build);
    above(&context, "2");
    let second = build(|build| build);
    assert_ne!(second.layers[0].digest, first.layers[0].digest);
    assert_eq!(second.layers[1].digest, first.layers[1].digest);
    let steps = second.steps.iter().filter(|step| step.layer.is_some());
    assert!(steps.clone().all(|step| !step.cached) && steps.count() == 3);
    let inode = |image| inode(&workshop.store(), image, 1);
    let packed = inode(&first);
    assert_eq!(inode(&second), packed);

    // Who wants nothing from before gets nothing.
    let anew = build(Build::no_cache);
    assert_eq!(anew.layers[1].digest, first.layers[1].digest);
    assert_ne!(inode(&anew), packed);

    // What has gone is packed again.
    for folder in ["blobs", "tocs"] {
        fs::remove_dir_all(workshop.store().join(folder)).unwrap();
        above(&context, folder);
        assert_eq!(
            build(|build| build).layers[1].digest,
            first.layers[1].digest
        );
    }
}

#[test]
fn what_is_copied_out_of_an_image_is_not_fetched_again() {
    let (workshop, registry) = (Workshop::new(), Registry::start().unwrap());
    push_base(&workshop, registry.reference("tools:1"));
    let text = format!(
        "FROM scratch\nCOPY base /base\nCOPY --from={}/tools:1 /bin/ /bin/\n",
        registry.host()
    );
    let context = ContextDir::new().file("base", "1").file("Dockerfile", text);
    let build = || {
        let output = Output::Registry(registry.reference("app:1"));
        wait(workshop.build(&context).output(output).run()).unwrap()
    };
    let fetched = || {
        let requests = registry.requests().into_iter();
        let blobs = requests.filter(|request| request.path.starts_with("/v2/tools/blobs/"));
        blobs.filter(|request| request.method == "GET").count()
    };
    let first = build();
    assert_ne!(fetched(), 0);
    let own: Vec<String> = first
        .layers
        .iter()
        .map(|layer| layer.digest.hex())
        .collect();
    for blob in fs::read_dir(workshop.store().join("blobs/sha256")).unwrap() {
        let blob = blob.unwrap();
        let is_large = blob.metadata().unwrap().len() > 10_000;
        if is_large && !own.contains(&blob.file_name().into_string().unwrap()) {
            fs::remove_file(blob.path()).unwrap();
        }
    }
    above(&context, "2");
    registry.clear_requests();
    let second = build();
    assert_eq!(second.layers[1].digest, first.layers[1].digest);
    assert_eq!(fetched(), 0);
}

#[test]
fn stages_that_copy_the_same_pack_it_once() {
    let workshop = Workshop::new();
    let stage = |name| format!("FROM scratch AS {name}\nCOPY {name} /base\nCOPY src/ /src/\n");
    let text = format!(
        "{}{}FROM scratch\nCOPY --from=one /src /one\nCOPY --from=two /src /two\n",
        stage("one"),
        stage("two")
    );
    let context = ContextDir::new()
        .file("one", "1")
        .file("two", "2")
        .file("src/f", vec![b'f'; 8 << 20])
        .file("Dockerfile", text);
    let blobs = workshop.store().join("blobs/sha256");
    let packed = Watched::new(&blobs, WatchFlags::MOVED_TO);
    let image = wait(workshop.build(&context).run()).unwrap();
    let copies = image
        .steps
        .iter()
        .filter(|step| step.name.ends_with("COPY src/ /src/"));
    let layers: Vec<_> = copies.map(|step| step.layer.clone().unwrap()).collect();
    assert_eq!(layers.len(), 2);
    assert_eq!(layers[0], layers[1]);
    assert_eq!(packed.count(&layers[0].digest.hex()), 1);
}

const NAMES: [&str; 4] = ["f", "g", "d/f", "d/g"];

/// What somebody does between two builds. There is not much to choose from, so that much
/// comes again.
#[derive(Debug, Clone)]
enum Edit {
    Write(usize, u8),
    Mode(usize, u32),
    Touch(usize, u64),
    Link(usize, u8),
    HardLink(usize),
    Remove(usize),
    Owner(u8),
    Epoch(Option<i64>),
}

fn edit() -> impl Strategy<Value = Edit> {
    let name = 0..NAMES.len();
    let mode = prop_oneof![Just(0o644), Just(0o755)];
    prop_oneof![
        3 => (name.clone(), 0..2_u8).prop_map(|(name, text)| Edit::Write(name, text)),
        2 => (name.clone(), mode).prop_map(|(name, mode)| Edit::Mode(name, mode)),
        2 => (name.clone(), 1..3_u64).prop_map(|(name, time)| Edit::Touch(name, time)),
        1 => (name.clone(), 0..2_u8).prop_map(|(name, to)| Edit::Link(name, to)),
        1 => name.clone().prop_map(Edit::HardLink),
        1 => name.prop_map(Edit::Remove),
        1 => (0..2_u8).prop_map(Edit::Owner),
        1 => prop_oneof![Just(None), Just(Some(1))].prop_map(Edit::Epoch),
    ]
}

fn at(seconds: u64) -> FileTimes {
    FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// A context that is edited and built, and what the builds are told.
struct Bench {
    workshop: Workshop,
    context: ContextDir,
    owner: u8,
    epoch: Option<i64>,
    builds: u32,
    /// How often a layer was there before.
    met: u32,
}

impl Bench {
    fn new() -> Self {
        let context = ContextDir::new()
            .dir("src/d")
            .file("src/other", "")
            .file("Dockerfile", DOCKERFILE);
        Self {
            workshop: Workshop::new(),
            context,
            owner: 0,
            epoch: None,
            builds: 0,
            met: 0,
        }
    }

    fn apply(&mut self, edit: &Edit) {
        let folder = self.context.path().join("src");
        let path = |name: usize| folder.join(NAMES[name]);
        match *edit {
            Edit::Write(name, text) => {
                drop(fs::remove_file(path(name)));
                fs::write(path(name), [text]).unwrap();
                fs::File::open(path(name))
                    .unwrap()
                    .set_times(at(1))
                    .unwrap();
            }
            Edit::Mode(name, mode) if path(name).is_file() => {
                fs::set_permissions(path(name), Permissions::from_mode(mode)).unwrap();
            }
            Edit::Touch(name, time) if path(name).is_file() => {
                fs::File::open(path(name))
                    .unwrap()
                    .set_times(at(time))
                    .unwrap();
            }
            Edit::Link(name, to) => {
                drop(fs::remove_file(path(name)));
                symlink(format!("to-{to}"), path(name)).unwrap();
            }
            Edit::HardLink(name) if path(0).is_file() && name > 0 => {
                drop(fs::remove_file(path(name)));
                fs::hard_link(path(0), path(name)).unwrap();
            }
            Edit::Remove(name) => drop(fs::remove_file(path(name))),
            Edit::Owner(owner) => self.owner = owner,
            Edit::Epoch(epoch) => self.epoch = epoch,
            Edit::Mode(..) | Edit::Touch(..) | Edit::HardLink(_) => {}
        }
        for folder in [folder.join("d"), folder.join("other"), folder] {
            fs::File::open(folder).unwrap().set_times(at(1)).unwrap();
        }
    }

    /// Builds above a base that is another each time, so that no step is known.
    fn check(&mut self) -> Result<(), TestCaseError> {
        self.builds += 1;
        above(&self.context, &self.builds.to_string());
        let build = |store: &str| {
            let build = self.workshop.build_in(store, &self.context);
            let build = build.build_arg("OWNER", format!("{0}:{0}", self.owner));
            match self.epoch {
                Some(epoch) => build.source_date_epoch(epoch),
                None => build,
            }
        };
        let blobs = self.workshop.path("kept").join("blobs/sha256");
        let before: Vec<(String, u64)> = fs::read_dir(&blobs)
            .into_iter()
            .flatten()
            .map(Result::unwrap)
            .map(|blob| {
                (
                    blob.file_name().into_string().unwrap(),
                    blob.metadata().unwrap().ino(),
                )
            })
            .collect();
        let kept = wait(build("kept").run()).unwrap();
        let anew = wait(build("anew").no_cache().run()).unwrap();
        prop_assert!(kept.steps.iter().all(|step| !step.cached));
        let copied = [&kept, &anew].map(|image| {
            let layer = &image.layers[1];
            (layer.diff_id, layer.digest)
        });
        prop_assert_eq!(&copied[0], &copied[1]);
        let hex = kept.layers[1].digest.hex();
        if let Some((_, known)) = before.iter().find(|(name, _)| *name == hex) {
            prop_assert_eq!(inode(&self.workshop.path("kept"), &kept, 1), *known);
            self.met += 1;
        }
        Ok(())
    }
}

#[test]
fn a_layer_that_is_known_is_the_one_that_would_be_packed() {
    const EDITS_A_CASE: u32 = 12;
    let config = Config {
        // Two builds each; most tell the same as others.
        cases: (edits() / 4).div_ceil(EDITS_A_CASE),
        failure_persistence: None,
        max_shrink_iters: 30,
        ..Config::default()
    };
    let met = std::cell::Cell::new(0);
    let edits = proptest::collection::vec(edit(), EDITS_A_CASE as usize);
    let checked = TestRunner::new(config).run(&edits, |edits| {
        let mut bench = Bench::new();
        for edit in &edits {
            bench.apply(edit);
            bench.check()?;
        }
        met.set(met.get() + bench.met);
        Ok(())
    });
    if let Err(failure) = checked {
        panic!("{failure}");
    }
    assert_ne!(met.get(), 0, "no layer came again");
}
