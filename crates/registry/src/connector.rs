//! How a host is reached: over TLS with which certificates, or over plain HTTP.
//!
//! TLS is rustls with the ring provider, handed to the HTTP client ready-made. So no
//! process-wide provider is needed, and a machine without a CA bundle gets a client
//! that trusts nobody instead of a panic. HTTP/1.1 only: a large upload over one
//! HTTP/2 connection is slower and dies with the connection.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use url::Url;

use crate::authorities::Judge;
use crate::home::{Endpoint, Home, authority, is_at};
use crate::reference::canonical_registry;
use crate::{Repository, Secret};

/// A client that cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// An extra CA is not PEM with at least one certificate.
    #[error("an extra certificate authority is not a PEM certificate")]
    InvalidCa,
    /// An extra CA's certificate cannot be used.
    #[error("an extra certificate authority cannot be used")]
    UnusableCa(#[source] rustls::Error),
    /// The TLS configuration is not possible.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
    /// A proxy's address is not a URL.
    #[error("the address of the proxy is not a URL")]
    InvalidProxy,
    /// An alias is not one host in place of another.
    #[error("invalid alias {name:?} for {endpoint:?}: both must be a host with an optional port")]
    InvalidAlias {
        /// The name.
        name: String,
        /// What should be reached under it.
        endpoint: String,
    },
    /// A client certificate or its key cannot be used.
    #[error("the client certificate for {host} is not a PEM certificate with its key")]
    InvalidIdentity {
        /// The host.
        host: String,
    },
    /// The HTTP client refuses the settings.
    #[error("cannot set up the HTTP client")]
    Http(#[source] reqwest::Error),
}

/// What the caller says about hosts. Hosts are written `host` or `host:port`.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostSettings {
    pub(crate) plain_http: BTreeSet<String>,
    pub(crate) force_https: BTreeSet<String>,
    pub(crate) skip_verify: BTreeSet<String>,
    pub(crate) extra_ca: Vec<Vec<u8>>,
    pub(crate) proxy: Option<(String, Option<String>)>,
    pub(crate) user_agent: Option<String>,
    pub(crate) connect_timeout: Duration,
    /// Endpoints by the registry that they answer for.
    pub(crate) aliases: BTreeMap<String, String>,
    /// Certificates of hosts that have their own.
    pub(crate) certificates: BTreeMap<String, Certificates>,
    /// Who is asked before a registry, by its name.
    pub(crate) mirrors: BTreeMap<String, Vec<Mirror>>,
    /// How many transfers a registry bears at once, by its name.
    pub(crate) limits: BTreeMap<String, Limits>,
}

/// What TLS needs for one host beside what all have.
#[derive(Clone, Default)]
pub(crate) struct Certificates {
    /// A PEM text of authorities that are trusted for this host only.
    pub(crate) ca: Option<Vec<u8>>,
    /// PEM texts of our certificate and its key.
    pub(crate) identity: Option<(Vec<u8>, Secret)>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificates")
    }
}

/// A registry that has the images of another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mirror {
    pub(crate) registry: String,
    /// What stands before the names of repositories there.
    pub(crate) prefix: Option<String>,
}

/// How many transfers a registry bears at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) uploads: Option<usize>,
    pub(crate) downloads: Option<usize>,
}

/// The HTTP clients, and which of them speaks to which host.
pub(crate) struct Connector {
    settings: HostSettings,
    verifying: reqwest::Client,
    trusting: Option<reqwest::Client>,
    /// For the services of the machine itself, which no proxy reaches.
    direct: reqwest::Client,
    /// For hosts with certificates of their own.
    own: BTreeMap<String, reqwest::Client>,
    aliases: BTreeMap<String, Endpoint>,
}

/// How long a connection to a service of the machine itself may take to come about.
const DIRECT_CONNECT: Duration = Duration::from_secs(2);

impl Connector {
    pub(crate) fn new(settings: HostSettings) -> Result<Self, BuildError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let usual = Tls {
            provider: &provider,
            ca: &settings.extra_ca,
            identity: None,
            verifies: true,
        };
        let usual_config = usual.config()?;
        let verifying = http_client(&settings, usual_config.clone())?;
        let trusting = match settings.skip_verify.is_empty() {
            true => None,
            false => {
                let tls = Tls {
                    verifies: false,
                    ..usual.clone()
                };
                Some(http_client(&settings, tls.config()?)?)
            }
        };
        let mut own = BTreeMap::new();
        for (host, certificates) in &settings.certificates {
            let mut ca = settings.extra_ca.clone();
            ca.extend(certificates.ca.clone());
            let identity = match &certificates.identity {
                Some(identity) => Some(read_identity(host, identity)?),
                None => None,
            };
            let tls = Tls {
                ca: &ca,
                identity,
                verifies: !contains(&settings.skip_verify, host),
                ..usual.clone()
            };
            own.insert(host.clone(), http_client(&settings, tls.config()?)?);
        }
        let without_proxy = HostSettings {
            proxy: None,
            connect_timeout: DIRECT_CONNECT,
            ..settings.clone()
        };
        Ok(Self {
            direct: http_client(&without_proxy, usual_config)?,
            aliases: aliases(&settings)?,
            settings,
            verifying,
            trusting,
            own,
        })
    }

    /// Gives the client for a URL's host.
    pub(crate) fn http(&self, url: &Url) -> &reqwest::Client {
        if let Some(own) = self.own_client(url) {
            return own;
        }
        match &self.trusting {
            Some(trusting) if self.skips_verify(url) => trusting,
            _ => &self.verifying,
        }
    }

    /// Gives the client for services of the machine itself.
    pub(crate) fn direct(&self) -> &reqwest::Client {
        &self.direct
    }

    /// Gives the repositories of mirrors, in the order in which they are asked.
    pub(crate) fn mirrors(&self, repository: &Repository) -> Vec<Repository> {
        let mirrors = self.settings.mirrors.get(repository.registry());
        let at = |mirror: &Mirror| {
            let path = match &mirror.prefix {
                None => repository.path().to_owned(),
                Some(prefix) => format!("{prefix}/{}", repository.path()),
            };
            Repository::new(&mirror.registry, &path).ok()
        };
        mirrors.into_iter().flatten().filter_map(at).collect()
    }

    /// Gives how much a repository's registry bears at once.
    pub(crate) fn limits(&self, repository: &Repository) -> Limits {
        let limits = self.settings.limits.get(repository.registry());
        limits.copied().unwrap_or_default()
    }

    fn own_client(&self, url: &Url) -> Option<&reqwest::Client> {
        if self.own.is_empty() {
            return None;
        }
        let place = authority(url);
        let named = |host: &str| self.own.get(host);
        let by_alias = || {
            let mut aliases = self.aliases.iter();
            aliases.find_map(|(name, endpoint)| {
                named(name).filter(|_| is_at(url, &endpoint.authority))
            })
        };
        named(&place)
            .or_else(|| named(host_of(&place)))
            .or_else(by_alias)
    }

    fn skips_verify(&self, url: &Url) -> bool {
        let skip = &self.settings.skip_verify;
        let aliases = self.aliases.iter();
        contains(skip, &authority(url))
            || aliases
                .filter(|(_, endpoint)| is_at(url, &endpoint.authority))
                .any(|(name, _)| contains(skip, name))
    }

    /// Gives where a repository's registry is; none where its name makes no URL.
    pub(crate) fn home(&self, repository: &Repository) -> Option<Home> {
        let alias = self.aliases.get(repository.registry());
        Home::new(repository, alias, !self.reaches_plainly(repository))
    }

    /// Gives a repository under the name of the endpoint that an alias leads to.
    pub(crate) fn at_endpoint(&self, repository: &Repository) -> Option<Repository> {
        let endpoint = self.aliases.get(repository.registry())?;
        Repository::new(&endpoint.authority, repository.path()).ok()
    }

    /// Tells whether the token service at a plain HTTP URL may be told secrets: only
    /// by a registry that is spoken to over plain HTTP itself, and only on the same
    /// host or one for which plain HTTP is allowed as well.
    pub(crate) fn trusts_plain_realm(&self, repository: &Repository, realm: &Url) -> bool {
        let alias = self.aliases.get(repository.registry());
        let registry = alias.map_or(repository.api_host(), |endpoint| &endpoint.authority);
        let realm_host = authority(realm);
        self.reaches_plainly(repository)
            && (host_of(registry) == host_of(&realm_host) || self.is_plain(&realm_host))
    }

    /// Tells whether a repository's registry is spoken to over plain HTTP. An alias is
    /// judged by its endpoint; the name counts where the settings list it.
    fn reaches_plainly(&self, repository: &Repository) -> bool {
        let named = repository.api_host();
        match self.aliases.get(repository.registry()) {
            None => self.is_plain(named),
            Some(Endpoint { tls: Some(tls), .. }) => !tls,
            Some(Endpoint { authority, .. }) => {
                !contains(&self.settings.force_https, named)
                    && !contains(&self.settings.force_https, authority)
                    && (self.is_plain(authority) || contains(&self.settings.plain_http, named))
            }
        }
    }

    fn is_plain(&self, authority: &str) -> bool {
        if contains(&self.settings.force_https, authority) {
            return false;
        }
        is_loopback(host_of(authority)) || contains(&self.settings.plain_http, authority)
    }
}

fn contains(hosts: &BTreeSet<String>, authority: &str) -> bool {
    hosts.contains(authority) || hosts.contains(host_of(authority))
}

/// Reads the aliases; a registry with several names has them under one.
fn aliases(settings: &HostSettings) -> Result<BTreeMap<String, Endpoint>, BuildError> {
    let read = |(name, endpoint): (&String, &String)| {
        let named = Repository::new(name, "x").ok();
        match (named, Endpoint::parse(endpoint)) {
            (Some(_), Some(place)) => Ok((canonical_registry(name).to_owned(), place)),
            _ => Err(BuildError::InvalidAlias {
                name: name.clone(),
                endpoint: endpoint.clone(),
            }),
        }
    };
    settings.aliases.iter().map(read).collect()
}

/// Cuts the port off; an IPv6 address keeps its brackets.
fn host_of(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => &authority[..colon],
        _ => authority,
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn http_client(settings: &HostSettings, tls: ClientConfig) -> Result<reqwest::Client, BuildError> {
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        // Redirects, retries and time limits are the transport's, which knows what
        // a request is for; proxies come in as settings, not from the environment.
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .tcp_nodelay(true)
        .connect_timeout(settings.connect_timeout);
    if let Some(agent) = &settings.user_agent {
        builder = builder.user_agent(agent);
    }
    if let Some((proxy, except)) = &settings.proxy {
        let proxy = reqwest::Proxy::all(proxy).map_err(|_| BuildError::InvalidProxy)?;
        let except = except.as_deref().and_then(reqwest::NoProxy::from_string);
        builder = builder.proxy(proxy.no_proxy(except));
    }
    builder.build().map_err(BuildError::Http)
}

/// What a TLS configuration is made of.
#[derive(Clone)]
struct Tls<'a> {
    provider: &'a Arc<CryptoProvider>,
    /// Authorities beside the system's.
    ca: &'a [Vec<u8>],
    identity: Option<Arc<Identity>>,
    verifies: bool,
}

/// Our own certificate, for hosts that want one.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

fn read_identity(
    host: &str,
    (certificate, key): &(Vec<u8>, Secret),
) -> Result<Arc<Identity>, BuildError> {
    let invalid = || BuildError::InvalidIdentity {
        host: host.to_owned(),
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|_| invalid())?;
    if chain.is_empty() {
        return Err(invalid());
    }
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes()).map_err(|_| invalid())?;
    Ok(Arc::new(Identity { chain, key }))
}

impl Tls<'_> {
    fn config(&self) -> Result<ClientConfig, BuildError> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(self.provider))
            .with_safe_default_protocol_versions()
            .map_err(BuildError::Tls)?;
        let provider = Arc::clone(self.provider);
        let judge = match self.verifies {
            true => Judge::new(self.ca, provider)?,
            false => Judge::believing_everyone(provider),
        };
        let builder = builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(judge));
        match &self.identity {
            None => Ok(builder.with_no_client_auth()),
            Some(identity) => builder
                .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
                .map_err(BuildError::Tls),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connector() -> Connector {
        Connector::new(HostSettings {
            plain_http: ["plain.example".to_owned(), "mixed.example:5000".to_owned()].into(),
            force_https: ["localhost:5443".to_owned()].into(),
            ..HostSettings::default()
        })
        .unwrap()
    }

    #[test]
    fn plain_http_only_where_it_is_allowed() {
        let connector = connector();
        for (registry, want) in [
            ("docker.io", "https://registry-1.docker.io/v2/"),
            ("localhost:5000", "http://localhost:5000/v2/"),
            ("localhost:5443", "https://localhost:5443/v2/"),
            ("127.9.9.9", "http://127.9.9.9/v2/"),
            ("[::1]:5000", "http://[::1]:5000/v2/"),
            ("plain.example:80", "http://plain.example/v2/"),
            ("mixed.example:5000", "http://mixed.example:5000/v2/"),
            ("mixed.example", "https://mixed.example/v2/"),
            (
                "localhost.evil.example",
                "https://localhost.evil.example/v2/",
            ),
        ] {
            let repository = Repository::new(registry, "a/b").unwrap();
            let home = connector.home(&repository).unwrap();
            assert_eq!(home.url("").unwrap().as_str(), want);
        }
    }

    #[test]
    fn an_alias_is_reached_as_its_endpoint_allows() {
        for (name, endpoint, want) in [
            (
                "localhost:5000",
                "kind-registry:5000",
                "https://kind-registry:5000/v2/",
            ),
            (
                "localhost:5000",
                "http://kind-registry:5000",
                "http://kind-registry:5000/v2/",
            ),
            (
                "plain.example",
                "kind-registry:5000",
                "http://kind-registry:5000/v2/",
            ),
            (
                "r.example",
                "mixed.example:5000",
                "http://mixed.example:5000/v2/",
            ),
            ("r.example", "127.0.0.1:5000", "http://127.0.0.1:5000/v2/"),
            (
                "r.example",
                "https://127.0.0.1:5000",
                "https://127.0.0.1:5000/v2/",
            ),
            ("r.example", "localhost:5443", "https://localhost:5443/v2/"),
            (
                "localhost:5443",
                "127.0.0.1:5000",
                "https://127.0.0.1:5000/v2/",
            ),
            ("docker.io", "mirror.example", "https://mirror.example/v2/"),
        ] {
            let connector = Connector::new(HostSettings {
                aliases: [(name.to_owned(), endpoint.to_owned())].into(),
                ..connector().settings
            })
            .unwrap();
            let repository = Repository::new(name, "a/b").unwrap();
            let url = connector.home(&repository).unwrap().url("").unwrap();
            assert_eq!(url.as_str(), want, "{name} {endpoint}");
            let other = Repository::new("other.example", "a/b").unwrap();
            let url = connector.home(&other).unwrap().url("").unwrap();
            assert_eq!(url.as_str(), "https://other.example/v2/");
        }
    }

    #[test]
    fn a_bad_alias_is_refused() {
        for (name, endpoint) in [("a/b", "h"), ("http://a", "h"), ("a", "h/x"), ("a", "")] {
            let settings = HostSettings {
                aliases: [(name.to_owned(), endpoint.to_owned())].into(),
                ..HostSettings::default()
            };
            let error = Connector::new(settings).err().unwrap();
            assert!(
                matches!(error, BuildError::InvalidAlias { .. }),
                "{name} {endpoint}"
            );
        }
    }

    #[test]
    fn secrets_go_to_plain_realms_only_from_plain_registries() {
        let connector = connector();
        for (registry, realm, want) in [
            ("localhost:5000", "http://localhost:5001/token", true),
            ("localhost:5000", "http://127.0.0.1:5001/token", true),
            ("localhost:5000", "http://elsewhere.example/token", false),
            ("plain.example", "http://plain.example:8080/token", true),
            ("secure.example", "http://secure.example/token", false),
            ("secure.example", "http://127.0.0.1/token", false),
        ] {
            let repository = Repository::new(registry, "a").unwrap();
            let realm = Url::parse(realm).unwrap();
            let trusted = connector.trusts_plain_realm(&repository, &realm);
            assert_eq!(trusted, want, "{registry} {realm}");
        }
    }

    #[test]
    fn a_bad_ca_is_refused() {
        for pem in [
            "",
            "x",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            let settings = HostSettings {
                extra_ca: vec![pem.as_bytes().to_vec()],
                ..HostSettings::default()
            };
            assert!(Connector::new(settings).is_err(), "{pem:?}");
        }
    }
}
