//! Every setting of the service as data.
//!
//! The table decides what there is: a setting can only be read through its entry, what is
//! printed and what is ignored comes from here, and a test compares it with the document
//! `docs/configuration.md`. To add a setting is to add an entry, and to read it.

use super::units::{self, Unit};

/// One setting: a variable, and perhaps a flag that stands for it.
#[derive(Debug)]
pub struct Setting {
    /// Name of the variable.
    pub name: &'static str,
    /// The flag of `ocibuild serve` that wins over it.
    pub flag: Option<&'static str>,
    /// Whose name it is.
    pub owner: Owner,
    /// What its value must be.
    pub kind: Kind,
    /// What counts where nobody gives a value.
    pub fallback: Fallback,
    /// What of its value may be shown.
    pub secrecy: Secrecy,
    /// What it means; for what is ignored, why.
    pub meaning: &'static str,
}

/// Settings that belong together.
#[derive(Debug)]
pub struct Theme {
    /// What they are about.
    pub title: &'static str,
    /// The settings.
    pub settings: &'static [&'static Setting],
}

/// Whose name a setting has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Darwin's artifact builder knows it.
    Darwin,
    /// This service made it up; its name begins with `OCIBUILD_`.
    Ocibuild,
    /// Many programs know it.
    Common,
}

/// What a value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What the words say.
    Text(&'static str),
    /// Items like this one, with commas between them.
    List(&'static str),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Yes or no.
    Switch,
    /// An address and a port to listen on.
    Address,
    /// A file or folder.
    Path,
    /// A number between two bounds, both allowed.
    Count(u64, u64),
    /// Bytes, at least so many.
    Size(u64),
    /// A time of at least so many seconds; the unit is that of a number alone.
    Time(u64, Option<Unit>),
    /// Anything: it is handed on to build processes as it is.
    HandedOn,
    /// Anything, as it counts for nothing.
    Ignored,
}

/// What counts where nobody gives a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// Nothing.
    Absent,
    /// This value.
    Text(&'static str),
    /// A value that depends on the machine or on other settings.
    Computed(Computed),
}

/// The values that depend on the machine or on other settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Computed {
    /// The folder that the caller knows.
    DataFolder,
    /// The number of processors.
    Processors,
    /// `HOSTNAME`.
    HostName,
    /// The URL of the service, by `ENV`.
    PublicUrl,
    /// On, except in a local deployment.
    UnlessLocal,
}

/// What of a value may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrecy {
    /// All of it.
    Open,
    /// Nothing.
    Secret,
    /// A URL without its password.
    Url,
    /// Of each item of a list what stands before this character.
    Named(char),
}

impl Setting {
    const fn new(owner: Owner, name: &'static str, kind: Kind, meaning: &'static str) -> Self {
        Self {
            name,
            flag: None,
            owner,
            kind,
            fallback: Fallback::Absent,
            secrecy: Secrecy::Open,
            meaning,
        }
    }

    const fn flag(self, flag: &'static str) -> Self {
        Self {
            flag: Some(flag),
            ..self
        }
    }

    const fn or(self, text: &'static str) -> Self {
        Self {
            fallback: Fallback::Text(text),
            ..self
        }
    }

    const fn or_computed(self, computed: Computed) -> Self {
        Self {
            fallback: Fallback::Computed(computed),
            ..self
        }
    }

    const fn shown(self, secrecy: Secrecy) -> Self {
        Self { secrecy, ..self }
    }
}

impl Kind {
    /// Says what a value must be, to go on after "must be".
    pub fn expected(&self) -> String {
        match self {
            Self::Text(words) => (*words).to_owned(),
            Self::List(item) => format!("a list with commas of {item}"),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::Switch => "true or false".to_owned(),
            Self::Address => "an address and a port, such as 0.0.0.0:8000".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::Count(least, most) => format!("a whole number from {least} to {most}"),
            Self::Size(least) => {
                format!("a size from {least} bytes on, such as 1048576, 512M or 2G")
            }
            Self::Time(least, unit) => {
                let alone = match unit {
                    Some(unit) => format!("; a number alone is {}", unit.plural()),
                    None => ", with its unit".to_owned(),
                };
                format!("a time from {least} s to 3650 d, such as 90s, 15m, 12h or 30d{alone}")
            }
            Self::HandedOn | Self::Ignored => "anything".to_owned(),
        }
    }

    /// Reads a number: as it is, in bytes, or in seconds. None for other kinds.
    pub(super) fn number(&self, text: &str) -> Option<u64> {
        const LONGEST: u64 = 3650 * 86_400;
        let (number, least, most) = match *self {
            Self::Count(least, most) => (text.parse().ok()?, least, most),
            Self::Size(least) => (units::bytes(text)?, least, 1 << 62),
            Self::Time(least, unit) => (units::seconds(text, unit)?, least, LONGEST),
            _ => return None,
        };
        (least..=most).contains(&number).then_some(number)
    }
}

impl Computed {
    /// Says for the document what the value will be.
    pub fn describe(self) -> &'static str {
        match self {
            Self::DataFolder => "`$XDG_DATA_HOME/ocibuild` or `~/.local/share/ocibuild`",
            Self::Processors => "number of processors",
            Self::HostName => "the host name",
            Self::PublicUrl => "`http://localhost:8000`; nothing with `ENV=prod`",
            Self::UnlessLocal => "`false` with `ENV=local`, else `true`",
        }
    }
}

/// Finds a setting by the name of its variable.
pub fn find(name: &str) -> Option<&'static Setting> {
    all().find(|setting| setting.name == name)
}

/// Gives every setting, in the order of the document.
pub fn all() -> impl Iterator<Item = &'static Setting> {
    THEMES
        .iter()
        .flat_map(|theme| theme.settings.iter().copied())
}

const fn ours(name: &'static str, kind: Kind, meaning: &'static str) -> Setting {
    Setting::new(Owner::Ocibuild, name, kind, meaning)
}

const fn darwins(name: &'static str, kind: Kind, meaning: &'static str) -> Setting {
    Setting::new(Owner::Darwin, name, kind, meaning)
}

const fn common(name: &'static str, kind: Kind, meaning: &'static str) -> Setting {
    Setting::new(Owner::Common, name, kind, meaning)
}

const fn ignored(name: &'static str, reason: &'static str) -> Setting {
    Setting::new(Owner::Darwin, name, Kind::Ignored, reason)
}

const fn handed_on(name: &'static str, meaning: &'static str) -> Setting {
    common(name, Kind::HandedOn, meaning).shown(Secrecy::Url)
}

/// Writes the table: one static for each setting, so that none can be read that is not in
/// [`THEMES`].
macro_rules! settings {
    ($($title:literal { $($setting:ident = $entry:expr;)+ })+) => {
        $($(pub(super) static $setting: Setting = $entry;)+)+

        /// Every setting, by theme.
        pub static THEMES: &[Theme] = &[$(Theme { title: $title, settings: &[$(&$setting),+] }),+];
    };
}

const REPOSITORY: Kind =
    Kind::Text("a repository name: lowercase letters, digits, and . _ - / between them");
const HOST: &str = "host or host:port";

settings! {
    "The service" {
        LISTEN = ours("OCIBUILD_LISTEN", Kind::Address, "Address and port to listen on.")
            .flag("--listen").or("0.0.0.0:8000");
        DATA_DIR = ours("OCIBUILD_DATA_DIR", Kind::Path,
            "Folder for everything that is kept: SQLite, logs, the store of layers, scratch folders.")
            .flag("--data-dir").or_computed(Computed::DataFolder);
        REPLICA = ours("OCIBUILD_REPLICA", Kind::Text("1 to 64 letters, digits, and . _ -"),
            "Name of this replica, shown as the owner of its builds.")
            .or_computed(Computed::HostName);
        HOSTNAME = common("HOSTNAME", Kind::Text("a host name"),
            "The host name, as container runtimes set it; without it the system is asked.");
        ENVIRONMENT = darwins("ENV", Kind::Text("a word"),
            "`local`: images are named by `IMAGE_REPOSITORY` and not pushed to Google; anything else: by \
             `CONTAINER_IMAGE_PREFIX`. `prod` also changes the defaults of logs and URL.")
            .or("local");
        ROOT_PATH = darwins("ROOT_PATH", Kind::Text("a path such as /artifact-builder"),
            "Path under which a proxy shows the service.");
        APP_LAYER_URL = darwins("APP_LAYER_URL", Kind::Text("a URL without spaces"),
            "What stands before `/static/` in the URL of a log.")
            .or_computed(Computed::PublicUrl).shown(Secrecy::Url);
        LOG_FILE_ROOT_LOCAL = darwins("LOG_FILE_ROOT_LOCAL", Kind::Path,
            "Folder of the logs of builds, unless `ENV=prod`. If relative, inside the data folder.")
            .or("logs");
        LOG_FILE_ROOT_PROD = darwins("LOG_FILE_ROOT_PROD", Kind::Path,
            "The same with `ENV=prod`.")
            .or("/var/www/artifact-builder/logs");
        BUILD_ARTIFACTS_ROOT = darwins("BUILD_ARTIFACTS_ROOT", Kind::Path,
            "Scratch folders of running builds. If relative, inside the data folder.")
            .or("build_artifacts");
        SHUTDOWN_GRACE = ours("OCIBUILD_SHUTDOWN_GRACE", Kind::Time(0, Some(Unit::Seconds)),
            "How long running builds may go on after SIGTERM, before they are handed back.")
            .or("25s");
    }
    "Task table" {
        DATABASE_URL = common("DATABASE_URL",
            Kind::Text("mysql://user:password@host:port/database or sqlite://path, without parameters"),
            "The database in one value; wins over `MYSQL_*`. A relative path of SQLite is inside the data \
             folder. Without it and `MYSQL_HOST`: `tasks.db` there.")
            .shown(Secrecy::Url);
        MYSQL_HOST = darwins("MYSQL_HOST", Kind::Text("a host name or address"),
            "Host of MySQL or MariaDB; the other `MYSQL_*` count together with it only.");
        MYSQL_PORT = darwins("MYSQL_PORT", Kind::Count(1, 65_535), "Its port.").or("3306");
        MYSQL_DATABASE = darwins("MYSQL_DATABASE", Kind::Text("a name"),
            "Name of the database, which is created when it is missing.")
            .or("mlp_serve");
        MYSQL_USERNAME = darwins("MYSQL_USERNAME", Kind::Text("a name"), "User.").or("root");
        MYSQL_PASSWORD = darwins("MYSQL_PASSWORD", Kind::Text("text"),
            "Password; every character is allowed.")
            .shown(Secrecy::Secret);
        DATABASE_TLS = ours("OCIBUILD_DATABASE_TLS",
            Kind::Choice(&["disabled", "preferred", "required", "verify-ca", "verify-identity"]),
            "TLS to MySQL: never; where the server can; always; with a certificate of a known authority; and \
             for this host.")
            .or("preferred");
        DATABASE_CA = ours("OCIBUILD_DATABASE_CA", Kind::Path,
            "File with certificates (PEM) of authorities that MySQL's certificate may come from.");
    }
    "Registries" {
        LOCAL_REGISTRY = darwins("LOCAL_REGISTRY", Kind::Text("host:port, perhaps with http:// or https:// before it"),
            "Registry that every image is pushed to. Plain HTTP if it begins with `http://`, is a loopback \
             address, is listed in `OCIBUILD_PLAIN_HTTP`, or with `ENV=local`; `https://` forbids that.");
        IMAGE_REPOSITORY = darwins("IMAGE_REPOSITORY", REPOSITORY,
            "Repository in `LOCAL_REGISTRY` with `ENV=local`.")
            .or("serve-app");
        CONTAINER_IMAGE_PREFIX = darwins("CONTAINER_IMAGE_PREFIX", REPOSITORY,
            "Repository in Amazon's registry and, unless `ENV=local`, in `LOCAL_REGISTRY`.")
            .or("darwin");
        CONTAINER_IMAGE_PREFIX_GCP = darwins("CONTAINER_IMAGE_PREFIX_GCP", REPOSITORY,
            "Repository in Google's registry.")
            .or("ray-images");
        REGISTRY_ALIAS = ours("OCIBUILD_REGISTRY_ALIAS",
            Kind::List("name=endpoint, both host or host:port, each name once"),
            "Where a registry really is: with `localhost:5000=kind-registry:5000` images keep the name \
             `localhost:5000/…` and connections go to `kind-registry:5000`.");
        PLAIN_HTTP = ours("OCIBUILD_PLAIN_HTTP", Kind::List(HOST),
            "Registries that are spoken to in plain HTTP; loopback addresses need no entry.");
        EMBEDDED_REGISTRY = ours("OCIBUILD_EMBEDDED_REGISTRY", Kind::Address,
            "Runs a registry on this address, in the data folder. It is pushed to when no other registry is \
             configured.")
            .flag("--embedded-registry");
        EMBEDDED_ACCOUNTS = ours("OCIBUILD_EMBEDDED_ACCOUNTS", Kind::Path,
            "File with lines of `right path user password`, the right being pull, push or delete, the path `*` \
             for all; `pull * *` lets everybody read. Without it everybody may do everything. Builds have an \
             account of their own.");
        EMBEDDED_QUOTA = ours("OCIBUILD_EMBEDDED_QUOTA", Kind::Size(1), "Size of all that is in it.");
        EMBEDDED_REPOSITORY_QUOTA = ours("OCIBUILD_EMBEDDED_REPOSITORY_QUOTA", Kind::Size(1),
            "Size of each of its repositories.");
        EMBEDDED_GC = ours("OCIBUILD_EMBEDDED_GC", Kind::Time(0, Some(Unit::Hours)),
            "How often blobs are removed that no manifest names; `0` is never.")
            .or("24h");
        EMBEDDED_GC_GRACE = ours("OCIBUILD_EMBEDDED_GC_GRACE", Kind::Time(0, Some(Unit::Hours)),
            "What is younger stays.")
            .or("24h");
        EMBEDDED_GC_UNTAGGED = ours("OCIBUILD_EMBEDDED_GC_UNTAGGED", Kind::Switch,
            "Removes manifests too that no tag leads to.")
            .or("false");
        DOCKER_CONFIG = ours("OCIBUILD_DOCKER_CONFIG", Kind::Path,
            "Docker's `config.json`, for registries with a login.");
        REGISTRIES = ours("OCIBUILD_REGISTRIES", Kind::Path,
            "The `registries.toml` that says how each registry is reached: mirrors, certificates, logins, \
             policies of tags.");
        AWS_ECR_ACCOUNT_ID = darwins("AWS_ECR_ACCOUNT_ID", Kind::Text("an account number"),
            "Account at Amazon's registry; images are pushed there too if it is set.");
        AWS_ECR_REGION = darwins("AWS_ECR_REGION", Kind::Text("the name of a region"),
            "Its region. Without it `AWS_DEFAULT_REGION` counts.");
        AWS_DEFAULT_REGION = darwins("AWS_DEFAULT_REGION", Kind::Text("the name of a region"),
            "The region where `AWS_ECR_REGION` is absent.")
            .or("us-east-1");
        AWS_ACCESS_KEY_ID = darwins("AWS_ACCESS_KEY_ID", Kind::Text("text"),
            "Key for Amazon's registry, together with `AWS_SECRET_ACCESS_KEY`; without them the machine's \
             role counts.");
        AWS_SECRET_ACCESS_KEY = darwins("AWS_SECRET_ACCESS_KEY", Kind::Text("text"),
            "The secret part of that key.")
            .shown(Secrecy::Secret);
        AWS_SESSION_TOKEN = common("AWS_SESSION_TOKEN", Kind::Text("text"),
            "Session of a key that is valid for a time.")
            .shown(Secrecy::Secret);
        AWS_ENDPOINT_URL = common("AWS_ENDPOINT_URL", Kind::Text("a URL of http or https"),
            "Address in place of Amazon's API.")
            .shown(Secrecy::Url);
        AWS_ENDPOINT_URL_ECR = common("AWS_ENDPOINT_URL_ECR", Kind::Text("a URL of http or https"),
            "The same for its registry alone; wins over `AWS_ENDPOINT_URL`.")
            .shown(Secrecy::Url);
        GCP_PROJECT_ID = darwins("GCP_PROJECT_ID", Kind::Text("the name of a project"),
            "Project at Google's registry; unless `ENV=local`, images are pushed there too if it is set.");
        GCP_CREDS_PATH = darwins("GCP_CREDS_PATH", Kind::Path, "JSON key of a service account for it.")
            .or("/home/admin/gcp_creds.json");
    }
    "Git" {
        GITHUB_TOKEN = darwins("GITHUB_TOKEN", Kind::Text("one word"),
            "Reads private repositories; sent to `https://github.com` only.")
            .shown(Secrecy::Secret);
        GIT_TOKENS = ours("OCIBUILD_GIT_TOKENS", Kind::List("host=token or host:port=token, each host once"),
            "Tokens for other hosts, sent over HTTPS only; an entry for `github.com` wins over \
             `GITHUB_TOKEN`.")
            .shown(Secrecy::Named('='));
        GIT_HOSTS = ours("OCIBUILD_GIT_HOSTS", Kind::List("host, host:port or *.domain"),
            "The hosts that repositories and files that ADD names may come from; without it any. An entry without a port allows every \
             port.");
        GIT_HTTP_HOSTS = ours("OCIBUILD_GIT_HTTP_HOSTS", Kind::List(HOST),
            "The hosts that these may come from in plain HTTP; others need HTTPS. An entry without a \
             port allows every port.");
        DENY_ADDRESSES = ours("OCIBUILD_DENY_ADDRESSES", Kind::Choice(&["metadata", "private", "none"]),
            "Addresses that repositories may not lie at: `metadata` services of clouds; these and all `private` \
             networks; `none`.")
            .or("metadata");
    }
    "Builds" {
        DOCKER_BUILD_PLATFORM = darwins("DOCKER_BUILD_PLATFORM", Kind::Text("a platform such as linux/amd64"),
            "Platform to build for; without it the machine's.");
        MAX_BUILDS = ours("OCIBUILD_MAX_BUILDS", Kind::Count(1, 1000), "Builds at once in this replica.")
            .or_computed(Computed::Processors);
        MAX_BUILDS_PER_APP = ours("OCIBUILD_MAX_BUILDS_PER_APP", Kind::Count(1, 1000),
            "Builds of one application at once; without it no limit.");
        BUILD_TIMEOUT = ours("OCIBUILD_BUILD_TIMEOUT", Kind::Time(1, Some(Unit::Seconds)),
            "How long a build may take before it is killed.")
            .or("1h");
        BUILD_MEMORY = ours("OCIBUILD_BUILD_MEMORY", Kind::Size(16 << 20),
            "Memory of one build; without it no limit.");
        MAX_ATTEMPTS = ours("OCIBUILD_MAX_ATTEMPTS", Kind::Count(1, 100),
            "How often a build is begun whose replica disappears.")
            .or("3");
        LEASE = ours("OCIBUILD_LEASE", Kind::Time(3, Some(Unit::Seconds)),
            "How long a build belongs to a replica that gives no sign of life.")
            .or("15s");
        MAX_DOCKERFILE = ours("OCIBUILD_MAX_DOCKERFILE", Kind::Size(1), "Size of an uploaded Dockerfile.")
            .or("1M");
        MAX_CONTEXT = ours("OCIBUILD_MAX_CONTEXT", Kind::Size(1), "Size of an uploaded context.").or("1G");
        MAX_LOG = ours("OCIBUILD_MAX_LOG", Kind::Size(1), "Size of the log of one build.").or("64M");
        SANDBOX = ours("OCIBUILD_SANDBOX", Kind::Text("a sandbox as `ocibuild check-host` names it"),
            "Sandbox of RUN steps, such as `emulation` or `namespaces/range`; without it the best one that works.")
            .flag("--sandbox");
        SECRETS_DIR = ours("OCIBUILD_SECRETS_DIR", Kind::Path,
            "Folder of secrets that builds may ask for by the name of the file.");
    }
    "What is kept, and how long" {
        STORE_MAX = ours("OCIBUILD_STORE_MAX", Kind::Size(1 << 20),
            "Size of the store of layers, bases and steps; what was not used for the longest time is removed before \
             a write would break it. Without it no limit.");
        STORE_MIN_FREE = ours("OCIBUILD_STORE_MIN_FREE", Kind::Size(1),
            "Free space that builds leave on the disk of the store; kept in the same way. Without it no limit.");
        LOG_MAX_AGE = ours("OCIBUILD_LOG_MAX_AGE", Kind::Time(1, Some(Unit::Days)), "Age of a log.")
            .or("30d");
        LOG_MAX_TOTAL = ours("OCIBUILD_LOG_MAX_TOTAL", Kind::Size(1),
            "Size of all logs; the oldest are removed first.")
            .or("10G");
        CONTEXT_MAX_AGE = ours("OCIBUILD_CONTEXT_MAX_AGE", Kind::Time(1, None), "Age of an uploaded context.")
            .or("24h");
    }
    "Access" {
        TOKENS = ours("OCIBUILD_TOKENS",
            Kind::List("tenant:token; a tenant is letters, digits and . _ -, or * for all; no token twice"),
            "Bearer tokens; without any the service is open to all. A tenant sees its own builds, the tenant \
             `*` (administrator) all.")
            .shown(Secrecy::Named(':'));
        TOKENS_FILE = ours("OCIBUILD_TOKENS_FILE",
            Kind::Text("a file with one tenant:token in a line, no token twice"),
            "File with more of them, one in a line; lines that begin with `#` do not count.");
    }
    "Observation" {
        LOG = ours("OCIBUILD_LOG", Kind::Text("a filter such as info or ocibuild_server=debug"),
            "What the program says about itself on standard error. Other commands than `serve` begin at \
             `warn`.")
            .or("info");
        LOG_FORMAT = ours("OCIBUILD_LOG_FORMAT", Kind::Choice(&["text", "json"]), "How it says it.")
            .or("text");
        ENABLE_OTEL = darwins("ENABLE_OTEL", Kind::Switch, "Sends traces to a collector.")
            .or_computed(Computed::UnlessLocal);
        OTEL_SERVICE_NAME = darwins("OTEL_SERVICE_NAME", Kind::Text("text"), "The service's name in traces.")
            .or("artifact-builder");
        OTEL_ENDPOINT = darwins("OTEL_EXPORTER_OTLP_ENDPOINT", Kind::Text("a URL of http or https"),
            "The collector (OTLP over HTTP).")
            .or("http://localhost:4318").shown(Secrecy::Url);
        OTEL_HEADERS = common("OTEL_EXPORTER_OTLP_HEADERS", Kind::List("name=value"),
            "Headers for the collector; what a value cannot hold is written as `%` and two digits.")
            .shown(Secrecy::Named('='));
    }
    "Handed on to build processes" {
        PATH = handed_on("PATH", "Where programs are.");
        TMPDIR = handed_on("TMPDIR", "Folder for temporary files.");
        LANG = handed_on("LANG", "Language of messages.");
        TZ = handed_on("TZ", "Time zone.");
        RUST_LOG = handed_on("RUST_LOG", "What libraries say.");
        RUST_BACKTRACE = handed_on("RUST_BACKTRACE", "Traces of a crash.");
        SSL_CERT_FILE = handed_on("SSL_CERT_FILE", "Certificates of authorities, in place of the system's.");
        SSL_CERT_DIR = handed_on("SSL_CERT_DIR", "The same, as a folder.");
        HTTP_PROXY = handed_on("HTTP_PROXY", "Proxy for `http://`.");
        HTTPS_PROXY = handed_on("HTTPS_PROXY", "Proxy for `https://`.");
        NO_PROXY = handed_on("NO_PROXY", "Hosts that need no proxy.");
        HTTP_PROXY_SMALL = handed_on("http_proxy", "As `HTTP_PROXY`.");
        HTTPS_PROXY_SMALL = handed_on("https_proxy", "As `HTTPS_PROXY`.");
        NO_PROXY_SMALL = handed_on("no_proxy", "As `NO_PROXY`.");
    }
    "Ignored" {
        S3_BUCKET = ignored("S3_BUCKET", "uploads are kept in the task table");
        AWS_ENDPOINT_URL_S3 = ignored("AWS_ENDPOINT_URL_S3", "uploads are kept in the task table");
        DEV = ignored("DEV", "there is no Docker daemon to ask");
        DOCKER_HOST = ignored("DOCKER_HOST", "there is no Docker daemon to ask");
        DOCKER_BUILDKIT = ignored("DOCKER_BUILDKIT", "there is one builder");
        APP_DIR = ignored("APP_DIR", "the program has no folder of its own");
        BASE_DIR = ignored("BASE_DIR", "the program makes its tables itself");
        SERVICE_NAME = ignored("SERVICE_NAME", "OTEL_SERVICE_NAME names the service");
        DEPLOYMENT_TYPE = ignored("DEPLOYMENT_TYPE", "the program logs to standard error");
        VPC_SUFFIX = ignored("VPC_SUFFIX", "no address is made from it");
        TEAM_SUFFIX = ignored("TEAM_SUFFIX", "no address is made from it");
        PLATFORM_NAME = ignored("PLATFORM", "DOCKER_BUILD_PLATFORM names the platform of images");
        NAMESPACE = ignored("NAMESPACE", "no address is made from it");
    }
}
