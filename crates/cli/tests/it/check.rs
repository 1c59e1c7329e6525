//! `check`, `build --check`, `build --call` and `dockerfile`: what goes to standard output
//! and how the program ends.

use ocibuild::testing::ContextDir;
use serde_json::{Value, json};

use crate::command::Place;

const TEXT: &str = "# check=skip=FromAsCasing\nFROM scratch as base\n# LEVEL says how much\nARG LEVEL=2\n\
    ENV A=$LEVLE\nCMD echo \\\n  hi\n";

fn context(text: &str) -> (ContextDir, String) {
    let context = ContextDir::new().file("Dockerfile", text);
    let path = context.path().to_str().unwrap().to_owned();
    (context, path)
}

#[test]
fn a_check_shows_what_a_compiler_would() {
    let (_context, path) = context(TEXT);
    let place = Place::new();
    let want = "warning[UndefinedVar]: Usage of undefined variable '$LEVLE' (did you mean $LEVEL?)\n \
        --> Dockerfile:5:7\n  |\n5 | ENV A=$LEVLE\n  |       ^^^^^^\n  \
        = see https://docs.docker.com/go/dockerfile/rule/undefined-var/\n\n\
        warning[JSONArgsRecommended]: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals\n \
        --> Dockerfile:6:1\n  |\n6 | CMD echo \\\n  | ^^^^^^^^^^\n  \
        = see https://docs.docker.com/go/dockerfile/rule/json-args-recommended/\n\n\
        Check complete, 2 warnings have been found!\n";
    let ended = place.run(&["check", &path]);
    assert_eq!(
        (ended.out.as_str(), ended.status),
        (want, 1),
        "{}",
        ended.err
    );
    let file = format!("{path}/Dockerfile");
    for arguments in [
        vec!["check", "--offline", &file],
        vec!["build", "--check", &path],
        vec!["build", "--call=check", "--root", "store", &path],
    ] {
        let ended = place.run(&arguments);
        let out = ended.out.replace(&file, "Dockerfile");
        assert_eq!(
            (out.as_str(), ended.status),
            (want, 1),
            "{arguments:?} {}",
            ended.err
        );
    }
    assert!(!place.path("store").exists(), "a check leaves no store");
    let ended = place.run_with(b"FROM scratch\n", &["check", "-f", "-", &path]);
    let want = "Check complete, no warnings found.\n";
    assert_eq!(
        (ended.out.as_str(), ended.status),
        (want, 0),
        "{}",
        ended.err
    );
}

#[test]
fn a_check_in_json_is_what_buildkit_gives() {
    let (_context, path) = context(TEXT);
    let ended = Place::new().run(&["check", "--format=json", &path]);
    let found: Value = serde_json::from_str(&ended.out).unwrap();
    let want = json!({
        "ruleName": "JSONArgsRecommended",
        "description": "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
        "url": "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/",
        "detail": "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
        "location": {"ranges": [{"start": {"line": 6}, "end": {"line": 7}}]},
    });
    assert_eq!((&found["warnings"][1], ended.status), (&want, 1));
    assert_eq!(found["sources"][0]["filename"], "Dockerfile");
    let data = found["sources"][0]["data"].as_str().unwrap();
    assert!(data.starts_with("IyBjaGVjaz1za2lw"), "{data}");
}

#[test]
fn a_check_in_sarif_has_rules_and_places() {
    let (_context, path) = context("FROM scratch\nMAINTAINER me\nNOSUCH x\n");
    let ended = Place::new().run(&["check", "--format=sarif", &path]);
    let found: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(
        (found["version"].as_str(), ended.status),
        (Some("2.1.0"), 1)
    );
    let run = &found["runs"][0];
    assert_eq!(
        run["tool"]["driver"]["rules"][0]["id"],
        "MaintainerDeprecated"
    );
    let shown: Vec<_> = run["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            let line = &it["locations"][0]["physicalLocation"]["region"]["startLine"];
            (it["level"].as_str().unwrap(), line.as_u64().unwrap())
        })
        .collect();
    assert_eq!(shown, [("warning", 2), ("error", 3)]);
}

#[test]
fn an_error_ends_a_check_with_its_place() {
    let (_context, path) = context("FROM scratch AS Bad\nCPY a b\n");
    let ended = Place::new().run(&["check", &path]);
    assert!(
        ended.out.starts_with("warning[StageNameCasing]"),
        "{}",
        ended.out
    );
    assert!(
        ended
            .err
            .starts_with("error: Dockerfile:2: unknown instruction \"CPY\""),
        "{}",
        ended.err
    );
    assert!(
        ended.err.ends_with("hint: did you mean COPY?\n"),
        "{}",
        ended.err
    );
    assert_eq!(ended.status, 1);
}

#[test]
fn a_build_shows_warnings_and_goes_on() {
    let (context, _) = context(TEXT);
    let place = Place::new();
    let ended = place.build(&context, &[]);
    assert_eq!(ended.status, 0, "{}", ended.err);
    let want = "warning[UndefinedVar]: Usage of undefined variable '$LEVLE' (did you mean $LEVEL?)\n --> Dockerfile:5:7\n";
    assert!(ended.err.contains(want), "{}", ended.err);
    let ended = place.build(
        &context,
        &["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=error=true"],
    );
    assert!(
        ended
            .err
            .contains("error: Dockerfile:2: lint violation found for rules: FromAsCasing\n"),
        "{}",
        ended.err
    );
    assert_eq!(ended.status, 1);
}

#[test]
fn outline_and_targets() {
    let (_context, path) = context(TEXT);
    let place = Place::new();
    let ended = place.run(&["build", "--call=outline", &path]);
    let want = "TARGET:      base\n\nBUILD ARG   VALUE   DESCRIPTION\nLEVEL       2       says how much\n\n";
    assert_eq!(
        (ended.out.as_str(), ended.status),
        (want, 0),
        "{}",
        ended.err
    );
    let ended = place.run(&["build", "--call=targets", &path]);
    assert_eq!(
        ended.out, "TARGET           DESCRIPTION\nbase (default)\n",
        "{}",
        ended.err
    );
    let ended = place.run(&["build", "--call=targets,format=json", &path]);
    let found: Value = serde_json::from_str(&ended.out).unwrap();
    let want = json!([{
        "name": "base", "default": true, "base": "scratch",
        "location": {"ranges": [{"start": {"line": 2}, "end": {"line": 2}}]},
    }]);
    assert_eq!(found["targets"], want);
    let ended = place.run(&["build", "--call=outline,format=json", &path]);
    let found: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(found["args"][0]["value"], "2");
    let ended = place.run(&["build", "--call=nonsense", &path]);
    assert_eq!(ended.status, 2, "{}", ended.err);
}

#[test]
fn the_parser_shows_its_tree() {
    let place = Place::new();
    let source = b"FROM \\\n x\nONBUILD RUN --network=none a  b\nENV a b\nNOSUCH\n";
    let ended = place.run_with(source, &["dockerfile", "parse", "--format", "sexp", "-"]);
    let want = "(from \"x\")\n(onbuild (run [\"--network=none\"] \"a  b\"))\n(env \"a\" \"b\" \"\")\n(nosuch \"\")\n";
    assert_eq!(
        (ended.out.as_str(), ended.status),
        (want, 0),
        "{}",
        ended.err
    );
    let ended = place.run_with(source, &["dockerfile", "parse", "--format", "json", "-"]);
    let found: Value = serde_json::from_str(&ended.out).unwrap();
    let want = json!({"keyword": "onbuild", "arguments": [], "line": 3, "trigger": {
        "keyword": "run", "flags": ["--network=none"], "arguments": ["a  b"], "line": 3}});
    assert_eq!(found[1], want);
    let ended = place.run_with(b"FROM x\nENV a\n", &["dockerfile", "parse", "-"]);
    let want = "error: parse -:2\n  caused by: ENV needs a name and a value\n";
    assert_eq!((ended.err.as_str(), ended.status), (want, 1));
}

#[test]
fn words_and_paths_are_judged() {
    let place = Place::new();
    let expand = [
        "dockerfile",
        "expand",
        "--env",
        "A=a/b",
        "--env",
        "E=",
        "${A%/*}-${E:-x}-'$A'",
    ];
    let ended = place.run(&expand);
    assert_eq!(
        (ended.out.as_str(), ended.status),
        ("a-x-$A\n", 0),
        "{}",
        ended.err
    );
    let ended = place.run(&["dockerfile", "expand", "${}"]);
    assert_eq!(
        ended.err,
        "error: expand \"${}\"\n  caused by: bad substitution\n"
    );
    std::fs::write(place.path("rules"), "*\n!a*\n").unwrap();
    let ended = place.run(&["dockerfile", "match", "rules", "ab", "b/c"]);
    assert_eq!(ended.out, "kept ab\nignored b/c\n", "{}", ended.err);
}
