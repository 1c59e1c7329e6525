//! Which addresses of the network may be connected to on behalf of a build.
//!
//! Names are hostile: one that is checked may point elsewhere a moment later (DNS
//! rebinding), and a redirect leads where its author likes. So the rule is applied to
//! the address itself: [`AddressPolicy::resolver`] lets a client see permitted addresses
//! only, and [`AddressPolicy::check_url`] judges a URL whose host is an address, which
//! clients connect to without asking a resolver.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses at which clouds hand credentials to whoever asks from inside, beside the
/// link-local ones: Amazon and Google over IPv6, Alibaba, Oracle, Azure.
const METADATA: [IpAddr; 5] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
];

/// Which addresses may be connected to. The default refuses the metadata services of
/// clouds and addresses that name no machine, and permits everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressPolicy {
    metadata: bool,
    private: bool,
    loopback: bool,
}

impl Default for AddressPolicy {
    fn default() -> Self {
        Self {
            metadata: false,
            private: true,
            loopback: true,
        }
    }
}

impl AddressPolicy {
    /// Permits every address.
    pub fn anywhere() -> Self {
        Self {
            metadata: true,
            private: true,
            loopback: true,
        }
    }

    /// Refuses addresses of private networks too.
    #[must_use]
    pub fn refuse_private(mut self) -> Self {
        self.private = false;
        self
    }

    /// Refuses this machine too.
    #[must_use]
    pub fn refuse_loopback(mut self) -> Self {
        self.loopback = false;
        self
    }

    /// Judges one address.
    ///
    /// ```
    /// # use ocibuild::net::AddressPolicy;
    /// let policy = AddressPolicy::default();
    /// assert!(policy.check("10.0.0.1".parse()?).is_ok());
    /// assert!(policy.check("169.254.169.254".parse()?).is_err());
    /// assert!(policy.refuse_private().check("10.0.0.1".parse()?).is_err());
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn check(&self, address: IpAddr) -> Result<(), Refused> {
        let kind = AddressKind::of(address);
        let permitted = match kind {
            AddressKind::Public => true,
            AddressKind::Metadata => self.metadata,
            AddressKind::Private => self.private,
            AddressKind::Loopback => self.loopback,
        };
        match permitted {
            true => Ok(()),
            false => Err(Refused { address, kind }),
        }
    }
}

/// An address that may not be connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// The address.
    pub address: IpAddr,
    /// What is there.
    pub kind: AddressKind,
}

impl std::error::Error for Refused {}

/// The address is not shown: it may be what an internal name resolves to, which is
/// nothing for whoever wrote the name.
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            AddressKind::Metadata => "its address is that of a metadata service or of no machine",
            AddressKind::Private => "its address is in a private network",
            AddressKind::Loopback => "its address is this machine",
            AddressKind::Public => "its address is refused",
        })
    }
}

/// What kind of place an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressKind {
    /// A metadata service of a cloud, link-local, or no machine at all.
    Metadata,
    /// A network that is not reached from outside.
    Private,
    /// This machine.
    Loopback,
    /// Anything else.
    Public,
}

impl AddressKind {
    /// Tells what kind of place an address is; one that carries an IPv4 address is of
    /// the kind of that.
    pub fn of(address: IpAddr) -> Self {
        if METADATA.contains(&address) {
            return Self::Metadata;
        }
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => match carried(address) {
                Some(inner) => Self::of(IpAddr::V4(inner)),
                None => Self::of_v6(address),
            },
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        match address.octets() {
            [0, ..] | [169, 254, ..] | [255, 255, 255, 255] => Self::Metadata,
            [127, ..] => Self::Loopback,
            // RFC 1918, and RFC 6598 for networks behind a provider's translation.
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Self::Private,
            // RFC 6890: protocol assignments and tests of equipment.
            [192, 0, 0, _] | [198, 18..=19, ..] => Self::Private,
            _ => Self::Public,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        match address.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0] | [0xfe80..=0xfebf, ..] => Self::Metadata,
            [0, 0, 0, 0, 0, 0, 0, 1] => Self::Loopback,
            // Unique local, and site-local as it was before.
            [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Self::Private,
            _ => Self::Public,
        }
    }
}

/// Gives the IPv4 address to which a gateway, or the kernel itself, would turn an IPv6
/// address: mapped and compatible ones (RFC 4291), NAT64 (RFC 6052), 6to4 (RFC 3056).
fn carried(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let from = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => Some(from(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(from(high, low)),
        [0x2002, high, low, ..] => Some(from(high, low)),
        _ => None,
    }
}

#[cfg(feature = "git")]
mod client {
    use std::error::Error;
    use std::net::{IpAddr, SocketAddr};

    use reqwest::dns::{Addrs, Name, Resolve, Resolving};
    use reqwest::header::{HeaderMap, LOCATION};
    use url::{Host, Url};

    use super::{AddressPolicy, Refused};

    /// A redirect that is not followed.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct BadRedirect {
        /// Where it leads, as far as that is a URL.
        pub(crate) target: Option<Url>,
        /// Why it is not followed.
        pub(crate) reason: &'static str,
    }

    /// Judges where the answer from `from` leads: to another URL of HTTP, and from TLS to
    /// nothing less.
    pub(crate) fn redirect_target(headers: &HeaderMap, from: &Url) -> Result<Url, BadRedirect> {
        let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let Some(target) = location.and_then(|location| from.join(location).ok()) else {
            let reason = "the target is not a URL";
            let target = None;
            return Err(BadRedirect { target, reason });
        };
        let reason = match (from.scheme(), target.scheme()) {
            (_, "https") | ("http", "http") => return Ok(target),
            (_, "http") => "it leads from https to http",
            _ => "the target is not HTTP",
        };
        let target = Some(target);
        Err(BadRedirect { target, reason })
    }

    /// Gives the host of a URL: an address also where the scheme is one that has names only.
    pub(crate) fn host_of(url: &Url) -> Option<Host<String>> {
        match url.host()? {
            Host::Domain(name) => Host::parse(name).ok(),
            address => Some(address.to_owned()),
        }
    }

    impl AddressPolicy {
        /// Judges a URL whose host is an address, in whatever notation; names pass, and
        /// are judged by [`AddressPolicy::resolver`] when they are looked up.
        pub fn check_url(&self, url: &Url) -> Result<(), Refused> {
            match host_of(url) {
                Some(Host::Ipv4(address)) => self.check(IpAddr::V4(address)),
                Some(Host::Ipv6(address)) => self.check(IpAddr::V6(address)),
                Some(Host::Domain(_)) | None => Ok(()),
            }
        }

        /// Gives a resolver that keeps refused addresses from a client.
        pub fn resolver(&self) -> Resolver {
            Resolver(*self)
        }

        /// Leaves out what is refused; fails where nothing is left because of that.
        pub(crate) fn permitted(
            &self,
            found: impl Iterator<Item = SocketAddr>,
        ) -> Result<Vec<SocketAddr>, Refused> {
            let mut permitted = Vec::new();
            let mut refused = None;
            for address in found {
                match self.check(address.ip()) {
                    Ok(()) => permitted.push(address),
                    Err(error) => refused = Some(error),
                }
            }
            match (permitted.is_empty(), refused) {
                (true, Some(error)) => Err(error),
                _ => Ok(permitted),
            }
        }
    }

    /// The system's resolver behind an [`AddressPolicy`].
    #[derive(Debug, Clone, Copy)]
    pub struct Resolver(AddressPolicy);

    impl Resolve for Resolver {
        fn resolve(&self, name: Name) -> Resolving {
            let policy = self.0;
            Box::pin(async move {
                let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
                let permitted = policy.permitted(found)?;
                Ok(Box::new(permitted.into_iter()) as Addrs)
            })
        }
    }

    impl Refused {
        /// Finds a refusal among the causes of an error of a client.
        pub fn among(error: &(dyn Error + 'static)) -> Option<Self> {
            let mut cause = Some(error);
            while let Some(error) = cause {
                if let Some(refused) = error.downcast_ref::<Self>() {
                    return Some(*refused);
                }
                cause = error.source();
            }
            None
        }
    }

    #[cfg(test)]
    mod tests {
        use super::super::AddressKind;
        use super::*;

        #[test]
        fn hosts_are_judged_in_every_notation() {
            let policy = AddressPolicy::default().refuse_loopback();
            for (url, permitted) in [
                ("http://0x7f.1/", false),
                ("http://2130706433/", false),
                ("http://0177.0.0.1/", false),
                ("http://127.1/", false),
                ("http://[::ffff:127.0.0.1]/", false),
                ("http://[::1]/", false),
                ("http://0/", false),
                ("http://0xa9fea9fe/", false),
                ("http://[::ffff:a9fe:a9fe]/", false),
                ("https://１６９.254.169.254/", false),
                ("http://10.0.0.1/", true),
                ("http://example.com/", true),
            ] {
                let url = Url::parse(url).unwrap();
                assert_eq!(policy.check_url(&url).is_ok(), permitted, "{url}");
            }
        }

        #[test]
        fn redirects_lead_to_http_and_never_out_of_tls() {
            let judge = |from: &str, location: &str| {
                let mut headers = HeaderMap::new();
                headers.insert(LOCATION, location.parse().unwrap());
                let target = redirect_target(&headers, &Url::parse(from).unwrap());
                target.map(String::from).map_err(|bad| bad.reason)
            };
            for (from, location, want) in [
                ("https://h/a", "/b?c", Ok("https://h/b?c")),
                ("http://h/a", "https://i/", Ok("https://i/")),
                ("http://h/a", "http://i/", Ok("http://i/")),
                (
                    "https://h/a",
                    "http://h/a",
                    Err("it leads from https to http"),
                ),
                ("http://h/a", "file:///etc", Err("the target is not HTTP")),
                ("http://h/a", "https://", Err("the target is not a URL")),
            ] {
                let want = want.map(str::to_owned);
                assert_eq!(judge(from, location), want, "{from} {location}");
            }
            let none = redirect_target(&HeaderMap::new(), &Url::parse("http://h/").unwrap());
            assert!(none.is_err_and(|bad| bad.target.is_none()));
        }

        #[test]
        fn a_client_sees_permitted_addresses_only() {
            let policy = AddressPolicy::default();
            let found = |texts: &[&str]| -> Vec<SocketAddr> {
                texts.iter().map(|text| text.parse().unwrap()).collect()
            };
            let mixed = found(&["169.254.169.254:0", "192.0.2.1:0", "[fe80::1]:0"]);
            let permitted = policy.permitted(mixed.into_iter());
            assert_eq!(permitted, Ok(found(&["192.0.2.1:0"])));
            let all_refused = policy.permitted(found(&["169.254.169.254:0"]).into_iter());
            assert_eq!(all_refused.map_err(|e| e.kind), Err(AddressKind::Metadata));
            assert_eq!(policy.permitted([].into_iter()), Ok(Vec::new()));
        }
    }
}

#[cfg(feature = "git")]
pub use client::Resolver;
#[cfg(feature = "git")]
pub(crate) use client::{host_of, redirect_target};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_kind() {
        use AddressKind::{Loopback, Metadata, Private, Public};
        for (address, kind) in [
            ("169.254.169.254", Metadata),
            ("169.254.0.1", Metadata),
            ("0.0.0.0", Metadata),
            ("0.1.2.3", Metadata),
            ("255.255.255.255", Metadata),
            ("100.100.100.200", Metadata),
            ("192.0.0.192", Metadata),
            ("168.63.129.16", Metadata),
            ("fd00:ec2::254", Metadata),
            ("fd20:ce::254", Metadata),
            ("fe80::1", Metadata),
            ("febf::1", Metadata),
            ("::", Metadata),
            ("::ffff:169.254.169.254", Metadata),
            ("::169.254.169.254", Metadata),
            ("64:ff9b::a9fe:a9fe", Metadata),
            ("2002:a9fe:a9fe::1", Metadata),
            ("::ffff:0.0.0.0", Metadata),
            ("127.0.0.1", Loopback),
            ("127.255.255.254", Loopback),
            ("::1", Loopback),
            ("::ffff:127.0.0.1", Loopback),
            ("10.1.2.3", Private),
            ("172.16.0.1", Private),
            ("172.31.255.255", Private),
            ("192.168.1.1", Private),
            ("100.64.0.1", Private),
            ("fd00::1", Private),
            ("::ffff:10.0.0.1", Private),
            ("64:ff9b::10.0.0.1", Private),
            ("172.32.0.1", Public),
            ("100.128.0.1", Public),
            ("1.1.1.1", Public),
            ("2606:4700::1111", Public),
            ("::ffff:1.1.1.1", Public),
        ] {
            assert_eq!(AddressKind::of(address.parse().unwrap()), kind, "{address}");
        }
    }

    #[test]
    fn policies_differ_in_what_they_refuse() {
        let (open, usual) = (AddressPolicy::anywhere(), AddressPolicy::default());
        let strict = usual.refuse_private().refuse_loopback();
        for (address, by_usual, by_strict) in [
            ("169.254.169.254", false, false),
            ("10.0.0.1", true, false),
            ("127.0.0.1", true, false),
            ("1.1.1.1", true, true),
        ] {
            let address = address.parse().unwrap();
            assert!(open.check(address).is_ok());
            assert_eq!(usual.check(address).is_ok(), by_usual, "{address}");
            assert_eq!(strict.check(address).is_ok(), by_strict, "{address}");
        }
    }
}
