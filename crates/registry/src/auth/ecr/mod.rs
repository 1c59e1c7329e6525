//! Logging in to Amazon ECR: an access key enters, a password that is good for hours
//! leaves. It is fetched when a registry first asks for one, shared by all clones of a
//! login, and fetched again shortly before it ends or when the registry refuses it.
//!
//! Rules: the ECR API Reference, `GetAuthorizationToken` and `CreateRepository`. See
//! docs/decisions/0013-ecr-login.md.

mod api;
mod error;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use url::Url;

use super::{AccessKey, Credential};
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
    pub key: AccessKey,
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
    password: Mutex<Option<Password>>,
    /// Held while a password is fetched, so that parallel requests share one.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Password {
    credential: Credential,
    use_until: DateTime<Utc>,
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
            password: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
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
    pub(super) async fn credential(&self, connector: &Connector) -> Result<Credential, EcrError> {
        if let Some(usable) = self.usable() {
            return Ok(usable);
        }
        let _fetching = self.0.fetching.lock().await;
        // Another request may have fetched one while this one waited.
        if let Some(usable) = self.usable() {
            return Ok(usable);
        }
        let login = self.api(connector).authorization_token().await?;
        let credential = Credential::Password {
            username: login.username,
            password: login.password,
        };
        let expires = login.expires.unwrap_or_else(|| Utc::now() + DEFAULT_LIFE);
        // A time at the beginning of all times has no time before it.
        let use_until = expires.checked_sub_signed(MARGIN).unwrap_or(expires);
        *self.password() = Some(Password {
            credential: credential.clone(),
            use_until,
        });
        Ok(credential)
    }

    /// Drops the password where it is the one that a registry has refused; a newer one
    /// stays.
    pub(super) fn forget(&self, is_refused: impl FnOnce(&Credential) -> bool) {
        let mut password = self.password();
        if password.as_ref().is_some_and(|p| is_refused(&p.credential)) {
            *password = None;
        }
    }

    /// Makes a repository where the settings want it; tells whether it is there now.
    pub(super) async fn create_repository(
        &self,
        name: &str,
        connector: &Connector,
    ) -> Result<bool, EcrError> {
        if !self.0.settings.create_repository {
            return Ok(false);
        }
        self.api(connector).create_repository(name).await?;
        Ok(true)
    }

    /// Lists what must not be shown: the key's secrets and the password of the moment.
    pub(super) fn secrets(&self) -> Vec<Secret> {
        let key = &self.0.settings.key;
        let mut secrets = vec![key.secret.clone()];
        secrets.extend(key.session_token.clone());
        let password = self.password().clone();
        secrets.extend(password.iter().flat_map(|p| p.credential.secrets()));
        secrets
    }

    fn usable(&self) -> Option<Credential> {
        let password = self.password();
        let usable = password.as_ref().filter(|p| Utc::now() < p.use_until)?;
        Some(usable.credential.clone())
    }

    /// The value is whole after every statement, so a panic elsewhere does not spoil it.
    fn password(&self) -> MutexGuard<'_, Option<Password>> {
        let password = self.0.password.lock();
        password.unwrap_or_else(PoisonError::into_inner)
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
        let token = self.key.session_token.as_ref().map(Secret::expose);
        let parts = [
            Some(self.key.id.as_str()),
            Some(self.key.secret.expose()),
            token,
        ];
        let is_part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic());
        if !parts.into_iter().flatten().all(is_part) {
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

    /// Gives the domain of the region's part of Amazon: China has one of its own.
    fn domain(&self) -> &'static str {
        match self.region.starts_with("cn-") {
            true => "amazonaws.com.cn",
            false => "amazonaws.com",
        }
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

    fn settings() -> EcrSettings {
        EcrSettings {
            region: "eu-central-1".to_owned(),
            account: "123456789012".to_owned(),
            key: AccessKey {
                id: "AKID".to_owned(),
                secret: Secret::new("geheim"),
                session_token: Some(Secret::new("sitzung")),
            },
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
            (|s| s.key.id = String::new(), InvalidEcrLogin::Key),
            (|s| s.key.secret = Secret::new("a\nb"), InvalidEcrLogin::Key),
            (
                |s| s.key.session_token = Some(Secret::new("")),
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
        *login.password() = Some(Password {
            credential: Credential::password("AWS", "passwort"),
            use_until: Utc::now(),
        });
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
