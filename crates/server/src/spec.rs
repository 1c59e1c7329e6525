//! What a build process is told and what it answers.
//!
//! A [`BuildSpec`] goes to its standard input as one JSON document; [`Line`]s come from its
//! standard output, one JSON object each: the events of the build, then one [`Report`].
//! Secrets travel here and nowhere else: not in arguments, not in the environment.

mod output;

use std::collections::BTreeMap;
use std::path::PathBuf;

use ocibuild::Event;
use ocibuild_registry::{CloudEnvironment, Digest, Secret};
use serde::{Deserialize, Serialize};

pub use output::{LayerCompression, MediaTypesName, OutputForm};

/// One build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildSpec {
    /// The task that it is for.
    pub task: String,
    /// Where the context comes from.
    pub source: Source,
    /// Which Dockerfile is built.
    pub dockerfile: DockerfileSpec,
    /// Build arguments.
    #[serde(default)]
    pub args: BTreeMap<String, String>,
    /// The stage to build; without it the last one.
    #[serde(default)]
    pub target: Option<String>,
    /// The platforms to build for; without any the machine's own.
    #[serde(default)]
    pub platforms: Vec<String>,
    /// Labels of the image.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Secrets for `RUN --mount=type=secret`.
    #[serde(default)]
    pub secrets: Vec<BuildSecret>,
    /// The scope of the cache; without it the common one.
    #[serde(default)]
    pub cache_scope: Option<String>,
    /// Every step is run, also those whose result is known.
    #[serde(default)]
    pub no_cache: bool,
    /// Caches of registries in which results of steps are looked for.
    #[serde(default)]
    pub cache_from: Vec<String>,
    /// Names in registries under which results of steps are left for others.
    #[serde(default)]
    pub cache_to: Vec<String>,
    /// Every step is left there, not only those whose layers are in the image.
    #[serde(default)]
    pub cache_all_steps: bool,
    /// The most bytes that the store may take.
    #[serde(default)]
    pub store_max: Option<u64>,
    /// The least bytes that stay free on its disk.
    #[serde(default)]
    pub store_min_free: Option<u64>,
    /// In which form the image is pushed.
    #[serde(default)]
    pub output: OutputForm,
    /// Where the image goes.
    pub destinations: Vec<Destination>,
    /// How registries are reached.
    pub registries: Registries,
    /// What Git may reach.
    pub git: GitRules,
    /// The sandbox of RUN steps; without it the best one that works.
    #[serde(default)]
    pub sandbox: Option<String>,
    /// The store of layers, bases and steps that all builds share.
    pub store: PathBuf,
    /// A folder of this build alone, removed after it.
    pub scratch: PathBuf,
}

/// Where the files of a build come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Source {
    /// A Git repository.
    Git(GitSource),
    /// A file behind an HTTP URL: the tar of a context, or a Dockerfile.
    Http {
        /// Its URL, without credentials.
        url: String,
    },
    /// The files of an OCI artifact.
    Oci {
        /// Its name in a registry.
        reference: String,
    },
    /// A tar that was uploaded.
    Upload {
        /// Its id.
        context: String,
        /// Where it is on this machine.
        file: PathBuf,
    },
    /// No files.
    Empty,
    /// Nothing is built: an image of a registry is pushed elsewhere.
    Image {
        /// Its name, with the digest.
        reference: String,
    },
}

/// Which Dockerfile is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DockerfileSpec {
    /// The one at this path of the context.
    Path(String),
    /// This text.
    Text(String),
}

/// A secret and the name by which the Dockerfile asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildSecret {
    /// The name.
    pub id: String,
    /// The value.
    #[serde(with = "secret_value")]
    pub value: Secret,
}

/// How registries are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registries {
    /// Docker's `config.json`, for registries with a login.
    pub docker_config: Option<PathBuf>,
    /// The `registries.toml`.
    #[serde(default)]
    pub settings: Option<PathBuf>,
    /// The variables that logins of clouds come from.
    #[serde(default)]
    pub cloud: CloudEnvironment,
    /// Registries that are spoken to in plain HTTP, beside those of the destinations.
    pub plain_http: Vec<String>,
    /// Names of registries, and the addresses at which they are reached.
    pub aliases: Vec<(String, String)>,
    /// The login to the registry that the service runs itself.
    #[serde(default)]
    pub login: Option<RegistryLogin>,
}

/// A login with a password; what is configured for the registry wins over it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryLogin {
    /// The registry.
    pub registry: String,
    /// The user.
    pub user: String,
    /// The password.
    #[serde(with = "secret_value")]
    pub password: Secret,
}

/// What Git may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitRules {
    /// Hosts that are spoken to in plain HTTP.
    pub http_hosts: Vec<String>,
    /// The only hosts that are allowed; all where it is empty.
    pub hosts: Vec<String>,
    /// Addresses that must not be reached.
    pub deny: DenyAddresses,
    /// With what repositories are read over ssh, where they may be.
    #[serde(default)]
    pub ssh: Option<GitSsh>,
}

/// With what repositories are read over ssh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitSsh {
    /// The private key.
    pub key: PathBuf,
    /// The hosts that are believed.
    pub known_hosts: PathBuf,
}

/// Addresses that must not be reached by what strangers name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DenyAddresses {
    /// None.
    Nothing,
    /// Those of the metadata services of clouds.
    #[default]
    Metadata,
    /// Those and everything private.
    Private,
}

/// A place in a Git repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitSource {
    /// URL of the repository, without credentials.
    pub url: String,
    /// Branch or tag; without it the remote's default branch.
    pub reference: Option<String>,
    /// Directory that is the context; without it the root.
    pub subdir: Option<String>,
    /// Token for the repository's host.
    #[serde(with = "secret_text")]
    pub token: Option<Secret>,
}

/// One name under which the image is pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// Registry, repository and tag.
    pub reference: String,
    /// The registry is spoken to in plain HTTP.
    pub plain_http: bool,
    /// How to log in.
    pub auth: Auth,
}

/// How to log in to a registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Auth {
    /// With what Docker's `config.json` has for it, if anything.
    Configured,
    /// At Amazon's registry: with this key, or with whatever Amazon's default chain finds.
    Amazon {
        /// The region of the registry.
        region: String,
        /// The account that owns it.
        account: String,
        /// Id of the key.
        access_key: Option<String>,
        /// The key.
        #[serde(with = "secret_text")]
        secret_key: Option<Secret>,
        /// The token of a key that holds for a session.
        #[serde(with = "secret_text", default)]
        session_token: Option<Secret>,
        /// Where Amazon's API is, if not where it is for everybody.
        #[serde(default)]
        endpoint: Option<String>,
    },
    /// At Google's registry: with this JSON key, or with the identity of the machine or pod.
    Google {
        /// The JSON key of a service account.
        #[serde(with = "secret_text")]
        key: Option<Secret>,
    },
}

impl BuildSpec {
    /// Gives every secret of the build, none of which may be seen in its log.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        let auth = self
            .destinations
            .iter()
            .filter_map(|destination| match &destination.auth {
                Auth::Configured => None,
                Auth::Amazon { secret_key, .. } => secret_key.as_ref(),
                Auth::Google { key } => key.as_ref(),
            });
        let sessions = self
            .destinations
            .iter()
            .filter_map(|destination| match &destination.auth {
                Auth::Amazon { session_token, .. } => session_token.as_ref(),
                _ => None,
            });
        let token = match &self.source {
            Source::Git(git) => git.token.as_ref(),
            _ => None,
        };
        let secrets = self.secrets.iter().map(|secret| &secret.value);
        let login = self.registries.login.iter().map(|login| &login.password);
        let secrets = secrets.chain(login);
        token.into_iter().chain(auth).chain(sessions).chain(secrets)
    }
}

/// One line of a build process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// What happened.
    Event(Event),
    /// How it ended; the last line.
    Report(Report),
}

/// How a build ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Report {
    /// Every registry has confirmed the image.
    Completed(BuildResult),
    /// There is no image, or not everywhere.
    Failed(BuildFailure),
}

/// What a build made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildResult {
    /// Digest of the manifest that the registries confirmed.
    pub digest: Digest,
}

/// Why a build failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildFailure {
    /// Whose fault it is.
    pub kind: FailureKind,
    /// The error with its causes, on one line.
    pub reason: String,
}

/// Whose fault a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The Dockerfile, the context or the names are wrong.
    User,
    /// A command of the Dockerfile failed.
    Command,
    /// A registry or a repository did not play along.
    Registry,
    /// Commands cannot be run on this machine.
    Sandbox,
    /// A command took more memory than there is.
    OutOfMemory,
    /// The builder is wrong, or was stopped.
    Internal,
}

/// Secrets as plain text: the pipe to the child is the one place that sends them.
mod secret_text {
    use ocibuild_registry::Secret;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        secret: &Option<Secret>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        secret.as_ref().map(Secret::expose).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Secret>, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.map(Secret::new))
    }
}

/// One secret as plain text.
mod secret_value {
    use ocibuild_registry::Secret;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        secret: &Secret,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        secret.expose().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Secret, D::Error> {
        Ok(Secret::new(String::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_these_forms() {
        let digest = format!("sha256:{}", "1".repeat(64));
        let completed = Line::Report(Report::Completed(BuildResult {
            digest: digest.parse().unwrap(),
        }));
        let failed = Line::Report(Report::Failed(BuildFailure {
            kind: FailureKind::Command,
            reason: "make: 2".to_owned(),
        }));
        let commit = Line::Event(Event::Commit {
            id: "c0ffee".to_owned(),
        });
        let completed_json = format!(r#"{{"result":"completed","digest":"{digest}"}}"#);
        for (line, json) in [
            (completed, completed_json.as_str()),
            (
                failed,
                r#"{"result":"failed","kind":"command","reason":"make: 2"}"#,
            ),
            (commit, r#"{"event":"commit","id":"c0ffee"}"#),
        ] {
            assert_eq!(serde_json::to_string(&line).unwrap(), json);
            assert_eq!(serde_json::from_str::<Line>(json).unwrap(), line);
        }
    }

    #[test]
    fn a_spec_carries_its_secrets_but_does_not_show_them() {
        let spec = BuildSpec {
            task: "id-0".to_owned(),
            source: Source::Git(GitSource {
                url: "https://github.com/a/b".to_owned(),
                reference: None,
                subdir: None,
                token: Some(Secret::new("hidden-token")),
            }),
            dockerfile: DockerfileSpec::Path("Dockerfile".to_owned()),
            args: BTreeMap::new(),
            target: None,
            platforms: Vec::new(),
            labels: BTreeMap::new(),
            secrets: vec![BuildSecret {
                id: "pip".to_owned(),
                value: Secret::new("hidden-secret"),
            }],
            cache_scope: None,
            no_cache: false,
            cache_from: Vec::new(),
            cache_to: Vec::new(),
            cache_all_steps: false,
            store_max: None,
            store_min_free: None,
            output: OutputForm::default(),
            destinations: vec![Destination {
                reference: "gcr.io/p/i:t".to_owned(),
                plain_http: false,
                auth: Auth::Google {
                    key: Some(Secret::new("hidden-key")),
                },
            }],
            registries: Registries::default(),
            git: GitRules::default(),
            sandbox: None,
            store: "/store".into(),
            scratch: "/scratch".into(),
        };
        assert!(!format!("{spec:?}").contains("hidden"));
        let json = serde_json::to_string(&spec).unwrap();
        let read: BuildSpec = serde_json::from_str(&json).unwrap();
        let secrets: Vec<_> = read.secrets().map(Secret::expose).collect();
        assert_eq!(secrets, ["hidden-token", "hidden-key", "hidden-secret"]);
    }
}
