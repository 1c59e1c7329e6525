//! One request to a registry, carried through: login, redirects, idle limits,
//! retries. A [`Request`] enters; a [`Response`] with a success status leaves.
//!
//! A secret header goes to the origin that the request was made for and to no other,
//! whatever `Location` says, and a redirect never leads from TLS to plain HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use reqwest::Method;
use reqwest::header::{
    AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
    SERVER,
};
use url::Url;

use crate::Repository;
use crate::action::Action;
use crate::auth::{Access, AuthError, Authenticator};
use crate::connector::Connector;
use crate::error::{Error, Refusal};
use crate::home::Home;
use crate::retry::{Backoff, Retry};
use crate::upload::{Brake, Paces, Part, body_of};

const MAX_REDIRECTS: usize = 5;
/// A first login, and a renewal where the token of a first login was refused.
const MAX_LOGINS: usize = 2;
/// Longest pause that a registry may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// Longest silence that is waited for, whatever the settings say.
const LONGEST_IDLE: Duration = Duration::from_secs(24 * 3600);

/// A request that can be sent any number of times.
pub(crate) struct Request<'a> {
    pub(crate) action: Action,
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) access: Access,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body<'a>,
}

pub(crate) enum Body<'a> {
    Empty,
    Bytes(Bytes),
    Part(Part<'a>),
}

impl<'a> Request<'a> {
    pub(crate) fn new(action: Action, method: Method, url: Url, access: Access) -> Self {
        Self {
            action,
            method,
            url,
            access,
            headers: HeaderMap::new(),
            body: Body::Empty,
        }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(crate) fn body(mut self, body: Body<'a>) -> Self {
        self.body = body;
        self
    }

    fn is_read(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }

    fn protocol(&self, problem: &'static str) -> Error {
        Error::Protocol {
            action: self.action.clone(),
            problem,
        }
    }
}

/// What every request of a client goes through.
#[derive(Clone)]
pub(crate) struct Transport {
    connector: Arc<Connector>,
    authenticator: Arc<Authenticator>,
    retry: Retry,
    /// What is known of how much each registry takes at once.
    pub(crate) paces: Arc<Paces>,
}

impl Transport {
    pub(crate) fn new(connector: Connector, authenticator: Authenticator, retry: Retry) -> Self {
        Self {
            connector: Arc::new(connector),
            authenticator: Arc::new(authenticator),
            retry,
            paces: Arc::default(),
        }
    }

    /// Gives the same with another patience; connections and tokens stay shared.
    pub(crate) fn with_retry(&self, retry: Retry) -> Self {
        Self {
            retry,
            ..self.clone()
        }
    }

    /// Gives how hosts are reached.
    pub(crate) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Gives the URL of `rest` below a repository: `/v2/<repository>/<rest>`.
    pub(crate) fn url(
        &self,
        repository: &Repository,
        rest: &str,
        action: &Action,
    ) -> Result<Url, Error> {
        let path = format!("{}/{rest}", repository.path());
        let url = self.home(repository, action)?.url(&path);
        url.ok_or_else(|| no_url(action))
    }

    fn home(&self, repository: &Repository, action: &Action) -> Result<Home, Error> {
        let home = self.connector.home(repository);
        home.ok_or_else(|| no_url(action))
    }

    /// Starts counting the attempts of one piece of work.
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(&self.retry)
    }

    /// Sends a request until it succeeds, fails for good, or retrying is over.
    pub(crate) async fn send(&self, request: &Request<'_>) -> Result<Response, Error> {
        let mut backoff = self.backoff();
        loop {
            match self.send_once(request).await {
                Ok(response) => return Ok(response),
                Err(error) => backoff.pause(error).await?,
            }
        }
    }

    /// Sends a request, and again where the registry wants us to log in.
    ///
    /// The future is boxed, since it is a part of whatever pulls or pushes.
    pub(crate) fn send_once<'a>(
        &'a self,
        request: &'a Request<'_>,
    ) -> BoxFuture<'a, Result<Response, Error>> {
        Box::pin(self.send_with_login(request))
    }

    async fn send_with_login(&self, request: &Request<'_>) -> Result<Response, Error> {
        let home = self.home(&request.access.repository, &request.action)?;
        for logins in 0.. {
            let header = self
                .authenticator
                .header(&request.access, &self.connector)
                .await
                .map_err(|error| login_error(request, error))?;
            let mut answer = self.follow(request, &home, header.as_ref()).await?;
            let status = answer.response.status();
            if status.is_success() {
                return Ok(Response {
                    response: answer.response,
                    url: answer.url,
                    home,
                    action: request.action.clone(),
                    idle: self.retry.idle,
                    answered_in: answer.answered_in,
                });
            }
            let headers = answer.response.headers().clone();
            let body = self.error_body(request, &mut answer.response).await;
            let server = headers.get(SERVER).and_then(|value| value.to_str().ok());
            let refusal =
                Refusal::new(status.as_u16(), &body, retry_after(&headers)).answered_by(server);
            let renewable = logins < MAX_LOGINS
                && is_about_login(request, &refusal, header.is_some() && logins == 0);
            // What another origin says about logging in is not about our login.
            if renewable
                && home.owns(&answer.url)
                && self
                    .authenticator
                    .challenged(&request.access, &headers, header.as_ref(), &self.connector)
                    .await
            {
                continue;
            }
            return Err(refused(request, refusal));
        }
        Err(request.protocol("it asks for one login after the other"))
    }

    /// Makes the repository of a request that the registry does not have, where the
    /// caller's login is one that may; tells whether it is there now.
    pub(crate) async fn create_repository(&self, request: &Request<'_>) -> Result<bool, Error> {
        self.authenticator
            .create_repository(&request.access.repository, &self.connector)
            .await
            .map_err(|error| login_error(request, error))
    }

    /// Sends a request along its redirects.
    async fn follow(
        &self,
        request: &Request<'_>,
        home: &Home,
        header: Option<&HeaderValue>,
    ) -> Result<Answer, Error> {
        let mut url = request.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let header = header.filter(|_| home.owns(&url));
            let answer = self.exchange(request, home, url, header).await?;
            if !answer.response.status().is_redirection() || !request.is_read() {
                return Ok(answer);
            }
            let Some(location) = answer.response.headers().get(LOCATION) else {
                return Ok(answer);
            };
            let next = home.resolve(&answer.url, location);
            url = next.map_err(|problem| request.protocol(problem))?;
        }
        Err(request.protocol("it redirects too often"))
    }

    /// One request, one answer.
    async fn exchange(
        &self,
        request: &Request<'_>,
        home: &Home,
        url: Url,
        header: Option<&HeaderValue>,
    ) -> Result<Answer, Error> {
        let (activity, brake) = (Activity::new(), Brake::new());
        let client = self.connector.http(&url);
        let mut builder = client
            .request(request.method.clone(), url.clone())
            .headers(request.headers.clone());
        if let Some(header) = header {
            builder = builder.header(AUTHORIZATION, header.clone());
        }
        builder = match &request.body {
            Body::Empty if request.is_read() => builder,
            Body::Empty => builder.header(CONTENT_LENGTH, 0),
            Body::Bytes(bytes) => {
                let body = body_of(bytes, &activity, &brake);
                builder.header(CONTENT_LENGTH, bytes.len()).body(body)
            }
            Body::Part(part) => {
                let body = part.body(&request.action, &activity, &brake)?;
                builder.header(CONTENT_LENGTH, part.length()).body(body)
            }
        };
        match activity.watch(builder.send(), self.retry.idle).await {
            Some(Ok(response)) => {
                if !response.status().is_success() {
                    brake.stop();
                }
                Ok(Answer {
                    response,
                    url,
                    answered_in: activity.start.elapsed(),
                    _brake: brake,
                })
            }
            Some(Err(source)) => Err(Error::Network {
                action: request.action.clone(),
                peer: home.peer(&url),
                source: source.without_url(),
            }),
            None => Err(Error::Stalled {
                action: request.action.clone(),
                peer: home.peer(&url),
                idle: self.retry.idle,
            }),
        }
    }

    /// Reads an error's body as far as it is of use; that it breaks off is no news.
    async fn error_body(&self, request: &Request<'_>, response: &mut reqwest::Response) -> Bytes {
        if request.method == Method::HEAD {
            return Bytes::new();
        }
        let read = read_limited(response, Refusal::MAX_BODY);
        match tokio::time::timeout(self.retry.idle, read).await {
            Ok(Ok(body)) => body,
            _ => Bytes::new(),
        }
    }
}

fn no_url(action: &Action) -> Error {
    Error::Protocol {
        action: action.clone(),
        problem: "the registry's name does not make a URL",
    }
}

/// Tells whether another login may help. ECR answers 403 to an expired token and says
/// so in the body, which the answer to a HEAD does not have: there a token that was
/// used gets one more chance.
fn is_about_login(request: &Request<'_>, refusal: &Refusal, first_use: bool) -> bool {
    match refusal.status {
        401 => true,
        403 => refusal.says_expired() || (request.method == Method::HEAD && first_use),
        _ => false,
    }
}

fn refused(request: &Request<'_>, mut refusal: Refusal) -> Error {
    refusal.sent = match &request.body {
        Body::Empty => None,
        Body::Bytes(bytes) => Some(bytes.len() as u64),
        Body::Part(part) => Some(part.length()),
    };
    Error::Refused {
        action: request.action.clone(),
        refusal: Box::new(refusal),
    }
}

fn login_error(request: &Request<'_>, error: AuthError) -> Error {
    let action = request.action.clone();
    let registry = request.access.repository.registry().to_owned();
    match error {
        AuthError::Credentials(source) => Error::Credentials {
            action,
            registry,
            source,
        },
        AuthError::Token(source) => Error::Token {
            action,
            registry,
            source: Box::new(source),
        },
        AuthError::Google(source) => Error::Google {
            action,
            registry,
            source: Box::new(source),
        },
        AuthError::Ecr(source) => Error::Ecr {
            action,
            registry,
            source: Box::new(source),
        },
    }
}

/// Sends a small request that may be carried out twice. A connection that was kept for
/// its next use may be closing at the other end, as after an upload that was refused
/// before it was read; a request that meets this is sent once more.
pub(crate) async fn send_fresh(
    request: reqwest::RequestBuilder,
) -> Result<reqwest::Response, reqwest::Error> {
    let again = request.try_clone();
    match (request.send().await, again) {
        (Err(error), Some(again)) if error.is_request() && !error.is_connect() => {
            let error = error.without_url();
            tracing::debug!(%error, "a kept connection was closed, a new one is used");
            again.send().await
        }
        (answer, _) => answer,
    }
}

/// Reads `Retry-After` in seconds; dates are rare and not worth a clock.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    let seconds: u64 = text.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_PAUSE))
}

/// Reads a body up to about `limit` bytes and drops the rest.
pub(crate) async fn read_limited(
    response: &mut reqwest::Response,
    limit: usize,
) -> Result<Bytes, reqwest::Error> {
    let mut body = BytesMut::new();
    while body.len() < limit {
        match response.chunk().await? {
            Some(chunk) => body.extend_from_slice(&chunk),
            None => break,
        }
    }
    body.truncate(limit);
    Ok(body.freeze())
}

/// Any answer whose body has not been read.
struct Answer {
    response: reqwest::Response,
    url: Url,
    answered_in: Duration,
    /// What is left of the request's body stands still as long as this lives.
    _brake: Brake,
}

/// A successful answer whose body has not been read.
pub(crate) struct Response {
    response: reqwest::Response,
    url: Url,
    home: Home,
    action: Action,
    idle: Duration,
    answered_in: Duration,
}

impl Response {
    /// Gives the time between the request and this answer.
    pub(crate) fn answered_in(&self) -> Duration {
        self.answered_in
    }

    pub(crate) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// Gives a header that is a text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// Gives the URL that the `Location` header means.
    pub(crate) fn location(&self) -> Result<Url, Error> {
        let protocol = |problem| Error::Protocol {
            action: self.action.clone(),
            problem,
        };
        let location = self
            .response
            .headers()
            .get(LOCATION)
            .ok_or_else(|| protocol("its answer has no Location header"))?;
        self.resolve(location).map_err(protocol)
    }

    /// Resolves a URL that a header of the answer names.
    pub(crate) fn resolve(&self, location: &HeaderValue) -> Result<Url, &'static str> {
        self.home.resolve(&self.url, location)
    }

    /// Gives the next piece of the body, at its end none.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        match tokio::time::timeout(self.idle, self.response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(source)) => Err(Error::Network {
                action: self.action.clone(),
                peer: self.home.peer(&self.url),
                source: source.without_url(),
            }),
            Err(_) => Err(Error::Stalled {
                action: self.action.clone(),
                peer: self.home.peer(&self.url),
                idle: self.idle,
            }),
        }
    }

    /// Gives the whole body, which may have at most `limit` bytes.
    pub(crate) async fn bytes(&mut self, limit: u64) -> Result<Bytes, Error> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if body.len() as u64 + chunk.len() as u64 > limit {
                return Err(Error::TooLarge {
                    action: self.action.clone(),
                    limit,
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }
}

/// When a transfer last moved, so that a long upload is not mistaken for a hung one.
#[derive(Debug, Clone)]
pub(crate) struct Activity {
    start: Instant,
    last_millis: Arc<AtomicU64>,
}

impl Activity {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            last_millis: Arc::default(),
        }
    }

    /// Notes that something moved.
    pub(crate) fn touch(&self) {
        let millis = self.start.elapsed().as_millis();
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        self.last_millis.store(millis, Ordering::Relaxed);
    }

    /// Waits for `work`; gives none once nothing has moved for the time `idle`.
    async fn watch<T>(&self, work: impl Future<Output = T>, idle: Duration) -> Option<T> {
        let mut work = std::pin::pin!(work);
        // A caller's "for ever" must not overflow the clock.
        let idle = idle.min(LONGEST_IDLE);
        loop {
            let last = Duration::from_millis(self.last_millis.load(Ordering::Relaxed));
            let due = self.start + last + idle;
            if due <= Instant::now() {
                return None;
            }
            tokio::select! {
                done = &mut work => return Some(done),
                () = tokio::time::sleep_until(due.into()) => {}
            }
        }
    }
}
