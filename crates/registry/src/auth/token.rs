//! From a challenge to an `Authorization` header: Basic as it is, Bearer through a
//! token service, with one cached token per registry and scope.
//!
//! Whose secret goes where: a password or identity token goes to the registry that
//! it is for and to the token service that this registry names, and over plain HTTP
//! only where the registry itself is spoken to over plain HTTP.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;
use url::Url;

use super::{Challenge, Credential, CredentialError, Credentials, EcrError, GoogleError};
use crate::connector::Connector;
use crate::error::{Refusal, is_certificate_error};
use crate::transport::{read_limited, retry_after, send_fresh};
use crate::{Repository, Secret};

/// Life of a token whose answer names none, as the token protocol says.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// No token is trusted for longer than this, whatever its answer says.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);
const LARGEST_ANSWER: usize = 256 * 1024;
const TOKEN_TIME: Duration = Duration::from_secs(60);
const CLIENT_ID: &str = "ocibuild";

/// What a token must allow, as the texts of the token protocol
/// (`repository:a/b:pull,push`); mounting needs more than one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Scope(BTreeSet<String>);

impl Scope {
    fn of(repository: &Repository, actions: &str) -> Self {
        Self(BTreeSet::from([format!(
            "repository:{}:{actions}",
            repository.path()
        )]))
    }

    fn add(&mut self, other: &Self) {
        self.0.extend(other.0.iter().cloned());
    }

    /// Reads the scope of a challenge: texts with blanks between them.
    fn parse(text: &str) -> Self {
        Self(
            text.split_whitespace()
                .take(16)
                .map(str::to_owned)
                .collect(),
        )
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<&str> = self.0.iter().map(String::as_str).collect();
        f.write_str(&texts.join(" "))
    }
}

/// What a request wants to do, and where.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub(crate) repository: Repository,
    scope: Scope,
}

impl Access {
    pub(crate) fn pull(repository: &Repository) -> Self {
        Self::new(repository, "pull")
    }

    pub(crate) fn push(repository: &Repository) -> Self {
        Self::new(repository, "pull,push")
    }

    pub(crate) fn delete(repository: &Repository) -> Self {
        Self::new(repository, "delete,pull")
    }

    /// Adds pulling from the repository that a blob is mounted from.
    pub(crate) fn and_pull(mut self, source: &Repository) -> Self {
        self.scope.add(&Scope::of(source, "pull"));
        self
    }

    fn new(repository: &Repository, actions: &str) -> Self {
        Self {
            repository: repository.clone(),
            scope: Scope::of(repository, actions),
        }
    }
}

/// Why no header could be made.
#[derive(Debug)]
pub(crate) enum AuthError {
    Credentials(CredentialError),
    Token(TokenError),
    Ecr(EcrError),
    Google(GoogleError),
}

impl From<CredentialError> for AuthError {
    fn from(error: CredentialError) -> Self {
        Self::Credentials(error)
    }
}

impl From<TokenError> for AuthError {
    fn from(error: TokenError) -> Self {
        Self::Token(error)
    }
}

impl From<EcrError> for AuthError {
    fn from(error: EcrError) -> Self {
        Self::Ecr(error)
    }
}

impl From<GoogleError> for AuthError {
    fn from(error: GoogleError) -> Self {
        Self::Google(error)
    }
}

/// A token that could not be had. No variant shows a secret or a URL's query.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The realm of the challenge is not a URL that secrets may go to.
    #[error("the registry names a token service that must not be used: {problem}")]
    Realm {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The token service did not answer.
    #[error("the token service at {host} did not answer")]
    Network {
        /// The token service.
        host: String,
        /// What the HTTP client says, without the URL.
        source: reqwest::Error,
    },
    /// The token service took too long.
    #[error("the token service at {host} did not answer within {} seconds", TOKEN_TIME.as_secs())]
    Slow {
        /// The token service.
        host: String,
    },
    /// The token service refused.
    #[error("the token service at {host} refused: {}", refused(refusal))]
    Refused {
        /// The token service.
        host: String,
        /// What it said.
        refusal: Refusal,
    },
    /// The answer has no token, or one that cannot be sent.
    #[error("the answer of the token service at {host} has no usable token")]
    Answer {
        /// The token service.
        host: String,
    },
}

fn refused(refusal: &Refusal) -> String {
    let mut text = match refusal.status {
        401 | 403 => format!("wrong user name, password or token ({})", refusal.status),
        status => format!("status {status}"),
    };
    // Its own words say more: that an account is disabled, that there is no such project.
    for error in &refusal.errors {
        text.push_str(&format!("; {error}"));
    }
    text
}

impl TokenError {
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Network { source, .. } => !is_certificate_error(source),
            Self::Slow { .. } => true,
            Self::Refused { refusal, .. } => matches!(refusal.status, 408 | 429 | 500..),
            _ => false,
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { refusal, .. } => refusal.retry_after,
            _ => None,
        }
    }
}

struct Token {
    header: HeaderValue,
    expires: Instant,
}

/// The token of one scope, with what challenges have added to the scope. Its lock is
/// held while a token is fetched, so that parallel requests share one.
struct Slot {
    scope: Scope,
    token: Option<Token>,
}

type SlotKey = (String, Scope);
type SharedSlot = Arc<tokio::sync::Mutex<Slot>>;

/// Makes the `Authorization` headers of one client.
pub(crate) struct Authenticator {
    credentials: Credentials,
    /// How each registry wants us to log in, once it has said so.
    challenges: Mutex<HashMap<String, Challenge>>,
    /// Credentials that were found; helpers are slow.
    found: Mutex<HashMap<Repository, Option<Credential>>>,
    slots: Mutex<HashMap<SlotKey, SharedSlot>>,
}

impl Authenticator {
    pub(crate) fn new(credentials: Credentials) -> Self {
        Self {
            credentials,
            challenges: Mutex::default(),
            found: Mutex::default(),
            slots: Mutex::default(),
        }
    }

    /// Gives the header for a request; none before the registry has asked for one.
    pub(crate) async fn header(
        &self,
        access: &Access,
        connector: &Connector,
    ) -> Result<Option<HeaderValue>, AuthError> {
        let registry = access.repository.registry();
        let Some(challenge) = lock(&self.challenges).get(registry).cloned() else {
            return Ok(None);
        };
        let credential = match self.credential(&access.repository, connector).await? {
            Some(Credential::Ecr(login)) => Some(login.credential(connector).await?),
            Some(Credential::Google(login)) => Some(login.credential(connector).await?),
            other => other,
        };
        match (challenge, credential) {
            (_, Some(Credential::RegistryToken(token))) => Ok(bearer(token.expose())),
            (Challenge::Basic, Some(Credential::Password { username, password })) => {
                Ok(basic(&username, &password))
            }
            (Challenge::Basic, _) => Ok(None),
            (Challenge::Bearer { realm, service, .. }, credential) => {
                let service = TokenService::new(&realm, service, access, connector)?;
                let slot = self.slot(access);
                let mut slot = slot.lock().await;
                if let Some(token) = slot.token.as_ref().filter(|t| t.expires > Instant::now()) {
                    return Ok(Some(token.header.clone()));
                }
                let token = service.fetch(credential.as_ref(), &slot.scope).await?;
                let header = token.header.clone();
                slot.token = Some(token);
                Ok(Some(header))
            }
        }
    }

    /// Takes in an answer that wants another login than `used`; tells whether a
    /// second request can fare better.
    pub(crate) async fn challenged(
        &self,
        access: &Access,
        headers: &HeaderMap,
        used: Option<&HeaderValue>,
        connector: &Connector,
    ) -> bool {
        let registry = access.repository.registry();
        let texts = headers.get_all(WWW_AUTHENTICATE).iter();
        let challenge = Challenge::choose(texts.filter_map(|value| value.to_str().ok()));
        let known = match challenge {
            Some(challenge) => {
                lock(&self.challenges).insert(registry.to_owned(), challenge.clone());
                Some(challenge)
            }
            // A 403 for an expired token brings no challenge.
            None => lock(&self.challenges).get(registry).cloned(),
        };
        // A helper may know a newer password than the one that was refused.
        let old = lock(&self.found).remove(&access.repository).flatten();
        let is_refused = |password: &Credential| basic_header(password).as_ref() == used;
        let renews = match &old {
            Some(Credential::Ecr(login)) => {
                login.forget(is_refused);
                true
            }
            Some(Credential::Google(login)) => {
                login.forget(is_refused);
                true
            }
            _ => false,
        };
        match known {
            None => false,
            // Its next password is another one.
            Some(Challenge::Basic) if renews => true,
            Some(Challenge::Basic) => {
                let new = self.credential(&access.repository, connector).await;
                let new = new.ok().flatten();
                new.is_some() && (used.is_none() || new != old)
            }
            Some(Challenge::Bearer { scope, .. }) => {
                let slot = self.slot(access);
                let mut slot = slot.lock().await;
                if let Some(scope) = scope {
                    slot.scope.add(&Scope::parse(&scope));
                }
                // Another request may have renewed the token in the meantime.
                if slot.token.as_ref().map(|token| &token.header) == used {
                    slot.token = None;
                }
                true
            }
        }
    }

    /// Makes a repository that its registry does not have, where its login is one that
    /// may; tells whether it is there now.
    pub(crate) async fn create_repository(
        &self,
        repository: &Repository,
        connector: &Connector,
    ) -> Result<bool, AuthError> {
        match self.credential(repository, connector).await? {
            Some(Credential::Ecr(login)) => Ok(login
                .create_repository(repository.path(), connector)
                .await?),
            _ => Ok(false),
        }
    }

    /// Finds the credential for a repository by its name, else by the endpoint that an
    /// alias leads to.
    async fn credential(
        &self,
        repository: &Repository,
        connector: &Connector,
    ) -> Result<Option<Credential>, CredentialError> {
        if let Some(known) = lock(&self.found).get(repository) {
            return Ok(known.clone());
        }
        let mut found = self.credentials.find(repository).await?;
        if let (None, Some(reached)) = (&found, connector.at_endpoint(repository)) {
            found = self.credentials.find(&reached).await?;
        }
        lock(&self.found).insert(repository.clone(), found.clone());
        Ok(found)
    }

    fn slot(&self, access: &Access) -> SharedSlot {
        let key = (
            access.repository.registry().to_owned(),
            access.scope.clone(),
        );
        let slot = || {
            Arc::new(tokio::sync::Mutex::new(Slot {
                scope: access.scope.clone(),
                token: None,
            }))
        };
        Arc::clone(lock(&self.slots).entry(key).or_insert_with(slot))
    }
}

/// The maps are valid after every statement, so a panic elsewhere does not spoil them.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn basic(username: &str, password: &Secret) -> Option<HeaderValue> {
    let pair = STANDARD.encode(format!("{username}:{}", password.expose()));
    sensitive(format!("Basic {pair}"))
}

/// Gives the header that a credential makes where Basic is wanted.
fn basic_header(credential: &Credential) -> Option<HeaderValue> {
    match credential {
        Credential::Password { username, password } => basic(username, password),
        _ => None,
    }
}

fn bearer(token: &str) -> Option<HeaderValue> {
    sensitive(format!("Bearer {token}"))
}

fn sensitive(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A token service that a challenge names and that we are willing to use.
struct TokenService<'a> {
    realm: Url,
    host: String,
    service: Option<String>,
    connector: &'a Connector,
}

impl<'a> TokenService<'a> {
    fn new(
        realm: &str,
        service: Option<String>,
        access: &Access,
        connector: &'a Connector,
    ) -> Result<Self, TokenError> {
        let bad = |problem| TokenError::Realm { problem };
        let realm = Url::parse(realm).map_err(|_| bad("it is not a URL"))?;
        if !realm.username().is_empty() || realm.password().is_some() {
            return Err(bad("it carries credentials"));
        }
        let realm = match connector.home(&access.repository) {
            Some(home) => home.route(realm),
            None => realm,
        };
        match realm.scheme() {
            "https" => {}
            "http" if connector.trusts_plain_realm(&access.repository, &realm) => {}
            "http" => return Err(bad("it is not encrypted")),
            _ => return Err(bad("it is neither https nor http")),
        }
        let host = realm.host_str().ok_or(bad("it has no host"))?.to_owned();
        Ok(Self {
            realm,
            host,
            service,
            connector,
        })
    }

    async fn fetch(
        &self,
        credential: Option<&Credential>,
        scope: &Scope,
    ) -> Result<Token, TokenError> {
        let request = match credential {
            Some(Credential::IdentityToken(token)) => self.post(token, scope),
            Some(Credential::Password { username, password }) => {
                let request = self.get(scope, Some(username));
                request.basic_auth(username, Some(password.expose()))
            }
            _ => self.get(scope, None),
        };
        tokio::time::timeout(TOKEN_TIME, self.answer(request))
            .await
            .map_err(|_| TokenError::Slow {
                host: self.host.clone(),
            })?
    }

    fn get(&self, scope: &Scope, account: Option<&str>) -> reqwest::RequestBuilder {
        let mut url = self.realm.clone();
        {
            let mut query = url.query_pairs_mut();
            query.extend_pairs(self.service.iter().map(|service| ("service", service)));
            query.extend_pairs(scope.0.iter().map(|scope| ("scope", scope)));
            query.extend_pairs(account.iter().map(|account| ("account", account)));
        }
        self.connector.http(&url).get(url)
    }

    /// Buys an access token with an identity token (the OAuth2 form).
    fn post(&self, identity: &Secret, scope: &Scope) -> reqwest::RequestBuilder {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "refresh_token")
            .append_pair("client_id", CLIENT_ID)
            .append_pair("scope", &scope.to_string())
            .append_pair("refresh_token", identity.expose());
        if let Some(service) = &self.service {
            form.append_pair("service", service);
        }
        self.connector
            .http(&self.realm)
            .post(self.realm.clone())
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.finish())
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Result<Token, TokenError> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
            expires_in: Option<u64>,
        }
        let unusable = || TokenError::Answer {
            host: self.host.clone(),
        };
        let network = |source: reqwest::Error| TokenError::Network {
            host: self.host.clone(),
            source: source.without_url(),
        };
        let sent = Instant::now();
        let mut response = send_fresh(request).await.map_err(network)?;
        let status = response.status();
        let wait = retry_after(response.headers());
        let body = read_limited(&mut response, LARGEST_ANSWER)
            .await
            .map_err(network)?;
        if !status.is_success() {
            return Err(TokenError::Refused {
                host: self.host.clone(),
                refusal: Refusal::new(status.as_u16(), &body, wait),
            });
        }
        let answer: Answer = serde_json::from_slice(&body).map_err(|_| unusable())?;
        let text = answer.token.filter(|text| !text.is_empty());
        let text = text.or(answer.access_token).ok_or_else(unusable)?;
        let life = answer.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs);
        Ok(Token {
            header: bearer(&text).ok_or_else(unusable)?,
            // A tenth is kept back so that a request that starts in time arrives in time.
            expires: sent + life.min(LONGEST_LIFE).mul_f32(0.9),
        })
    }
}
