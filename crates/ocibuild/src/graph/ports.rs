//! `EXPOSE`: `[[ip:]host:]port[-port][/protocol]`. Only the container's side is kept;
//! the rest is checked all the same, as the reference builder does.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::Error;

/// What a text says, before the ports are numbered one by one.
struct Parts<'a> {
    ip: Option<&'a str>,
    host: Option<&'a str>,
    container: &'a str,
    protocol: &'a str,
}

/// Tells whether a text names an address or a port of the host, which EXPOSE has no use for.
pub(super) fn names_the_host(text: &str) -> bool {
    let parts = split(text);
    parts.ip.is_some_and(|ip| !ip.is_empty()) || parts.host.is_some_and(|host| !host.is_empty())
}

/// Gives the protocol as it is written, or nothing.
pub(super) fn protocol(text: &str) -> &str {
    split(text).protocol
}

/// Gives `port/protocol` for every port of a text.
pub(super) fn parse(text: &str) -> Result<Vec<String>, Error> {
    let invalid = |reason| Error::Port {
        port: text.to_owned(),
        reason,
    };
    let parts = split(text);
    let protocol = match parts.protocol.to_ascii_lowercase() {
        none if none.is_empty() => "tcp".to_owned(),
        known if matches!(known.as_str(), "tcp" | "udp" | "sctp") => known,
        _ => return Err(invalid("the protocol is not tcp, udp or sctp")),
    };
    let ports = range(parts.container).map_err(invalid)?;
    if !is_address(parts.ip.unwrap_or_default()) {
        return Err(invalid("what stands before the first colon is no address"));
    }
    if let Some(host) = parts.host.filter(|host| !host.is_empty()) {
        let host = range(host).map_err(invalid)?;
        // A range of the host may be chosen from for one port of the container.
        if host.len() != ports.len() && ports.len() != 1 {
            return Err(invalid("the ranges of host and container differ in length"));
        }
    }
    Ok(ports.map(|port| format!("{port}/{protocol}")).collect())
}

fn split(text: &str) -> Parts<'_> {
    let (outside, container) = match text.rsplit_once(':') {
        Some((outside, container)) => (Some(outside), container),
        None => (None, text),
    };
    let (ip, host) = match outside.map(|outside| outside.rsplit_once(':')) {
        Some(Some((ip, host))) => (Some(ip), Some(host)),
        Some(None) => (None, outside),
        None => (None, None),
    };
    let (container, protocol) = container.split_once('/').unwrap_or((container, ""));
    Parts {
        ip,
        host,
        container,
        protocol,
    }
}

fn is_address(text: &str) -> bool {
    let inner = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    text.is_empty() || inner.unwrap_or(text).parse::<IpAddr>().is_ok()
}

/// Reads `port` or `first-last`.
fn range(text: &str) -> Result<RangeInclusive<u16>, &'static str> {
    let number = |text: &str| -> Result<u16, &'static str> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.then(|| text.parse().ok()).flatten();
        number.ok_or("want a number up to 65535")
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    match first <= last {
        true => Ok(first..=last),
        false => Err("the range ends before it begins"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b29_forms() {
        for (text, want) in [
            ("80", &["80/tcp"][..]),
            ("80/", &["80/tcp"]),
            ("0080", &["80/tcp"]),
            ("53/UDP", &["53/udp"]),
            ("7-9/sctp", &["7/sctp", "8/sctp", "9/sctp"]),
            ("127.0.0.1:80:8080", &["8080/tcp"]),
            ("[::1]:80:8080", &["8080/tcp"]),
            ("::1:80:8080", &["8080/tcp"]),
            ("8000-9000:80", &["80/tcp"]),
            (":80", &["80/tcp"]),
        ] {
            assert_eq!(parse(text).unwrap(), want, "{text}");
        }
        for text in [
            "",
            "x",
            "70000",
            "80/foo",
            "9-7",
            "-1",
            "+80",
            "80-",
            "1-2-3",
            "x:80",
            "1.2.3:80:80",
            "1-3:1-2",
            "80:",
            "/tcp",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
