//! Which servers a repository may come from, and how much of it may come. The rules
//! hold for the repository that a user names, for everything that it redirects to, and
//! for its submodules; and for files that ADD downloads.

use std::fmt;
use std::str::FromStr;

use url::{Host, Url};

use super::error::{GitError, public_url};
use super::limits::Limits;
pub(super) use crate::net::host_of;
use crate::net::{AddressPolicy, Refused};

/// Which servers Git sources and downloads may come from. The default takes every server over HTTPS
/// and plain HTTP, but no metadata service of a cloud.
///
/// ```
/// use ocibuild::git::Policy;
///
/// let policy = Policy::default()
///     .https_only()
///     .plain_http_from("git.internal:8080".parse()?)
///     .only_from(["github.com".parse()?, "*.internal".parse()?]);
/// # Ok::<(), ocibuild::git::InvalidHostPattern>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    plain_http: PlainHttp,
    only_from: Option<Vec<HostPattern>>,
    pub(super) addresses: AddressPolicy,
    pub(super) limits: Limits,
}

/// Where plain HTTP is good enough.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum PlainHttp {
    #[default]
    Everywhere,
    Listed {
        hosts: Vec<HostPattern>,
        loopback: bool,
    },
}

impl Policy {
    /// Refuses plain HTTP, but for hosts that are then permitted one by one.
    #[must_use]
    pub fn https_only(mut self) -> Self {
        self.plain_http = PlainHttp::Listed {
            hosts: Vec::new(),
            loopback: false,
        };
        self
    }

    /// Permits plain HTTP from a host, where not every host may use it anyway.
    #[must_use]
    pub fn plain_http_from(mut self, host: HostPattern) -> Self {
        if let PlainHttp::Listed { hosts, .. } = &mut self.plain_http {
            hosts.push(host);
        }
        self
    }

    /// Permits plain HTTP from this machine, where not every host may use it anyway.
    #[must_use]
    pub fn plain_http_from_loopback(mut self) -> Self {
        if let PlainHttp::Listed { loopback, .. } = &mut self.plain_http {
            *loopback = true;
        }
        self
    }

    /// Permits these hosts and no other.
    #[must_use]
    pub fn only_from(mut self, hosts: impl IntoIterator<Item = HostPattern>) -> Self {
        self.only_from = Some(hosts.into_iter().collect());
        self
    }

    /// Sets which addresses may be connected to, whatever the host's name is.
    #[must_use]
    pub fn addresses(mut self, policy: AddressPolicy) -> Self {
        self.addresses = policy;
        self
    }

    /// Sets how much may be received, and how long that may take.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Judges the URL of a repository before anything is sent there.
    pub(super) fn check(&self, url: &Url) -> Result<(), GitError> {
        self.judge(url).map_err(|reason| GitError::Forbidden {
            url: public_url(url),
            reason,
        })
    }

    /// Judges a URL before anything is sent there.
    pub(crate) fn judge(&self, url: &Url) -> Result<(), Forbidden> {
        if !matches!(url.scheme(), "https" | "ssh") && !self.takes_plain_http(url) {
            return Err(Forbidden::PlainHttp);
        }
        let is_named = |hosts: &Vec<HostPattern>| hosts.iter().any(|host| host.matches(url));
        if !self.only_from.as_ref().is_none_or(is_named) {
            return Err(Forbidden::Host);
        }
        self.addresses.check_url(url).map_err(Forbidden::Address)
    }

    /// Gives which addresses may be connected to.
    pub(crate) fn permitted_addresses(&self) -> AddressPolicy {
        self.addresses
    }

    /// Gives how much may be received, and how long that may take.
    pub(crate) fn most(&self) -> Limits {
        self.limits
    }

    fn takes_plain_http(&self, url: &Url) -> bool {
        match &self.plain_http {
            PlainHttp::Everywhere => true,
            PlainHttp::Listed { hosts, loopback } => {
                (*loopback && is_loopback(url)) || hosts.iter().any(|host| host.matches(url))
            }
        }
    }
}

/// Tells whether a URL leads to this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match host_of(url) {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Why a repository may not come from where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Forbidden {
    /// The host may be asked over HTTPS only.
    #[error("plain http is not allowed for its host, use https")]
    PlainHttp,
    /// The host is not on the list.
    #[error("its host is not among those that are allowed")]
    Host,
    /// The host is at an address that is refused.
    #[error(transparent)]
    Address(Refused),
}

/// One host, or all below a domain, with a port or with every port: `git.example.com`,
/// `localhost:8080`, `[::1]`, `*.example.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    name: HostName,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HostName {
    Exactly(Host),
    /// Any name that ends with a dot and this.
    Below(String),
}

impl HostPattern {
    fn matches(&self, url: &Url) -> bool {
        let Some(host) = host_of(url) else {
            return false;
        };
        let usual = (url.scheme() == "ssh").then_some(22);
        if self.port.is_some() && self.port != url.port_or_known_default().or(usual) {
            return false;
        }
        match (&self.name, host) {
            (HostName::Exactly(Host::Domain(name)), Host::Domain(host)) => *name == rootless(&host),
            (HostName::Exactly(name), host) => *name == host,
            (HostName::Below(domain), Host::Domain(host)) => rootless(&host)
                .strip_suffix(domain.as_str())
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            (HostName::Below(_), _) => false,
        }
    }
}

/// A name with a dot at its end is the same name.
fn rootless(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// A text that names no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a host: write name, name:port or *.domain")]
pub struct InvalidHostPattern(String);

impl FromStr for HostPattern {
    type Err = InvalidHostPattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidHostPattern(text.to_owned());
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => {
                (name, Some(port.parse().map_err(|_| invalid())?))
            }
            _ => (text, None),
        };
        let parse = |name: &str| match Host::parse(rootless(name)) {
            Ok(host) if !name.contains('*') => Ok(host),
            _ => Err(invalid()),
        };
        let name = match name.strip_prefix("*.") {
            None => HostName::Exactly(parse(name)?),
            Some(domain) => match parse(domain)? {
                Host::Domain(domain) => HostName::Below(domain),
                Host::Ipv4(_) | Host::Ipv6(_) => return Err(invalid()),
            },
        };
        Ok(Self { name, port })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            HostName::Exactly(host) => write!(f, "{host}")?,
            HostName::Below(domain) => write!(f, "*.{domain}")?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::AddressKind;

    fn host(text: &str) -> HostPattern {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn hosts_match() {
        for (pattern, url, matches) in [
            ("git.example.com", "https://git.example.com/r", true),
            ("git.example.com", "https://git.example.com.:8443/r", true),
            ("GIT.Example.com.", "http://git.example.com/r", true),
            ("git.example.com", "https://x.git.example.com/r", false),
            ("git.example.com", "https://git.example.com.evil/r", false),
            ("h:443", "https://h/r", true),
            ("h:443", "http://h/r", false),
            ("h:8080", "http://h:8080/r", true),
            ("*.example.com", "https://a.example.com/r", true),
            ("*.example.com", "https://a.b.example.com./r", true),
            ("*.example.com", "https://example.com/r", false),
            ("*.example.com", "https://evilexample.com/r", false),
            ("*.example.com:80", "https://a.example.com/r", false),
            ("127.0.0.1", "http://0x7f.1:99/r", true),
            ("[::1]", "http://[0:0::1]:8080/r", true),
            ("[::1]:80", "http://[::1]:8080/r", false),
            ("bücher.example", "https://xn--bcher-kva.example/r", true),
            ("127.0.0.1", "ssh://git@127.0.0.1/r", true),
            ("[::1]", "ssh://git@[::1]:2222/r", true),
            ("h:22", "ssh://git@h/r", true),
            ("h:22", "ssh://git@h:2222/r", false),
            ("h:443", "ssh://git@h/r", false),
            ("*.example.com", "ssh://git@a.example.com/r", true),
        ] {
            let url = Url::parse(url).unwrap();
            assert_eq!(host(pattern).matches(&url), matches, "{pattern} {url}");
            let shown = host(&host(pattern).to_string());
            assert_eq!(shown, host(pattern));
        }
        for text in [
            "",
            "*",
            "*.",
            "a*.b",
            "h:",
            "h:x",
            "h:70000",
            "a b",
            "*.1.2.3.4",
            "h/r",
        ] {
            assert!(text.parse::<HostPattern>().is_err(), "{text:?}");
        }
    }

    fn judge(policy: &Policy, url: &str) -> Option<Forbidden> {
        match policy.check(&Url::parse(url).unwrap()) {
            Ok(()) => None,
            Err(GitError::Forbidden { reason, .. }) => Some(reason),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn plain_http_is_for_those_on_the_list() {
        let policy = Policy::default()
            .https_only()
            .plain_http_from(host("git:80"));
        let with_loopback = policy.clone().plain_http_from_loopback();
        for (url, strict, local) in [
            ("https://anywhere/r", true, true),
            ("ssh://anywhere/r", true, true),
            ("http://anywhere/r", false, false),
            ("http://git/r", true, true),
            ("http://git:81/r", false, false),
            ("http://127.0.0.1:1/r", false, true),
            ("http://localhost/r", false, true),
            ("http://localhost.evil/r", false, false),
        ] {
            let want = |allowed: bool| (!allowed).then_some(Forbidden::PlainHttp);
            assert_eq!(judge(&policy, url), want(strict), "{url}");
            assert_eq!(judge(&with_loopback, url), want(local), "{url}");
            assert_eq!(judge(&Policy::default(), url), None, "{url}");
        }
    }

    #[test]
    fn other_hosts_are_refused() {
        let policy = Policy::default().only_from([host("github.com"), host("*.internal")]);
        for (url, allowed) in [
            ("https://github.com/o/r", true),
            ("http://git.internal/r", true),
            ("https://gitlab.com/r", false),
            ("https://github.com.evil/r", false),
        ] {
            assert_eq!(judge(&policy, url).is_none(), allowed, "{url}");
        }
        assert_eq!(judge(&policy, "https://h/r"), Some(Forbidden::Host));
    }

    #[test]
    fn addresses_are_judged_as_hosts() {
        for url in [
            "http://169.254.169.254/r",
            "http://2852039166/r",
            "https://[fe80::1]/r",
            "ssh://git@169.254.169.254/r",
            "ssh://git@[fe80::1]/r",
        ] {
            let Some(Forbidden::Address(refused)) = judge(&Policy::default(), url) else {
                panic!("{url}");
            };
            assert_eq!(refused.kind, AddressKind::Metadata);
        }
        let open = Policy::default().addresses(AddressPolicy::anywhere());
        assert_eq!(judge(&open, "http://169.254.169.254/r"), None);
    }
}
