//! `WWW-Authenticate` (RFC 9110, section 11.6.1): one or more challenges in one or
//! more headers. The text comes from outside; what cannot be read is skipped.

/// A way to log in that we know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// User name and password with every request.
    Basic,
    /// A token from another service.
    Bearer {
        /// Where the token is fetched.
        realm: String,
        /// Whom the token is for.
        service: Option<String>,
        /// What it must allow.
        scope: Option<String>,
    },
}

impl Challenge {
    /// Chooses among the headers' challenges: Bearer before Basic, because a
    /// registry that offers both limits what the password is used for.
    pub(crate) fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut basic = None;
        for (scheme, parameters) in headers.flat_map(parse) {
            let find = |name: &str| {
                let found = parameters
                    .iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.clone())
            };
            if scheme.eq_ignore_ascii_case("bearer") {
                if let Some(realm) = find("realm") {
                    let (service, scope) = (find("service"), find("scope"));
                    return Some(Self::Bearer {
                        realm,
                        service,
                        scope,
                    });
                }
            } else if scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Self::Basic);
            }
        }
        basic
    }
}

type Parameters = Vec<(String, String)>;

/// Reads `scheme name=value, name="value", scheme …`.
fn parse(header: &str) -> Vec<(String, Parameters)> {
    let mut challenges: Vec<(String, Parameters)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let value = after.trim_start_matches([' ', '\t']).strip_prefix('=');
        match (value, challenges.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let (value, after) = take_value(value.trim_start_matches([' ', '\t']));
                parameters.push((word.to_owned(), value));
                rest = after;
            }
            // A parameter before any scheme: nothing here can be trusted.
            (Some(_), None) => return challenges,
            (None, _) if word.is_empty() => return challenges,
            (None, _) => {
                challenges.push((word.to_owned(), Vec::new()));
                rest = after;
            }
        }
    }
}

/// Takes a token or a quoted string from the front.
fn take_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(headers: &[&str]) -> Option<Challenge> {
        Challenge::choose(headers.iter().copied())
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        })
    }

    #[test]
    fn challenges_as_registries_write_them() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        assert_eq!(
            choose(&[hub]),
            bearer(
                "https://auth.docker.io/token",
                Some("registry.docker.io"),
                Some("repository:a/b:pull,push")
            )
        );
        assert_eq!(choose(&[r#"Basic realm="x""#]), Some(Challenge::Basic));
        assert_eq!(choose(&["basic"]), Some(Challenge::Basic));
        assert_eq!(
            choose(&["Basic realm=\"a, b\", Bearer realm=\"r\""]),
            bearer("r", None, None)
        );
        assert_eq!(
            choose(&["Negotiate", "bearer  Realm = plain , service=s"]),
            bearer("plain", Some("s"), None)
        );
        assert_eq!(
            choose(&[r#"Bearer realm="a\"b""#]),
            bearer("a\"b", None, None)
        );
    }

    #[test]
    fn what_is_no_challenge_is_skipped() {
        for header in [
            "",
            ",,,",
            "=",
            "realm=\"x\"",
            "Bearer",
            "Bearer scope=\"x\"",
            "Digest a=\"",
            "\"",
        ] {
            assert_eq!(choose(&[header]), None, "{header:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(header in ".{0,80}") {
            let _ = choose(&[&header]);
        }
    }
}
