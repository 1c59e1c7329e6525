//! Several processes on one store: a base is fetched once, results are those of builds
//! alone, what one gives up or removes harms no other; and what `cache` says of the store.

use std::path::Path;
use std::process::{Child, Command};

use ocibuild_registry::testing::Registry;

use crate::command::{Ended, Place, ended};

fn context(place: &Place, name: &str, text: &str) {
    let folder = place.path(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("Dockerfile"), text).unwrap();
    std::fs::write(folder.join("f"), "x").unwrap();
}

fn start(mut command: Command) -> Child {
    command.spawn().unwrap()
}

fn wait(child: Child) -> Ended {
    ended(child.wait_with_output().unwrap())
}

fn size(folder: &Path) -> u64 {
    let output = Command::new("du")
        .args(["-s", "--block-size=1"])
        .arg(folder)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_base_is_fetched_once_and_results_are_those_of_builds_alone() {
    let (place, registry) = (Place::new(), Registry::start().unwrap());
    place.push_base(registry.reference("base:1"));
    let text = |n: usize| {
        format!(
            "FROM {}/base:1\nCOPY f /\nRUN echo same > /same\nRUN echo {} > /n\n",
            registry.host(),
            n % 3
        )
    };
    for n in 0..8 {
        context(&place, &format!("c{n}"), &text(n));
    }
    let build = |n: usize, store: &str| {
        let context = format!("c{n}");
        let mut command = place.command(&["build", "-q", "--root", store, &context]);
        command.env("SOURCE_DATE_EPOCH", "1600000000");
        command
    };
    registry.clear_requests();
    let together: Vec<Child> = (0..8).map(|n| start(build(n, "shared"))).collect();
    let together: Vec<Ended> = together.into_iter().map(wait).collect();
    // However many wanted it, the layer came once.
    let base = registry.reference("base:1").to_string();
    let manifest = place.run(&["inspect", "--remote", &base]);
    let manifest: serde_json::Value = serde_json::from_str(&manifest.out).unwrap();
    let layer = manifest["manifest"]["layers"][0]["digest"]
        .as_str()
        .unwrap();
    assert_eq!(registry.count("GET", layer), 1);
    for (n, ended) in together.iter().enumerate() {
        assert_eq!(ended.status, 0, "{}", ended.err);
        let alone = wait(start(build(n, &format!("alone{n}"))));
        assert_eq!(alone.out, ended.out, "build {n}");
    }
}

#[test]
fn one_that_is_ended_and_one_that_prunes_harm_no_other() {
    let place = Place::new();
    let text = |n: usize| {
        format!(
            "FROM base\nCOPY f /\nRUN head -c 400000 /dev/urandom > /noise{n}; sleep 0.3\n\
             RUN wc -c /noise{n} > /size\n"
        )
    };
    for n in 0..6 {
        context(&place, &format!("c{n}"), &text(n));
    }
    let build = |n: usize| {
        let context = format!("c{n}");
        let arguments = [
            "build",
            "-q",
            "--root",
            "store",
            "--build-context",
            "base=oci-layout://base",
        ];
        start(place.command(&[&arguments[..], &[&context]].concat()))
    };
    let mut builds: Vec<Child> = (0..6).map(build).collect();
    let mut killed = builds.pop().unwrap();
    let mut stopped = builds.pop().unwrap();
    let prune = || place.run(&["cache", "prune", "--all", "--root", "store"]);
    assert_eq!(prune().status, 0);
    killed.kill().unwrap();
    killed.wait().unwrap();
    let pid = i32::try_from(stopped.id()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    stopped.wait().unwrap();
    let pruned = prune();
    assert_eq!(pruned.status, 0, "{}", pruned.err);
    for child in builds {
        let ended = wait(child);
        assert_eq!(ended.status, 0, "{}", ended.err);
    }
    // Nobody works on it now: all of it can go, and it can be used again.
    let pruned = prune();
    assert_eq!(pruned.status, 0, "{}", pruned.err);
    let left: Vec<_> = std::fs::read_dir(place.path("store/blobs/sha256"))
        .unwrap()
        .collect();
    assert_eq!(left.len(), 0, "{left:?}");
    let again = wait(build(0));
    assert_eq!(again.status, 0, "{}", again.err);
}

#[test]
fn a_limit_holds_while_several_build() {
    let place = Place::new();
    let text = |n: usize| format!("FROM base\nRUN head -c 1500000 /dev/urandom > /noise{n}\n");
    for n in 0..12 {
        context(&place, &format!("c{n}"), &text(n));
    }
    let base = [
        "build",
        "-q",
        "--root",
        "store",
        "--build-context",
        "base=oci-layout://base",
    ];
    let first = place.run(&[&base[..], &["c0"]].concat());
    assert_eq!(first.status, 0, "{}", first.err);
    let limit = size(&place.path("store")) + 24_000_000;
    let most = limit.to_string();
    for pair in (0..12).collect::<Vec<usize>>().chunks(3) {
        let builds = pair.iter().map(|n| {
            let context = format!("c{n}");
            start(place.command(&[&base[..], &["--store-max", &most, &context]].concat()))
        });
        let builds: Vec<Child> = builds.collect();
        for child in builds {
            let ended = wait(child);
            assert_eq!(ended.status, 0, "{}", ended.err);
        }
        let used = size(&place.path("store"));
        assert!(used <= limit, "{used} of {limit}");
    }
}

#[test]
fn the_store_is_shown_and_explained() {
    let place = Place::new();
    context(&place, "c", "FROM base\nCOPY f /\nRUN cat /f > /g\n");
    let base = [
        "build",
        "--root",
        "store",
        "--build-context",
        "base=oci-layout://base",
    ];
    let build = |more: &[&str]| {
        let ended = place.run(&[&base[..], more, &["c"]].concat());
        assert_eq!(ended.status, 0, "{}", ended.err);
        ended
    };
    build(&[]);
    let shown = place.run(&["cache", "du", "--root", "store"]);
    let kinds: Vec<&str> = shown
        .out
        .lines()
        .map(|line| line.split("  ").next().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "KIND",
            "blobs",
            "trees",
            "merged trees",
            "tables",
            "steps",
            "cache mounts",
            "git",
            "work in progress",
            "total"
        ]
    );
    let json = place.run(&["cache", "du", "--json", "--root", "store"]);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    let sum: u64 = json["kinds"]
        .as_array()
        .unwrap()
        .iter()
        .map(|kind| kind["bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(json["total_bytes"], sum);
    assert!(
        place
            .run(&["cache", "du", "-v", "--root", "store"])
            .out
            .contains("blobs/sha256/")
    );

    std::fs::write(place.path("c/f"), "y").unwrap();
    let told = build(&["--why"]);
    assert!(told.err.contains("NOT CACHED: unlike"), "{}", told.err);
    build(&[]);
    let why = |back: &str| place.run(&["cache", "why", "--root", "store", "--back", back]);
    let last = why("0");
    assert_eq!(
        last.out.matches("hit: the store has it").count(),
        2,
        "{}",
        last.out
    );
    let before = why("1");
    assert!(
        before.out.contains("file f: another content"),
        "{}",
        before.out
    );
    assert!(
        before.out.contains("it stands on other layers"),
        "{}",
        before.out
    );
    let first = why("2");
    assert_eq!(
        first.out.matches("no earlier step is like it").count(),
        2,
        "{}",
        first.out
    );
    assert_eq!(why("3").status, 2);

    let kept = place.run(&["cache", "prune", "--root", "store", "--older-than", "1h"]);
    assert_eq!((kept.status, kept.out.as_str()), (0, "freed 0 B\n"));
    let gone = place.run(&["cache", "prune", "--root", "store", "--kind", "trees"]);
    assert!(gone.out.starts_with("trees "), "{}", gone.out);
    for wrong in [
        ["--older-than", "soon"],
        ["--keep-storage", "much"],
        ["--kind", "all"],
    ] {
        let arguments = [&["cache", "prune", "--root", "store"][..], &wrong].concat();
        assert_eq!(place.run(&arguments).status, 2, "{wrong:?}");
    }
}

#[test]
fn weights_have_layers_of_their_own() {
    let place = Place::new();
    context(&place, "c", "FROM scratch\nCOPY . /app/\n");
    std::fs::write(place.path("c/model.bin"), vec![7; 300_000]).unwrap();
    let build = |policy: &str| {
        let arguments = [
            "build",
            "--root",
            "s",
            "--layer-policy",
            policy,
            "--metadata-file",
            "m",
            "c",
        ];
        let ended = place.run(&arguments);
        let layers = (ended.status == 0).then(|| {
            let metadata: serde_json::Value = serde_json::from_str(&place.text("m")).unwrap();
            metadata["ocibuild.layers"].as_array().unwrap().len()
        });
        (ended.status, layers)
    };
    assert_eq!(build("ml"), (0, Some(1)));
    assert_eq!(build("ml,min-size=100k"), (0, Some(2)));
    assert_eq!(build("ml,match=*.bin,match=f"), (0, Some(3)));
    for wrong in ["all", "ml,min-size=x", "ml,size=1"] {
        assert_eq!(build(wrong).0, 2, "{wrong}");
    }
    assert_eq!(build("ml,match=[").0, 1);
}

#[test]
fn caches_are_shared_by_flags() {
    let (place, registry) = (Place::new(), Registry::start().unwrap());
    context(
        &place,
        "c",
        "FROM base AS one\nRUN date +%N > /one\nFROM base\nCOPY --from=one /one /two\n",
    );
    let cache = format!("type=registry,ref={}/cache:c,mode=max", registry.host());
    let base = ["build", "--build-context", "base=oci-layout://base"];
    let build = |more: &[&str]| {
        let ended = place.run(&[&base[..], more, &["c"]].concat());
        assert_eq!(ended.status, 0, "{}", ended.err);
        ended
    };
    let first = build(&["--root", "one", "--cache-to", &cache]);
    assert!(first.err.contains("exporting cache to"), "{}", first.err);
    let from = format!("{}/cache:c", registry.host());
    let second = build(&["--root", "two", "--cache-from", &from]);
    assert_eq!(second.err.matches("CACHED").count(), 2, "{}", second.err);
    let why = place.run(&["cache", "why", "--root", "two"]);
    assert_eq!(
        why.out.matches(&format!("hit: {from} has it")).count(),
        2,
        "{}",
        why.out
    );
    // It is an ordinary image manifest.
    let shown = place.run(&["inspect", "--remote", &from]);
    let shown: serde_json::Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(shown["manifest"]["layers"].as_array().unwrap().len(), 2);
}
