//! The first contact with a server: redirects, credentials and the plain reasons for
//! which there is nothing to fetch are settled here, with one small request, so that
//! what follows talks to one fixed address.
//!
//! Git's smart HTTP protocol: gitprotocol-http, "Discovering References".

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gix::protocol::transport::client::blocking_io::{Transport, http};
use ocibuild_registry::Secret;
use reqwest::header;
use rustls::{ClientConfig, RootCertStore};
use url::Url;

use super::error::{GitError, host_and_port, public_url};
use super::limits::Budget;
use super::policy::{Policy, is_loopback};
use super::ssh::Way;
use crate::net::{AddressPolicy, redirect_target};

const DISCOVERY: &str = "/info/refs?service=git-upload-pack";
const ADVERTISEMENT: &str = "application/x-git-upload-pack-advertisement";
const SSH: &str = "ssh";
const MAX_REDIRECTS: usize = 5;
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a server may be silent; it reports progress while it prepares a pack.
pub(super) const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// A timeout of nothing would be none.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(1);
/// Some servers serve Git's protocol only to what calls itself git.
const USER_AGENT: &str = concat!("git/ocibuild-", env!("CARGO_PKG_VERSION"));
/// The user name that the big hosts accept beside any kind of token.
const DEFAULT_USER: &str = "x-access-token";

/// A token and the one server that may see it.
pub(super) struct Credentials {
    origin: url::Origin,
    header: Secret,
}

impl Credentials {
    /// Binds a token to the server of `url`; plain HTTP is good enough on this machine only.
    pub(super) fn new(url: &Url, username: Option<&str>, token: &Secret) -> Result<Self, GitError> {
        if url.scheme() != "https" && !is_loopback(url) {
            return Err(GitError::InsecureToken {
                host: host_and_port(url),
            });
        }
        let pair = format!("{}:{}", username.unwrap_or(DEFAULT_USER), token.expose());
        Ok(Self {
            origin: url.origin(),
            header: Secret::new(format!("Basic {}", STANDARD.encode(pair))),
        })
    }

    pub(super) fn header_for(&self, url: &Url) -> Option<&Secret> {
        (url.origin() == self.origin).then_some(&self.header)
    }
}

/// The TLS of one checkout; the certificates of the system are read when they are first needed.
#[derive(Default)]
pub(crate) struct Tls {
    verifying: OnceLock<ClientConfig>,
}

impl Tls {
    pub(crate) fn for_url(&self, url: &Url) -> Result<ClientConfig, rustls::Error> {
        if url.scheme() != "https" {
            return client_config(RootCertStore::empty());
        }
        if let Some(config) = self.verifying.get() {
            return Ok(config.clone());
        }
        let mut roots = RootCertStore::empty();
        // A certificate that cannot be read is left out: what needs it is refused, the rest works.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let config = client_config(roots)?;
        Ok(self.verifying.get_or_init(|| config).clone())
    }
}

fn client_config(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// With what servers are asked in one checkout.
pub(super) struct Means<'a> {
    pub(super) credentials: Option<Credentials>,
    pub(super) tls: Tls,
    pub(super) policy: &'a Policy,
    pub(super) budget: Arc<Budget>,
    pub(super) ssh: Option<Way>,
}

impl Means<'_> {
    /// Gives the header with which a server is asked to let us in.
    pub(super) fn authorization(&self, url: &Url) -> Option<&Secret> {
        self.credentials.as_ref()?.header_for(url)
    }

    /// Tells whether we are shown what everybody is.
    pub(super) fn is_anonymous(&self, url: &Url) -> bool {
        url.scheme() != SSH && self.authorization(url).is_none()
    }

    /// Gives how to talk to the server of a repository; nothing is asked yet.
    pub(super) fn endpoint(&self, url: &Url) -> Result<Endpoint, GitError> {
        let access = match (url.scheme() == SSH, &self.ssh) {
            (true, None) => {
                return Err(GitError::UnsupportedTransport {
                    url: public_url(url),
                    transport: SSH,
                });
            }
            (true, Some(way)) => Access::Ssh(Box::new(way.clone())),
            (false, _) => Access::Http(Box::new(Http {
                authorization: self.authorization(url).cloned(),
                tls: self.tls.for_url(url).map_err(GitError::Tls)?,
                addresses: self.policy.addresses,
            })),
        };
        self.policy.check(url)?;
        Ok(Endpoint {
            url: url.clone(),
            budget: self.budget.clone(),
            access,
        })
    }

    /// Asks for the repository at `url` and follows where the server points to, as far as
    /// the policy goes. Over ssh there is nothing to find out.
    pub(super) fn discover(&self, url: &Url) -> Result<Endpoint, GitError> {
        let mut base = without_trailing_slash(url);
        for _ in 0..=MAX_REDIRECTS {
            let endpoint = self.endpoint(&base)?;
            let Access::Http(http) = &endpoint.access else {
                return Ok(endpoint);
            };
            let response = endpoint.ask(http)?;
            if !response.status().is_redirection() {
                endpoint.check(http, &response)?;
                return Ok(endpoint);
            }
            base = redirected(&response, &endpoint.url)?;
        }
        Err(GitError::Redirect {
            url: public_url(url),
            target: public_url(&base),
            reason: "too many redirects",
        })
    }
}

/// A Git server, and how to talk to it.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// The repository after redirects.
    pub(super) url: Url,
    pub(super) budget: Arc<Budget>,
    pub(super) access: Access,
}

/// What a server speaks.
#[derive(Debug, Clone)]
pub(super) enum Access {
    Http(Box<Http>),
    Ssh(Box<Way>),
}

#[derive(Debug, Clone)]
pub(super) struct Http {
    authorization: Option<Secret>,
    tls: ClientConfig,
    addresses: AddressPolicy,
}

impl Endpoint {
    /// Tells whether the server has not been asked anything yet.
    pub(super) fn is_unasked(&self) -> bool {
        matches!(self.access, Access::Ssh(_))
    }

    fn ask(&self, http: &Http) -> Result<reqwest::blocking::Response, GitError> {
        let client = self
            .configure(http, reqwest::blocking::Client::builder())
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(USER_AGENT)
            .build()
            .map_err(GitError::Client)?;
        let mut request = client
            .get(format!("{}{DISCOVERY}", self.url))
            .header("Git-Protocol", "version=2");
        if let Some(value) = &http.authorization {
            request = request.header(header::AUTHORIZATION, value.expose());
        }
        request.send().map_err(|source| GitError::Unreachable {
            host: host_and_port(&self.url),
            source: source.without_url(),
        })
    }

    fn check(&self, http: &Http, response: &reqwest::blocking::Response) -> Result<(), GitError> {
        let url = public_url(&self.url);
        match response.status().as_u16() {
            200..300 => {
                let content_type = response.headers().get(header::CONTENT_TYPE);
                match content_type.is_some_and(|value| value == ADVERTISEMENT) {
                    true => Ok(()),
                    false => Err(GitError::NotARepository { url }),
                }
            }
            status @ (401 | 403) => Err(GitError::AccessRefused {
                url,
                status,
                token_sent: http.authorization.is_some(),
            }),
            404 | 410 => Err(GitError::RepositoryNotFound { url }),
            status => Err(GitError::Status { url, status }),
        }
    }

    /// Sets how gix fetches over a connection to this server.
    pub(super) fn configure_connection<T: Transport>(
        &self,
        connection: &mut gix::remote::Connection<'_, '_, '_, T>,
    ) {
        // Otherwise gix sets options of its own.
        connection.set_transport_options(match &self.access {
            Access::Http(http) => Box::new(self.transport_options(http)),
            Access::Ssh(_) => Box::new(()),
        });
        // Otherwise a server that asks for a password makes gix run credential helpers.
        connection.set_credentials(|_| Ok(None));
    }

    /// Gives the settings with which gix talks to this server: the same client, no
    /// further redirects, and the token as a header that no file ever holds.
    pub(super) fn transport_options(&self, http: &Http) -> http::Options {
        let (endpoint, settings) = (self.clone(), http.clone());
        let configure = move |builder| Ok(endpoint.configure(&settings, builder));
        let backend = http::reqwest::Options {
            configure_client: Some(Box::new(configure)),
            configure_request: None,
        };
        http::Options {
            extra_headers: http
                .authorization
                .iter()
                .map(|value| format!("Authorization: {}", value.expose()))
                .collect(),
            follow_redirects: http::options::FollowRedirects::None,
            user_agent: Some(USER_AGENT.to_owned()),
            backend: Some(Arc::new(Mutex::new(backend))),
            ..http::Options::default()
        }
    }

    fn configure(
        &self,
        http: &Http,
        builder: reqwest::blocking::ClientBuilder,
    ) -> reqwest::blocking::ClientBuilder {
        configure(builder, http.tls.clone(), http.addresses, &self.budget)
    }
}

/// Sets how servers are connected to. Proxies come from the environment otherwise, which
/// a library does not read. A server may be silent no longer than everything may still take.
pub(crate) fn configure(
    builder: reqwest::blocking::ClientBuilder,
    tls: ClientConfig,
    addresses: AddressPolicy,
    budget: &Budget,
) -> reqwest::blocking::ClientBuilder {
    let at_most = |limit: Duration| limit.min(budget.time_left()).max(SHORTEST_TIMEOUT);
    builder
        .tls_backend_preconfigured(tls)
        .dns_resolver(Arc::new(addresses.resolver()))
        .no_proxy()
        .connect_timeout(at_most(CONNECT_TIMEOUT))
        .timeout(at_most(SILENCE_TIMEOUT))
}

/// Finds the repository behind a redirect: the target must end as the request did.
fn redirected(response: &reqwest::blocking::Response, base: &Url) -> Result<Url, GitError> {
    let refused = |target: Option<&Url>, reason| GitError::Redirect {
        url: public_url(base),
        target: target.map(public_url).unwrap_or_default(),
        reason,
    };
    let target = redirect_target(response.headers(), response.url());
    let target = target.map_err(|bad| refused(bad.target.as_ref(), bad.reason))?;
    let refuse = |reason| refused(Some(&target), reason);
    let repository = target
        .as_str()
        .strip_suffix(DISCOVERY)
        .ok_or_else(|| refuse("the target is not a repository"))?;
    let url = super::address::parse_http(repository)
        .map_err(|_| refuse("the target is not a repository"))?;
    // A login page may carry our request in its query, and would be asked for credentials.
    if public_url(&url) != url.as_str() {
        return Err(refuse("the target has user information or a query"));
    }
    Ok(without_trailing_slash(&url))
}

fn without_trailing_slash(url: &Url) -> Url {
    let mut url = url.clone();
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn a_token_needs_tls_or_this_machine() {
        let token = Secret::new("t");
        for (text, allowed) in [
            ("https://h/r", true),
            ("http://127.0.0.1:80/r", true),
            ("http://[::1]/r", true),
            ("http://localhost/r", true),
            ("http://h/r", false),
            ("http://localhost.example/r", false),
            ("http://10.0.0.1/r", false),
        ] {
            let result = Credentials::new(&url(text), None, &token);
            assert_eq!(result.is_ok(), allowed, "{text}");
        }
    }

    #[test]
    fn a_token_stays_with_its_server() {
        let credentials =
            Credentials::new(&url("https://h/r"), Some("me"), &Secret::new("t")).unwrap();
        for (text, sent) in [
            ("https://h/other", true),
            ("https://h:443/r", true),
            ("http://h/r", false),
            ("https://h:444/r", false),
            ("https://h.example/r", false),
        ] {
            assert_eq!(credentials.header_for(&url(text)).is_some(), sent, "{text}");
        }
        let header = credentials.header_for(&url("https://h/r")).unwrap();
        assert_eq!(header.expose(), "Basic bWU6dA==");
    }
}
