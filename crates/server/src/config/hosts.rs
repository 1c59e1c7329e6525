//! Names of hosts, with and without a port, as lists of hosts write them.

use std::net::{IpAddr, Ipv6Addr};

/// Splits `host`, `host:port`, `[address]` or `[address]:port`; None for anything else.
pub(super) fn split(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            let port = port.parse().ok().filter(|port| digits && *port != 0)?;
            (host, Some(port))
        }
        _ => (text, None),
    };
    is_host(host).then_some((host, port))
}

/// Gives `host` or `host:port` in small letters.
pub(super) fn normal(text: &str) -> Option<String> {
    split(text).map(|_| text.to_ascii_lowercase())
}

/// Reads an entry of a list of allowed hosts, which may also be `*.domain`.
pub(super) fn pattern(text: &str) -> Option<String> {
    match text.strip_prefix("*.") {
        Some(domain) if is_host(domain) && !domain.starts_with('[') => {
            Some(text.to_ascii_lowercase())
        }
        Some(_) => None,
        None => normal(text),
    }
}

/// Tells whether a host and port are those of an entry. An entry without a port means any.
pub(super) fn covers(entry: &str, host: &str, port: u16) -> bool {
    if let Some(domain) = entry.strip_prefix("*.") {
        let inside = |start: usize| {
            host.is_char_boundary(start)
                && host[start..].eq_ignore_ascii_case(domain)
                && host[..start].ends_with('.')
        };
        return host.len().checked_sub(domain.len()).is_some_and(inside);
    }
    split(entry).is_some_and(|(name, wanted)| {
        name.eq_ignore_ascii_case(host) && wanted.is_none_or(|wanted| wanted == port)
    })
}

/// Tells whether an address is this machine's own.
pub(super) fn is_loopback(address: &str) -> bool {
    let host = split(address).map_or(address, |(host, _)| host);
    let bare = host.trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[') {
        let address = inner.strip_suffix(']');
        return address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let label = |label: &str| {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let edges = !label.starts_with('-') && !label.ends_with('-');
        !label.is_empty() && label.bytes().all(valid) && edges
    };
    host.len() <= 253 && host.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_these_forms() {
        for (text, expected) in [
            ("localhost", Some(("localhost", None))),
            ("kind-registry:5000", Some(("kind-registry", Some(5000)))),
            ("127.0.0.1:80", Some(("127.0.0.1", Some(80)))),
            ("[::1]", Some(("[::1]", None))),
            ("[::1]:5000", Some(("[::1]", Some(5000)))),
            ("", None),
            (":5000", None),
            ("a:", None),
            ("a:+1", None),
            ("a:0", None),
            ("a:65536", None),
            ("a/b", None),
            ("user@host", None),
            ("http://a", None),
            ("::1", None),
            ("[a]", None),
            ("-a", None),
            ("a..b", None),
            ("a b", None),
        ] {
            assert_eq!(split(text), expected, "{text}");
        }
    }

    #[test]
    fn entries_cover_hosts() {
        for (entry, host, port, expected) in [
            ("git.example", "git.example", 443, true),
            ("git.example", "GIT.example", 8443, true),
            ("git.example:443", "git.example", 443, true),
            ("git.example:443", "git.example", 8443, false),
            ("git.example", "x.git.example", 443, false),
            ("*.example", "git.example", 443, true),
            ("*.example", "a.b.EXAMPLE", 80, true),
            ("*.example", "example", 443, false),
            ("*.example", "badexample", 443, false),
            ("*.example", "ü.example", 443, true),
            ("*.example", "xü", 443, false),
            ("[::1]:80", "[::1]", 80, true),
        ] {
            assert_eq!(covers(entry, host, port), expected, "{entry} {host} {port}");
        }
        assert_eq!(pattern("*.Example").as_deref(), Some("*.example"));
        for wrong in ["*", "*.", "a.*", "*.a:1", "*.*.a", "*.[::1]"] {
            assert_eq!(pattern(wrong), None, "{wrong}");
        }
    }
}
