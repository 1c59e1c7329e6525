//! Logging in to Google's registries (gcr.io, Artifact Registry): the key of a service
//! account as it is, or an access token that another identity buys, kept until shortly
//! before its end.
//!
//! Rules: "Set up authentication for Docker" of Artifact Registry, "Application Default
//! Credentials", and RFC 8693 for the exchange of tokens.

mod error;
mod external;
mod token;

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::TimeDelta;
use futures::future::BoxFuture;
use serde::Deserialize;

use super::Credential;
use super::environment::CloudEnvironment;
use super::renewed::Renewed;
use crate::Secret;
use crate::connector::Connector;

pub use error::{GoogleError, GoogleProblem, InvalidGoogleLogin};
use external::External;

const MARGIN: TimeDelta = TimeDelta::minutes(5);
/// Who the bearer of an access token is to a registry.
const TOKEN_USER: &str = "oauth2accesstoken";
/// Who the bearer of a service account's key is.
const KEY_USER: &str = "_json_key";
/// `metadata.google.internal`, which needs no name service this way.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const MAX_FILE: u64 = 256 * 1024;

/// A login to Google's registries; clones share the access token.
#[derive(Clone)]
pub struct GoogleLogin(Arc<Shared>);

struct Shared {
    source: Source,
    token: Renewed<Secret>,
}

enum Source {
    /// The key of a service account, which registries take as a password.
    Key(Secret),
    /// The login of a person, from `gcloud auth application-default login`.
    Person {
        client_id: String,
        client_secret: Secret,
        refresh_token: Secret,
        token_url: String,
    },
    /// The identity of another cloud or cluster (workload identity federation).
    External(Box<External>),
    /// What the machine or pod that this runs on is.
    Machine { host: String },
}

impl GoogleLogin {
    /// Takes the text of a key file: of a service account, of a person, or of an external
    /// account.
    pub fn from_key(json: &Secret) -> Result<Self, InvalidGoogleLogin> {
        Source::parse(json).map(Self::of)
    }

    /// Logs in as the machine or pod that this runs on: its service account, or the one
    /// that GKE's workload identity gives it.
    pub fn machine(environment: &CloudEnvironment) -> Self {
        let host = environment.get("GCE_METADATA_HOST").map(str::to_owned);
        Self::of(Source::Machine {
            host: host.unwrap_or_else(|| METADATA.to_string()),
        })
    }

    /// Logs in as Google's own programs do: with the file of
    /// `GOOGLE_APPLICATION_CREDENTIALS`, with what `gcloud` has left, or as the machine.
    pub fn default_chain(environment: &CloudEnvironment) -> Result<Self, InvalidGoogleLogin> {
        if let Some(path) = environment.path("GOOGLE_APPLICATION_CREDENTIALS") {
            return Self::from_file(path);
        }
        let folder = environment.path("CLOUDSDK_CONFIG");
        let folder = folder.or_else(|| environment.in_home(".config/gcloud"));
        let file = folder.map(|folder| folder.join("application_default_credentials.json"));
        match file.filter(|file| file.exists()) {
            Some(path) => Self::from_file(path),
            None => Ok(Self::machine(environment)),
        }
    }

    fn from_file(path: PathBuf) -> Result<Self, InvalidGoogleLogin> {
        let json = read_file(&path).map_err(|source| InvalidGoogleLogin::Read { path, source })?;
        Self::from_key(&Secret::new(json))
    }

    fn of(source: Source) -> Self {
        Self(Arc::new(Shared {
            source,
            token: Renewed::new(MARGIN),
        }))
    }

    /// Gives the user name and password of the moment. The future is boxed, as that of
    /// [`EcrLogin`](super::EcrLogin) is.
    pub(super) fn credential<'a>(
        &'a self,
        connector: &'a Connector,
    ) -> BoxFuture<'a, Result<Credential, GoogleError>> {
        Box::pin(async move {
            if let Source::Key(key) = &self.0.source {
                return Ok(Credential::password(KEY_USER, key.expose()));
            }
            let fetch = token::fetch(&self.0.source, connector);
            let token = self.0.token.get(fetch).await?;
            Ok(Credential::password(TOKEN_USER, token.expose()))
        })
    }

    /// Drops the token where it is the one that a registry has refused.
    pub(super) fn forget(&self, is_refused: impl FnOnce(&Credential) -> bool) {
        let as_password = |token: &Secret| Credential::password(TOKEN_USER, token.expose());
        self.0.token.forget(|token| is_refused(&as_password(token)));
    }

    /// Lists what must not be shown.
    pub(super) fn secrets(&self) -> Vec<Secret> {
        let token = self.0.token.latest();
        let token = token.map(|token| Credential::password(TOKEN_USER, token.expose()));
        let mut secrets = match &self.0.source {
            Source::Key(key) => Credential::password(KEY_USER, key.expose()).secrets(),
            Source::Person {
                client_secret,
                refresh_token,
                ..
            } => vec![client_secret.clone(), refresh_token.clone()],
            Source::External(_) | Source::Machine { .. } => Vec::new(),
        };
        secrets.extend(token.iter().flat_map(Credential::secrets));
        secrets
    }
}

impl PartialEq for GoogleLogin {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for GoogleLogin {}

impl fmt::Debug for GoogleLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0.source {
            Source::Key(_) => "GoogleLogin(service account)",
            Source::Person { .. } => "GoogleLogin(person)",
            Source::External(_) => "GoogleLogin(external account)",
            Source::Machine { .. } => "GoogleLogin(machine)",
        })
    }
}

fn read_file(path: &std::path::Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(MAX_FILE)
        .read_to_string(&mut text)?;
    Ok(text)
}

impl Source {
    fn parse(json: &Secret) -> Result<Self, InvalidGoogleLogin> {
        #[derive(Deserialize)]
        struct Kind {
            #[serde(rename = "type")]
            kind: String,
        }
        #[derive(Deserialize)]
        struct Person {
            client_id: String,
            client_secret: String,
            refresh_token: String,
            token_uri: Option<String>,
        }
        let text = json.expose();
        // The parser's own message could show a part of the key.
        let kind: Kind = serde_json::from_str(text).map_err(|_| InvalidGoogleLogin::Json)?;
        match kind.kind.as_str() {
            "service_account" => Ok(Self::Key(json.clone())),
            "authorized_user" => {
                let person: Person =
                    serde_json::from_str(text).map_err(|_| InvalidGoogleLogin::Json)?;
                let token_url = person.token_uri;
                Ok(Self::Person {
                    client_id: person.client_id,
                    client_secret: Secret::new(person.client_secret),
                    refresh_token: Secret::new(person.refresh_token),
                    token_url: external::checked_url(
                        token_url.unwrap_or_else(|| token::TOKEN_URL.to_owned()),
                    )?,
                })
            }
            "external_account" => External::parse(text).map(Box::new).map(Self::External),
            _ => Err(InvalidGoogleLogin::Kind {
                kind: crate::error::clean(&kind.kind, 100),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_files_of_every_kind_are_told_apart() {
        for (json, want) in [
            (
                r#"{"type": "service_account", "private_key": "geheim"}"#,
                "service account",
            ),
            (
                r#"{"type": "authorized_user", "client_id": "i", "client_secret": "geheim",
                    "refresh_token": "geheim"}"#,
                "person",
            ),
            (
                r#"{"type": "external_account", "audience": "a", "token_url": "https://sts/",
                    "subject_token_type": "t", "credential_source": {"file": "/geheim"}}"#,
                "external account",
            ),
        ] {
            let shown = format!("{:?}", GoogleLogin::from_key(&Secret::new(json)).unwrap());
            assert!(shown.contains(want) && !shown.contains("geheim"), "{shown}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_being_shown() {
        for (json, why) in [
            ("geheim", "not JSON"),
            (r#"{"type": "magic", "x": "geheim"}"#, "magic"),
            (
                r#"{"type": "authorized_user", "refresh_token": "geheim"}"#,
                "not JSON",
            ),
            (
                r#"{"type": "external_account", "audience": "a", "token_url": "http://sts/geheim",
                    "subject_token_type": "t", "credential_source": {"file": "/x"}}"#,
                "https",
            ),
            (
                r#"{"type": "external_account", "audience": "a", "token_url": "https://sts/",
                    "subject_token_type": "t", "credential_source": {"executable": {}}}"#,
                "file or url",
            ),
        ] {
            let error = GoogleLogin::from_key(&Secret::new(json))
                .unwrap_err()
                .to_string();
            assert!(error.contains(why) && !error.contains("geheim"), "{error}");
        }
    }
}
