//! `ocibuild serve --print-config`: where settings come from, what is wrong with them, and that
//! no secret is shown.

use crate::command::{Ended, Place, ended};

fn print_config(place: &Place, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let mut command = place.command(&["serve"]);
    command.args(arguments).envs(environment.iter().copied());
    ended(command.output().unwrap())
}

fn write(place: &Place, name: &str, text: &str) {
    std::fs::write(place.path(name), text).unwrap();
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let place = Place::new();
    write(
        &place,
        ".env",
        "OCIBUILD_LISTEN=127.0.0.1:1\nROOT_PATH=/file\nIMAGE_REPOSITORY='from/file'\nENV=\n",
    );
    let printed = print_config(
        &place,
        &["--print-config", "--listen", "127.0.0.1:3"],
        &[
            ("OCIBUILD_LISTEN", "127.0.0.1:2"),
            ("ROOT_PATH", "/variable"),
            ("MYSQL_HOST", ""),
        ],
    );
    assert_eq!(printed.status, 0, "{}", printed.err);
    for line in [
        "OCIBUILD_LISTEN=127.0.0.1:3  # flag: ",
        "ROOT_PATH=/variable  # environment: ",
        "IMAGE_REPOSITORY=from/file  # .env: ",
        "ENV=local  # default: ",
        "MYSQL_HOST=  # default: ",
    ] {
        let found = printed.out.lines().any(|shown| shown.starts_with(line));
        assert!(found, "{line}\n{}", printed.out);
    }
    // Nothing was started: there is no folder of data.
    assert!(!place.path(".local").exists());
}

#[test]
fn a_file_can_be_named_and_must_then_be_there() {
    let place = Place::new();
    write(&place, "settings", "ROOT_PATH=/named\n");
    write(&place, ".env", "ROOT_PATH=/usual\nMYSQL_HOST=db\n");
    let printed = print_config(
        &place,
        &["--env-file", "settings", "--print-config=json"],
        &[],
    );
    let json: serde_json::Value = serde_json::from_str(&printed.out).unwrap();
    assert_eq!(json["ROOT_PATH"]["value"], "/named");
    assert_eq!(json["ROOT_PATH"]["source"], ".env");
    assert_eq!(json["MYSQL_HOST"]["value"], serde_json::Value::Null);
    let missing = print_config(&place, &["--env-file", "missing", "--print-config"], &[]);
    assert_eq!(missing.status, 1);
    assert!(
        missing.err.starts_with("error: read missing\n"),
        "{}",
        missing.err
    );
    write(&place, "broken", "A=1\nGITHUB TOKEN hidden\n");
    let broken = print_config(&place, &["--env-file", "broken", "--print-config"], &[]);
    assert_eq!(broken.status, 2);
    assert_eq!(
        broken.err,
        "error: broken: what follows A must be NAME=value\n"
    );
}

#[test]
fn secrets_are_masked() {
    let place = Place::new();
    write(&place, ".env", "OCIBUILD_GIT_TOKENS=git.example=hidden-6\n");
    let environment = [
        ("DATABASE_URL", "mysql://user:hidden-1@db/tasks"),
        ("MYSQL_PASSWORD", "hidden-2"),
        ("GITHUB_TOKEN", "hidden-3"),
        ("OCIBUILD_TOKENS", "*:hidden-4,team:hidden-5"),
        ("AWS_SECRET_ACCESS_KEY", "hidden-7"),
        ("AWS_SESSION_TOKEN", "hidden-8"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=hidden-9"),
        ("HTTPS_PROXY", "http://user:hidden-0@proxy:3128"),
    ];
    let text = print_config(&place, &["--print-config"], &environment);
    let json = print_config(&place, &["--print-config=json"], &environment);
    assert_eq!((text.status, json.status), (0, 0), "{}", text.err);
    for ended in [&text, &json] {
        assert!(
            !ended.out.contains("hidden") && !ended.err.contains("hidden"),
            "{ended:?}"
        );
    }
    for shown in [
        "DATABASE_URL=mysql://user:****@db/tasks  # environment",
        "OCIBUILD_TOKENS=*:****,team:****  # environment",
        "OCIBUILD_GIT_TOKENS=git.example=****  # .env",
        "GITHUB_TOKEN=****  # environment",
        "HTTPS_PROXY=http://user:****@proxy:3128/  # environment",
    ] {
        assert!(text.out.contains(shown), "{shown}\n{}", text.out);
    }
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["OCIBUILD_TOKENS"]["value"], "*:****,team:****");
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let place = Place::new();
    let environment = [
        ("OCIBUILD_MAX_BUILD", "2"),
        ("OCIBUILD_LEASE", "soon"),
        ("OCIBUILD_TOKENS", "hidden"),
    ];
    let expected = "error: 4 settings cannot be used:
  OCIBUILD_MAX_BUILD is no setting of ocibuild; did you mean OCIBUILD_MAX_BUILDS?
  OCIBUILD_LISTEN must be an address and a port, such as 0.0.0.0:8000 (flag: \"here\")
  OCIBUILD_LEASE must be a time from 3 s to 3650 d, such as 90s, 15m, 12h or 30d; a number alone is seconds \
(environment: \"soon\")
  OCIBUILD_TOKENS must be a list with commas of tenant:token; a tenant is letters, digits and . _ -, or * for \
all; no token twice (environment)
";
    for arguments in [
        &["--listen", "here"][..],
        &["--listen", "here", "--print-config"],
    ] {
        let ended = print_config(&place, arguments, &environment);
        assert_eq!((ended.status, ended.out.as_str()), (2, ""));
        assert_eq!(ended.err, expected);
    }
}

#[test]
fn the_demo_has_settings_of_its_own() {
    let place = Place::new();
    let environment = [("OCIBUILD_LISTEN", "nonsense"), ("MYSQL_HOST", "db")];
    let printed = print_config(
        &place,
        &["--demo", "--print-config", "--data-dir", "kept"],
        &environment,
    );
    assert_eq!(printed.status, 0, "{}", printed.err);
    for line in [
        "OCIBUILD_LISTEN=127.0.0.1:8000  # default: ",
        "OCIBUILD_DATA_DIR=kept  # flag: ",
        "MYSQL_HOST=  # default: ",
    ] {
        assert!(printed.out.contains(line), "{line}\n{}", printed.out);
    }
}
