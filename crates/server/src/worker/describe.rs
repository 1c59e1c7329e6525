//! From a task to what its build process has to know, secrets included.

use std::path::{Path, PathBuf};

use ocibuild_registry::{Credentials, Secret};
use ocibuild_store::{FailureCode, Task};
use tokio::io::AsyncWriteExt;

use crate::app::App;
use crate::config::{self, Config};
use crate::embedded::Running;
use crate::request::{CacheMode, ContextKind, Request, SecretReference};
use crate::spec::{
    Auth, BuildSecret, BuildSpec, DenyAddresses, Destination, DockerfileSpec, GitRules, GitSource,
    GitSsh, Registries, Source,
};
use crate::targets;

/// How much of an uploaded context is moved at once.
const PART_BYTES: u64 = 1 << 20;

/// Why a task cannot be built.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: FailureCode,
    pub(super) reason: String,
}

impl Refusal {
    pub(super) fn user(reason: impl Into<String>) -> Self {
        Self {
            code: FailureCode::User,
            reason: reason.into(),
        }
    }

    pub(super) fn internal(reason: impl Into<String>) -> Self {
        Self {
            code: FailureCode::Internal,
            reason: reason.into(),
        }
    }
}

/// Reads what the table keeps of a request. A task of Darwin's own builder has none.
pub(super) fn request(task: &Task) -> Result<Request, Refusal> {
    let Some(text) = &task.request else {
        return Ok(Request::default());
    };
    serde_json::from_str(text)
        .map_err(|error| Refusal::internal(format!("the request of the task is damaged: {error}")))
}

/// Says what the build process has to know.
pub(super) async fn spec(
    app: &App,
    task: &Task,
    request: Request,
    dockerfile: Option<String>,
    embedded: Option<&Running>,
) -> Result<BuildSpec, Refusal> {
    let config = &app.config;
    let scratch = config.work.join(task.id.as_str());
    if dockerfile.is_none() && !task.params.docker_file_path.is_empty() {
        let reason = "the uploaded Dockerfile of this task is not in the task table";
        return Err(Refusal::internal(reason));
    }
    let (default_destinations, found) =
        default_destinations(config, task, embedded.map(|registry| registry.address)).await;
    let destinations = if request.destinations.is_empty() {
        default_destinations?
    } else {
        let configured = default_destinations.unwrap_or_default();
        asked_for(&request.destinations, &configured)
    };
    let registries = Registries {
        docker_config: config.docker_config.clone(),
        settings: config.registries.clone(),
        cloud: config.cloud.clone(),
        plain_http: config.plain_http.clone(),
        aliases: config.aliases.iter().cloned().chain(found).collect(),
        login: embedded.and_then(|registry| registry.login.clone()),
    };
    Ok(BuildSpec {
        task: task.id.to_string(),
        source: source(config, task, &request.context, &scratch)?,
        dockerfile: match dockerfile {
            Some(text) => DockerfileSpec::Text(text),
            None => DockerfileSpec::Path(
                request
                    .dockerfile_path
                    .unwrap_or_else(|| "Dockerfile".to_owned()),
            ),
        },
        args: request.args,
        target: request.target,
        platforms: match request.platforms.is_empty() {
            true => config.platform.iter().cloned().collect(),
            false => request.platforms,
        },
        labels: request.labels,
        secrets: secrets(config, task, &request.secrets).await?,
        cache_scope: cache_scope(task, request.cache.scope),
        no_cache: request.cache.disabled,
        cache_from: request.cache.from,
        cache_to: request.cache.to,
        cache_all_steps: request.cache.mode == CacheMode::Max,
        store_max: config.limits.store_max,
        store_min_free: config.limits.store_min_free,
        output: request.output,
        destinations,
        registries,
        git: git_rules(config),
        sandbox: config.sandbox.clone(),
        store: config.data.join("store"),
        scratch,
    })
}

/// Gives the destinations that the configuration has for a task, and the aliases under
/// which they were found.
async fn default_destinations(
    config: &Config,
    task: &Task,
    embedded: Option<std::net::SocketAddr>,
) -> (Result<Vec<Destination>, Refusal>, Vec<(String, String)>) {
    let google_key = match &config.targets.google {
        Some(google) => tokio::fs::read_to_string(&google.key_file)
            .await
            .ok()
            .map(Secret::new),
        None => None,
    };
    let destinations = config
        .targets
        .destinations(&task.image_tag, google_key.as_ref(), embedded)
        .map_err(|error| Refusal {
            code: FailureCode::Registry,
            reason: error.to_string(),
        });
    let local = config.targets.local_registry.as_ref();
    let found = match local.filter(|local| !targets::has_alias(&config.aliases, &local.address)) {
        Some(local) => targets::find_kind_registry(&local.address).await,
        None => None,
    };
    (destinations, found.into_iter().collect())
}

/// Gives the destinations that a request names. Where one is in a registry that is
/// configured, it is reached in the same way.
fn asked_for(names: &[String], configured: &[Destination]) -> Vec<Destination> {
    let host = |reference: &str| reference.split('/').next().unwrap_or_default().to_owned();
    names
        .iter()
        .map(|name| {
            let known = configured
                .iter()
                .find(|destination| host(&destination.reference) == host(name));
            Destination {
                reference: name.clone(),
                plain_http: known.is_some_and(|known| known.plain_http),
                auth: known.map_or(Auth::Configured, |known| known.auth.clone()),
            }
        })
        .collect()
}

fn source(
    config: &Config,
    task: &Task,
    context: &ContextKind,
    scratch: &Path,
) -> Result<Source, Refusal> {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Ok(match context {
        ContextKind::Git => Source::Git(GitSource {
            url: task.params.git_repo.clone(),
            reference: text(&task.params.branch),
            subdir: text(&task.params.app_dir),
            token: token(config, &task.params.git_repo),
        }),
        ContextKind::Http { url } => Source::Http { url: url.clone() },
        ContextKind::Oci { reference } => Source::Oci {
            reference: reference.clone(),
        },
        ContextKind::Upload { id } => Source::Upload {
            context: id.to_string(),
            file: scratch.join("context.tar"),
        },
        ContextKind::Empty => Source::Empty,
        ContextKind::Image { reference } => Source::Image {
            reference: reference.clone(),
        },
    })
}

/// Gives the token for a repository: to its own host only. In plain text it goes nowhere but
/// over loopback, which the client of Git sees to.
fn token(config: &Config, url: &str) -> Option<Secret> {
    let url = url::Url::parse(url).ok()?;
    let port = url.port_or_known_default()?;
    config.git.token(url.host_str()?, port).cloned()
}

/// Says what Git may reach.
fn git_rules(config: &Config) -> GitRules {
    GitRules {
        http_hosts: config.git.http_hosts.clone(),
        hosts: config.git.hosts.clone(),
        deny: match config.git.deny {
            config::DenyAddresses::Metadata => DenyAddresses::Metadata,
            config::DenyAddresses::Private => DenyAddresses::Private,
            config::DenyAddresses::Nothing => DenyAddresses::Nothing,
        },
        ssh: config.git.ssh.as_ref().map(|ssh| GitSsh {
            key: ssh.key.clone(),
            known_hosts: ssh.known_hosts.clone(),
        }),
    }
}

/// With tenants, results are shared within one only.
fn cache_scope(task: &Task, scope: Option<String>) -> Option<String> {
    match (&task.tenant, scope) {
        (None, scope) => scope,
        (Some(tenant), scope) => Some(format!("{tenant}/{}", scope.unwrap_or_default())),
    }
}

/// Reads the operator's secrets that a request names: files of one folder, of a folder of
/// their own for each tenant.
async fn secrets(
    config: &Config,
    task: &Task,
    wanted: &[SecretReference],
) -> Result<Vec<BuildSecret>, Refusal> {
    let mut secrets = Vec::new();
    for secret in wanted {
        let file = secret_file(config, task, secret)?;
        let value = tokio::fs::read_to_string(&file).await.map_err(|error| {
            let name = secret.source();
            Refusal::user(format!("the secret {name:?} cannot be read: {error}"))
        })?;
        secrets.push(BuildSecret {
            id: secret.id.clone(),
            value: Secret::new(value),
        });
    }
    Ok(secrets)
}

fn secret_file(config: &Config, task: &Task, secret: &SecretReference) -> Result<PathBuf, Refusal> {
    let Some(folder) = &config.secrets_dir else {
        let reason = "the build asks for secrets, and OCIBUILD_SECRETS_DIR is not set";
        return Err(Refusal::user(reason));
    };
    let folder = match &task.tenant {
        Some(tenant) => folder.join(tenant),
        None => folder.clone(),
    };
    Ok(folder.join(secret.source()))
}

/// Gives what would give away a login of Docker's `config.json`.
pub(super) async fn logins(spec: &BuildSpec) -> Vec<Secret> {
    let Some(file) = &spec.registries.docker_config else {
        return Vec::new();
    };
    // A file that cannot be read is reported by the build that needs it.
    let json = tokio::fs::read(file).await.unwrap_or_default();
    Credentials::from_docker_config(&json)
        .map(|credentials| credentials.secrets())
        .unwrap_or_default()
}

/// Brings what the build process finds on disk into its folder.
pub(super) async fn prepare(
    app: &App,
    spec: &BuildSpec,
    request: &ContextKind,
) -> Result<(), Refusal> {
    let failed =
        |error: std::io::Error| Refusal::internal(format!("cannot prepare the build: {error}"));
    tokio::fs::create_dir_all(&spec.scratch)
        .await
        .map_err(failed)?;
    let (Source::Upload { file, .. }, ContextKind::Upload { id }) = (&spec.source, request) else {
        return Ok(());
    };
    let mut out = tokio::fs::File::create(file).await.map_err(failed)?;
    let mut offset = 0;
    loop {
        let part = app.store.read_context(id, offset, PART_BYTES).await;
        let part = part
            .map_err(|error| Refusal::internal(format!("cannot read the context {id}: {error}")))?;
        if part.is_empty() {
            break;
        }
        out.write_all(&part).await.map_err(failed)?;
        offset += part.len() as u64;
    }
    out.flush().await.map_err(failed)?;
    match offset {
        0 => Err(Refusal::user(format!(
            "the context {id} is gone: upload it again"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Defaults;

    #[test]
    fn a_token_goes_to_its_host_alone() {
        let vars = [
            ("GITHUB_TOKEN", "for-github"),
            ("OCIBUILD_GIT_TOKENS", "git.example=for-example"),
        ];
        let vars = vars.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let defaults = Defaults {
            data: "/data".into(),
            max_builds: 1,
        };
        let config = Config::from_vars(vars, &defaults).unwrap();
        let given = |url| token(&config, url).map(|token| token.expose().to_owned());
        assert_eq!(
            given("https://github.com/org/repo").as_deref(),
            Some("for-github")
        );
        assert_eq!(
            given("https://git.example/repo").as_deref(),
            Some("for-example")
        );
        for other in [
            "http://github.com/org/repo",
            "https://github.com.evil.example/org/repo",
            "https://gist.github.com/repo",
            "https://evil.example/https://github.com/org/repo",
            "https://github.com:8443/org/repo",
            "https://github.com@evil.example/repo",
            "http://git.example/repo",
            "https://git.example:444/repo",
        ] {
            assert_eq!(given(other), None, "{other}");
        }
    }

    #[test]
    fn destinations_that_are_asked_for_are_reached_as_configured() {
        let configured = [Destination {
            reference: "reg:5000/serve-app:v1".to_owned(),
            plain_http: true,
            auth: Auth::Configured,
        }];
        let names = ["reg:5000/other:x".to_owned(), "reg.example/a:b".to_owned()];
        let found = asked_for(&names, &configured);
        assert_eq!(found[0].reference, "reg:5000/other:x");
        assert!(found[0].plain_http && !found[1].plain_http);
    }
}
