//! What a store keeps, what goes when it has to, and what never does.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use ocibuild::cache::why::{self, History, Outcome};
use ocibuild::content::prune::{Prune, Pruned};
use ocibuild::content::usage::Kind;
use ocibuild::content::{ContentStore, StoreLimits};
use ocibuild::executor::{Identity, Notes};
use ocibuild::images::Images;
use ocibuild::snapshot::merge::{self, Merged};
use ocibuild::testing::ContextDir;
use ocibuild::{Build, ErrorKind, Event, EventSink};
use std::sync::{Arc, Mutex};

use crate::built::{Workshop, wait};

fn pruned(root: &Path, prune: &Prune) -> Pruned {
    let store = ContentStore::open(root).unwrap();
    let pruned = store.prune(prune, &|path| panic!("{} stays", path.display()));
    let pruned = pruned.unwrap();
    assert_eq!(pruned.problems, [""; 0]);
    pruned
}

fn kinds(root: &Path) -> BTreeMap<Kind, usize> {
    let store = ContentStore::open(root).unwrap();
    let mut kinds = BTreeMap::new();
    for item in store.items() {
        *kinds.entry(item.kind).or_default() += 1;
    }
    kinds
}

/// Dates everything in a store back, as if it had not been used since.
fn age(root: &Path, hours: u64) {
    let then = SystemTime::now() - Duration::from_secs(hours * 3600);
    let store = ContentStore::open(root).unwrap();
    for item in store.items() {
        let path = match item.kind {
            Kind::Trees => item.path.with_extension("used"),
            Kind::Work => continue,
            _ => item.path,
        };
        let file = std::fs::File::open(&path).unwrap();
        file.set_modified(then).unwrap();
    }
}

const TEXT: &str =
    "FROM busybox\nCOPY f /\nRUN --mount=type=cache,target=/c echo x > /c/x; cat /f > /y\n";

#[test]
fn everything_is_counted_and_can_go() {
    let workshop = Workshop::new();
    let context = ContextDir::new().file("f", "x").file("Dockerfile", TEXT);
    let first = workshop.built(workshop.build(&context).source_date_epoch(0));
    let there = kinds(&workshop.store());
    for kind in [
        Kind::Blobs,
        Kind::Trees,
        Kind::Tables,
        Kind::Steps,
        Kind::CacheMounts,
    ] {
        assert!(there.contains_key(&kind), "no {kind:?} in {there:?}");
    }
    let gone = pruned(&workshop.store(), &Prune::default());
    assert!(gone.bytes() > 0);
    assert_eq!(
        gone.kinds.keys().collect::<Vec<_>>(),
        there
            .keys()
            .filter(|kind| **kind != Kind::Work)
            .collect::<Vec<_>>()
    );
    let left = kinds(&workshop.store());
    assert_eq!(left.keys().collect::<Vec<_>>(), [&Kind::Work]);
    let again = workshop.built(workshop.build(&context).source_date_epoch(0));
    assert_eq!(again.digest(), first.digest());
    workshop.assert_tidy();
}

/// Trees that wait for the next step of their chain are only there to save time.
#[test]
fn merged_trees_can_go() {
    let workshop = Workshop::new();
    let root = workshop.store();
    drop(ContentStore::open(&root).unwrap());
    let layer = tempfile::tempdir_in(&root).unwrap();
    std::fs::write(layer.path().join("f"), "x").unwrap();
    let options = merge::Options {
        identity: Identity::Recorded,
        notes: Notes::User,
        pool: Some(root.join("tmp").join(merge::POOL)),
    };
    let lowers = [layer.path().to_owned()];
    let take = || Merged::take(&root.join("place"), &lowers, &options).unwrap();
    take().give_back().unwrap();
    let waiting = take();
    assert!(waiting.was_waiting());
    // What somebody works with is nothing that waits.
    assert!(!kinds(&root).contains_key(&Kind::Merged));
    waiting.give_back().unwrap();
    assert_eq!(kinds(&root).get(&Kind::Merged), Some(&1));
    let gone = pruned(&root, &Prune::default());
    assert_eq!(gone.kinds.keys().collect::<Vec<_>>(), [&Kind::Merged]);
    assert!(!take().was_waiting());
}

#[test]
fn images_with_a_name_stay_whole() {
    let workshop = Workshop::new();
    let context = ContextDir::new().file("f", "x").file("Dockerfile", TEXT);
    let name = "127.0.0.1:1/app:1";
    wait(workshop.build(&context).tag(name.parse().unwrap()).run()).unwrap();
    let verify = || {
        let images = Images::open(&workshop.store()).unwrap();
        let image = images.find(name)?;
        let client = ocibuild::registry::Client::builder().build().unwrap();
        wait(images.verify(&client, &image))
    };
    pruned(&workshop.store(), &Prune::default());
    verify().unwrap();
    let all = Prune {
        images: true,
        ..Prune::default()
    };
    pruned(&workshop.store(), &all);
    assert!(verify().is_err());
    assert_eq!(
        kinds(&workshop.store()).len(),
        1,
        "the work of the test itself"
    );
}

#[test]
fn age_kind_and_size_decide() {
    let workshop = Workshop::new();
    let build = |content: &str| {
        let context = ContextDir::new()
            .file("f", content)
            .file("Dockerfile", TEXT);
        workshop.built(workshop.build(&context))
    };
    build("old");
    age(&workshop.store(), 10);
    build("new");
    let before = kinds(&workshop.store());
    let trees = Prune {
        kinds: vec![Kind::Trees],
        unused_since: Some(SystemTime::now() - Duration::from_secs(3600)),
        ..Prune::default()
    };
    let gone = pruned(&workshop.store(), &trees);
    // The two layers of the old build; the base is in use by the new one.
    assert_eq!(gone.kinds.keys().collect::<Vec<_>>(), [&Kind::Trees]);
    assert_eq!(
        before[&Kind::Trees] - kinds(&workshop.store())[&Kind::Trees],
        2
    );
    let cached = |content: &str| {
        let steps = build(content);
        steps
            .cached()
            .iter()
            .map(|(_, cached)| *cached)
            .collect::<Vec<_>>()
    };
    assert_eq!(cached("new"), [true, true]);

    // Down to a size: the oldest go first, so the new build still knows everything.
    let store = ContentStore::open(&workshop.store()).unwrap();
    let bytes = store.bytes_on_disk();
    drop(store);
    let keep = Prune {
        keep_bytes: Some(bytes - 1),
        ..Prune::default()
    };
    let gone = pruned(&workshop.store(), &keep);
    assert!(gone.bytes() > 0 && gone.kinds.values().map(|(count, _)| count).sum::<usize>() < 4);
    assert_eq!(cached("new"), [true, true]);
}

#[test]
fn what_an_open_store_has_seen_stays() {
    let workshop = Workshop::new();
    let context = ContextDir::new().file("f", "x").file("Dockerfile", TEXT);
    workshop.built(workshop.build(&context));
    age(&workshop.store(), 10);
    // Somebody who works on the store, and has looked at one blob.
    let user = ContentStore::open(&workshop.store()).unwrap();
    let seen = user
        .items()
        .into_iter()
        .find(|item| item.kind == Kind::Blobs)
        .unwrap();
    let digest = format!(
        "sha256:{}",
        seen.path.file_name().unwrap().to_str().unwrap()
    );
    let digest = digest.parse().unwrap();
    let size = std::fs::metadata(&seen.path).unwrap().len();
    assert!(user.has_content(&digest, size));
    pruned(&workshop.store(), &Prune::default());
    assert_eq!(kinds(&workshop.store()).get(&Kind::Blobs), Some(&1));
    assert!(seen.path.exists());
    drop(user);
    pruned(&workshop.store(), &Prune::default());
    assert!(!seen.path.exists());
}

#[test]
fn a_limit_holds_and_lets_the_oldest_go() {
    let workshop = Workshop::new();
    let build = |n: usize, limits: StoreLimits| {
        let text = format!("FROM busybox\nRUN head -c 3000000 /dev/urandom > /noise-{n}\n");
        let context = ContextDir::new().file("Dockerfile", text);
        let build = workshop.build(&context).store_limits(limits);
        wait(build.run()).unwrap()
    };
    build(0, StoreLimits::default());
    let used = || {
        ContentStore::open(&workshop.store())
            .unwrap()
            .bytes_on_disk()
    };
    let one = used();
    let limits = StoreLimits {
        max_bytes: Some(one + 16_000_000),
        min_free: None,
    };
    for n in 1..8 {
        build(n, limits);
        assert!(used() <= one + 16_000_000, "{} after build {n}", used());
    }
    // Seven builds of 6 MB each did not fit: the first is forgotten, the last is not.
    let steps = |n: usize| build(n, limits).steps.iter().any(|step| step.cached);
    assert!(steps(7));
    assert!(!steps(0));
}

#[test]
fn a_build_that_does_not_fit_fails_and_says_what_it_did() {
    let workshop = Workshop::new();
    let small = ContextDir::new().file("Dockerfile", "FROM busybox\nRUN true\n");
    wait(workshop.build(&small).run()).unwrap();
    let used = ContentStore::open(&workshop.store())
        .unwrap()
        .bytes_on_disk();
    let limits = StoreLimits {
        max_bytes: Some(used + 20_000_000),
        min_free: None,
    };
    let text = "FROM busybox\nRUN echo begun; cat /dev/zero > /big\n";
    let context = ContextDir::new().file("Dockerfile", text);
    let error = workshop.fails(workshop.build(&context).store_limits(limits));
    assert_eq!(error.kind(), ErrorKind::NoRoom, "{error:?}");
    assert!(error.to_string().contains("cat /dev/zero"), "{error}");
    // A copy is refused before it is begun.
    let noise: Vec<u8> = (0..30_000_000_u32).map(|n| (n ^ (n >> 7)) as u8).collect();
    let context = ContextDir::new().file("Dockerfile", "FROM scratch\nCOPY f /\n");
    std::fs::write(context.path().join("f"), noise).unwrap();
    let error = workshop.fails(workshop.build(&context).store_limits(limits));
    assert_eq!(error.kind(), ErrorKind::NoRoom, "{error:?}");
    assert!(error.location().is_some());
    // A floor of free space that no disk has.
    let limits = StoreLimits {
        max_bytes: None,
        min_free: Some(1 << 60),
    };
    let error = workshop.fails(workshop.build(&small).store_limits(limits));
    assert_eq!(error.kind(), ErrorKind::NoRoom, "{error:?}");
}

fn explained(build: Build) -> (Build, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let build = build.explain_misses().events(EventSink::new(move |event| {
        if let Event::StepMissed { why, .. } = event {
            sink.lock().unwrap().push(why);
        }
    }));
    (build, seen)
}

#[test]
fn a_miss_says_why() {
    let workshop = Workshop::new();
    let text = "FROM busybox\nARG TOKEN=hidden-one\nCOPY . /app/\nRUN echo $TOKEN > /dev/null; date > /when\n";
    let context = |f: &str, text: &str| {
        ContextDir::new()
            .file("f", f)
            .file("d/g", "g")
            .file(".dockerignore", "Dockerfile\n.dockerignore\n")
            .file("Dockerfile", text)
    };
    let told = |context: &ContextDir, change: fn(Build) -> Build| {
        let (build, told) = explained(change(workshop.build(context)));
        wait(build.run()).unwrap();
        std::mem::take(&mut *told.lock().unwrap())
    };
    let first = context("x", text);
    let new = "no earlier step is like it";
    assert_eq!(told(&first, |build| build), [new, new]);
    assert_eq!(told(&first, |build| build), [""; 0]);
    let changed = told(&context("y", text), |build| build);
    assert_eq!(changed.len(), 2);
    assert!(
        changed[0].ends_with("/app/\": file f: another content"),
        "{changed:?}"
    );
    assert!(
        changed[1].ends_with(": it stands on other layers"),
        "{changed:?}"
    );
    let argument = told(&first, |build| build.build_arg("TOKEN", "hidden-two"));
    assert_eq!(argument.len(), 1);
    assert!(
        argument[0].ends_with("variable TOKEN: another value"),
        "{argument:?}"
    );
    let edited = told(&context("x", &text.replace("date", "date -u")), |build| {
        build
    });
    assert!(edited[0].contains("date -u"), "{edited:?}");

    // All of it is in the store, and no value of an argument is.
    let store = ContentStore::open(&workshop.store()).unwrap();
    let builds = why::builds(&store);
    assert_eq!(builds.len(), 5);
    let history = History::of(&store);
    let outcomes = |build: usize| -> Vec<&Outcome> {
        builds[build]
            .steps
            .iter()
            .map(|step| &step.outcome)
            .collect()
    };
    assert_eq!(outcomes(1), [&Outcome::Known, &Outcome::Known]);
    assert_eq!(outcomes(3), [&Outcome::Known, &Outcome::Missed]);
    let why = history.why_traced(&builds[3].steps[1], &builds[3]).unwrap();
    assert!(why.ends_with("variable TOKEN: another value"), "{why}");
    for folder in ["keys", "builds", "steps"] {
        for entry in std::fs::read_dir(workshop.store().join(folder)).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            assert!(!text.contains("hidden-"), "{text}");
        }
    }
    drop(store);

    // What was known and has been removed is told as such.
    let steps = Prune {
        kinds: vec![Kind::Blobs],
        ..Prune::default()
    };
    pruned(&workshop.store(), &steps);
    let removed = told(&first, |build| build);
    assert!(removed[0].contains("no longer in the store"), "{removed:?}");
}
