//! The client: settings in, a [`Client`] out. What it can do is in `pull` and `push`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::{Authenticator, CloudEnvironment, Credentials};
use crate::blob::Downloads;
use crate::connector::{BuildError, Connector, HostSettings};
use crate::policy::{TagPolicies, TagPolicy};
use crate::registries::{Registries, RegistriesError};
use crate::retry::Retry;
use crate::transport::Transport;
use crate::{Reference, Repository};

/// Talks to any number of registries with one set of credentials. Clones share
/// connections and tokens; two tenants must not share a client.
#[derive(Clone)]
pub struct Client {
    pub(crate) transport: Arc<Transport>,
    pub(crate) tags: Arc<TagPolicies>,
    pub(crate) downloads: Downloads,
    reported: Arc<BTreeMap<String, String>>,
}

impl Client {
    /// Starts with the default settings: anonymous, TLS everywhere but on loopback.
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            hosts: HostSettings {
                connect_timeout: Duration::from_secs(20),
                user_agent: Some(concat!("ocibuild/", env!("CARGO_PKG_VERSION")).to_owned()),
                ..HostSettings::default()
            },
            credentials: Credentials::anonymous(),
            retry: Retry::default(),
            downloads: Downloads::default(),
            tags: TagPolicies::default(),
            reported: BTreeMap::new(),
        }
    }
}

impl Client {
    /// Gives a client with another patience that shares everything else.
    pub(crate) fn with_retry(&self, retry: Retry) -> Self {
        Self {
            transport: Arc::new(self.transport.with_retry(retry)),
            ..self.clone()
        }
    }

    /// Gives the name under which others reach what was pushed under a name.
    pub fn reported_name(&self, reference: &Reference) -> Reference {
        let Some(registry) = self.reported.get(reference.registry()) else {
            return reference.clone();
        };
        let repository = Repository::new(registry, reference.repository().path());
        repository.map_or_else(|_| reference.clone(), |found| reference.at(&found))
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

/// Settings of a [`Client`]. Hosts are written as in names: `host` for all its ports,
/// or `host:port`.
#[derive(Debug, Clone)]
#[must_use]
pub struct ClientBuilder {
    pub(crate) hosts: HostSettings,
    pub(crate) credentials: Credentials,
    retry: Retry,
    downloads: Downloads,
    pub(crate) tags: TagPolicies,
    /// How registries are called in reports, by their name.
    pub(crate) reported: BTreeMap<String, String>,
}

impl ClientBuilder {
    /// Sets what to show to which registry.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Speaks plain HTTP to these hosts; loopback is spoken to so without being named.
    pub fn plain_http(mut self, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.hosts
            .plain_http
            .extend(hosts.into_iter().map(Into::into));
        self
    }

    /// Speaks TLS to these hosts even where they are on loopback.
    pub fn force_https(mut self, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.hosts
            .force_https
            .extend(hosts.into_iter().map(Into::into));
        self
    }

    /// Trusts the certificate authorities of a PEM text beside the system's.
    pub fn extra_ca(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.hosts.extra_ca.push(pem.into());
        self
    }

    /// Takes any certificate of this host.
    pub fn skip_verify(mut self, host: impl Into<String>) -> Self {
        self.hosts.skip_verify.insert(host.into());
        self
    }

    /// Reaches the registry `name` (as it is written in names, with its port) at
    /// `endpoint`: `host[:port]`, after `http://` or `https://` where that should not be
    /// decided by the other settings, which may list either of the two.
    ///
    /// References, errors and reports keep the name, and so do credentials; those of
    /// the endpoint are used where the name has none.
    pub fn alias(mut self, name: impl Into<String>, endpoint: impl Into<String>) -> Self {
        self.hosts.aliases.insert(name.into(), endpoint.into());
        self
    }

    /// Sends everything through a proxy, except to the hosts of `no_proxy`
    /// (comma-separated, in the form of the environment variable of that name).
    pub fn proxy(mut self, url: impl Into<String>, no_proxy: Option<&str>) -> Self {
        self.hosts.proxy = Some((url.into(), no_proxy.map(str::to_owned)));
        self
    }

    /// Names the program that asks.
    pub fn user_agent(mut self, name: impl Into<String>) -> Self {
        self.hosts.user_agent = Some(name.into());
        self
    }

    /// Sets how long a connection may take to come about.
    pub fn connect_timeout(mut self, time: Duration) -> Self {
        self.hosts.connect_timeout = time;
        self
    }

    /// Sets how often and how soon a failed request is tried again.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Sets in how many parts large blobs are loaded.
    pub fn downloads(mut self, downloads: Downloads) -> Self {
        self.downloads = downloads;
        self
    }

    /// Sets what becomes of a tag that is there already, for all registries without a
    /// policy of their own.
    pub fn tag_policy(mut self, policy: TagPolicy) -> Self {
        self.tags.usual = policy;
        self
    }

    /// Takes over what an operator says about registries, and reads the files that this
    /// names. Logins to clouds come from the variables of `environment`.
    pub fn registries(
        self,
        registries: &Registries,
        environment: &CloudEnvironment,
    ) -> Result<Self, RegistriesError> {
        registries.apply(self, environment)
    }

    /// Makes the client. Reads the machine's CA bundle and connects to nothing.
    pub fn build(self) -> Result<Client, BuildError> {
        let connector = Connector::new(self.hosts)?;
        let authenticator = Authenticator::new(self.credentials);
        Ok(Client {
            transport: Arc::new(Transport::new(connector, authenticator, self.retry)),
            downloads: self.downloads,
            tags: Arc::new(self.tags),
            reported: Arc::new(self.reported),
        })
    }
}
