//! `RUN --mount` in whole builds, real commands over busybox. The numbers are those of
//! the behaviours of the reference builder that a test pins: B64 mounts, B65 caches,
//! B66 secrets, B67 agents.

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
fn gate() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, format!("nc 127.0.0.1 {port} < /dev/null"))
}

mod secrets {
    use super::*;

    /// B66: where it is, whose it is, what `env`, `target`, `mode`, `uid` and `gid` change.
    #[test]
    fn b66_a_secret_is_a_file_a_variable_or_both() {
        let workshop = Workshop::new();
        let secret = "line one\nline two";
        let show =
            "stat -c '%a %u:%g %F' /run/secrets/s /etc/own > /out && cat /run/secrets/s >> /out";
        let text = format!(
            "WORKDIR /w\nENV S=plain\n\
             RUN --mount=type=secret,id=s --mount=type=secret,id=s,target=/etc/own,mode=0640,uid=0,gid=0 {show}\n\
             RUN --mount=type=secret,id=s,env=S echo \"$S\" > /env; ls /run/secrets 2>&1 > /none || true\n\
             RUN --mount=type=secret,id=s,env=S,target=here echo \"$S\" | cmp - here 2>&1 | cut -c1-3 > /both; pwd >> /both\n\
             RUN --mount=type=secret,target=/run/named/s cat /run/named/s > /named"
        );
        let build = build(&workshop, &text).secret("s", Secret::bytes(secret));
        let image = workshop.built(build);
        let modes = "400 0:0 regular file\n640 0:0 regular file\n";
        assert_eq!(image.text("out"), format!("{modes}{secret}"));
        assert_eq!(image.text("env"), format!("{secret}\n"), "it wins over ENV");
        assert_eq!(image.text("none"), "");
        assert_eq!(
            image.text("both"),
            "cmp\n/w\n",
            "the newline of echo differs"
        );
        assert_eq!(
            image.text("named"),
            secret,
            "the id is the base of the target"
        );
        assert_eq!(image.config.config.env("S"), Some("plain"));
    }

    /// B62, B66: what was made only to mount something on vanishes, with its parents.
    #[test]
    fn b62_the_mount_point_leaves_no_trace() {
        let image = {
            let workshop = Workshop::new();
            let text = "RUN --mount=type=secret,id=s,target=/made/for/it test -s /made/for/it && touch /tmp/x\n\
                RUN --mount=type=secret,id=s,target=/etc/passwd grep -q hidden /etc/passwd\n\
                RUN ls -d /made /run > /after 2>/dev/null; cut -d: -f1 /etc/passwd >> /after";
            workshop.built(build(&workshop, text).secret("s", Secret::bytes("hidden")))
        };
        assert_eq!(image.layer(1), ["tmp 1777 0:0 dir", "tmp/x 0644 0:0 file"]);
        assert_eq!(
            image.layer(2),
            [""; 0],
            "an existing file is hidden and comes back"
        );
        assert_eq!(image.text("after"), "root\nnobody\n");
    }

    /// B66: memory, read-only, nothing to run, no devices.
    #[test]
    fn b66_a_secret_can_only_be_read() {
        let workshop = Workshop::new();
        let text = "RUN --mount=type=secret,id=s --mount=type=secret,id=s,target=/x,mode=0555 \
             grep -E ' (/run/secrets/s|/x) ' /proc/mounts | cut -d' ' -f2-4 > /mounts; \
             ! echo no 2>/dev/null > /run/secrets/s && ! rm /run/secrets/s 2>/dev/null && \
             ! chmod 777 /run/secrets/s 2>/dev/null && /x > /ran";
        let secret = Secret::bytes("#!/bin/sh\necho ran\n");
        let image = workshop.built(build(&workshop, text).secret("s", secret));
        let mounts = image.text("mounts");
        let options = |place: &str| {
            let line = mounts.lines().find(|line| line.starts_with(place)).unwrap();
            let options = line.split(' ').nth(2).unwrap().split(',');
            ["ro", "nosuid", "nodev", "noexec"].map(|one| options.clone().any(|o| o == one))
        };
        assert!(
            mounts.lines().all(|line| line.contains(" tmpfs ")),
            "{mounts}"
        );
        assert_eq!(options("/run/secrets/s"), [true; 4], "{mounts}");
        assert_eq!(options("/x"), [true, true, true, false], "{mounts}");
        assert_eq!(image.text("ran"), "ran\n");
    }

    /// B66: `required` fails; without it there is no file, and an empty variable.
    #[test]
    fn b66_a_secret_that_is_not_given() {
        let workshop = Workshop::new();
        let text = "RUN touch /before\n\
            RUN --mount=type=secret,id=s --mount=type=secret,id=s,env=S \
            test ! -e /run/secrets && echo \"[${S-unset}]\" > /out";
        assert_eq!(workshop.built(build(&workshop, text)).text("out"), "[]\n");

        let needy = "RUN touch /before\nRUN --mount=type=secret,id=token,required touch /never";
        let build = |id: &str| build(&workshop, needy).secret(id, Secret::bytes("x"));
        let said = message(&workshop, build("other"));
        assert_eq!(
            said,
            "Dockerfile:3: the secret \"token\" is required and was not given \
             (give it: --secret id=token,src=FILE)"
        );
        let said = message(&workshop, build("tokn"));
        assert!(said.ends_with("(did you mean \"tokn\"?)"), "{said}");
        let error = workshop.fails(build("tokn"));
        assert_eq!(error.kind(), ErrorKind::User);
        assert_eq!(error.location().unwrap().lines, 3..=3);
    }

    #[test]
    fn secrets_that_cannot_be_had_are_named_and_not_shown() {
        let workshop = Workshop::new();
        let missing = Secret::file(workshop.path("no-such-file"));
        let cases = [
            (
                missing,
                "id=s",
                "no-such-file: No such file or directory (os error 2)",
            ),
            (
                Secret::bytes(vec![b'x'; 512_001]),
                "id=s",
                "it is longer than 512000 bytes",
            ),
            (
                Secret::bytes("can\0ary"),
                "id=s,env=S",
                "it holds a zero byte and so cannot be an environment variable",
            ),
        ];
        for (secret, options, want) in cases {
            let text = format!("RUN --mount=type=secret,{options} true");
            let said = message(&workshop, build(&workshop, &text).secret("s", secret));
            assert!(
                said.starts_with("Dockerfile:2: the secret \"s\": "),
                "{said}"
            );
            assert!(said.ends_with(want) && !said.contains("ary"), "{said}");
        }
    }

    /// B66: id and options are part of the key, the value is not.
    #[test]
    fn b66_the_value_does_not_decide_over_the_cache() {
        let workshop = Workshop::new();
        let run = |options: &str, value: &str| {
            let text = format!("RUN --mount=type=secret,{options} cat /run/secrets/* > /out");
            let image = workshop.built(build(&workshop, &text).secret("s", Secret::bytes(value)));
            (image.cached()[0].1, image.text("out"))
        };
        assert_eq!(run("id=s", "one"), (false, "one".into()));
        assert_eq!(run("id=s", "two"), (true, "one".into()));
        assert_eq!(run("id=s,mode=0440", "two"), (false, "two".into()));
    }

    #[test]
    fn files_and_variables_are_read_when_a_step_asks() {
        let workshop = Workshop::new();
        let file = workshop.path("secret-file");
        std::fs::write(&file, "in a file").unwrap();
        let text = "RUN --mount=type=secret,id=f --mount=type=secret,id=v,env=V \
            echo \"$(cat /run/secrets/f) $V\" > /out";
        // Any variable that every test process has.
        let build = build(&workshop, text)
            .secret("f", Secret::file(&file))
            .secret("v", Secret::variable("CARGO_MANIFEST_DIR"));
        let want = format!("in a file {}\n", env!("CARGO_MANIFEST_DIR"));
        assert_eq!(workshop.built(build).text("out"), want);
    }

    /// Command line and environment of every process, where a text is in one of them.
    fn processes_with(text: &str) -> Vec<String> {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let numbers = all.filter(|e| {
            e.file_name()
                .to_string_lossy()
                .bytes()
                .all(|b| b.is_ascii_digit())
        });
        let mut found = Vec::new();
        for folder in numbers.map(|entry| entry.path()) {
            let line = std::fs::read(folder.join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(text) {
                found.push(format!("cmdline: {line}"));
            }
            if contains(
                &std::fs::read(folder.join("environ")).unwrap_or_default(),
                text,
            ) {
                found.push(format!("environ: {line}"));
            }
        }
        found
    }

    /// While a step runs its secret is in no process but those that asked for it by `env`,
    /// and afterwards in no file of the store, no record and no event.
    #[test]
    fn a_canary_is_seen_nowhere() {
        let workshop = Workshop::new();
        let canary = format!("canary-{}-sings", std::process::id());
        let (listener, hold) = gate();
        let text = format!(
            "RUN --mount=type=secret,id=s,required sha256sum < /run/secrets/s > /one; {hold}; touch /a\n\
             RUN --mount=type=secret,id=s,required,env=S {hold}; test -n \"$S\" && touch /b"
        );
        let seen = std::thread::spawn({
            let canary = canary.clone();
            move || {
                let (as_file, _) = listener.accept().unwrap();
                let file = processes_with(&canary);
                drop(as_file);
                let (as_variable, _) = listener.accept().unwrap();
                let variable = processes_with(&canary);
                drop(as_variable);
                (file, variable)
            }
        });
        let events = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
        let sink = {
            let events = events.clone();
            EventSink::new(move |event: Event| {
                events.lock().unwrap().push_str(&format!("{event:?}"))
            })
        };
        let image = workshop.built(
            build(&workshop, &text)
                .secret("s", Secret::bytes(canary.clone()))
                .events(sink),
        );
        let (file, variable) = seen.join().unwrap();
        assert_eq!(file, [""; 0]);
        let of_command = |line: &String| {
            line.starts_with("environ: nc") || line.starts_with("environ: /bin/sh -c")
        };
        assert!(
            !variable.is_empty() && variable.iter().all(of_command),
            "{variable:?}"
        );
        let left = files_with(&workshop.store(), &canary);
        assert!(left.is_empty(), "{left:?}");
        assert!(!events.lock().unwrap().contains(&canary));
        assert!(!format!("{:?} {:?}", image.image(), image.config).contains(&canary));
    }
}

mod caches {
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
}

mod binds {
    use super::*;

    /// B64: `bind` is the default type; the context is the default source, as it is sent.
    #[test]
    fn b64_the_context_is_mounted() {
        let workshop = Workshop::new();
        let text = "WORKDIR /w\n\
            RUN --mount=target=here find here | sort > /list; cat here/f > /out; stat -c '%a %u:%g %Y' here here/f > /stat; \
              ! touch here/x 2>/dev/null && ! rm here/f 2>/dev/null && echo kept >> /out\n\
            RUN --mount=source=dir,target=d ls d > /dir\n\
            RUN --mount=source=f,target=/etc/f cat /etc/f > /file\n\
            RUN --mount=source=../dir/g,target=/etc/passwd cat /etc/passwd > /over\n\
            RUN ls -a /w > /left";
        let image = workshop.built(build(&workshop, text));
        let list = "here\nhere/.dockerignore\nhere/Dockerfile\nhere/dir\nhere/dir/g\nhere/f\n";
        assert_eq!(image.text("list"), list, "what is ignored is not there");
        assert_eq!(image.text("out"), "from the context\nkept\n");
        assert!(image.text("stat").ends_with("\n644 0:0 1700000000\n"));
        assert!(image.text("stat").starts_with("755 0:0 "));
        assert_eq!(image.text("dir"), "g\n");
        assert_eq!(image.text("left"), ".\n..\n");
        assert_eq!(image.text("file"), "from the context\n");
        assert_eq!(image.text("over"), "deeper\n");
        let plain = ["list", "out", "stat"].map(|name| format!("{name} 0644 0:0 file"));
        assert_eq!(image.layer(2), plain);
    }

    /// B64: what `rw` writes is thrown away, and the next step sees the source again.
    #[test]
    fn b64_writes_are_thrown_away() {
        let workshop = Workshop::new();
        let text = "FROM busybox AS source\nRUN mkdir /s && echo old > /s/f\nFROM busybox\n\
            RUN --mount=target=/c,rw --mount=from=source,source=/s,target=/s,rw \
              echo new > /c/f; rm /c/dir/g; echo new > /s/f; touch /s/g; cat /c/f /s/f > /out; ls /s >> /out\n\
            RUN --mount=target=/c,rw --mount=from=source,source=/s,target=/s \
              cat /c/f /s/f /c/dir/g > /after; ls /s >> /after";
        let image = workshop.built(build(&workshop, text));
        assert_eq!(image.text("out"), "new\nnew\nf\ng\n");
        assert_eq!(image.text("after"), "from the context\nold\ndeeper\nf\n");
        assert_eq!(image.layer(1), ["out 0644 0:0 file"]);
        workshop.assert_tidy();
    }

    /// B64: stages (in any case), images and named contexts are sources.
    #[test]
    fn b64_stages_images_and_contexts_are_sources() {
        let workshop = Workshop::new();
        let named = ContextDir::new().file("n", "named\n");
        let context = ocibuild::NamedContext::Directory(named.path().to_owned());
        let text = "FROM busybox AS Tools\nRUN echo '#!/bin/sh' > /tool && echo 'echo tool' >> /tool && chmod 755 /tool\n\
            FROM busybox AS unused\nRUN exit 1\n\
            FROM scratch\n\
            RUN --mount=from=busybox,source=/bin,target=/bin --mount=from=TOOLS,source=tool,target=/usr/bin/tool \
              --mount=from=named,target=/named --mount=from=scratch,target=/none \
              tool > /out; cat /named/n >> /out; ls /none >> /out";
        let image = workshop.built(build(&workshop, text).named_context("named", context));
        assert_eq!(image.text("out"), "tool\nnamed\n");
        let names: Vec<String> = image.list("");
        assert_eq!(names.len(), 4, "/dev, /proc, /sys and the file: {names:?}");
    }

    /// The files decide over the cache, and nothing else of the context does.
    #[test]
    fn the_files_that_are_seen_are_part_of_the_key() {
        let workshop = Workshop::new();
        let cached = |seen: &str, other: &str, options: &str| {
            let text = format!("FROM busybox\nRUN --mount=source=d,target=/d{options} true\n");
            let context = ContextDir::new()
                .file("Dockerfile", text)
                .file("d/f", seen)
                .file("other", other);
            workshop.built(workshop.build(&context)).cached()[0].1
        };
        assert!(!cached("1", "1", ""));
        assert!(cached("1", "2", ""));
        assert!(!cached("2", "2", ""));
        assert!(!cached("2", "2", ",rw"));
    }

    #[test]
    fn mounts_that_cannot_be_are_refused_with_their_place() {
        let workshop = Workshop::new();
        for (options, want) in [
            (
                "source=none,target=/n",
                "Dockerfile:2: \"/none\": not found",
            ),
            (
                "source=hidden,target=/n",
                "Dockerfile:2: \"/hidden\": not found",
            ),
            (
                "from=0,source=/x,target=/n",
                "Dockerfile:2: circular dependency detected on stage \"0\"",
            ),
            (
                "from=later,target=/n",
                "Dockerfile:2: stage \"later\" is used before it is defined \
                 (move the stage that is used above the one that uses it)",
            ),
            (
                "target=/",
                "Dockerfile:2: RUN --mount=target=/: the target is the root directory \
                 (name the place: target=/path)",
            ),
            (
                "type=tmpfs,target=$NONE",
                "Dockerfile:2: RUN --mount=type=tmpfs,target=$NONE: the target is the root directory \
                 (name the place: target=/path)",
            ),
            (
                "type=tmpfs,target=/t,sice=1m",
                "Dockerfile:2: RUN --mount=type=tmpfs,target=/t,sice=1m: \
                 unknown option \"sice\", did you mean \"size\"?",
            ),
        ] {
            let text = format!("RUN --mount={options} true\nFROM busybox AS later");
            let build = build(&workshop, &text).target("0");
            assert_eq!(message(&workshop, build), want, "{options}");
        }
    }

    /// B64: what lies inside of another mount is mounted after it; the last one wins.
    #[test]
    fn b64_mounts_lie_in_each_other() {
        let workshop = Workshop::new();
        let text = "RUN mkdir -p /c/dir/empty /t/in\n\
            RUN --mount=type=cache,target=/c/dir/new --mount=type=tmpfs,target=/c/dir --mount=target=/c,rw \
              ls /c/dir > /out; touch /c/dir/new/f\n\
            RUN --mount=type=tmpfs,target=/t --mount=type=tmpfs,target=/t/in ls /t > /second\n\
            RUN --mount=type=tmpfs,target=/x --mount=source=dir,target=/x ls /x > /third\n\
            RUN --mount=type=cache,target=/c/dir/new ls /c/dir/new > /fourth";
        let image = workshop.built(build(&workshop, text));
        assert_eq!(image.text("out"), "new\n");
        assert_eq!(image.text("second"), "in\n");
        assert_eq!(
            image.at("t/in"),
            "0755 0:0 dir",
            "a directory of the image stays"
        );
        assert_eq!(image.layer(3), ["second 0644 0:0 file"]);
        assert_eq!(
            (image.text("third"), image.text("fourth")),
            ("g\n".into(), "f\n".into())
        );

        let text = "RUN --mount=target=/c --mount=type=cache,target=/c/none true";
        let said = message(&workshop, build(&workshop, text));
        assert_eq!(
            said,
            "Dockerfile:2: c/none: is missing as a place for a mount, and cannot be made in a read-only one"
        );
    }

    /// Links of the image in a target, and links of a source, stay inside their roots.
    #[test]
    fn links_do_not_lead_out() {
        let workshop = Workshop::new();
        let host = workshop.path("host");
        std::fs::create_dir(&host).unwrap();
        std::fs::write(host.join("secret"), "of the machine").unwrap();
        let host = host.to_str().unwrap();
        let text = format!(
            "FROM busybox AS source\nRUN ln -s {host} /out && ln -s ../../../../../../.. /up && \
               ln -s /etc/passwd /good && ln -s /none /bad\nFROM source\n\
             RUN --mount=type=tmpfs,target=/out/t --mount=type=secret,id=s,target=/up/s \
               touch /out/t/x && test -d {host}/t && cat /s > /first\n\
             RUN --mount=from=source,source=/good,target=/g grep -c . /g > /second\n\
             RUN --mount=from=source,target=/all ! cat /all{host}/secret /all/out/secret 2>/dev/null && ls /all/bin/sh > /third"
        );
        let image = workshop.built(build(&workshop, &text).secret("s", Secret::bytes("first")));
        assert_eq!(image.text("first"), "first");
        assert_eq!(image.text("second"), "2\n");
        assert_eq!(image.text("third"), "/all/bin/sh\n");
        assert_eq!(
            std::fs::read_dir(host).unwrap().count(),
            1,
            "nothing was made there"
        );
        for source in ["/out", "/bad"] {
            let text = format!(
                "FROM busybox AS source\nRUN ln -s {host} /out && ln -s /none /bad\nFROM busybox\n\
                 RUN --mount=from=source,source={source},target=/x ls /x"
            );
            let said = message(&workshop, build(&workshop, &text));
            assert_eq!(said, format!("Dockerfile:5: {source:?}: not found"));
        }
    }

    #[test]
    fn a_file_and_a_directory_do_not_fit_each_other() {
        let workshop = Workshop::new();
        for (options, want) in [
            (
                "type=tmpfs,target=/etc/passwd",
                "/etc/passwd: is not a directory",
            ),
            ("source=f,target=/etc", "/etc: is a directory"),
            (
                "type=cache,target=/etc/passwd/x",
                "etc/passwd/x: leads through a file",
            ),
        ] {
            let error = workshop.fails(build(&workshop, &format!("RUN --mount={options} true")));
            assert_eq!(error.kind(), ErrorKind::Command, "{error}");
            assert!(error.to_string().ends_with(want), "{options}: {error}");
            assert_eq!(error.location().unwrap().lines, 2..=2);
        }
    }

    #[test]
    fn b64_a_tmpfs_is_empty_bounded_and_gone() {
        let workshop = Workshop::new();
        let text = "RUN --mount=type=tmpfs,target=/tmp,size=64k \
              ls /tmp > /out; df -k /tmp | tail -1 | awk '{ print $2 }' >> /out; touch /tmp/x; \
              ! dd if=/dev/zero of=/tmp/big bs=1k count=100 2>/dev/null && echo full >> /out\n\
            RUN --mount=type=tmpfs,target=/new,size=0 dd if=/dev/zero of=/new/f bs=1k count=100 2>/dev/null\n\
            RUN ls -d /tmp/* /new > /after 2>/dev/null || true";
        let image = workshop.built(build(&workshop, text));
        assert_eq!(image.text("out"), "64\nfull\n");
        assert_eq!(image.text("after"), "");
        assert_eq!(image.layer(2), [""; 0]);
    }
}

mod agents {
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::built::skip;
    use crate::run::with_libraries;

    /// An agent of OpenSSH with one key, ended when it is dropped.
    struct OpenSsh {
        folder: tempfile::TempDir,
        agent: Child,
    }

    impl OpenSsh {
        fn start() -> Option<Self> {
            let folder = tempfile::tempdir().unwrap();
            let socket = folder.path().join("agent");
            let mut started = Command::new("ssh-agent");
            started
                .arg("-D")
                .arg("-a")
                .arg(&socket)
                .stdout(Stdio::piped());
            let mut agent = started.spawn().ok()?;
            // It says where it listens once it does.
            let mut said = String::new();
            let out = agent.stdout.take().unwrap();
            std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut said).unwrap();
            let openssh = Self { folder, agent };
            let key = openssh.path("key");
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", "the key", "-f"])
                .arg(&key)
                .status();
            assert!(made.unwrap().success());
            let added = Command::new("ssh-add")
                .arg("-q")
                .arg(&key)
                .env("SSH_AUTH_SOCK", openssh.socket())
                .status();
            assert!(added.unwrap().success());
            Some(openssh)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn socket(&self) -> PathBuf {
            self.path("agent")
        }
    }

    impl Drop for OpenSsh {
        fn drop(&mut self) {
            self.agent.kill().unwrap();
            self.agent.wait().unwrap();
        }
    }

    /// A context with the client of the agent.
    fn with_client() -> Option<ContextDir> {
        let files = with_libraries(&["/usr/bin/ssh-add"])?;
        let context = files.iter().fold(ContextDir::new(), |context, file| {
            context.executable(&format!("root{file}"), std::fs::read(file).unwrap())
        });
        // It asks who it is.
        let passwd = "root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n";
        Some(context.file("root/etc/passwd", passwd))
    }

    /// B67: the socket is root's, 0600, at its place, and SSH_AUTH_SOCK names it.
    #[test]
    fn b67_a_command_lists_keys_and_changes_none() {
        let (Some(openssh), Some(context)) = (OpenSsh::start(), with_client()) else {
            skip("OpenSSH is not installed");
            return;
        };
        let text = "FROM busybox\nCOPY root/ /\n\
            RUN --mount=type=ssh stat -c '%n %a %u:%g %F' $SSH_AUTH_SOCK > /stat && ssh-add -l > /list; \
              ssh-add -D 2> /refused && exit 1; ! chmod 777 $SSH_AUTH_SOCK 2>/dev/null && ssh-add -l >> /list\n\
            USER user\n\
            RUN --mount=type=ssh,uid=1000,mode=0400 --mount=type=ssh,id=other,uid=1000,target=/s,required \
              ssh-add -l 2>&1 | sed 's/: .*//' > /tmp/first; \
              SSH_AUTH_SOCK=/s ssh-add -l > /tmp/second; stat -c '%a %u' $SSH_AUTH_SOCK /s > /tmp/stat\n\
            USER root\n\
            RUN --mount=type=ssh,target=/own env | grep SSH_ > /own.txt\n\
            ENV SSH_AUTH_SOCK=/mine\nRUN --mount=type=ssh echo $SSH_AUTH_SOCK > /env\n\
            RUN --mount=type=ssh,id=none echo $SSH_AUTH_SOCK > /none; ls -d /run/buildkit 2>/dev/null || echo no >> /none";
        let workshop = Workshop::new();
        let context = context.file("Dockerfile", text);
        let build = workshop
            .build(&context)
            .ssh("default", openssh.socket())
            .ssh("other", openssh.socket());
        let image = workshop.built(build);
        assert_eq!(
            image.text("stat"),
            "/run/buildkit/ssh_agent.0 600 0:0 socket\n"
        );
        let list = image.text("list");
        assert_eq!(list.matches(" the key (ED25519)\n").count(), 2, "{list}");
        assert_eq!(image.text("refused"), "Failed to remove all identities.\n");
        assert_eq!(image.text("tmp/stat"), "400 1000\n600 1000\n");
        assert!(image.text("tmp/second").contains("the key"));
        assert_eq!(
            image.text("tmp/first"),
            "Error connecting to agent\n",
            "talking to a socket needs the right to write"
        );
        assert_eq!(image.text("own.txt"), "SSH_AUTH_SOCK=/own\n");
        assert_eq!(image.text("env"), "/mine\n");
        assert_eq!(image.text("none"), "/mine\nno\n");
        assert_eq!(image.at("run"), "-");
        workshop.assert_tidy();
    }

    #[test]
    fn b67_an_agent_that_is_missing_is_said_before_the_step() {
        let workshop = Workshop::new();
        let text = "RUN --mount=type=ssh,required true";
        assert_eq!(
            message(&workshop, build(&workshop, text)),
            "Dockerfile:2: the SSH agent \"default\" is required and was not given \
             (give it: --ssh default[=SOCKET])"
        );
        let socket = workshop.path("none");
        let said = message(&workshop, build(&workshop, text).ssh("default", &socket));
        let want = format!(
            "Dockerfile:2: the SSH agent \"default\" at {}: No such file or directory (os error 2)",
            socket.display()
        );
        assert_eq!(said, want);
        let said = message(&workshop, build(&workshop, text).ssh("defualt", &socket));
        assert!(said.ends_with("(did you mean \"defualt\"?)"), "{said}");
    }
}
