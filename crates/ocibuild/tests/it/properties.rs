//! What must hold of the cache whatever is edited: a step is known if and only if all that
//! it uses has been seen before, and what is known looks as what is built anew.
//!
//! `OCIBUILD_TEST_EDITS` sets how many random edits are made, some hundred where it is not set.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, FileTimes, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ocibuild::cache::why;
use ocibuild::content::ContentStore;
use ocibuild::layer::{DiffId, Kind, TreePath};
use ocibuild::snapshot::RootView;
use ocibuild::testing::ContextDir;
use ocibuild::{Build, Image};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::built::{Workshop, wait};

const NAMES: [&str; 5] = ["a/f", "a/d/g", "src/f", "src/d/h", "src/x"];
const IGNORED: [&str; 3] = ["ignored", "src/y.tmp", "unused/f"];
const MODES: [u32; 3] = [0o644, 0o755, 0o600];

/// What somebody does between two builds.
#[derive(Debug, Clone)]
enum Edit {
    Write(usize, u8),
    Mode(usize, usize),
    Remove(usize),
    Link(usize, u8),
    /// The time of a file.
    Touch(usize, u64),
    /// A file that no step uses.
    Ignored(usize, u8),
    Owner(u8),
    Dest(u8),
    Unused(u8),
}

fn edit() -> impl Strategy<Value = Edit> {
    let name = 0..NAMES.len();
    prop_oneof![
        4 => (name.clone(), 0..4_u8).prop_map(|(name, text)| Edit::Write(name, text)),
        2 => (name.clone(), 0..MODES.len()).prop_map(|(name, mode)| Edit::Mode(name, mode)),
        1 => name.clone().prop_map(Edit::Remove),
        1 => (name.clone(), 0..2_u8).prop_map(|(name, to)| Edit::Link(name, to)),
        2 => (name, 1..1_000_000_000_u64).prop_map(|(name, time)| Edit::Touch(name, time)),
        1 => (0..IGNORED.len(), any::<u8>()).prop_map(|(name, text)| Edit::Ignored(name, text)),
        1 => (1..4_u8).prop_map(Edit::Owner),
        1 => (0..3_u8).prop_map(Edit::Dest),
        1 => any::<u8>().prop_map(Edit::Unused),
    ]
}

/// A file or link as a step sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    File(u8, u32),
    Link(u8),
}

/// The files and arguments as they should be by now.
#[derive(Debug, Clone)]
struct Model {
    files: BTreeMap<&'static str, Seen>,
    owner: u8,
    dest: u8,
    unused: u8,
}

impl Model {
    fn new(root: &Path) -> Self {
        let mut model = Self {
            files: BTreeMap::new(),
            owner: 1,
            dest: 0,
            unused: 0,
        };
        for name in 0..NAMES.len() {
            model.apply(root, &Edit::Write(name, 0));
        }
        for name in 0..IGNORED.len() {
            model.apply(root, &Edit::Ignored(name, 0));
        }
        model
    }

    fn apply(&mut self, root: &Path, edit: &Edit) {
        let path = |name: &usize| root.join(NAMES[*name]);
        match edit {
            Edit::Write(name, text) => {
                let mode = match self.files.get(NAMES[*name]) {
                    Some(Seen::File(_, mode)) => *mode,
                    _ => 0o644,
                };
                write(&path(name), *text, mode);
                self.files.insert(NAMES[*name], Seen::File(*text, mode));
            }
            Edit::Mode(name, mode) => {
                if let Some(Seen::File(_, old)) = self.files.get_mut(NAMES[*name]) {
                    *old = MODES[*mode];
                    let mode = Permissions::from_mode(MODES[*mode]);
                    fs::set_permissions(path(name), mode).unwrap();
                }
            }
            Edit::Remove(name) => {
                // Something stays, so that every source is there.
                let folder = NAMES[*name].split('/').next().unwrap();
                let left = self.files.keys().filter(|other| other.starts_with(folder));
                if left.count() > 1 && self.files.remove(NAMES[*name]).is_some() {
                    fs::remove_file(path(name)).unwrap();
                }
            }
            Edit::Link(name, to) => {
                let path = path(name);
                drop(fs::remove_file(&path));
                symlink(format!("to-{to}"), path).unwrap();
                self.files.insert(NAMES[*name], Seen::Link(*to));
            }
            Edit::Touch(name, time) => {
                if let Some(Seen::File(..)) = self.files.get(NAMES[*name]) {
                    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(*time);
                    let file = fs::File::open(path(name)).unwrap();
                    file.set_times(FileTimes::new().set_modified(time)).unwrap();
                }
            }
            Edit::Ignored(name, text) => write(&root.join(IGNORED[*name]), *text, 0o644),
            Edit::Owner(owner) => self.owner = *owner,
            Edit::Dest(dest) => self.dest = *dest,
            Edit::Unused(value) => self.unused = *value,
        }
    }

    fn build(&self, build: Build) -> Image {
        let build = build
            .build_arg("OWNER", format!("{0}:{0}", self.owner))
            .build_arg("DEST", format!("w{}", self.dest))
            .build_arg("UNUSED", self.unused.to_string());
        wait(build.run()).unwrap()
    }

    fn below(&self, folder: &str) -> String {
        let files = self.files.iter();
        let files: Vec<_> = files.filter(|(name, _)| name.starts_with(folder)).collect();
        format!("{files:?}")
    }

    /// What each step uses, in the order of the steps' names.
    fn used(&self) -> [String; 4] {
        let one = format!("one {} {}", self.owner, self.below("a/"));
        let folder = format!("folder {}", self.dest);
        let copied = format!("copied {folder} {}", self.below("src/"));
        let from = format!("from {one} {copied}");
        [one, folder, copied, from]
    }
}

/// Writes a file anew, of a length that tells nothing.
fn write(path: &Path, text: u8, mode: u32) {
    drop(fs::remove_file(path));
    fs::write(path, format!("{text:03}")).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

const DOCKERFILE: &str = "FROM scratch AS one\nARG OWNER\nARG UNUSED\nCOPY --chown=$OWNER a /x/\n\
     FROM scratch\nARG DEST\nARG UNUSED\nWORKDIR /$DEST\nCOPY src/ here/\nCOPY --from=one /x/ /from/\n";

/// Everything in an image but times: path, mode, owner, type, content.
fn tree(store: &Path, image: &Image) -> Vec<String> {
    let store = ContentStore::open(store).unwrap();
    let layers = image.layers.iter();
    let tocs: Vec<_> = layers
        .map(|layer| store.toc(DiffId(layer.diff_id)).unwrap())
        .collect();
    let view = RootView::new(&tocs);
    let root = TreePath::root();
    let all = view.walk(&root);
    all.map(|found| {
        let entry = found.entry;
        let kind = match &entry.kind {
            Kind::File(content) => format!("{} {}", content.size, content.digest),
            other => format!("{other:?}"),
        };
        let path = entry.path.as_path().display();
        format!("{path} {:o} {}:{} {kind}", entry.mode, entry.uid, entry.gid)
    })
    .collect()
}

/// Says of each step whether it was known, in the order of their names.
fn known(image: &Image) -> Vec<bool> {
    let steps = image.steps.iter().filter(|step| step.layer.is_some());
    let mut steps: Vec<_> = steps.map(|step| (step.name.clone(), step.cached)).collect();
    steps.sort();
    // `[one 2/2]`, then `[stage-1 2/4]` and so on.
    steps.into_iter().map(|(_, cached)| cached).collect()
}

pub(crate) fn edits() -> u32 {
    let wanted = std::env::var("OCIBUILD_TEST_EDITS");
    wanted.map_or(200, |wanted| wanted.parse().unwrap())
}

/// Where the edits of one case are made.
struct Bench {
    workshop: Workshop,
    context: ContextDir,
    path: PathBuf,
    model: Model,
    seen: BTreeSet<String>,
}

impl Bench {
    fn new() -> Self {
        let context = ContextDir::new()
            .file("Dockerfile", DOCKERFILE)
            .file(".dockerignore", "ignored\n*/*.tmp\n");
        for folder in ["a/d", "src/d", "unused"] {
            fs::create_dir_all(context.path().join(folder)).unwrap();
        }
        let path = context.path().to_owned();
        Self {
            workshop: Workshop::new(),
            model: Model::new(&path),
            context,
            path,
            seen: BTreeSet::new(),
        }
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let cached = self
            .model
            .build(self.workshop.build_in("cached", &self.context));
        let anew = self
            .model
            .build(self.workshop.build_in("anew", &self.context).no_cache());
        let trees = [("cached", &cached), ("anew", &anew)]
            .map(|(store, image)| tree(&self.workshop.path(store), image));
        prop_assert_eq!(&trees[0], &trees[1]);
        let used = self.model.used();
        let expected: Vec<bool> = used.iter().map(|used| self.seen.contains(used)).collect();
        prop_assert_eq!(known(&cached), expected, "{:?}", self.model);
        self.seen.extend(used);
        Ok(())
    }
}

#[test]
fn random_edits_give_what_a_build_without_cache_gives() {
    const EDITS_A_CASE: u32 = 10;
    let config = Config {
        cases: edits().div_ceil(EDITS_A_CASE),
        failure_persistence: None,
        max_shrink_iters: 30,
        ..Config::default()
    };
    let edits = proptest::collection::vec(edit(), EDITS_A_CASE as usize);
    let checked = TestRunner::new(config).run(&edits, |edits| {
        let mut bench = Bench::new();
        bench.check()?;
        for edit in &edits {
            let path = bench.path.clone();
            bench.model.apply(&path, edit);
            bench.check()?;
        }
        Ok(())
    });
    if let Err(failure) = checked {
        panic!("{failure}");
    }
}

#[test]
fn a_key_before_is_the_key_after() {
    let workshop = Workshop::new();
    let text = "FROM busybox AS one\nARG A=1\nWORKDIR /w\nRUN echo $A > f\n\
         FROM busybox\nCOPY --from=one /w /w\nCOPY f d/\n\
         RUN --mount=type=bind,from=one,source=/w,target=/m --mount=type=cache,target=/c cat /m/f > /g\n";
    let context = ContextDir::new().file("f", "x").file("Dockerfile", text);
    for _ in 0..2 {
        wait(workshop.build(&context).run()).unwrap();
    }
    let store = ContentStore::open(&workshop.store()).unwrap();
    let builds = why::builds(&store);
    let [before, after] = &builds[..] else {
        panic!("two builds are remembered, not {}", builds.len());
    };
    assert_eq!(before.steps.len(), 5);
    let keys = |build: &why::BuildTrace| {
        let steps = build.steps.iter();
        let mut keys: Vec<_> = steps.map(|step| (step.step.clone(), step.key)).collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(before), keys(after));
    for (step, key) in keys(before) {
        let path = workshop.store().join("steps").join(key.hex());
        assert!(path.exists(), "{step}");
    }
}

#[test]
fn commands_know_what_they_use() {
    let workshop = Workshop::new();
    let text = "FROM busybox AS base\nCOPY a/f /base\n\
         FROM base\nARG DEST\nARG OWNER\nUSER $OWNER\n\
         RUN --mount=type=bind,source=src,target=/m sha256sum /m/f /base && stat -c %a /m/f\n";
    let context = ContextDir::new().file("Dockerfile", text);
    let root = context.path().to_owned();
    for folder in ["a/d", "src/d", "unused"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    let mut model = Model::new(&root);
    let mut run = |edit: Option<Edit>| {
        if let Some(edit) = edit {
            model.apply(&root, &edit);
        }
        let image = model.build(workshop.build(&context));
        *known(&image).last().unwrap()
    };
    assert!(!run(None));
    for same in [
        Edit::Touch(2, 77),
        Edit::Ignored(2, 9),
        Edit::Mode(1, 2),
        Edit::Unused(3),
    ] {
        assert!(run(Some(same.clone())), "{same:?}");
    }
    for other in [
        Edit::Write(2, 3),
        Edit::Mode(2, 1),
        Edit::Write(3, 1),
        Edit::Remove(4),
        Edit::Write(0, 1),
        Edit::Dest(1),
        Edit::Owner(2),
    ] {
        assert!(!run(Some(other.clone())), "{other:?}");
        assert!(run(None), "{other:?}");
    }
}
