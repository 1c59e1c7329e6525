//! Credentials as a value: what to show to which registry. They come from the
//! caller or from a docker `config.json`; nothing is looked for on the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{EcrLogin, GoogleLogin, docker_config};
use crate::reference::canonical_registry;
use crate::{Repository, Secret};

/// Name under which credential helpers and docker itself keep Docker Hub's login.
const HUB_HELPER_KEY: &str = "https://index.docker.io/v1/";
/// Shorter lines of a secret are too likely to be words of innocent text.
const SHORTEST_SECRET_LINE: usize = 20;
const HELPER_TIME: Duration = Duration::from_secs(60);
const HELPER_OUTPUT: u64 = 256 * 1024;

/// What proves who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user name and a password, or a token in its place.
    Password {
        /// The user name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// An OAuth2 refresh token, which buys access tokens.
    IdentityToken(Secret),
    /// A token that the registry itself takes as it is.
    RegistryToken(Secret),
    /// An access key of Amazon, which buys passwords for a registry at ECR.
    Ecr(EcrLogin),
    /// An identity that Google knows, for its registries.
    Google(GoogleLogin),
}

impl Credential {
    /// Makes a credential of a user name and a password.
    pub fn password(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self::Password {
            username: username.into(),
            password: Secret::new(password),
        }
    }

    /// Lists the texts that give the credential away.
    pub(super) fn secrets(&self) -> Vec<Secret> {
        match self {
            Self::Password { username, password } => {
                let mut secrets = with_lines(password);
                if !password.expose().is_empty() {
                    // Without its padding, so that writers of both kinds are caught.
                    let pair = format!("{username}:{}", password.expose());
                    secrets.push(Secret::new(STANDARD_NO_PAD.encode(pair)));
                }
                secrets
            }
            Self::IdentityToken(token) | Self::RegistryToken(token) => with_lines(token),
            Self::Ecr(login) => login.secrets(),
            Self::Google(login) => login.secrets(),
        }
    }
}

/// Lists a secret, and its lines where it has several (a service account's key file
/// has): logs are read and searched line by line.
fn with_lines(secret: &Secret) -> Vec<Secret> {
    let text = secret.expose();
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| line.len() >= SHORTEST_SECRET_LINE && *line != text);
    [text]
        .into_iter()
        .filter(|text| !text.is_empty())
        .chain(lines)
        .map(Secret::new)
        .collect()
}

/// The credentials for any number of registries; the default has none.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// By `registry` or `registry/path`.
    pub(super) entries: BTreeMap<String, Credential>,
    /// Helper programs by registry: `X` for `docker-credential-X`.
    pub(super) helpers: BTreeMap<String, String>,
    /// The helper for every other registry.
    pub(super) store: Option<String>,
    /// Registries that the helper for all is not asked for.
    without_store: BTreeSet<String>,
}

impl Credentials {
    /// Has no credentials: every request is anonymous.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// Adds the credential for a registry (`host`, `host:port`) or for the
    /// repositories below a path of it (`host/team`).
    #[must_use]
    pub fn with(mut self, registry: &str, credential: Credential) -> Self {
        self.entries.insert(normal_key(registry), credential);
        self
    }

    /// Takes away what there is for a registry and its paths.
    #[must_use]
    pub fn without(mut self, registry: &str) -> Self {
        let key = normal_key(registry);
        let below = format!("{key}/");
        self.entries
            .retain(|name, _| *name != key && !name.starts_with(&below));
        self.helpers.remove(&key);
        if self.store.is_some() {
            self.without_store.insert(key);
        }
        self
    }

    /// Adds what others have, for registries that have nothing here.
    #[must_use]
    pub fn or(mut self, others: Self) -> Self {
        for (key, credential) in others.entries {
            self.entries.entry(key).or_insert(credential);
        }
        for (key, helper) in others.helpers {
            self.helpers.entry(key).or_insert(helper);
        }
        self.store = self.store.or(others.store);
        self.without_store.extend(others.without_store);
        self
    }

    /// Adds the login for the registry of an Amazon account.
    #[must_use]
    pub fn with_ecr(self, login: EcrLogin) -> Self {
        let registry = login.registry();
        self.with(&registry, Credential::Ecr(login))
    }

    /// Lists every text that gives a credential away, for whoever hides secrets in a
    /// log: passwords and tokens, `user:password` in base64 without padding, access
    /// keys. What a helper program would say is not known before it is asked, and an
    /// ECR login has its password only once it was needed.
    pub fn secrets(&self) -> Vec<Secret> {
        self.entries
            .values()
            .flat_map(Credential::secrets)
            .collect()
    }

    /// Reads the bytes of a docker `config.json`.
    pub fn from_docker_config(json: &[u8]) -> Result<Self, CredentialError> {
        docker_config::parse(json)
    }

    /// Reads a docker `config.json`.
    pub fn from_docker_config_file(path: &Path) -> Result<Self, CredentialError> {
        let json = std::fs::read(path).map_err(|source| CredentialError::ReadConfig {
            path: path.to_owned(),
            source,
        })?;
        Self::from_docker_config(&json)
    }

    /// Finds the credential for a repository: the helper of its registry, else the
    /// entry with the longest matching path, else the credential store.
    pub async fn find(
        &self,
        repository: &Repository,
    ) -> Result<Option<Credential>, CredentialError> {
        let registry = repository.registry();
        if let Some(helper) = self.helpers.get(registry) {
            return ask_helper(helper, registry).await;
        }
        if let Some(found) = self.find_entry(repository) {
            return Ok(Some(found.clone()));
        }
        match &self.store {
            Some(_) if self.without_store.contains(registry) => Ok(None),
            Some(helper) => ask_helper(helper, registry).await,
            None => Ok(None),
        }
    }

    fn find_entry(&self, repository: &Repository) -> Option<&Credential> {
        let mut key = repository.to_string();
        loop {
            if let Some(found) = self.entries.get(&key) {
                return Some(found);
            }
            let Some(slash) = key.rfind('/') else {
                break;
            };
            key.truncate(slash);
        }
        let name = repository.to_string();
        let globs = self.entries.iter().filter(|(key, _)| key.contains('*'));
        let mut fitting = globs.filter(|(key, _)| fits(key, &name));
        fitting.next_back().map(|(_, found)| found)
    }
}

/// Tells whether a key with stars fits a repository, as those of Kubernetes' pull secrets
/// do: a star stands for any characters of one label of the host.
fn fits(key: &str, name: &str) -> bool {
    let (key_host, path) = key.split_once('/').unwrap_or((key, ""));
    let (host, rest) = name.split_once('/').unwrap_or((name, ""));
    let labels: Vec<&str> = key_host.split('.').collect();
    let actual: Vec<&str> = host.split('.').collect();
    let is_below = path.is_empty() || rest == path || rest.starts_with(&format!("{path}/"));
    is_below
        && labels.len() == actual.len()
        && labels
            .iter()
            .zip(actual)
            .all(|(glob, label)| label_fits(glob, label))
}

fn label_fits(glob: &str, label: &str) -> bool {
    let Some((start, rest)) = glob.split_once('*') else {
        return glob == label;
    };
    let Some(label) = label.strip_prefix(start) else {
        return false;
    };
    match rest.contains('*') {
        false => label.ends_with(rest),
        true => (0..=label.len())
            .filter_map(|at| label.get(at..))
            .any(|tail| label_fits(rest, tail)),
    }
}

/// Gives the one spelling of a key: no scheme, no `/v1/`, Docker Hub as `docker.io`.
pub(super) fn normal_key(key: &str) -> String {
    let key = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key)
        .trim_end_matches('/');
    let key = key
        .strip_suffix("/v1")
        .or_else(|| key.strip_suffix("/v2"))
        .unwrap_or(key);
    match key.split_once('/') {
        Some((host, path)) => format!("{}/{path}", canonical_registry(host)),
        None => canonical_registry(key).to_owned(),
    }
}

/// Credentials that cannot be had. No variant shows a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    /// The configuration file cannot be read.
    #[error("cannot read {}", path.display())]
    ReadConfig {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The configuration is not the JSON that it should be.
    #[error("the docker configuration is not valid, at line {line}, column {column}")]
    ParseConfig {
        /// Line of the problem.
        line: usize,
        /// Column of the problem.
        column: usize,
    },
    /// An `auth` entry is not base64 of `user:password`.
    #[error("the entry of {registry:?} in the docker configuration is not base64 of user:password")]
    InvalidEntry {
        /// The key of the entry.
        registry: String,
    },
    /// A helper's name is not a plain word.
    #[error("invalid name of a credential helper: {name:?}")]
    InvalidHelper {
        /// The name.
        name: String,
    },
    /// A helper could not be run.
    #[error("cannot run docker-credential-{helper}")]
    RunHelper {
        /// The helper.
        helper: String,
        /// What the system says.
        source: io::Error,
    },
    /// A helper did not end in time.
    #[error("docker-credential-{helper} did not end within {} seconds", HELPER_TIME.as_secs())]
    SlowHelper {
        /// The helper.
        helper: String,
    },
    /// A helper failed or gave no credential.
    #[error("docker-credential-{helper} gave no credential (exit status {status:?})")]
    HelperFailed {
        /// The helper.
        helper: String,
        /// Its exit status; none when a signal ended it.
        status: Option<i32>,
    },
}

/// Runs `docker-credential-<helper> get`; none where the helper knows no login.
async fn ask_helper(helper: &str, registry: &str) -> Result<Option<Credential>, CredentialError> {
    let key = match registry {
        "docker.io" => HUB_HELPER_KEY,
        other => other,
    };
    let (status, output) = tokio::time::timeout(HELPER_TIME, run_helper(helper, key))
        .await
        .map_err(|_| CredentialError::SlowHelper {
            helper: helper.to_owned(),
        })?
        .map_err(|source| CredentialError::RunHelper {
            helper: helper.to_owned(),
            source,
        })?;
    if !status.success() && is_not_found(&output) {
        return Ok(None);
    }
    let failed = || CredentialError::HelperFailed {
        helper: helper.to_owned(),
        status: status.code(),
    };
    if !status.success() {
        return Err(failed());
    }
    // The parser's own message could show a part of the secret.
    let answer: HelperAnswer = serde_json::from_slice(&output).map_err(|_| failed())?;
    Ok(answer.into_credential())
}

async fn run_helper(helper: &str, key: &str) -> io::Result<(std::process::ExitStatus, Vec<u8>)> {
    let mut child = tokio::process::Command::new(format!("docker-credential-{helper}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // A helper may answer without reading; its status says more than EPIPE.
        let _ = input.write_all(key.as_bytes()).await;
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(HELPER_OUTPUT).read_to_end(&mut output).await?;
    }
    Ok((child.wait().await?, output))
}

/// Helpers tell a missing login by these words on standard output.
fn is_not_found(output: &[u8]) -> bool {
    let text = String::from_utf8_lossy(output).to_ascii_lowercase();
    text.contains("credentials not found") || text.contains("no credentials server url")
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

impl HelperAnswer {
    fn into_credential(self) -> Option<Credential> {
        match (self.username.as_str(), self.secret.as_str()) {
            (_, "") => None,
            // What helpers give as the name of an identity token.
            ("<token>", _) => Some(Credential::IdentityToken(Secret::new(self.secret))),
            _ => Some(Credential::password(self.username, self.secret)),
        }
    }
}
