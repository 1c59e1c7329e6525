//! Secrets: where they are seen, and where they are not (B66).

use super::*;

/// B66: where it is, whose it is, what `env`, `target`, `mode`, `uid` and `gid` change.
#[test]
fn b66_a_secret_is_a_file_a_variable_or_both() {
    let workshop = Workshop::new();
    let secret = "line one\nline two";
    let show = "stat -c '%a %u:%g %F' /run/secrets/s /etc/own > /out && cat /run/secrets/s >> /out";
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
        EventSink::new(move |event: Event| events.lock().unwrap().push_str(&format!("{event:?}")))
    };
    let image = workshop.built(
        build(&workshop, &text)
            .secret("s", Secret::bytes(canary.clone()))
            .events(sink),
    );
    let (file, variable) = seen.join().unwrap();
    assert_eq!(file, [""; 0]);
    let of_command =
        |line: &String| line.starts_with("environ: nc") || line.starts_with("environ: /bin/sh -c");
    assert!(
        !variable.is_empty() && variable.iter().all(of_command),
        "{variable:?}"
    );
    let left = files_with(&workshop.store(), &canary);
    assert!(left.is_empty(), "{left:?}");
    assert!(!events.lock().unwrap().contains(&canary));
    assert!(!format!("{:?} {:?}", image.image(), image.config).contains(&canary));
}
