//! Which repositories may be built, and how they are read.

use std::path::PathBuf;

use ocibuild_registry::Secret;

use super::error::Problem;
use super::hosts;
use super::settings::{
    DENY_ADDRESSES, GIT_HOSTS, GIT_HTTP_HOSTS, GIT_KNOWN_HOSTS, GIT_SSH_KEY, GIT_TOKENS,
    GITHUB_TOKEN, Setting,
};
use super::values::{Reader, items};

/// Which repositories may be built, and how they are read.
#[derive(Debug, Clone)]
pub struct GitRules {
    /// The hosts that may be spoken to in plain HTTP (`OCIBUILD_GIT_HTTP_HOSTS`).
    pub http_hosts: Vec<String>,
    /// The hosts that are allowed, any if there is none (`OCIBUILD_GIT_HOSTS`).
    pub hosts: Vec<String>,
    /// One token for each host that has one: those of `OCIBUILD_GIT_TOKENS`, and `GITHUB_TOKEN`
    /// for `github.com`.
    pub tokens: Vec<(String, Secret)>,
    /// The addresses that are refused (`OCIBUILD_DENY_ADDRESSES`).
    pub deny: DenyAddresses,
    /// With what repositories are read over ssh, where they may be.
    pub ssh: Option<GitSsh>,
}

/// With what repositories are read over ssh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitSsh {
    /// The private key (`OCIBUILD_GIT_SSH_KEY`).
    pub key: PathBuf,
    /// The hosts that are believed (`OCIBUILD_GIT_KNOWN_HOSTS`).
    pub known_hosts: PathBuf,
}

/// The addresses that repositories may not lie at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenyAddresses {
    /// Metadata services of clouds.
    Metadata,
    /// These, and all private networks.
    Private,
    /// None.
    Nothing,
}

impl GitRules {
    /// Tells whether repositories of this host may be built.
    pub fn allows(&self, host: &str, port: u16) -> bool {
        let covers = |entry: &String| hosts::covers(entry, host, port);
        self.hosts.is_empty() || self.hosts.iter().any(covers)
    }

    /// Tells whether this host may be spoken to in plain HTTP.
    pub fn allows_http(&self, host: &str, port: u16) -> bool {
        let covers = |entry: &String| hosts::covers(entry, host, port);
        self.http_hosts.iter().any(covers)
    }

    /// Gives the token for a host. Without a port in its entry a token is for the usual port
    /// of HTTPS alone: who listens on another one may be somebody else.
    pub fn token(&self, host: &str, port: u16) -> Option<&Secret> {
        let is_for = |entry: &str| {
            hosts::split(entry).is_some_and(|(name, wanted)| {
                name.eq_ignore_ascii_case(host) && wanted.unwrap_or(443) == port
            })
        };
        let found = self.tokens.iter().find(|(entry, _)| is_for(entry));
        found.map(|(_, token)| token)
    }
}

pub(super) fn read(reader: &mut Reader, github_token: Option<&Secret>) -> GitRules {
    let mut tokens = reader.optional(&GIT_TOKENS, tokens).unwrap_or_default();
    if let Some(token) = github_token
        && !tokens.iter().any(|(host, _)| host == GITHUB)
    {
        tokens.push((GITHUB.to_owned(), token.clone()));
    }
    GitRules {
        http_hosts: reader.list(&GIT_HTTP_HOSTS, hosts::normal),
        hosts: reader.list(&GIT_HOSTS, hosts::pattern),
        tokens,
        deny: reader.read(&DENY_ADDRESSES, |text| match text {
            "metadata" => Some(DenyAddresses::Metadata),
            "private" => Some(DenyAddresses::Private),
            "none" => Some(DenyAddresses::Nothing),
            _ => None,
        }),
        ssh: ssh(reader),
    }
}

/// One without the other lets nobody in.
fn ssh(reader: &mut Reader) -> Option<GitSsh> {
    let key = reader.path(&GIT_SSH_KEY);
    let known_hosts = reader.path(&GIT_KNOWN_HOSTS);
    match (key, known_hosts) {
        (Some(key), Some(known_hosts)) => return Some(GitSsh { key, known_hosts }),
        (None, None) => {}
        (Some(_), None) => reader.add(missing(&GIT_KNOWN_HOSTS, &GIT_SSH_KEY)),
        (None, Some(_)) => reader.add(missing(&GIT_SSH_KEY, &GIT_KNOWN_HOSTS)),
    }
    None
}

fn missing(setting: &Setting, of: &Setting) -> Problem {
    Problem::Missing {
        name: setting.name,
        of: of.name,
    }
}

pub(super) fn read_github_token(reader: &mut Reader) -> Option<Secret> {
    reader.optional(&GITHUB_TOKEN, token)
}

const GITHUB: &str = "github.com";

fn tokens(text: &str) -> Option<Vec<(String, Secret)>> {
    let mut all: Vec<(String, Secret)> = Vec::new();
    for item in items(text) {
        let (host, secret) = item.split_once('=')?;
        let host = hosts::normal(host.trim())?;
        if all.iter().any(|(other, _)| *other == host) {
            return None;
        }
        all.push((host, token(secret)?));
    }
    Some(all)
}

/// A token goes into a header, where spaces and control characters cannot be. Mounted files
/// often give one with a line end behind it.
fn token(text: &str) -> Option<Secret> {
    let text = text.trim();
    let valid = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    valid.then(|| Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, names_of_problems};
    use super::*;

    fn rules(vars: &[(&str, &str)]) -> GitRules {
        config(vars).unwrap().git
    }

    #[test]
    fn any_host_is_allowed_until_some_are_named() {
        let open = rules(&[]);
        assert!(open.allows("git.example", 443) && !open.allows_http("localhost", 80));
        assert_eq!(open.deny, DenyAddresses::Metadata);
        let named = rules(&[
            ("OCIBUILD_GIT_HOSTS", "github.com, *.Example,g:8443"),
            ("OCIBUILD_GIT_HTTP_HOSTS", "127.0.0.1:3000,gitea"),
            ("OCIBUILD_DENY_ADDRESSES", "private"),
        ]);
        assert_eq!(named.deny, DenyAddresses::Private);
        for (host, port, expected) in [
            ("github.com", 443, true),
            ("a.example", 443, true),
            ("g", 8443, true),
            ("g", 443, false),
            ("gitlab.com", 443, false),
        ] {
            assert_eq!(named.allows(host, port), expected, "{host}");
        }
        for (host, port, expected) in [
            ("127.0.0.1", 3000, true),
            ("127.0.0.1", 80, false),
            ("gitea", 1, true),
            ("github.com", 80, false),
        ] {
            assert_eq!(named.allows_http(host, port), expected, "{host}");
        }
    }

    #[test]
    fn tokens_go_to_their_hosts() {
        let github = ("GITHUB_TOKEN", "one\n");
        let tokens = ("OCIBUILD_GIT_TOKENS", "GitLab.example=t=2, g:8443=three");
        let rules_of_both = rules(&[github, tokens]);
        let token = |host, port| rules_of_both.token(host, port).map(Secret::expose);
        assert_eq!(token("github.com", 443), Some("one"));
        assert_eq!(token("gitlab.example", 443), Some("t=2"));
        assert_eq!(token("g", 8443), Some("three"));
        for (host, port) in [("github.com", 8443), ("gist.github.com", 443), ("g", 443)] {
            assert_eq!(token(host, port), None, "{host}:{port}");
        }
        let own = rules(&[github, ("OCIBUILD_GIT_TOKENS", "github.com=own")]);
        assert_eq!(own.token("github.com", 443).unwrap().expose(), "own");
    }

    #[test]
    fn ssh_needs_a_key_and_known_hosts() {
        let (key, hosts) = (
            ("OCIBUILD_GIT_SSH_KEY", "/k"),
            ("OCIBUILD_GIT_KNOWN_HOSTS", "/h"),
        );
        let ssh = GitSsh {
            key: "/k".into(),
            known_hosts: "/h".into(),
        };
        assert_eq!(rules(&[key, hosts]).ssh, Some(ssh));
        assert_eq!(rules(&[]).ssh, None);
        for (given, missing) in [(key, hosts.0), (hosts, key.0)] {
            let error = config(&[given]).unwrap_err();
            assert_eq!(names_of_problems(&error), [missing]);
        }
    }

    #[test]
    fn wrong_rules_are_refused() {
        for (name, value) in [
            ("OCIBUILD_GIT_TOKENS", "hidden"),
            ("OCIBUILD_GIT_TOKENS", "a=hidden,A=hidden"),
            ("OCIBUILD_GIT_TOKENS", "a="),
            ("OCIBUILD_GIT_TOKENS", "http://a=hidden"),
            ("GITHUB_TOKEN", "hidden token"),
            ("OCIBUILD_GIT_HOSTS", "*"),
            ("OCIBUILD_GIT_HTTP_HOSTS", "*.example"),
            ("OCIBUILD_GIT_HTTP_HOSTS", "http://a"),
            ("OCIBUILD_DENY_ADDRESSES", "all"),
        ] {
            let error = config(&[(name, value)]).unwrap_err();
            assert_eq!(names_of_problems(&error), [name], "{value}");
            assert!(!error.to_string().contains("hidden"), "{error}");
        }
    }
}
