//! Where a registry is: the name that it has in references, and the endpoint that
//! answers for it, which an alias may set apart.
//!
//! A registry that is reached under another host than it knows of itself may name
//! that host in its answers (`Location`, `Link`, the realm of a challenge). Such URLs
//! are led to the endpoint, so that the whole dialogue stays with the one that was
//! meant.

use reqwest::header::HeaderValue;
use url::Url;

use crate::Repository;

/// The place that an alias leads to: `kind-registry:5000`, `http://10.0.0.7:5000`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) authority: String,
    /// Whether TLS is spoken there, where the alias says so.
    pub(crate) tls: Option<bool>,
}

impl Endpoint {
    /// Reads `[http://|https://]host[:port]`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (tls, authority) = if let Some(rest) = text.strip_prefix("http://") {
            (Some(false), rest)
        } else if let Some(rest) = text.strip_prefix("https://") {
            (Some(true), rest)
        } else {
            (None, text)
        };
        let authority = match tls {
            Some(_) => authority.strip_suffix('/').unwrap_or(authority),
            None => authority,
        };
        // What can stand before a repository in a name is a host with a port.
        Repository::new(authority, "x").ok()?;
        Some(Self {
            authority: authority.to_owned(),
            tls,
        })
    }
}

/// Where the API of one registry is.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    name: String,
    /// Set where the endpoint is not the one that the name says.
    alias: Option<Alias>,
    api: Url,
}

#[derive(Debug, Clone)]
struct Alias {
    endpoint: String,
    /// The host that the name says.
    named: String,
}

impl Home {
    pub(crate) fn new(
        repository: &Repository,
        alias: Option<&Endpoint>,
        tls: bool,
    ) -> Option<Self> {
        let named = repository.api_host();
        let authority = alias.map_or(named, |endpoint| endpoint.authority.as_str());
        let scheme = if tls { "https" } else { "http" };
        Some(Self {
            name: repository.registry().to_owned(),
            alias: alias.map(|endpoint| Alias {
                endpoint: endpoint.authority.clone(),
                named: named.to_owned(),
            }),
            api: Url::parse(&format!("{scheme}://{authority}/v2/")).ok()?,
        })
    }

    /// Gives the URL of `path` below `/v2/`.
    pub(crate) fn url(&self, path: &str) -> Option<Url> {
        Url::parse(&format!("{}{path}", self.api)).ok()
    }

    /// Tells whether a URL belongs to the registry itself. Redirects and upload
    /// locations may lead elsewhere, where our secrets have no business.
    pub(crate) fn owns(&self, url: &Url) -> bool {
        self.api.origin() == url.origin()
    }

    /// Resolves a `Location` against the URL that answered with it.
    pub(crate) fn resolve(&self, from: &Url, location: &HeaderValue) -> Result<Url, &'static str> {
        let text = location
            .to_str()
            .map_err(|_| "its Location header is not a text")?;
        let url = from
            .join(text)
            .map_err(|_| "its Location header is not a URL")?;
        let mut url = self.route(url);
        // A registry behind a proxy that ends TLS may not know that it is https.
        let same_host = url.host_str() == from.host_str();
        if from.scheme() == "https" && url.scheme() == "http" && same_host && url.port().is_none() {
            // Both schemes are special ones, so this cannot fail.
            let _ = url.set_scheme("https");
        }
        match (from.scheme(), url.scheme()) {
            (_, "https") | ("http", "http") => Ok(url),
            (_, "http") => Err("it redirects from https to http"),
            _ => Err("it redirects to something other than http"),
        }
    }

    /// Leads a URL of the host that the name says to the endpoint.
    pub(crate) fn route(&self, url: Url) -> Url {
        match &self.alias {
            Some(alias) if is_at(&url, &alias.named) => {
                let mut routed = self.api.clone();
                routed.set_path(url.path());
                routed.set_query(url.query());
                routed
            }
            _ => url,
        }
    }

    /// Names who is at the other end of a connection, for an error.
    pub(crate) fn peer(&self, url: &Url) -> String {
        match &self.alias {
            _ if !self.owns(url) => authority(url),
            Some(alias) => format!("{} (reached as {})", self.name, alias.endpoint),
            None => self.name.clone(),
        }
    }
}

/// Tells whether a URL is one of `host[:port]`.
pub(crate) fn is_at(url: &Url, authority: &str) -> bool {
    matches!(url.scheme(), "http" | "https")
        && Url::parse(&format!("{}://{authority}/", url.scheme()))
            .is_ok_and(|place| place.origin() == url.origin())
}

/// Gives `host[:port]` of a URL, without a port that its scheme implies.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(alias: Option<&str>) -> Home {
        let repository = "localhost:5000/app".parse().unwrap();
        let endpoint = alias.map(|text| Endpoint::parse(text).unwrap());
        Home::new(&repository, endpoint.as_ref(), false).unwrap()
    }

    #[test]
    fn endpoints_are_hosts_with_ports() {
        for (text, authority, tls) in [
            ("kind-registry:5000", "kind-registry:5000", None),
            (
                "http://kind-registry:5000/",
                "kind-registry:5000",
                Some(false),
            ),
            ("https://r.example", "r.example", Some(true)),
            ("http://[::1]:5000", "[::1]:5000", Some(false)),
        ] {
            let authority = authority.to_owned();
            assert_eq!(
                Endpoint::parse(text),
                Some(Endpoint { authority, tls }),
                "{text}"
            );
        }
        for text in [
            "",
            "http://",
            "ftp://h",
            "h/path",
            "u:p@h",
            "h:99999",
            "http://h//",
            "h ",
        ] {
            assert_eq!(Endpoint::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn urls_of_the_named_host_lead_to_the_endpoint() {
        let home = home(Some("kind-registry:5000"));
        let from = Url::parse("http://kind-registry:5000/v2/app/").unwrap();
        for (location, want) in [
            ("/v2/x?a=b", "http://kind-registry:5000/v2/x?a=b"),
            (
                "http://localhost:5000/v2/x?a=b",
                "http://kind-registry:5000/v2/x?a=b",
            ),
            (
                "https://localhost:5000/v2/x",
                "http://kind-registry:5000/v2/x",
            ),
            ("http://localhost:5001/x", "http://localhost:5001/x"),
            ("http://localhost/x", "http://localhost/x"),
        ] {
            let url = home.resolve(&from, &HeaderValue::from_static(location));
            assert_eq!(url.unwrap().as_str(), want, "{location}");
        }
    }

    #[test]
    fn peers_are_named_by_what_was_asked_for() {
        let at = |home: &Home, url: &str| home.peer(&Url::parse(url).unwrap());
        let direct = home(None);
        assert_eq!(at(&direct, "http://localhost:5000/v2/"), "localhost:5000");
        assert_eq!(at(&direct, "https://cdn.example/x?sig=y"), "cdn.example");
        let alias = home(Some("kind-registry:5000"));
        let both = "localhost:5000 (reached as kind-registry:5000)";
        assert_eq!(at(&alias, "http://kind-registry:5000/v2/"), both);
    }

    #[test]
    fn redirects_never_leave_tls() {
        let home = home(None);
        let resolve = |from: &str, location: &'static str| {
            let from = Url::parse(from).unwrap();
            home.resolve(&from, &HeaderValue::from_static(location))
                .map(|url| url.to_string())
        };
        for (from, location, want) in [
            ("https://r.io/v2/a", "/x?y=1", Ok("https://r.io/x?y=1")),
            (
                "https://r.io/v2/a",
                "https://cdn.io/x",
                Ok("https://cdn.io/x"),
            ),
            ("https://r.io/v2/a", "http://r.io/x", Ok("https://r.io/x")),
            (
                "https://r.io/v2/a",
                "http://169.254.169.254/x",
                Err("it redirects from https to http"),
            ),
            ("http://r.io/v2/a", "http://b.io/", Ok("http://b.io/")),
            (
                "http://r.io/v2/a",
                "file:///etc/passwd",
                Err("it redirects to something other than http"),
            ),
        ] {
            assert_eq!(
                resolve(from, location),
                want.map(str::to_owned),
                "{location}"
            );
        }
    }
}
