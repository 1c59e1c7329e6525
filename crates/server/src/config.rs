//! The settings of the service, from names and values that the caller took from its
//! environment.
//!
//! The names are those of Darwin's artifact builder, with the same defaults, so that its
//! deployment files work unchanged; what it does not know begins with `OCIBUILD_`. A value
//! that is empty counts as absent: Helm charts write absent values so.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ocibuild_registry::Secret;
use ocibuild_store::MySqlSettings;

use crate::targets::{Aws, Google, LocalRegistry, Naming, Targets};

/// What the caller knows about the machine.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// The folder for everything, unless `OCIBUILD_DATA` names one.
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
    /// The folder for everything (`OCIBUILD_DATA`).
    pub data: PathBuf,
    /// Where logs are (`LOG_FILE_ROOT_LOCAL`, `LOG_FILE_ROOT_PROD`).
    pub logs: PathBuf,
    /// Where builds have their scratch folders (`BUILD_ARTIFACTS_ROOT`).
    pub work: PathBuf,
    /// Where the task table is (`MYSQL_*`, `OCIBUILD_DATABASE`).
    pub database: Database,
    /// Where images go.
    pub targets: Targets,
    /// Reads private repositories of github.com (`GITHUB_TOKEN`).
    pub github_token: Option<Secret>,
    /// The platform to build for (`DOCKER_BUILD_PLATFORM`).
    pub platform: Option<String>,
    /// Docker's `config.json`, for registries with a login (`OCIBUILD_DOCKER_CONFIG`).
    pub docker_config: Option<PathBuf>,
    /// What a build may take.
    pub limits: Limits,
    /// The variables that a build process gets from this one: proxies, certificates, paths.
    pub worker_environment: Vec<(String, String)>,
}

/// What builds and requests may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How many builds run at once (`OCIBUILD_MAX_BUILDS`).
    pub max_builds: usize,
    /// How long one build may take (`OCIBUILD_BUILD_TIMEOUT`, in seconds).
    pub build_timeout: Duration,
    /// How often a build is begun whose worker disappears (`OCIBUILD_MAX_ATTEMPTS`).
    pub max_attempts: u32,
    /// The size of an uploaded Dockerfile (`OCIBUILD_MAX_DOCKERFILE`, in bytes).
    pub dockerfile_bytes: usize,
    /// The size of one log (`OCIBUILD_MAX_LOG`, in bytes).
    pub log_bytes: u64,
}

/// Where the task table is.
#[derive(Debug, Clone)]
pub enum Database {
    /// In this file.
    Sqlite(PathBuf),
    /// On a MySQL or MariaDB server.
    MySql(MySqlSettings),
}

/// A value cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} must be {expected}")]
pub struct ConfigError {
    /// Name of the variable.
    pub name: &'static str,
    /// What its value must be. The value itself is not shown: it may be a misplaced secret.
    pub expected: &'static str,
}

/// How long a request waits for a connection: clients expect their answer within seconds.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(3);

/// The variables that a build process gets.
const INHERITED: [&str; 14] = [
    "PATH",
    "TMPDIR",
    "LANG",
    "TZ",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

impl Config {
    /// Reads the settings from names and values, such as those of the environment.
    pub fn from_vars(
        vars: impl IntoIterator<Item = (String, String)>,
        defaults: &Defaults,
    ) -> Result<Self, ConfigError> {
        let mut vars: HashMap<_, _> = vars.into_iter().collect();
        vars.retain(|_, value| !value.is_empty());
        let vars = Vars(vars);
        let production = vars.text("ENV", "local") == "prod";
        let data = vars
            .get("OCIBUILD_DATA")
            .map_or_else(|| defaults.data.clone(), PathBuf::from);
        let logs = if production {
            vars.text("LOG_FILE_ROOT_PROD", "/var/www/artifact-builder/logs")
        } else {
            vars.text("LOG_FILE_ROOT_LOCAL", "logs")
        };
        let public_url = if production {
            ""
        } else {
            "http://localhost:8000"
        };
        Ok(Self {
            listen: vars.listen()?,
            root_path: root_path(vars.text("ROOT_PATH", "")),
            public_url: vars
                .text("APP_LAYER_URL", public_url)
                .trim_end_matches('/')
                .to_owned(),
            logs: data.join(logs),
            work: data.join(vars.text("BUILD_ARTIFACTS_ROOT", "build_artifacts")),
            database: vars.database(&data)?,
            targets: vars.targets()?,
            github_token: vars.get("GITHUB_TOKEN").map(Secret::new),
            platform: vars.get("DOCKER_BUILD_PLATFORM").map(str::to_owned),
            docker_config: vars.get("OCIBUILD_DOCKER_CONFIG").map(PathBuf::from),
            limits: vars.limits(defaults)?,
            worker_environment: vars.inherited(),
            data,
        })
    }
}

/// Every variable that has a value.
struct Vars(HashMap<String, String>);

impl Vars {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn text<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.get(name).unwrap_or(default)
    }

    fn parsed<T: FromStr>(
        &self,
        name: &'static str,
        default: T,
        expected: &'static str,
    ) -> Result<T, ConfigError> {
        let Some(text) = self.get(name) else {
            return Ok(default);
        };
        text.trim()
            .parse()
            .map_err(|_| ConfigError { name, expected })
    }

    fn listen(&self) -> Result<SocketAddr, ConfigError> {
        let everywhere = SocketAddr::from(([0, 0, 0, 0], 8000));
        self.parsed(
            "OCIBUILD_LISTEN",
            everywhere,
            "an address and a port, such as 0.0.0.0:8000",
        )
    }

    /// Only a host that somebody wrote down means MySQL; everything else has a default.
    fn database(&self, data: &Path) -> Result<Database, ConfigError> {
        let Some(host) = self.get("MYSQL_HOST") else {
            return Ok(Database::Sqlite(
                data.join(self.text("OCIBUILD_DATABASE", "tasks.db")),
            ));
        };
        Ok(Database::MySql(MySqlSettings {
            host: host.to_owned(),
            port: self.parsed("MYSQL_PORT", 3306, "a port number")?,
            database: self.text("MYSQL_DATABASE", "mlp_serve").to_owned(),
            username: self.text("MYSQL_USERNAME", "root").to_owned(),
            password: self.text("MYSQL_PASSWORD", "").to_owned(),
            timeout: DATABASE_TIMEOUT,
            connections: 16,
        }))
    }

    fn limits(&self, defaults: &Defaults) -> Result<Limits, ConfigError> {
        let positive = "a whole number above 0";
        let max_builds = self.parsed("OCIBUILD_MAX_BUILDS", defaults.max_builds, positive)?;
        if max_builds == 0 {
            return Err(ConfigError {
                name: "OCIBUILD_MAX_BUILDS",
                expected: positive,
            });
        }
        let timeout = self.parsed("OCIBUILD_BUILD_TIMEOUT", 3600, "a number of seconds")?;
        Ok(Limits {
            max_builds,
            build_timeout: Duration::from_secs(timeout),
            max_attempts: self.parsed("OCIBUILD_MAX_ATTEMPTS", 3, positive)?,
            dockerfile_bytes: self.parsed("OCIBUILD_MAX_DOCKERFILE", 1 << 20, "a size in bytes")?,
            log_bytes: self.parsed("OCIBUILD_MAX_LOG", 64 << 20, "a size in bytes")?,
        })
    }

    fn targets(&self) -> Result<Targets, ConfigError> {
        let local = self.text("ENV", "local") == "local";
        Ok(Targets {
            naming: if local {
                Naming::Local
            } else {
                Naming::Production
            },
            local_registry: self.local_registry(local)?,
            image_repository: self.repository("IMAGE_REPOSITORY", "serve-app")?,
            image_prefix: self.repository("CONTAINER_IMAGE_PREFIX", "darwin")?,
            image_prefix_google: self.repository("CONTAINER_IMAGE_PREFIX_GCP", "ray-images")?,
            aws: self.aws()?,
            google: self.google()?,
        })
    }

    /// A registry is spoken to in plain HTTP where the address or the place says so: with
    /// `http://` before it, on the loopback, in a local deployment, or when it is listed in
    /// `OCIBUILD_PLAIN_HTTP`.
    fn local_registry(&self, local: bool) -> Result<Option<LocalRegistry>, ConfigError> {
        let name = "LOCAL_REGISTRY";
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        let (scheme, address) = text
            .split_once("://")
            .map_or((None, text), |(scheme, rest)| (Some(scheme), rest));
        let address = address.trim_end_matches('/');
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
        if address.is_empty() || !address.bytes().all(valid) {
            return Err(ConfigError {
                name,
                expected: "a host and a port, such as localhost:5000",
            });
        }
        let listed = self.text("OCIBUILD_PLAIN_HTTP", "");
        let plain_http = match scheme {
            Some("http") => true,
            Some("https") => false,
            Some(_) => {
                return Err(ConfigError {
                    name,
                    expected: "an address of http or https",
                });
            }
            None => {
                local
                    || is_loopback(address)
                    || listed.split(',').any(|entry| entry.trim() == address)
            }
        };
        Ok(Some(LocalRegistry {
            address: address.to_owned(),
            plain_http,
        }))
    }

    fn repository(&self, name: &'static str, default: &str) -> Result<String, ConfigError> {
        let text = self.text(name, default);
        let word = |part: &str| {
            let inside = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
            let outside = |edge: Option<&u8>| edge.is_some_and(u8::is_ascii_alphanumeric);
            let bytes = part.as_bytes();
            bytes.iter().copied().all(inside) && outside(bytes.first()) && outside(bytes.last())
        };
        let expected = "a repository name: lowercase letters, digits, and . _ - / between them";
        let valid = text.split('/').all(word);
        valid
            .then(|| text.to_owned())
            .ok_or(ConfigError { name, expected })
    }

    fn aws(&self) -> Result<Option<Aws>, ConfigError> {
        let Some(account) = self.get("AWS_ECR_ACCOUNT_ID") else {
            return Ok(None);
        };
        if !account.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ConfigError {
                name: "AWS_ECR_ACCOUNT_ID",
                expected: "an account number",
            });
        }
        let region = self.text("AWS_ECR_REGION", "us-east-1");
        if !region
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            return Err(ConfigError {
                name: "AWS_ECR_REGION",
                expected: "the name of a region",
            });
        }
        let key = self
            .get("AWS_ACCESS_KEY_ID")
            .zip(self.get("AWS_SECRET_ACCESS_KEY"));
        Ok(Some(Aws {
            account: account.to_owned(),
            region: region.to_owned(),
            key: key.map(|(id, secret)| (id.to_owned(), Secret::new(secret))),
        }))
    }

    fn google(&self) -> Result<Option<Google>, ConfigError> {
        let Some(project) = self.get("GCP_PROJECT_ID") else {
            return Ok(None);
        };
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:".contains(&byte);
        if !project.bytes().all(valid) {
            return Err(ConfigError {
                name: "GCP_PROJECT_ID",
                expected: "the name of a project",
            });
        }
        // A project of a domain is `domain.com:project`, and `domain.com/project` in a name.
        let project = project.replace(':', "/");
        let key_file = PathBuf::from(self.text("GCP_CREDS_PATH", "/home/admin/gcp_creds.json"));
        Ok(Some(Google { project, key_file }))
    }

    fn inherited(&self) -> Vec<(String, String)> {
        let pair = |name: &&str| Some(((*name).to_owned(), self.get(name)?.to_owned()));
        INHERITED.iter().filter_map(pair).collect()
    }
}

/// Brings a path prefix into the form `/something`.
fn root_path(text: &str) -> String {
    let inner = text.trim_matches('/');
    if inner.is_empty() {
        String::new()
    } else {
        format!("/{inner}")
    }
}

fn is_loopback(address: &str) -> bool {
    if let Ok(address) = address.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let defaults = Defaults {
            data: PathBuf::from("/data"),
            max_builds: 2,
        };
        let vars = vars
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::from_vars(vars, &defaults)
    }

    #[test]
    fn nothing_set_gives_a_local_service_on_sqlite() {
        let config = config(&[]).unwrap();
        assert_eq!(config.listen.to_string(), "0.0.0.0:8000");
        assert_eq!(config.public_url, "http://localhost:8000");
        assert_eq!(config.logs, Path::new("/data/logs"));
        assert_eq!(config.work, Path::new("/data/build_artifacts"));
        assert_eq!(config.limits.build_timeout, Duration::from_secs(3600));
        assert!(
            matches!(&config.database, Database::Sqlite(file) if file == Path::new("/data/tasks.db"))
        );
        assert!(config.targets.local_registry.is_none());
        assert_eq!(config.root_path, "");
    }

    #[test]
    fn the_values_of_the_helm_chart_work() {
        let config = config(&[
            ("ENV", "local"),
            ("DEV", "true"),
            ("MYSQL_HOST", "darwin-mysql"),
            ("MYSQL_PASSWORD", "password"),
            ("CONTAINER_IMAGE_PREFIX", "serve-app"),
            ("CONTAINER_IMAGE_PREFIX_GCP", "serve-app"),
            ("IMAGE_REPOSITORY", "serve-app"),
            ("LOCAL_REGISTRY", "127.0.0.1:55000"),
            ("AWS_ECR_ACCOUNT_ID", ""),
            ("GCP_PROJECT_ID", ""),
            ("APP_LAYER_URL", "http://localhost/artifact-builder"),
            ("AWS_ACCESS_KEY_ID", "tset"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
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
    }

    #[test]
    fn production_has_other_places() {
        let config = config(&[("ENV", "prod")]).unwrap();
        assert_eq!(config.logs, Path::new("/var/www/artifact-builder/logs"));
        assert_eq!(config.public_url, "");
        assert_eq!(config.targets.naming, Naming::Production);
    }

    #[test]
    fn plain_http_needs_a_reason() {
        let plain = |vars: &[(&str, &str)]| {
            config(vars)
                .unwrap()
                .targets
                .local_registry
                .unwrap()
                .plain_http
        };
        let prod = ("ENV", "prod");
        assert!(plain(&[("LOCAL_REGISTRY", "kind-registry:5000")]));
        assert!(!plain(&[("LOCAL_REGISTRY", "https://kind-registry:5000")]));
        assert!(!plain(&[prod, ("LOCAL_REGISTRY", "registry.example:5000")]));
        assert!(plain(&[
            prod,
            ("LOCAL_REGISTRY", "http://registry.example")
        ]));
        assert!(plain(&[prod, ("LOCAL_REGISTRY", "localhost:5000")]));
        assert!(plain(&[prod, ("LOCAL_REGISTRY", "[::1]:5000")]));
        let listed = ("OCIBUILD_PLAIN_HTTP", "a:1, r:5000");
        assert!(plain(&[prod, ("LOCAL_REGISTRY", "r:5000"), listed]));
    }

    #[test]
    fn wrong_values_are_named() {
        for (name, value) in [
            ("OCIBUILD_LISTEN", "8000"),
            ("OCIBUILD_MAX_BUILDS", "0"),
            ("OCIBUILD_MAX_BUILDS", "-1"),
            ("OCIBUILD_BUILD_TIMEOUT", "1h"),
            ("LOCAL_REGISTRY", "registry/path"),
            ("LOCAL_REGISTRY", "ftp://registry"),
            ("IMAGE_REPOSITORY", "Serve"),
            ("IMAGE_REPOSITORY", "a//b"),
            ("IMAGE_REPOSITORY", "a:b"),
            ("AWS_ECR_ACCOUNT_ID", "1.evil.example/"),
            ("GCP_PROJECT_ID", "p/../q"),
        ] {
            let error = config(&[(name, value)]).unwrap_err();
            assert_eq!(error.name, name, "{value}");
        }
        let error = config(&[("MYSQL_HOST", "db"), ("MYSQL_PORT", "x")]).unwrap_err();
        assert_eq!(error.name, "MYSQL_PORT");
    }

    #[test]
    fn the_root_path_has_one_form() {
        for (text, expected) in [("/", ""), ("builder", "/builder"), ("/a/b/", "/a/b")] {
            assert_eq!(config(&[("ROOT_PATH", text)]).unwrap().root_path, expected);
        }
    }

    #[test]
    fn secrets_do_not_reach_debug_output() {
        let config = config(&[
            ("GITHUB_TOKEN", "hidden-1"),
            ("MYSQL_HOST", "db"),
            ("MYSQL_PASSWORD", "hidden-2"),
            ("AWS_ECR_ACCOUNT_ID", "1"),
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "hidden-3"),
        ]);
        assert!(!format!("{config:?}").contains("hidden"));
    }
}
