//! `ocibuild build`: where the context comes from, what is written where, and how
//! failures look.

use ocibuild::testing::{ContextDir, GitServer};

use crate::command::{Place, json};

fn context() -> ContextDir {
    ContextDir::new().file("f", "x").file(
        "Dockerfile",
        "FROM busybox\nCOPY f /f\nRUN echo said && cp /f /g\n",
    )
}

#[test]
fn a_build_prints_the_digest_and_writes_its_files() {
    let place = Place::new();
    let files = ["--iidfile", "iid", "--metadata-file", "meta", "-t", "app:1"];
    let ended = place.build(&context(), &files);
    assert_eq!(ended.status, 0, "{}", ended.err);
    let image = place.verify("app:1");
    let digest = image["descriptor"]["digest"].as_str().unwrap();
    assert_eq!(ended.out, format!("{digest}\n"));
    assert_eq!(
        place.text("iid"),
        image["manifest"]["config"]["digest"].as_str().unwrap()
    );
    let meta = json(&place.path("meta"));
    assert_eq!(meta["containerimage.digest"], digest);
    assert_eq!(meta["containerimage.config.digest"], place.text("iid"));
    assert_eq!(meta["image.name"], "app:1");
    assert!(
        ended.err.contains("[stage 2/3] COPY f /f\n") && ended.err.contains(" said\n"),
        "{}",
        ended.err
    );

    let again = place.build(&context(), &["--quiet"]);
    assert_eq!((again.out, again.err.as_str()), (ended.out, ""));
}

#[test]
fn progress_as_json_is_one_object_a_line() {
    let place = Place::new();
    let ended = place.build(&context(), &["--progress", "json"]);
    assert_eq!(ended.status, 0, "{}", ended.err);
    let events: Vec<ocibuild::Event> = ended
        .err
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let said = |event: &ocibuild::Event| matches!(event, ocibuild::Event::StepLog { line, .. } if line == "said");
    assert!(events.iter().any(said), "{}", ended.err);
}

#[test]
fn a_failure_shows_the_place_and_the_last_lines() {
    let place = Place::new();
    let context = ContextDir::new().file(
        "Dockerfile",
        "FROM busybox\nENV A=1\nRUN echo before; exit 3\nCMD x\n",
    );
    let ended = place.build(&context, &["--iidfile", "iid"]);
    assert_eq!((ended.status, ended.out.as_str()), (1, ""));
    let want = "error: Dockerfile:3: process \"/bin/sh -c echo before; exit 3\" did not complete \
        successfully: exit code: 3\n\
        ------\n > before\n------\n\
        Dockerfile:3\n--------------------\n\
        \x20  1 |     FROM busybox\n\
        \x20  2 |     ENV A=1\n\
        \x20  3 | >>> RUN echo before; exit 3\n\
        \x20  4 |     CMD x\n\
        --------------------\n";
    assert!(ended.err.ends_with(want), "{}", ended.err);
    assert!(!place.path("iid").exists());
    place.assert_tidy();
}

#[test]
fn an_unknown_instruction_has_a_hint() {
    let place = Place::new();
    let ended = place.build(
        &ContextDir::new().file("Dockerfile", "FROM scratch\nCOPPY a b\n"),
        &[],
    );
    assert_eq!(ended.status, 1);
    assert!(
        ended
            .err
            .starts_with("error: Dockerfile:2: unknown instruction \"COPPY\"\n"),
        "{}",
        ended.err
    );
    assert!(
        ended.err.contains("   2 | >>> COPPY a b\n"),
        "{}",
        ended.err
    );
    assert!(
        ended.err.ends_with("hint: did you mean COPY?\n"),
        "{}",
        ended.err
    );
}

#[test]
fn wrong_usage_ends_with_2() {
    let place = Place::new();
    let cases: &[(&[&str], &str)] = &[
        (&["build"], "required arguments were not provided"),
        (
            &["build", "--no-such-flag", "."],
            "unexpected argument '--no-such-flag'",
        ),
        (
            &["build", "--root", "s", "gone"],
            "error: the context \"gone\" is not a directory\n",
        ),
        (
            &["build", "--root", "s", "-f", "-", "-"],
            "cannot both come from standard input",
        ),
        (
            &["build", "--root", "s", "--push", "."],
            "--push needs a name: say -t REF",
        ),
        (&["build", "--root", "s", "-t", "UPPER", "."], "UPPER"),
        (
            &["build", "--root", "s", "--build-context", "x", "."],
            "--build-context \"x\": want NAME=VALUE",
        ),
        (
            &["build", "--root", "s", "-o", "type=vhs,dest=x", "."],
            "unknown type \"vhs\"",
        ),
        (
            &["build", "--root", "s", "--platform", "/", "."],
            "--platform: ",
        ),
        (&["frobnicate"], "unrecognized subcommand"),
    ];
    for (arguments, want) in cases {
        let ended = place.run(arguments);
        assert_eq!(ended.status, 2, "{arguments:?}: {}", ended.err);
        assert!(ended.err.contains(want), "{arguments:?}: {}", ended.err);
    }
}

#[test]
fn a_context_comes_from_standard_input() {
    let place = Place::new();
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_dir_all(".", context().path()).unwrap();
    let tar = tar.into_inner().unwrap();
    let arguments = crate::command::build_arguments("-", &["-t", "app:1"]);
    let ended = place.run_with(&tar, &arguments);
    assert_eq!(ended.status, 0, "{}", ended.err);
    place.verify("app:1");
    place.assert_tidy();
}

#[test]
fn a_dockerfile_comes_from_standard_input() {
    let place = Place::new();
    let context = context();
    let arguments = crate::command::build_arguments(
        context.path().to_str().unwrap(),
        &["-f", "-", "-t", "app:1"],
    );
    let ended = place.run_with(b"FROM scratch\nLABEL from=stdin\n", &arguments);
    assert_eq!(ended.status, 0, "{}", ended.err);
    assert_eq!(
        place.verify("app:1")["config"]["config"]["Labels"]["from"],
        "stdin"
    );
}

#[test]
fn a_context_comes_from_git() {
    let (place, server) = (Place::new(), GitServer::start());
    let repository = server.repository("team/app.git");
    repository
        .file("sub/f", "x")
        .file("sub/Dockerfile", "FROM busybox\nCOPY f /f\n");
    let commit = repository.commit("one");
    repository
        .tag("v1")
        .file("sub/Dockerfile", "broken")
        .commit("two");
    let url = format!("{}#v1:sub", repository.url());
    let ended = place.build_of(&url, &["-t", "app:1", "--metadata-file", "meta"]);
    assert_eq!(ended.status, 0, "{}", ended.err);
    assert!(
        ended.err.contains(&format!("commit {commit}\n")),
        "{}",
        ended.err
    );
    assert_eq!(json(&place.path("meta"))["ocibuild.commit"], commit);
    place.verify("app:1");
    place.assert_tidy();

    let ended = place.build_of(&format!("{}#v9", repository.url()), &[]);
    assert_eq!(ended.status, 1);
    assert!(
        ended.err.contains("no branch, tag or commit \"v9\""),
        "{}",
        ended.err
    );
    place.assert_tidy();
}

#[test]
fn arguments_labels_targets_and_outputs() {
    let place = Place::new();
    let context = ContextDir::new().file("f", "x").file(
        "other.df",
        "FROM scratch AS one\nARG A B\nLABEL a=$A b=$B\nCOPY f /f\nFROM scratch\n",
    );
    let file = context.path().join("other.df");
    let flags = [
        "-f",
        file.to_str().unwrap(),
        "--build-arg",
        "A=1",
        "--build-arg",
        "B",
        "--label",
        "c=3",
        "--label",
        "bare",
        "--target",
        "one",
        "--platform",
        "linux/arm64",
        "-t",
        "app:1",
        "-o",
        "type=oci,dest=oci.tar",
        "-o",
        "type=docker,dest=docker.tar",
        "-o",
        "type=tar,dest=root.tar",
        "-o",
        "root",
    ];
    let arguments = crate::command::build_arguments(context.path().to_str().unwrap(), &flags);
    let output = place
        .command(&arguments)
        .env("B", "2")
        .env("SOURCE_DATE_EPOCH", "1600000000")
        .output();
    let ended = crate::command::ended(output.unwrap());
    assert_eq!(ended.status, 0, "{}", ended.err);
    let config = &place.verify("app:1")["config"];
    assert_eq!(
        config["config"]["Labels"],
        serde_json::json!({"a": "1", "b": "2", "c": "3", "bare": ""})
    );
    assert_eq!(
        (&config["architecture"], &config["created"]),
        (&"arm64".into(), &"2020-09-13T12:26:40Z".into())
    );
    for file in ["oci.tar", "docker.tar", "root.tar"] {
        assert!(place.path(file).is_file(), "{file}");
    }
    assert_eq!(place.text("root/f"), "x");
}

#[test]
fn secrets_come_from_files_and_variables() {
    let place = Place::new();
    std::fs::write(place.path("file,1"), "in a file").unwrap();
    std::fs::write(place.path("plain"), "by its name").unwrap();
    let show = "for id in a b c d e; do cat /run/secrets/$id; echo; done";
    let mounts = ["a", "b", "c", "d", "plain,target=/run/secrets/e"]
        .map(|id| format!("--mount=type=secret,required,id={id}"))
        .join(" ");
    let text = format!("FROM busybox\nRUN {mounts} {show}\n");
    let context = ContextDir::new().file("Dockerfile", text);
    let flags = [
        "--secret",
        "\"src=file,1\",id=a",
        "--secret",
        "id=b,env=TOKEN",
        "--secret",
        "type=env,id=c,source=TOKEN",
        "--secret",
        "id=d,type=env",
        "--secret",
        "id=plain",
    ];
    let arguments = crate::command::build_arguments(context.path().to_str().unwrap(), &flags);
    let ended = place
        .command(&arguments)
        .env("TOKEN", "in TOKEN")
        .env("d", "in d")
        .output()
        .unwrap();
    let ended = crate::command::ended(ended);
    assert_eq!(ended.status, 0, "{}", ended.err);
    for line in [" in a file\n", " in TOKEN\n", " in d\n", " by its name\n"] {
        assert!(ended.err.contains(line), "{line:?} in {}", ended.err);
    }
}

#[test]
fn wrong_secrets_are_refused_before_anything_runs() {
    let place = Place::new();
    for (flag, status, want) in [
        ("src=f", 2, "--secret \"src=f\": say id=ID"),
        ("id", 2, "--secret \"id\": \"id\": want KEY=VALUE"),
        (
            "id=a,scr=f",
            2,
            "unknown key \"scr\", did you mean \"src\"?",
        ),
        (
            "id=a,type=flie",
            2,
            "unknown type \"flie\", did you mean \"file\"?",
        ),
        ("id=a,src=f,env=A", 2, "say src=FILE or env=NAME, not both"),
        ("id=a,type=file,env=A", 2, "type=file wants src=FILE"),
        (
            "id=a,src=none",
            1,
            "error: the secret \"a\"\n  caused by: read none\n",
        ),
        (
            "id=a,env=NONE",
            1,
            "the environment variable \"NONE\" is not set",
        ),
    ] {
        let ended = place.build(&context(), &["--secret", flag]);
        assert_eq!(ended.status, status, "{flag}: {}", ended.err);
        assert!(ended.err.contains(want), "{flag}: {}", ended.err);
    }
    assert!(!place.path("store").exists());
}

#[test]
fn an_agent_is_a_socket_or_a_key() {
    let place = Place::new();
    let text = "FROM busybox\nRUN --mount=type=ssh,required test -S $SSH_AUTH_SOCK && echo default\n\
        RUN --mount=type=ssh,id=other,required test -S $SSH_AUTH_SOCK && echo other\n";
    let context = ContextDir::new().file("Dockerfile", text);
    let socket = place.path("agent");
    let _agent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let flags = ["--ssh", "default", "--ssh", "other=agent"];
    let arguments = crate::command::build_arguments(context.path().to_str().unwrap(), &flags);
    let mut command = place.command(&arguments);
    let ended = crate::command::ended(command.env("SSH_AUTH_SOCK", &socket).output().unwrap());
    assert_eq!(ended.status, 0, "{}", ended.err);
    assert!(
        ended.err.contains(" default\n") && ended.err.contains(" other\n"),
        "{}",
        ended.err
    );

    std::fs::write(place.path("key"), "a key").unwrap();
    for (flag, status, want) in [
        (
            "default",
            2,
            "--ssh \"default\": no agent runs: SSH_AUTH_SOCK is not set",
        ),
        (
            "=agent",
            2,
            "--ssh \"=agent\": say default or ID[=SOCKET|KEY]",
        ),
        ("a=key", 2, "--ssh: the key key cannot be used: "),
        (
            "a=/dev/null",
            2,
            "--ssh \"a=/dev/null\": /dev/null is neither the socket of an agent nor a file with a key",
        ),
        (
            "a=none",
            1,
            "error: the SSH agent \"a\" at none\n  caused by: No such file",
        ),
    ] {
        let ended = place.build(&context, &["--ssh", flag]);
        assert_eq!(ended.status, status, "{flag}: {}", ended.err);
        assert!(ended.err.contains(want), "{flag}: {}", ended.err);
    }
}

#[test]
fn row_67_a_dockerfile_alone_comes_from_standard_input() {
    let place = Place::new();
    let text = b"FROM busybox\nLABEL from=stdin\n";
    let arguments = crate::command::build_arguments("-", &["-t", "app:1"]);
    let ended = place.run_with(text, &arguments);
    assert_eq!(ended.status, 0, "{}", ended.err);
    let config = &place.verify("app:1")["config"]["config"];
    assert_eq!(config["Labels"]["from"], "stdin");
    let ended = place.run_with(text, &["build", "--root", "s", "-f", "other", "-"]);
    assert_eq!(ended.status, 2);
    let want = "error: standard input holds no archive, in which \"other\" could be\n";
    assert_eq!(ended.err, want);
}
