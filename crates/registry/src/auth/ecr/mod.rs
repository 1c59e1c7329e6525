//! Logging in to Amazon ECR: an access key enters, a password that is good for hours
//! leaves. It is fetched when a registry first asks for one, shared by all clones of a
//! login, and fetched again shortly before it ends or when the registry refuses it.
//!
//! Rules: the ECR API Reference, `GetAuthorizationToken` and `CreateRepository`. See
//! docs/decisions/0013-ecr-login.md.

mod api;
mod error;

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::BoxFuture;
use url::Url;

use super::renewed::Renewed;
use super::{AwsKeys, Credential};
use crate::Secret;
use crate::connector::Connector;

use api::Api;
pub use error::{EcrError, EcrOperation, EcrProblem, InvalidEcrLogin};

/// A password is not used in the last minutes of its life: an upload that begins with
/// it should not be refused on the way.
const MARGIN: TimeDelta = TimeDelta::minutes(10);
/// Life of a password whose answer names no end.
const DEFAULT_LIFE: TimeDelta = TimeDelta::hours(1);

/// What an [`EcrLogin`] is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EcrSettings {
    /// The region of the registry: `us-east-1`.
    pub region: String,
    /// The account that owns the registry: 12 digits.
    pub account: String,
    /// Who asks.
    pub keys: AwsKeys,
    /// Where the API is, in place of Amazon's own address for the region.
    pub endpoint: Option<Url>,
    /// Makes a repository that a push finds missing. ECR, unlike most registries, does
    /// not make it by itself.
    pub create_repository: bool,
}

/// A login to Amazon ECR; clones share the password.
#[derive(Clone)]
pub struct EcrLogin(Arc<Shared>);

struct Shared {
    settings: EcrSettings,
    endpoint: Url,
    password: Renewed<Credential>,
}

impl EcrLogin {
    /// Checks the settings; nothing is connected to before a registry asks for a login.
    pub fn new(settings: EcrSettings) -> Result<Self, InvalidEcrLogin> {
        settings.check()?;
        let endpoint = match &settings.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => settings.amazons_endpoint()?,
        };
        Ok(Self(Arc::new(Shared {
            settings,
            endpoint,
            password: Renewed::new(MARGIN),
        })))
    }

    /// Gives the registry that the login is for:
    /// `123456789012.dkr.ecr.us-east-1.amazonaws.com`.
    pub fn registry(&self) -> String {
        let EcrSettings {
            region, account, ..
        } = &self.0.settings;
        let domain = self.0.settings.domain();
        format!("{account}.dkr.ecr.{region}.{domain}")
    }

    /// Gives the user name and password of the moment.
    ///
    /// The future is boxed: few registries need this, and its state would be a part of that
    /// of every request.
    pub(super) fn credential<'a>(
        &'a self,
        connector: &'a Connector,
    ) -> BoxFuture<'a, Result<Credential, EcrError>> {
        Box::pin(self.0.password.get(self.fetch(connector)))
    }

    async fn fetch(&self, connector: &Connector) -> Result<(Credential, DateTime<Utc>), EcrError> {
        let login = self.api(connector).authorization_token().await?;
        let credential = Credential::Password {
            username: login.username,
            password: login.password,
        };
        let expires = login.expires.unwrap_or_else(|| Utc::now() + DEFAULT_LIFE);
        Ok((credential, expires))
    }

    /// Drops the password where it is the one that a registry has refused; a newer one
    /// stays.
    pub(super) fn forget(&self, is_refused: impl FnOnce(&Credential) -> bool) {
        self.0.password.forget(is_refused);
    }

    /// Makes a repository where the settings want it; tells whether it is there now.
    pub(super) fn create_repository<'a>(
        &'a self,
        name: &'a str,
        connector: &'a Connector,
    ) -> BoxFuture<'a, Result<bool, EcrError>> {
        Box::pin(async move {
            if !self.0.settings.create_repository {
                return Ok(false);
            }
            self.api(connector).create_repository(name).await?;
            Ok(true)
        })
    }

    /// Lists what must not be shown: the key's secrets and the password of the moment.
    pub(super) fn secrets(&self) -> Vec<Secret> {
        let mut secrets = self.0.settings.keys.secrets();
        let password = self.0.password.latest();
        secrets.extend(password.iter().flat_map(Credential::secrets));
        secrets
    }

    fn api<'a>(&'a self, connector: &'a Connector) -> Api<'a> {
        Api {
            settings: &self.0.settings,
            endpoint: &self.0.endpoint,
            connector,
        }
    }
}

impl PartialEq for EcrLogin {
    /// Two logins are the same when they share a password.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for EcrLogin {}

impl fmt::Debug for EcrLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EcrLogin({})", self.registry())
    }
}

impl EcrSettings {
    fn check(&self) -> Result<(), InvalidEcrLogin> {
        let is_account =
            self.account.len() == 12 && self.account.bytes().all(|b| b.is_ascii_digit());
        if !is_account {
            return Err(InvalidEcrLogin::Account);
        }
        let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        // It becomes a part of host names.
        let is_region = !self.region.is_empty()
            && self.region.len() <= 40
            && self.region.bytes().all(is_word)
            && !self.region.starts_with('-')
            && !self.region.ends_with('-');
        if !is_region {
            return Err(InvalidEcrLogin::Region);
        }
        if let AwsKeys::Fixed(key) = &self.keys
            && !key.is_sendable()
        {
            return Err(InvalidEcrLogin::Key);
        }
        match &self.endpoint {
            Some(endpoint) if !is_endpoint(endpoint) => Err(InvalidEcrLogin::Endpoint),
            _ => Ok(()),
        }
    }

    fn amazons_endpoint(&self) -> Result<Url, InvalidEcrLogin> {
        let text = format!("https://api.ecr.{}.{}/", self.region, self.domain());
        Url::parse(&text).map_err(|_| InvalidEcrLogin::Region)
    }

    fn domain(&self) -> &'static str {
        domain_of(&self.region)
    }
}

/// Gives the domain of a region's part of Amazon: China has one of its own.
pub(super) fn domain_of(region: &str) -> &'static str {
    match region.starts_with("cn-") {
        true => "amazonaws.com.cn",
        false => "amazonaws.com",
    }
}

fn is_endpoint(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::AccessKey;

    fn key() -> AccessKey {
        AccessKey {
            id: "AKID".to_owned(),
            secret: Secret::new("geheim"),
            session_token: Some(Secret::new("sitzung")),
        }
    }

    fn settings() -> EcrSettings {
        EcrSettings {
            region: "eu-central-1".to_owned(),
            account: "123456789012".to_owned(),
            keys: key().into(),
            endpoint: None,
            create_repository: false,
        }
    }

    #[test]
    fn regions_lead_to_amazons_hosts() {
        for (region, registry, endpoint) in [
            (
                "eu-central-1",
                "123456789012.dkr.ecr.eu-central-1.amazonaws.com",
                "https://api.ecr.eu-central-1.amazonaws.com/",
            ),
            (
                "cn-north-1",
                "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
                "https://api.ecr.cn-north-1.amazonaws.com.cn/",
            ),
        ] {
            let login = EcrLogin::new(EcrSettings {
                region: region.to_owned(),
                ..settings()
            })
            .unwrap();
            assert_eq!(login.registry(), registry);
            assert_eq!(login.0.endpoint.as_str(), endpoint);
        }
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        type Change = fn(&mut EcrSettings);
        let cases: [(Change, InvalidEcrLogin); 10] = [
            (|s| s.account = "1234".to_owned(), InvalidEcrLogin::Account),
            (
                |s| s.account = "12345678901x".to_owned(),
                InvalidEcrLogin::Account,
            ),
            (|s| s.region = String::new(), InvalidEcrLogin::Region),
            (
                |s| s.region = "evil.example/".to_owned(),
                InvalidEcrLogin::Region,
            ),
            (
                |s| {
                    s.keys = AccessKey {
                        id: String::new(),
                        ..key()
                    }
                    .into()
                },
                InvalidEcrLogin::Key,
            ),
            (
                |s| {
                    s.keys = AccessKey {
                        secret: Secret::new("a\nb"),
                        ..key()
                    }
                    .into()
                },
                InvalidEcrLogin::Key,
            ),
            (
                |s| {
                    s.keys = AccessKey {
                        session_token: Some(Secret::new("")),
                        ..key()
                    }
                    .into()
                },
                InvalidEcrLogin::Key,
            ),
            (
                |s| s.endpoint = Url::parse("ftp://h/").ok(),
                InvalidEcrLogin::Endpoint,
            ),
            (
                |s| s.endpoint = Url::parse("https://u:p@h/").ok(),
                InvalidEcrLogin::Endpoint,
            ),
            (
                |s| s.endpoint = Url::parse("https://h/?x").ok(),
                InvalidEcrLogin::Endpoint,
            ),
        ];
        for (change, want) in cases {
            let mut settings = settings();
            change(&mut settings);
            let shown = format!("{settings:?}");
            assert_eq!(EcrLogin::new(settings).unwrap_err(), want, "{shown}");
        }
    }

    #[test]
    fn nothing_shows_a_secret() {
        let login = EcrLogin::new(settings()).unwrap();
        let password = Credential::password("AWS", "passwort");
        login.0.password.keep(password, Utc::now());
        let shown = format!(
            "{login:?} {:?} {:?}",
            settings(),
            Credential::Ecr(login.clone())
        );
        for secret in ["geheim", "sitzung", "passwort", "AKID"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        let listed: Vec<String> = login
            .secrets()
            .iter()
            .map(|s| s.expose().to_owned())
            .collect();
        assert_eq!(
            listed,
            ["geheim", "sitzung", "passwort", "QVdTOnBhc3N3b3J0"]
        );
    }
}
