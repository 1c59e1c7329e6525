//! Docker's `config.json`: `auths`, `credHelpers`, `credsStore`. Podman's
//! `auth.json` has the same form, with keys that may carry a path.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use super::credentials::{Credential, CredentialError, Credentials, normal_key};
use crate::Secret;

/// Standard alphabet; writers disagree on the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default)]
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

pub(super) fn parse(json: &[u8]) -> Result<Credentials, CredentialError> {
    let config: Config = serde_json::from_slice(json).map_err(unreadable)?;
    let config = match config.is_empty() {
        true => Config {
            auths: legacy(json),
            ..config
        },
        false => config,
    };
    let mut credentials = Credentials::anonymous();
    for (key, entry) in config.auths {
        if let Some(credential) = entry.into_credential(&key)? {
            credentials.entries.insert(normal_key(&key), credential);
        }
    }
    for (key, helper) in config.cred_helpers {
        check_helper(&helper)?;
        credentials.helpers.insert(normal_key(&key), helper);
    }
    if let Some(helper) = config.creds_store.filter(|name| !name.is_empty()) {
        check_helper(&helper)?;
        credentials.store = Some(helper);
    }
    Ok(credentials)
}

fn unreadable(error: serde_json::Error) -> CredentialError {
    CredentialError::ParseConfig {
        line: error.line(),
        column: error.column(),
    }
}

/// Reads what Kubernetes calls `.dockercfg`: the entries without anything around them.
fn legacy(json: &[u8]) -> BTreeMap<String, Entry> {
    let all: BTreeMap<String, serde_json::Value> = serde_json::from_slice(json).unwrap_or_default();
    let is_entry = |value: &serde_json::Value| value.get("auth").is_some_and(|a| a.is_string());
    all.into_iter()
        .filter(|(_, value)| is_entry(value))
        .filter_map(|(key, value)| Some((key, serde_json::from_value(value).ok()?)))
        .collect()
}

impl Config {
    fn is_empty(&self) -> bool {
        self.auths.is_empty() && self.cred_helpers.is_empty() && self.creds_store.is_none()
    }
}

/// A helper's name becomes part of a program's name, so it must not name a path.
fn check_helper(name: &str) -> Result<(), CredentialError> {
    let valid = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if valid {
        return Ok(());
    }
    Err(CredentialError::InvalidHelper {
        name: name.to_owned(),
    })
}

impl Entry {
    fn into_credential(self, key: &str) -> Result<Option<Credential>, CredentialError> {
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        if let Some(token) = filled(self.registrytoken) {
            return Ok(Some(Credential::RegistryToken(Secret::new(token))));
        }
        if let Some(token) = filled(self.identitytoken) {
            return Ok(Some(Credential::IdentityToken(Secret::new(token))));
        }
        if let Some(auth) = filled(self.auth) {
            return decode(auth.trim())
                .map(Some)
                .ok_or_else(|| CredentialError::InvalidEntry {
                    registry: key.to_owned(),
                });
        }
        Ok(match (filled(self.username), self.password) {
            (Some(username), Some(password)) => Some(Credential::password(username, password)),
            // What `docker login` leaves where the secret is in a credential store.
            _ => None,
        })
    }
}

fn decode(auth: &str) -> Option<Credential> {
    let text = String::from_utf8(BASE64.decode(auth).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    // Some writers end the password with a NUL.
    Some(Credential::password(
        username,
        password.trim_end_matches('\0'),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Repository;

    async fn user(credentials: &Credentials, repository: &str) -> String {
        let repository: Repository = repository.parse().unwrap();
        match credentials.find(&repository).await.unwrap() {
            None => "-".to_owned(),
            Some(Credential::Password { username, password }) => {
                format!("{username}:{}", password.expose())
            }
            Some(Credential::IdentityToken(token)) => format!("identity {}", token.expose()),
            Some(Credential::RegistryToken(token)) => format!("token {}", token.expose()),
            Some(_) => unreachable!("a configuration has no such entry"),
        }
    }

    #[tokio::test]
    async fn keys_in_their_spellings() {
        let credentials = parse(
            br#"{"auths": {
                "https://index.docker.io/v1/": {"auth": "aHViOnNlY3JldA=="},
                "localhost:5000": {"auth": "bG9jYWw6YTpi"},
                "ghcr.io/team": {"username": "team", "password": "t"},
                "ghcr.io": {"auth": "YWxsOng"},
                "https://quay.io/v2/": {"identitytoken": "I", "auth": "Zm9vOg=="},
                "r.example": {"registrytoken": "R"},
                "empty.example": {}
            }, "unknown": [1]}"#,
        )
        .unwrap();
        for (repository, want) in [
            ("alpine", "hub:secret"),
            ("docker.io/team/app", "hub:secret"),
            ("localhost:5000/app", "local:a:b"),
            ("localhost/app", "-"),
            ("ghcr.io/team/app", "team:t"),
            ("ghcr.io/teams/app", "all:x"),
            ("quay.io/app", "identity I"),
            ("r.example/app", "token R"),
            ("empty.example/app", "-"),
        ] {
            assert_eq!(user(&credentials, repository).await, want, "{repository}");
        }
        assert!(!format!("{credentials:?}").contains("secret"));
    }

    #[tokio::test]
    async fn pull_secrets_of_kubernetes_are_read() {
        let old = parse(br#"{"https://r.example": {"auth": "aHViOnNlY3JldA==", "email": "x"}}"#);
        assert_eq!(user(&old.unwrap(), "r.example/app").await, "hub:secret");
        let globs = parse(
            br#"{"auths": {
                "*.dkr.ecr.*.amazonaws.com": {"auth": "ZWNyOng="},
                "r*y.example/team": {"auth": "dGVhbTp0"}
            }}"#,
        )
        .unwrap();
        for (repository, want) in [
            ("1.dkr.ecr.eu-1.amazonaws.com/app", "ecr:x"),
            ("1.dkr.ecr.eu-1.amazonaws.com.cn/app", "-"),
            ("registry.example/team/app", "team:t"),
            ("registry.example/teams/app", "-"),
            ("a.registry.example/team/app", "-"),
        ] {
            assert_eq!(user(&globs, repository).await, want, "{repository}");
        }
    }

    #[tokio::test]
    async fn the_first_of_several_files_counts() {
        let first = parse(br#"{"auths": {"a.example": {"auth": "Zmlyc3Q6YQ=="}}}"#).unwrap();
        let second = br#"{"auths": {"a.example": {"auth": "aHViOnNlY3JldA=="},
            "b.example": {"auth": "aHViOnNlY3JldA=="}}}"#;
        let both = first.or(parse(second).unwrap());
        assert_eq!(user(&both, "a.example/x").await, "first:a");
        assert_eq!(user(&both, "b.example/x").await, "hub:secret");
        assert_eq!(user(&both.without("b.example"), "b.example/x").await, "-");
    }

    #[test]
    fn secrets_are_listed_for_whoever_hides_them() {
        let key = r#"{\n  \"type\": \"x\",\n  \"private_key\": \"0123456789\"\n}\n"#;
        let json = format!(
            r#"{{"auths": {{
                "a.example": {{"auth": "aHViOnNlY3JldA=="}},
                "b.example": {{"identitytoken": "I", "auth": "Zm9vOg=="}},
                "c.example": {{"registrytoken": "R"}},
                "d.example": {{"username": "_json_key", "password": "{key}"}},
                "e.example": {{"username": "u", "password": ""}}
            }}}}"#
        );
        let secrets = parse(json.as_bytes()).unwrap().secrets();
        let texts: Vec<&str> = secrets.iter().map(Secret::expose).collect();
        let key = "{\n  \"type\": \"x\",\n  \"private_key\": \"0123456789\"\n}\n";
        assert_eq!(texts[..5], ["secret", "aHViOnNlY3JldA", "I", "R", key]);
        assert_eq!(texts[5], "\"private_key\": \"0123456789\"");
        assert!(texts[6].starts_with("X2pzb25fa2V5"), "{texts:?}");
        assert_eq!(texts.len(), 7, "{texts:?}");
    }

    #[test]
    fn broken_files_say_where_and_show_no_secret() {
        for (json, why) in [
            ("", "line 1"),
            (r#"{"auths": ["geheim"]}"#, "line 1"),
            (r#"{"auths": {"h": {"auth": "geheim!"}}}"#, "\"h\""),
            (r#"{"auths": {"h": {"auth": "Z2VoZWlt"}}}"#, "\"h\""),
            (r#"{"credsStore": "../x"}"#, "helper"),
            (r#"{"credHelpers": {"h": "a b"}}"#, "helper"),
        ] {
            let message = parse(json.as_bytes()).unwrap_err().to_string();
            assert!(message.contains(why), "{json}: {message}");
            assert!(!message.contains("geheim"), "{message}");
        }
    }

    #[tokio::test]
    async fn a_missing_helper_is_named() {
        let credentials = parse(br#"{"credHelpers": {"h.example": "surely-not-there"}}"#).unwrap();
        let repository: Repository = "h.example/app".parse().unwrap();
        let error = credentials.find(&repository).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot run docker-credential-surely-not-there"
        );
    }
}
