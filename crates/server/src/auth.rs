//! Who may ask for what. Without configured tokens everybody may ask for everything, as
//! Darwin's clients expect. With tokens every request needs one: as a bearer token
//! (RFC 6750), or as the password of Basic authentication (RFC 7617), which is what
//! browsers can send.
//!
//! A tenant sees its own tasks only; to it, all others do not exist.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ocibuild_store::Task;
use sha2::{Digest as _, Sha256};

use crate::api::error::Detail;
use crate::app::App;
use crate::config::Token;

/// Everybody who has a token.
#[derive(Default)]
pub(crate) struct Guard {
    known: Vec<Known>,
}

/// A token is kept and compared as its digest: the time that takes says nothing about it.
struct Known {
    digest: [u8; 32],
    who: Principal,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Principal {
    /// Sees everything: an administrator, or anybody where there are no tokens.
    Everything,
    /// Sees what is its own.
    Tenant(String),
}

impl Principal {
    /// The tenant, if it is one.
    pub(crate) fn tenant(&self) -> Option<&str> {
        match self {
            Self::Everything => None,
            Self::Tenant(name) => Some(name),
        }
    }

    /// Tells whether a task exists for this one.
    pub(crate) fn sees(&self, task: &Task) -> bool {
        match self {
            Self::Everything => true,
            Self::Tenant(name) => task.tenant.as_deref() == Some(name),
        }
    }
}

impl Guard {
    pub(crate) fn new(tokens: &[Token]) -> Self {
        let known = tokens.iter().map(|token| Known {
            digest: Sha256::digest(token.secret.expose()).into(),
            who: match &token.tenant {
                Some(name) => Principal::Tenant(name.clone()),
                None => Principal::Everything,
            },
        });
        Self {
            known: known.collect(),
        }
    }

    /// Tells whether tokens are needed.
    pub(crate) fn is_on(&self) -> bool {
        !self.known.is_empty()
    }

    fn recognise(&self, headers: &HeaderMap) -> Option<Principal> {
        if !self.is_on() {
            return Some(Principal::Everything);
        }
        let digest: [u8; 32] = Sha256::digest(presented(headers)?).into();
        let known = self.known.iter().find(|known| known.digest == digest)?;
        Some(known.who.clone())
    }
}

/// Gives the token that a request shows.
fn presented(headers: &HeaderMap) -> Option<String> {
    let header = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, value) = header.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
    let (_, password) = pair.split_once(':')?;
    Some(password.to_owned())
}

/// Lets requests pass that may, and tells the others how to.
pub(crate) async fn check(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Some(who) = app.guard.recognise(request.headers()) {
        request.extensions_mut().insert(who);
        return next.run(request).await;
    }
    let challenge = [(
        header::WWW_AUTHENTICATE,
        "Bearer realm=\"ocibuild\", Basic realm=\"ocibuild: the token is the password\"",
    )];
    let body = axum::Json(Detail::new("This service needs a token"));
    (StatusCode::UNAUTHORIZED, challenge, body).into_response()
}

#[cfg(test)]
mod tests {
    use ocibuild_registry::Secret;

    use super::*;

    fn headers(authorization: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
        headers
    }

    #[test]
    fn without_tokens_everybody_sees_everything() {
        let guard = Guard::new(&[]);
        assert!(!guard.is_on());
        assert_eq!(
            guard.recognise(&HeaderMap::new()),
            Some(Principal::Everything)
        );
        assert_eq!(
            guard.recognise(&headers("Bearer x")),
            Some(Principal::Everything)
        );
    }

    #[test]
    fn tokens_come_as_bearer_or_as_a_password() {
        let token = |tenant: Option<&str>, secret| Token {
            tenant: tenant.map(str::to_owned),
            secret: Secret::new(secret),
        };
        let guard = Guard::new(&[token(Some("team"), "t-1"), token(None, "admin")]);
        let team = Some(Principal::Tenant("team".to_owned()));
        let basic = |pair| format!("Basic {}", STANDARD.encode(pair));
        for (header, expected) in [
            ("Bearer t-1".to_owned(), team.clone()),
            ("bearer  t-1".to_owned(), team.clone()),
            (basic("anybody:t-1"), team),
            (basic(":admin"), Some(Principal::Everything)),
            ("Bearer t-2".to_owned(), None),
            ("Bearer ".to_owned(), None),
            (basic("t-1:"), None),
            ("Basic !".to_owned(), None),
            ("Digest t-1".to_owned(), None),
        ] {
            assert_eq!(guard.recognise(&headers(&header)), expected, "{header}");
        }
        assert_eq!(guard.recognise(&HeaderMap::new()), None);
    }
}
