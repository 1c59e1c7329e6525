//! The settings as a whole: Darwin's deployments, sources, unknown names, the document.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::settings::{Fallback, Kind, Owner, Secrecy, THEMES, Theme};
use super::*;
use crate::targets::Naming;

pub(super) fn defaults() -> Defaults {
    Defaults {
        data: PathBuf::from("/data"),
        max_builds: 2,
    }
}

pub(super) fn pairs(vars: &[(&str, &str)]) -> Vec<(String, String)> {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    vars.iter().map(pair).collect()
}

pub(super) fn config(vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::from_vars(pairs(vars), &defaults())
}

pub(super) fn names_of_problems(error: &ConfigError) -> Vec<&str> {
    error.problems().iter().map(Problem::name).collect()
}

#[test]
fn nothing_set_gives_a_local_service_on_sqlite() {
    let config = config(&[]).unwrap();
    assert_eq!(config.listen.to_string(), "0.0.0.0:8000");
    assert_eq!(config.public_url, "http://localhost:8000");
    assert_eq!(config.logs, Path::new("/data/logs"));
    assert_eq!(config.work, Path::new("/data/build_artifacts"));
    assert!(
        matches!(&config.database, Database::Sqlite(file) if file == Path::new("/data/tasks.db"))
    );
    assert!(config.targets.local_registry.is_none());
    assert_eq!(config.root_path, "");
    assert_eq!(config.targets.naming, Naming::Local);
    assert!(config.tokens.is_empty() && config.notes.is_empty());
}

#[test]
fn the_values_of_the_helm_chart_work() {
    let config = config(&[
        ("ENV", "local"),
        ("DEV", "true"),
        ("BUILD_ARTIFACTS_ROOT", "build_artifacts"),
        ("LOG_FILE_ROOT_LOCAL", "logs"),
        ("LOG_FILE_ROOT_PROD", "/var/www/artifact-builder/logs"),
        ("MYSQL_HOST", "darwin-mysql"),
        ("MYSQL_PORT", "3306"),
        ("MYSQL_DATABASE", "mlp_serve"),
        ("MYSQL_USERNAME", "root"),
        ("MYSQL_PASSWORD", "password"),
        ("CONTAINER_IMAGE_PREFIX", "serve-app"),
        ("CONTAINER_IMAGE_PREFIX_GCP", "serve-app"),
        ("IMAGE_REPOSITORY", "serve-app"),
        ("LOCAL_REGISTRY", "127.0.0.1:55000"),
        ("AWS_ECR_ACCOUNT_ID", ""),
        ("AWS_ECR_REGION", "us-east-1"),
        ("GCP_PROJECT_ID", ""),
        ("GCP_CREDS_PATH", "test"),
        ("APP_LAYER_URL", "http://localhost/artifact-builder"),
        ("GITHUB_TOKEN", ""),
        ("S3_BUCKET", "test"),
        ("AWS_ACCESS_KEY_ID", "tset"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("ENABLE_OTEL", "false"),
    ])
    .unwrap();
    let Database::MySql(mysql) = &config.database else {
        panic!("MYSQL_HOST means MySQL")
    };
    assert_eq!(mysql.name(), "darwin-mysql:3306/mlp_serve");
    assert_eq!(
        (mysql.username.as_str(), mysql.password.as_str()),
        ("root", "password")
    );
    assert_eq!(config.public_url, "http://localhost/artifact-builder");
    let registry = config.targets.local_registry.unwrap();
    assert_eq!(
        (registry.address.as_str(), registry.plain_http),
        ("127.0.0.1:55000", true)
    );
    assert!(config.targets.aws.is_none() && config.targets.google.is_none());
    assert!(config.telemetry.otel.is_none() && config.github_token.is_none());
    assert_eq!(
        config.notes,
        [
            "ignored: S3_BUCKET (uploads are kept in the task table), DEV (there is no Docker daemon \
             to ask)"
        ]
    );
}

#[test]
fn production_has_other_places() {
    for (environment, logs, url) in [
        ("prod", "/var/www/artifact-builder/logs", ""),
        // Darwin's service does not start with any other word.
        ("stag", "/data/logs", "http://localhost:8000"),
    ] {
        let config = config(&[("ENV", environment)]).unwrap();
        assert_eq!(config.logs, Path::new(logs));
        assert_eq!(config.public_url, url);
        assert_eq!(config.targets.naming, Naming::Production);
    }
}

#[test]
fn stronger_sources_win_and_empty_values_are_absent() {
    let layers = |flag: &str, environment: &str, file: &str| {
        let listen = |port: &str| {
            let address = match port {
                "" => String::new(),
                port => format!("127.0.0.1:{port}"),
            };
            [("OCIBUILD_LISTEN".to_owned(), address)]
        };
        let values = Values::new(defaults())
            .with(Source::Flag, listen(flag))
            .with(Source::EnvFile, listen(file))
            .with(Source::Environment, listen(environment));
        let port = values.config().unwrap().listen.port();
        (port, values.source(&LISTEN))
    };
    assert_eq!(layers("1", "2", "3"), (1, Source::Flag));
    assert_eq!(layers("", "2", "3"), (2, Source::Environment));
    assert_eq!(layers("", "", "3"), (3, Source::EnvFile));
    assert_eq!(layers("", "", ""), (8000, Source::Default));
    // Of two values from one source the later one counts, also where it is empty.
    let taken_back = config(&[("ROOT_PATH", "/a"), ("ROOT_PATH", "")]).unwrap();
    assert_eq!(taken_back.root_path, "");
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    for (name, value) in [
        ("OCIBUILD_LISTEN", "8000"),
        ("OCIBUILD_EMBEDDED_REGISTRY", "localhost"),
        ("OCIBUILD_REPLICA", "a b"),
        ("MYSQL_PORT", "x"),
        ("MYSQL_PORT", "0"),
        ("LOCAL_REGISTRY", "registry/path"),
        ("LOCAL_REGISTRY", "ftp://registry"),
        ("IMAGE_REPOSITORY", "Serve"),
        ("IMAGE_REPOSITORY", "a//b"),
        ("IMAGE_REPOSITORY", "a:b"),
        ("AWS_ECR_ACCOUNT_ID", "1.evil.example/"),
        ("AWS_ECR_REGION", "a/b"),
        ("AWS_ENDPOINT_URL", "ftp://a"),
        ("GCP_PROJECT_ID", "p/../q"),
        ("DOCKER_BUILD_PLATFORM", "linux/amd64/x/y"),
        ("ROOT_PATH", "/a?b"),
        ("APP_LAYER_URL", "http://a b"),
    ] {
        let error = config(&[(name, value)]).unwrap_err();
        assert_eq!(names_of_problems(&error), [name], "{value}");
    }
    let error = config(&[
        ("OCIBUILD_LISTEN", "8000"),
        ("MYSQL_PORT", "x"),
        ("OCIBUILD_TOKENS", "hidden"),
        ("OCIBUILD_LISTNE", "hidden"),
        ("LOCAL_REGISTRY", "http://user:hidden@registry:5000"),
    ]);
    let expected = "\
5 settings cannot be used:
  OCIBUILD_LISTNE is no setting of ocibuild; did you mean OCIBUILD_LISTEN?
  OCIBUILD_LISTEN must be an address and a port, such as 0.0.0.0:8000 (environment: \"8000\")
  MYSQL_PORT must be a whole number from 1 to 65535 (environment: \"x\")
  LOCAL_REGISTRY must be host:port, perhaps with http:// or https:// before it (environment)
  OCIBUILD_TOKENS must be a list with commas of tenant:token; a tenant is letters, digits and . _ -, \
or * for all; no token twice (environment)";
    assert_eq!(error.unwrap_err().to_string(), expected);
}

#[test]
fn typing_errors_are_found() {
    for (name, similar) in [
        ("OCIBUILD_DATA", Some("OCIBUILD_DATA_DIR")),
        ("OCIBUILD_MAXBUILDS", Some("OCIBUILD_MAX_BUILDS")),
        ("ocibuild_listen", Some("OCIBUILD_LISTEN")),
        ("OCIBUILD_PORT", None),
        ("OCIBUILD_ÄÖ", None),
        ("OCIBUILD_", None),
    ] {
        let error = config(&[(name, "1")]).unwrap_err();
        let [Problem::Unknown { similar: found, .. }] = error.problems() else {
            panic!("{name}: {error}")
        };
        if similar.is_some() {
            assert_eq!(*found, similar, "{name}");
        }
    }
    assert!(config(&[("OCIBUILDER", "1"), ("LISTEN", "1")]).is_ok());
}

#[test]
fn the_links_of_kubernetes_are_no_typing_errors() {
    let links = [
        ("OCIBUILD_SERVICE_HOST", "10.0.0.1"),
        ("OCIBUILD_SERVICE_PORT", "8000"),
        ("OCIBUILD_SERVICE_PORT_HTTP", "8000"),
        ("OCIBUILD_PORT", "tcp://10.0.0.1:8000"),
        ("OCIBUILD_PORT_8000_TCP", "tcp://10.0.0.1:8000"),
        ("OCIBUILD_PORT_8000_TCP_PROTO", "tcp"),
        ("OCIBUILD_PORT_8000_TCP_PORT", "8000"),
        ("OCIBUILD_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ("OCIBUILD_REGISTRY_PORT_53_UDP_ADDR", "10.0.0.1"),
    ];
    config(&links).unwrap();
}

#[test]
fn the_root_path_has_one_form() {
    for (text, expected) in [("/", ""), ("builder", "/builder"), ("/a/b/", "/a/b")] {
        assert_eq!(config(&[("ROOT_PATH", text)]).unwrap().root_path, expected);
    }
}

#[test]
fn a_replica_has_a_name() {
    let name = |vars: &[(&str, &str)]| config(vars).unwrap().replica;
    let host = ("HOSTNAME", "builder-7f9c-x2");
    assert_eq!(name(&[host]).as_deref(), Some("builder-7f9c-x2"));
    let own = ("OCIBUILD_REPLICA", "one");
    assert_eq!(name(&[host, own]).as_deref(), Some("one"));
    assert_eq!(name(&[]), None);
    assert_eq!(name(&[("HOSTNAME", "a b")]), None);
}

#[test]
fn build_processes_get_these_variables_alone() {
    let vars = [
        ("PATH", "/bin"),
        ("http_proxy", "http://p"),
        ("OTHER", "x"),
        ("GITHUB_TOKEN", "t"),
    ];
    let config = config(&vars).unwrap();
    assert_eq!(
        config.worker_environment,
        pairs(&[("PATH", "/bin"), ("http_proxy", "http://p")])
    );
}

#[test]
fn secrets_do_not_reach_debug_output() {
    let values = Values::new(defaults()).with(
        Source::Environment,
        pairs(&[
            ("GITHUB_TOKEN", "hidden-1"),
            ("MYSQL_HOST", "db"),
            ("MYSQL_PASSWORD", "hidden-2"),
            ("AWS_ECR_ACCOUNT_ID", "1"),
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "hidden-3"),
            ("AWS_SESSION_TOKEN", "hidden-4"),
            ("OCIBUILD_TOKENS", "a:hidden-5"),
            ("OCIBUILD_GIT_TOKENS", "a=hidden-6"),
            ("ENABLE_OTEL", "true"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=hidden-7"),
        ]),
    );
    let config = values.config().unwrap();
    for text in [
        format!("{config:?}"),
        format!("{values:?}"),
        printed::text(&values),
        printed::json(&values).to_string(),
    ] {
        assert!(!text.contains("hidden"), "{text}");
    }
}

#[test]
fn names_of_settings_are_unique_and_say_whose_they_are() {
    let names: BTreeSet<_> = settings::all().map(|setting| setting.name).collect();
    assert_eq!(names.len(), settings::all().count());
    for setting in settings::all() {
        let ours = setting.name.starts_with("OCIBUILD_");
        assert_eq!(ours, setting.owner == Owner::Ocibuild, "{}", setting.name);
        // The document has one line for each.
        assert!(!setting.meaning.contains(['|', '\n']), "{}", setting.name);
    }
}

#[test]
fn every_default_is_a_value() {
    // With every default said aloud, the result is the same.
    let values = Values::new(defaults());
    let said = settings::all().filter_map(|setting| {
        let text = values.text(setting)?;
        Some((setting.name.to_owned(), text.into_owned()))
    });
    let mut said = Config::from_vars(said, &defaults()).unwrap();
    // Only that somebody said `MYSQL_PORT` without a host is worth a note.
    said.notes.clear();
    assert_eq!(format!("{said:?}"), format!("{:?}", config(&[]).unwrap()));
}

/// The document is right when each of its tables is the one that the settings give.
#[test]
fn the_document_lists_every_setting() {
    const DOCUMENT: &str = include_str!("../../../../docs/configuration.md");
    let rows = |text: &str| {
        let rows = text.lines().filter(|line| line.starts_with("| `"));
        rows.map(str::to_owned).collect::<Vec<_>>()
    };
    let expected: String = THEMES.iter().map(table).collect();
    assert_eq!(
        rows(DOCUMENT),
        rows(&expected),
        "the document should have\n{expected}"
    );
    for theme in THEMES {
        assert!(
            DOCUMENT.contains(&format!("\n## {}\n", theme.title)),
            "{}",
            theme.title
        );
    }
}

fn table(theme: &Theme) -> String {
    let mut text = format!("\n## {}\n\n", theme.title);
    let ignored = theme
        .settings
        .iter()
        .all(|setting| setting.kind == Kind::Ignored);
    text.push_str(match ignored {
        true => "| variable | why |\n|---|---|\n",
        false => "| variable | default | meaning |\n|---|---|---|\n",
    });
    for setting in theme.settings {
        let _ = write!(text, "| `{}`", setting.name);
        if let Some(flag) = setting.flag {
            let _ = write!(text, ", `{flag}`");
        }
        if !ignored {
            let _ = write!(text, " | {}", default_of(setting));
        }
        let secret = match setting.secrecy {
            Secrecy::Secret | Secrecy::Named(_) => " Secret.",
            Secrecy::Open | Secrecy::Url => "",
        };
        let _ = writeln!(text, " | {}{secret} |", setting.meaning);
    }
    text
}

fn default_of(setting: &Setting) -> String {
    match setting.fallback {
        Fallback::Absent => "–".to_owned(),
        Fallback::Text(text) => format!("`{text}`"),
        Fallback::Computed(computed) => computed.describe().to_owned(),
    }
}
