//! Directories that outlive builds: what is shared with whom (B65).

use std::fs::File;
use std::sync::mpsc::channel;

use rustix::fs::{FlockOperation, flock};

use super::*;

/// Takes the lock of the one cache of a workshop, as another process would.
fn lock(workshop: &Workshop, operation: FlockOperation) -> File {
    let locks = std::fs::read_dir(workshop.store().join("locks")).unwrap();
    let mut names = locks.map(|entry| entry.unwrap().path());
    let is_slot = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("cache-") && name.ends_with("-0")
    };
    let file = File::open(names.find(is_slot).unwrap()).unwrap();
    flock(&file, operation).unwrap();
    file
}

/// B65: by default the cleaned target names the cache; it outlives steps and builds.
#[test]
fn b65_a_cache_outlives_the_build_and_is_in_no_layer() {
    let workshop = Workshop::new();
    let text = "RUN --mount=type=cache,target=/c1 stat -c '%a %u:%g' /c1 > /first; echo one > /c1/f\n\
        RUN --mount=type=cache,target=/c1/ cat /c1/f > /second\n\
        RUN --mount=type=cache,id=/c1,target=/other cat /other/f > /third\n\
        RUN --mount=type=cache,id=x,target=/c1 ls /c1 > /fourth; ls -d /c1 >> /fourth\n\
        RUN ls -d /c1 /other > /fifth 2>/dev/null || true";
    let image = workshop.built(build(&workshop, text));
    assert_eq!(image.text("first"), "755 0:0\n");
    assert_eq!(
        (image.text("second"), image.text("third")),
        ("one\n".into(), "one\n".into())
    );
    assert_eq!(image.text("fourth"), "/c1\n", "another id is another cache");
    assert_eq!(image.text("fifth"), "");
    assert_eq!(image.layer(1), ["first 0644 0:0 file"]);
    assert_eq!(image.layer(2), ["second 0644 0:0 file"]);

    let again = "RUN --mount=type=cache,target=/c1 cat /c1/f > /again";
    let image = workshop.built(build(&workshop, again).no_cache());
    assert_eq!(image.text("again"), "one\n", "--no-cache does not empty it");
}

/// B65: mode, uid and gid are those of a new cache; `from` and `source` fill it.
#[test]
fn b65_a_new_cache_is_filled() {
    let workshop = Workshop::new();
    let text = "RUN mkdir -p /seed/deep && echo seed > /seed/deep/f && chown -R 3:4 /seed && chmod 710 /seed\n\
        FROM busybox\n\
        RUN --mount=type=cache,target=/own,mode=0700,uid=1,gid=2 stat -c '%a %u:%g' /own > /own.txt\n\
        RUN --mount=type=cache,target=/c,from=0,source=/seed \
          stat -c '%n %a %u:%g' /c /c/deep/f > /seeded; cat /c/deep/f >> /seeded; echo new > /c/deep/f\n\
        RUN --mount=type=cache,target=/c,from=0,source=/seed cat /c/deep/f > /kept\n\
        RUN --mount=type=cache,target=/empty,from=scratch ls /empty > /none\n\
        RUN --mount=type=cache,target=/over,from=0,source=seed,mode=0755,uid=7 stat -c '%a %u:%g' /over > /over.txt";
    let image = workshop.built(build(&workshop, text));
    assert_eq!(image.text("own.txt"), "700 1:2\n");
    assert_eq!(
        image.text("seeded"),
        "/c 710 3:4\n/c/deep/f 644 3:4\nseed\n"
    );
    assert_eq!(image.text("kept"), "new\n", "it is filled once");
    assert_eq!(image.text("none"), "");
    assert_eq!(image.text("over.txt"), "755 7:4\n");

    let file = "RUN --mount=type=cache,target=/f,from=busybox,source=/bin/busybox true";
    let said = message(&workshop, build(&workshop, file));
    assert_eq!(
        said,
        "Dockerfile:2: a cache can only be filled from a directory, and \"/bin/busybox\" is none"
    );
    let none = "RUN --mount=type=cache,target=/f,from=busybox,source=/none true";
    let said = message(&workshop, build(&workshop, none));
    assert_eq!(said, "Dockerfile:2: \"/none\": not found");
}

#[test]
fn b65_a_cache_may_be_read_only() {
    let workshop = Workshop::new();
    let text = "RUN --mount=type=cache,target=/c echo one > /c/f\n\
        RUN --mount=type=cache,target=/c,ro ! touch /c/g 2>/dev/null && cat /c/f > /out";
    assert_eq!(workshop.built(build(&workshop, text)).text("out"), "one\n");
}

/// B65: `id` and `sharing` are not part of the step's key; the rest is.
#[test]
fn b65_identity_and_sharing_do_not_decide_over_the_result() {
    let workshop = Workshop::new();
    let cached = |options: &str| {
        let text = format!("RUN --mount=type=cache,target=/c{options} true");
        workshop.built(build(&workshop, &text)).cached()[0].1
    };
    assert!(!cached(""));
    assert!(cached(",id=other,sharing=locked"));
    assert!(!cached(",mode=0700"));
    assert!(!cached(",from=busybox"));
    assert!(!cached(",ro"));
}

/// What a command finds in the cache while others use it.
fn finds(workshop: &Workshop, sharing: &str) -> String {
    let text = format!("RUN --mount=type=cache,target=/c,sharing={sharing} ls /c > /out");
    workshop
        .built(build(workshop, &text).no_cache())
        .text("out")
}

/// B65: `shared` is used together, `private` is another one while it is in use.
#[test]
fn b65_who_shares_and_who_does_not() {
    let workshop = Workshop::new();
    let fill = "RUN --mount=type=cache,target=/c touch /c/f";
    workshop.built(build(&workshop, fill));
    for sharing in ["shared", "private", "locked"] {
        assert_eq!(finds(&workshop, sharing), "f\n", "nobody else uses it");
    }
    let shared = lock(&workshop, FlockOperation::LockShared);
    assert_eq!(finds(&workshop, "shared"), "f\n");
    assert_eq!(
        finds(&workshop, "private"),
        "",
        "another one, while it is in use"
    );
    drop(shared);
    let alone = lock(&workshop, FlockOperation::LockExclusive);
    assert_eq!(finds(&workshop, "shared"), "");
    assert_eq!(finds(&workshop, "private"), "");
    drop(alone);
    assert_eq!(finds(&workshop, "private"), "f\n");
}

/// B65: `locked` waits, and can be cancelled meanwhile.
#[test]
fn b65_who_wants_it_alone_waits() {
    let workshop = Workshop::new();
    let fill = "RUN --mount=type=cache,target=/c touch /c/f";
    workshop.built(build(&workshop, fill));
    let started = |build: Build| {
        let (send, started) = channel();
        let events = EventSink::new(move |event: Event| {
            if matches!(&event, Event::StepStarted { name, .. } if name.contains("RUN")) {
                let _ = send.send(());
            }
        });
        (build.events(events), started)
    };
    let text = "RUN --mount=type=cache,target=/c,sharing=locked cat /c/last > /out";
    let held = lock(&workshop, FlockOperation::LockShared);
    let (waiting, begun) = started(build(&workshop, text).no_cache());
    let image = std::thread::scope(|scope| {
        let waits = scope.spawn(|| workshop.built(waiting));
        begun.recv().unwrap();
        let slot = files_with(&workshop.store().join("cachemounts"), "/f");
        std::fs::write(slot[0].with_file_name("last"), "the last word").unwrap();
        drop(held);
        waits.join().unwrap()
    });
    assert_eq!(image.text("out"), "the last word");

    let _held = lock(&workshop, FlockOperation::LockExclusive);
    let cancel = ocibuild::Cancel::new();
    let (waiting, begun) = started(build(&workshop, text).no_cache().cancel(cancel.clone()));
    let error = std::thread::scope(|scope| {
        let waits = scope.spawn(|| workshop.fails(waiting));
        begun.recv().unwrap();
        cancel.cancel();
        waits.join().unwrap()
    });
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

/// Two places of one cache in one command are one directory, also where it is locked.
#[test]
fn one_cache_at_two_places() {
    let workshop = Workshop::new();
    let text = "RUN --mount=type=cache,id=x,target=/a,sharing=locked --mount=type=cache,id=x,target=/b \
        touch /a/f && ls /b > /out";
    assert_eq!(workshop.built(build(&workshop, text)).text("out"), "f\n");
}

#[test]
fn scopes_and_namespaces_share_nothing() {
    let workshop = Workshop::new();
    let text = "RUN echo > /plain\nRUN --mount=type=cache,target=/c ls /c > /out; touch /c/f";
    let run = |build: Build| {
        let image = workshop.built(build);
        let cached = image.cached().iter().map(|(_, cached)| *cached).collect();
        (image.text("out"), cached)
    };
    let all = |cached| vec![cached; 2];
    let plain = || build(&workshop, text);
    assert_eq!(run(plain()), (String::new(), all(false)));
    assert_eq!(run(plain().no_cache()), ("f\n".into(), all(false)));
    assert_eq!(run(plain().cache_scope("a")), (String::new(), all(false)));
    assert_eq!(run(plain().cache_scope("a")), (String::new(), all(true)));
    assert_eq!(run(plain().cache_scope("b")).1, all(false));
    let named = || plain().no_cache().build_arg("BUILDKIT_CACHE_MOUNT_NS", "n");
    assert_eq!(run(named()).0, "");
    assert_eq!(run(named()).0, "f\n");
    assert_eq!(run(named().cache_scope("a")).0, "");
}
