//! Where the image of a task goes: every registry that is configured, under the names that
//! Darwin deploys by.
//!
//! A local deployment names images after `IMAGE_REPOSITORY`, any other one after
//! `CONTAINER_IMAGE_PREFIX`, and only the latter pushes to Google. Whoever deploys computes
//! the same name from the same settings, so a name is never invented here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ocibuild_registry::Secret;
use tokio::net::TcpStream;

use crate::spec::{Auth, Destination};

/// The registries that are configured.
#[derive(Debug, Clone)]
pub struct Targets {
    /// Which of the two ways to name images is in use.
    pub naming: Naming,
    /// `LOCAL_REGISTRY`.
    pub local_registry: Option<LocalRegistry>,
    /// `IMAGE_REPOSITORY`.
    pub image_repository: String,
    /// `CONTAINER_IMAGE_PREFIX`.
    pub image_prefix: String,
    /// `CONTAINER_IMAGE_PREFIX_GCP`.
    pub image_prefix_google: String,
    /// Amazon's registry.
    pub aws: Option<Aws>,
    /// Google's registry.
    pub google: Option<Google>,
}

/// The two ways to name images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// `ENV` is `local` or absent.
    Local,
    /// `ENV` is anything else.
    Production,
}

/// A registry by its address.
#[derive(Debug, Clone)]
pub struct LocalRegistry {
    /// Host and port.
    pub address: String,
    /// It is spoken to in plain HTTP.
    pub plain_http: bool,
}

/// An account at Amazon's registry.
#[derive(Debug, Clone)]
pub struct Aws {
    /// `AWS_ECR_ACCOUNT_ID`.
    pub account: String,
    /// `AWS_ECR_REGION`.
    pub region: String,
    /// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`; without them the machine's role counts.
    pub key: Option<(String, Secret)>,
    /// `AWS_SESSION_TOKEN`.
    pub session_token: Option<Secret>,
    /// `AWS_ENDPOINT_URL_ECR`, `AWS_ENDPOINT_URL`.
    pub endpoint: Option<String>,
}

/// A project at Google's registry.
#[derive(Debug, Clone)]
pub struct Google {
    /// `GCP_PROJECT_ID`.
    pub project: String,
    /// `GCP_CREDS_PATH`; where it does not exist the machine's identity counts.
    pub key_file: PathBuf,
}

/// No registry is configured.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no registry is configured to push to: set LOCAL_REGISTRY, AWS_ECR_ACCOUNT_ID or, outside a \
     local deployment, GCP_PROJECT_ID"
)]
pub struct NoTarget;

impl Targets {
    /// Gives every name under which the image of a task is pushed.
    ///
    /// `google_key` is what `GCP_CREDS_PATH` holds; `embedded` is the registry that this
    /// service runs, which counts when there is no other.
    pub fn destinations(
        &self,
        image_tag: &str,
        google_key: Option<&Secret>,
        embedded: Option<SocketAddr>,
    ) -> Result<Vec<Destination>, NoTarget> {
        let mut all = Vec::new();
        all.extend(self.aws.as_ref().map(|aws| self.on_amazon(aws, image_tag)));
        if let (Naming::Production, Some(google)) = (self.naming, &self.google) {
            all.push(self.on_google(google, google_key, image_tag));
        }
        all.extend(
            self.local_registry
                .as_ref()
                .map(|local| self.on_local(local, image_tag)),
        );
        if let (true, Some(address)) = (all.is_empty(), embedded) {
            let local = LocalRegistry {
                address: address.to_string(),
                plain_http: true,
            };
            all.push(self.on_local(&local, image_tag));
        }
        if all.is_empty() {
            Err(NoTarget)
        } else {
            Ok(all)
        }
    }

    fn on_amazon(&self, aws: &Aws, image_tag: &str) -> Destination {
        let Aws {
            account,
            region,
            key,
            session_token,
            endpoint,
        } = aws;
        let prefix = &self.image_prefix;
        Destination {
            reference: format!("{account}.dkr.ecr.{region}.amazonaws.com/{prefix}:{image_tag}"),
            plain_http: false,
            auth: Auth::Amazon {
                region: region.clone(),
                account: account.clone(),
                access_key: key.as_ref().map(|(id, _)| id.clone()),
                secret_key: key.as_ref().map(|(_, secret)| secret.clone()),
                session_token: session_token.clone(),
                endpoint: endpoint.clone(),
            },
        }
    }

    fn on_google(&self, google: &Google, key: Option<&Secret>, image_tag: &str) -> Destination {
        let (project, prefix) = (&google.project, &self.image_prefix_google);
        Destination {
            reference: format!("gcr.io/{project}/{prefix}:{image_tag}"),
            plain_http: false,
            auth: Auth::Google { key: key.cloned() },
        }
    }

    fn on_local(&self, registry: &LocalRegistry, image_tag: &str) -> Destination {
        let repository = match self.naming {
            Naming::Local => &self.image_repository,
            Naming::Production => &self.image_prefix,
        };
        Destination {
            reference: format!("{}/{repository}:{image_tag}", registry.address),
            plain_http: registry.plain_http,
            auth: Auth::Configured,
        }
    }
}

/// How kind's registry is called on its network, in Darwin's deployment.
const KIND_REGISTRY: &str = "kind-registry:5000";
/// How long an address is tried.
const TRY: Duration = Duration::from_secs(2);

/// Tells whether a registry has an alias.
pub(crate) fn has_alias(aliases: &[(String, String)], name: &str) -> bool {
    aliases.iter().any(|(alias, _)| alias == name)
}

/// Finds the registry that a loopback address means in Darwin's chart: a port of the *host*,
/// where nothing listens for a pod, of a registry that is `kind-registry` on the network. Gives the
/// alias under which it is reached.
pub(crate) async fn find_kind_registry(address: &str) -> Option<(String, String)> {
    if !is_loopback(address) || connects(address).await || !connects(KIND_REGISTRY).await {
        return None;
    }
    tracing::info!(
        registry = address,
        reached_as = KIND_REGISTRY,
        "found kind's registry"
    );
    Some((address.to_owned(), format!("http://{KIND_REGISTRY}")))
}

/// What to do about a loopback address that nothing answers at, for a failed push.
pub(crate) fn loopback_hint(address: &str) -> Option<String> {
    is_loopback(address).then(|| {
        format!(
            "{address} is this machine or pod itself; where it means a port of the host, as in \
             Darwin's chart, say how the registry is reached from here: \
             OCIBUILD_REGISTRY_ALIAS={address}={KIND_REGISTRY}"
        )
    })
}

async fn connects(address: &str) -> bool {
    let connected = tokio::time::timeout(TRY, TcpStream::connect(address)).await;
    matches!(connected, Ok(Ok(_)))
}

/// Tells whether an address is this machine's own.
pub(crate) fn is_loopback(address: &str) -> bool {
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
    use crate::config::{Config, Defaults};

    fn references(vars: &[(&str, &str)], embedded: Option<&str>) -> Result<Vec<String>, NoTarget> {
        let defaults = Defaults {
            data: PathBuf::from("/data"),
            max_builds: 1,
        };
        let vars = vars
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let config = Config::from_vars(vars, &defaults).unwrap();
        let embedded = embedded.map(|address| address.parse().unwrap());
        let found = config.targets.destinations("serve_v1", None, embedded)?;
        Ok(found
            .into_iter()
            .map(|destination| destination.reference)
            .collect())
    }

    #[test]
    fn names_follow_the_deployment() {
        let local = ("LOCAL_REGISTRY", "localhost:5000");
        let amazon = ("AWS_ECR_ACCOUNT_ID", "123");
        let google = ("GCP_PROJECT_ID", "proj");
        let prod = ("ENV", "prod");
        type Vars<'a> = &'a [(&'a str, &'a str)];
        let cases: &[(Vars, &[&str])] = &[
            (&[local], &["localhost:5000/serve-app:serve_v1"]),
            (
                &[local, ("IMAGE_REPOSITORY", "a/b")],
                &["localhost:5000/a/b:serve_v1"],
            ),
            (&[local, prod], &["localhost:5000/darwin:serve_v1"]),
            (
                &[local, amazon, google],
                &[
                    "123.dkr.ecr.us-east-1.amazonaws.com/darwin:serve_v1",
                    "localhost:5000/serve-app:serve_v1",
                ],
            ),
            (
                &[
                    local,
                    amazon,
                    google,
                    prod,
                    ("CONTAINER_IMAGE_PREFIX", "serve"),
                ],
                &[
                    "123.dkr.ecr.us-east-1.amazonaws.com/serve:serve_v1",
                    "gcr.io/proj/ray-images:serve_v1",
                    "localhost:5000/serve:serve_v1",
                ],
            ),
        ];
        for (vars, expected) in cases {
            assert_eq!(
                references(vars, Some("127.0.0.1:1")).unwrap(),
                *expected,
                "{vars:?}"
            );
        }
    }

    #[test]
    fn the_embedded_registry_is_the_last_resort() {
        let found = references(&[], Some("127.0.0.1:5000")).unwrap();
        assert_eq!(found, ["127.0.0.1:5000/serve-app:serve_v1"]);
        assert_eq!(references(&[], None), Err(NoTarget));
        // Google is no target of a local deployment.
        assert_eq!(
            references(&[("GCP_PROJECT_ID", "proj")], None),
            Err(NoTarget)
        );
    }
}
