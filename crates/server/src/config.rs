//! The settings of the service: variables, flags and defaults go in, a checked [`Config`] comes
//! out, or everything that is wrong.
//!
//! The names are those of Darwin's artifact builder, with the same defaults, so that its
//! deployment files work unchanged; what it does not know begins with `OCIBUILD_`. The table of
//! all settings is in `settings`, and the values with their sources in `values`; the other rooms
//! read one theme each. Nothing here looks at the environment: the caller hands it in.

mod access;
mod database;
mod embedded;
mod error;
mod git;
mod hosts;
mod limits;
pub mod printed;
mod registries;
pub mod settings;
mod telemetry;
mod units;
mod values;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ocibuild::executor::Choice;
use ocibuild::registry::Platform;
use ocibuild_registry::{CloudEnvironment, Secret};

pub use self::access::Token;
pub use self::database::Database;
pub use self::embedded::Embedded;
pub use self::error::{ConfigError, Problem};
pub use self::git::{DenyAddresses, GitRules};
pub use self::limits::{Limits, Retention, Timing};
use self::settings::{
    APP_LAYER_URL, BUILD_ARTIFACTS_ROOT, DATA_DIR, DOCKER_BUILD_PLATFORM, DOCKER_CONFIG, Kind,
    LISTEN, LOG_FILE_ROOT_LOCAL, LOG_FILE_ROOT_PROD, REGISTRIES, REPLICA, ROOT_PATH, SANDBOX,
    SECRETS_DIR, Setting,
};
pub use self::telemetry::{LogFormat, Otel, Telemetry};
pub use self::units::Unit;
use self::values::Reader;
pub use self::values::{Source, Values};
use crate::targets::Targets;

/// What the caller knows about the machine.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// The folder for everything, unless `OCIBUILD_DATA_DIR` names one.
    pub data: PathBuf,
    /// How many builds run at once, unless `OCIBUILD_MAX_BUILDS` says so.
    pub max_builds: usize,
}

/// The settings of the service.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen (`OCIBUILD_LISTEN`).
    pub listen: SocketAddr,
    /// The path under which a proxy shows the service (`ROOT_PATH`), empty or `/something`.
    pub root_path: String,
    /// What stands before `/static/` in the URL of a log (`APP_LAYER_URL`).
    pub public_url: String,
    /// The folder for everything (`OCIBUILD_DATA_DIR`).
    pub data: PathBuf,
    /// Where logs are (`LOG_FILE_ROOT_LOCAL`, `LOG_FILE_ROOT_PROD`).
    pub logs: PathBuf,
    /// Where builds have their scratch folders (`BUILD_ARTIFACTS_ROOT`).
    pub work: PathBuf,
    /// The name of this replica (`OCIBUILD_REPLICA`, `HOSTNAME`).
    pub replica: Option<String>,
    /// Where the task table is (`DATABASE_URL`, `MYSQL_*`).
    pub database: Database,
    /// Where images go.
    pub targets: Targets,
    /// Which registry is really where: name, and the endpoint in its place
    /// (`OCIBUILD_REGISTRY_ALIAS`).
    pub aliases: Vec<(String, String)>,
    /// The registries that are spoken to in plain HTTP (`OCIBUILD_PLAIN_HTTP`).
    pub plain_http: Vec<String>,
    /// The registry that the service runs itself (`OCIBUILD_EMBEDDED_REGISTRY`).
    pub embedded: Option<Embedded>,
    /// Docker's `config.json`, for registries with a login (`OCIBUILD_DOCKER_CONFIG`).
    pub docker_config: Option<PathBuf>,
    /// How each registry is reached (`OCIBUILD_REGISTRIES`).
    pub registries: Option<PathBuf>,
    /// The variables that logins of clouds come from.
    pub cloud: CloudEnvironment,
    /// Reads private repositories of github.com (`GITHUB_TOKEN`).
    pub github_token: Option<Secret>,
    /// Which repositories may be built, and how they are read.
    pub git: GitRules,
    /// The platform to build for (`DOCKER_BUILD_PLATFORM`).
    pub platform: Option<String>,
    /// The sandbox of RUN steps (`OCIBUILD_SANDBOX`).
    pub sandbox: Option<String>,
    /// What a build may take.
    pub limits: Limits,
    /// How long replicas are waited for.
    pub timing: Timing,
    /// The folder of secrets that builds may ask for (`OCIBUILD_SECRETS_DIR`).
    pub secrets_dir: Option<PathBuf>,
    /// How long things are kept.
    pub retention: Retention,
    /// Who may use the service; without any token, everybody (`OCIBUILD_TOKENS`,
    /// `OCIBUILD_TOKENS_FILE`).
    pub tokens: Vec<Token>,
    /// What the program says about itself, a filter of `tracing` (`OCIBUILD_LOG`).
    pub log_filter: String,
    /// How it says it (`OCIBUILD_LOG_FORMAT`).
    pub log_format: LogFormat,
    /// Where traces go.
    pub telemetry: Telemetry,
    /// The variables that a build process gets from this one: proxies, certificates, paths.
    pub worker_environment: Vec<(String, String)>,
    /// What the operator should know about these settings, a line each: what is ignored, what
    /// wins over what.
    pub notes: Vec<String>,
}

impl Config {
    /// Reads the settings from names and values, such as those of the environment.
    pub fn from_vars(
        vars: impl IntoIterator<Item = (String, String)>,
        defaults: &Defaults,
    ) -> Result<Self, ConfigError> {
        Values::new(defaults.clone())
            .with(Source::Environment, vars)
            .config()
    }

    fn read(reader: &mut Reader) -> Self {
        let data = reader.path(&DATA_DIR).unwrap_or_default();
        let plain_http = registries::read_plain_http(reader);
        let github_token = git::read_github_token(reader);
        Self {
            listen: reader.read(&LISTEN, |text| text.parse().ok()),
            root_path: reader.optional(&ROOT_PATH, root_path).unwrap_or_default(),
            public_url: reader
                .optional(&APP_LAYER_URL, public_url)
                .unwrap_or_default(),
            logs: logs(reader, &data),
            work: data.join(reader.path(&BUILD_ARTIFACTS_ROOT).unwrap_or_default()),
            replica: replica(reader),
            database: database::read(reader, &data),
            targets: registries::read_targets(reader, &plain_http),
            aliases: registries::read_aliases(reader),
            plain_http,
            embedded: embedded::read(reader),
            docker_config: reader.path(&DOCKER_CONFIG),
            registries: reader.path(&REGISTRIES),
            cloud: reader.values.cloud(),
            git: git::read(reader, github_token.as_ref()),
            github_token,
            platform: reader.optional(&DOCKER_BUILD_PLATFORM, platform),
            sandbox: reader.optional(&SANDBOX, sandbox),
            limits: limits::read(reader),
            timing: limits::read_timing(reader),
            secrets_dir: reader.path(&SECRETS_DIR),
            retention: limits::read_retention(reader),
            tokens: access::read(reader),
            log_filter: telemetry::read_log_filter(reader),
            log_format: telemetry::read_log_format(reader),
            telemetry: telemetry::read(reader),
            worker_environment: worker_environment(reader.values),
            notes: notes(reader.values),
            data,
        }
    }
}

impl Reader<'_> {
    fn path(&mut self, setting: &'static Setting) -> Option<PathBuf> {
        self.optional(setting, |text| (!text.is_empty()).then(|| text.into()))
    }
}

fn logs(reader: &mut Reader, data: &Path) -> PathBuf {
    let local = reader.path(&LOG_FILE_ROOT_LOCAL);
    let production = reader.path(&LOG_FILE_ROOT_PROD);
    let folder = match reader.values.environment() == "prod" {
        true => production,
        false => local,
    };
    data.join(folder.unwrap_or_default())
}

/// Brings a path prefix into the form `/something`.
fn root_path(text: &str) -> Option<String> {
    let valid = |byte: u8| byte.is_ascii_graphic() && !b"?#\"<>\\".contains(&byte);
    let inner = text.trim_matches('/');
    if !inner.bytes().all(valid) {
        None
    } else if inner.is_empty() {
        Some(String::new())
    } else {
        Some(format!("/{inner}"))
    }
}

fn public_url(text: &str) -> Option<String> {
    let valid = text.bytes().all(|byte| byte.is_ascii_graphic());
    valid.then(|| text.trim_end_matches('/').to_owned())
}

fn platform(text: &str) -> Option<String> {
    text.parse::<Platform>().ok().map(|_| text.to_owned())
}

fn sandbox(text: &str) -> Option<String> {
    text.parse::<Choice>().ok().map(|_| text.to_owned())
}

/// A host name that cannot be one is the container runtime's matter, not the operator's.
fn replica(reader: &mut Reader) -> Option<String> {
    let name = |text: &str| access::is_name(text).then(|| text.to_owned());
    match reader.values.given(&REPLICA) {
        Some(_) => reader.optional(&REPLICA, name),
        None => reader.values.text(&REPLICA).and_then(|text| name(&text)),
    }
}

fn worker_environment(values: &Values) -> Vec<(String, String)> {
    let handed_on = settings::all().filter(|setting| setting.kind == Kind::HandedOn);
    let pair =
        |setting: &Setting| Some((setting.name.to_owned(), values.given(setting)?.to_owned()));
    handed_on.filter_map(pair).collect()
}

fn notes(values: &Values) -> Vec<String> {
    let ignored = values
        .ignored()
        .map(|setting| format!("{} ({})", setting.name, setting.meaning))
        .collect::<Vec<_>>();
    let ignored = (!ignored.is_empty()).then(|| format!("ignored: {}", ignored.join(", ")));
    ignored.into_iter().chain(database::note(values)).collect()
}

#[cfg(test)]
mod tests;
