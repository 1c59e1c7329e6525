//! `EXPOSE`: `[[ip:]host:]port[-port][/protocol]`. Only the container's side is kept.

use super::Error;

/// More ports than there are would only fill memory.
const PORTS: usize = 65_536;

/// Gives `port/protocol` for every port of a text.
pub(super) fn parse(text: &str) -> Result<Vec<String>, Error> {
    let invalid = |reason| Error::Port {
        port: text.to_owned(),
        reason,
    };
    let (ports, protocol) = match text.split_once('/') {
        Some((ports, protocol)) => (ports, protocol.to_ascii_lowercase()),
        None => (text, "tcp".to_owned()),
    };
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(invalid("the protocol is not tcp, udp or sctp"));
    }
    let container = ports.rsplit(':').next().unwrap_or_default();
    let number = |text: &str| -> Result<u16, Error> {
        text.parse()
            .map_err(|_| invalid("want a number up to 65535"))
    };
    let (first, last) = match container.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(container)?, number(container)?),
    };
    if first > last {
        return Err(invalid("the range ends before it begins"));
    }
    Ok((first..=last)
        .take(PORTS)
        .map(|port| format!("{port}/{protocol}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, want) in [
            ("80", &["80/tcp"][..]),
            ("53/UDP", &["53/udp"]),
            ("7-9/sctp", &["7/sctp", "8/sctp", "9/sctp"]),
            ("127.0.0.1:80:8080", &["8080/tcp"]),
        ] {
            assert_eq!(parse(text).unwrap(), want, "{text}");
        }
        for text in ["", "x", "70000", "80/foo", "9-7", "-1", "80/"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
