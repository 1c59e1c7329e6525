//! A login before the registry: Basic, or tokens that wear out.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::ecr::{self, EcrService};
use super::lock;

const FORM_LIMIT: usize = 64 * 1024;

/// What a registry wants to see.
#[derive(Debug, Clone)]
pub enum Login {
    /// Nothing.
    None,
    /// User name and password with every request.
    Basic {
        /// The user name.
        username: String,
        /// The password.
        password: String,
    },
    /// A token of the token service under `/token`.
    Token(TokenLogin),
    /// What Amazon ECR wants: Basic with a password that its API, at `/`, gives for a
    /// signed request.
    Ecr(EcrService),
}

impl Login {
    /// Wants a user name and a password with every request.
    pub fn basic(username: &str, password: &str) -> Self {
        Self::Basic {
            username: username.to_owned(),
            password: password.to_owned(),
        }
    }

    /// Wants a token, which the token service gives for a user name and a password.
    pub fn token(username: &str, password: &str) -> Self {
        Self::Token(TokenLogin {
            username: username.to_owned(),
            password: password.to_owned(),
            identity: None,
            uses: None,
            expires_in: 300,
            realm: None,
            expired_is_403: false,
        })
    }
}

/// A login with tokens.
#[derive(Debug, Clone)]
pub struct TokenLogin {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: String,
    /// An identity token that buys tokens too.
    pub identity: Option<String>,
    /// How many requests a token is good for, whatever the service says. Counting
    /// instead of waiting keeps tests quick and the same every time.
    pub uses: Option<u32>,
    /// The life that the service promises, in seconds.
    pub expires_in: u64,
    /// A token service to name in place of the registry's own.
    pub realm: Option<String>,
    /// A worn-out token is answered with 403 and a message, as ECR does.
    pub expired_is_403: bool,
}

pub(super) struct Gate {
    login: Login,
    realm: String,
    tokens: Mutex<HashMap<String, Grant>>,
    ecr: ecr::State,
}

struct Grant {
    scopes: Vec<String>,
    uses_left: Option<u32>,
}

impl Gate {
    pub(super) fn new(login: Login, address: SocketAddr) -> Self {
        let own = format!("http://{address}/token");
        let realm = match &login {
            Login::Token(TokenLogin {
                realm: Some(realm), ..
            }) => realm.clone(),
            _ => own,
        };
        Self {
            login,
            realm,
            tokens: Mutex::default(),
            ecr: ecr::State::default(),
        }
    }

    /// Lets a request through, or answers it.
    pub(super) async fn check(&self, request: Request) -> Result<Request, Box<Response>> {
        match &self.login {
            Login::None => Ok(request),
            Login::Basic { username, password } => {
                match authorization(&request) == basic(username, password) {
                    true => Ok(request),
                    false => Err(Box::new(unauthorized("Basic realm=\"test\"".to_owned()))),
                }
            }
            Login::Token(login) if request.uri().path() == "/token" => {
                Err(Box::new(self.token_service(login, request).await))
            }
            Login::Token(login) => self.check_token(login, request),
            Login::Ecr(service) => self.ecr.check(service, request).await,
        }
    }

    fn check_token(&self, login: &TokenLogin, request: Request) -> Result<Request, Box<Response>> {
        let wanted = scopes(request.method(), request.uri());
        let challenge = || {
            let (realm, scope) = (&self.realm, wanted.join(" "));
            Box::new(unauthorized(format!(
                "Bearer realm=\"{realm}\",service=\"test\",scope=\"{scope}\""
            )))
        };
        let header = authorization(&request);
        let mut tokens = lock(&self.tokens);
        let token = header.strip_prefix("Bearer ").unwrap_or_default();
        let Some(grant) = tokens.get_mut(token) else {
            return Err(challenge());
        };
        if grant.uses_left == Some(0) {
            return Err(match login.expired_is_403 {
                true => Box::new(expired()),
                false => challenge(),
            });
        }
        grant.uses_left = grant.uses_left.map(|left| left - 1);
        match wanted.iter().all(|wanted| grant.allows(wanted)) {
            true => Ok(request),
            false => Err(challenge()),
        }
    }

    async fn token_service(&self, login: &TokenLogin, request: Request) -> Response {
        let known = authorization(&request) == basic(&login.username, &login.password);
        let (method, query) = (request.method().clone(), request.uri().query());
        let query = query.unwrap_or_default().to_owned();
        let (known, fields) = match method {
            Method::GET => (known, fields(query.as_bytes())),
            _ => {
                let body = axum::body::to_bytes(request.into_body(), FORM_LIMIT).await;
                let fields = fields(&body.unwrap_or_default());
                let identity = fields.iter().find(|(name, _)| name == "refresh_token");
                let known =
                    identity.is_some_and(|(_, token)| Some(token) == login.identity.as_ref());
                (known, fields)
            }
        };
        if !known {
            return unauthorized("Basic realm=\"token\"".to_owned());
        }
        let scopes = fields.into_iter().filter(|(name, _)| name == "scope");
        let scopes = scopes.flat_map(|(_, scope)| {
            let scopes: Vec<String> = scope.split(' ').map(str::to_owned).collect();
            scopes
        });
        let token = uuid::Uuid::new_v4().to_string();
        let grant = Grant {
            scopes: scopes.collect(),
            uses_left: login.uses,
        };
        lock(&self.tokens).insert(token.clone(), grant);
        Json(json!({"token": token, "expires_in": login.expires_in})).into_response()
    }
}

impl Grant {
    /// Compares `repository:<name>:<actions>` with what was granted.
    fn allows(&self, wanted: &str) -> bool {
        let Some((resource, action)) = wanted.rsplit_once(':') else {
            return true;
        };
        self.scopes.iter().any(|granted| {
            granted.rsplit_once(':').is_some_and(|(of, actions)| {
                let all = action
                    .split(',')
                    .all(|a| actions.split(',').any(|b| a == b));
                of == resource && all
            })
        })
    }
}

/// Gives the scopes that a request needs.
fn scopes(method: &Method, uri: &Uri) -> Vec<String> {
    let path = uri.path().strip_prefix("/v2/").unwrap_or_default();
    let end = ["/blobs/", "/manifests/", "/tags/", "/referrers/"]
        .iter()
        .filter_map(|part| path.rfind(part))
        .max();
    let Some(end) = end else {
        return Vec::new();
    };
    let name = &path[..end];
    let action = match *method {
        Method::GET | Method::HEAD => "pull",
        Method::DELETE if !path.contains("/uploads/") => "delete",
        _ => "push",
    };
    let mut scopes = vec![format!("repository:{name}:{action}")];
    let fields = fields(uri.query().unwrap_or_default().as_bytes());
    let from = fields.into_iter().find(|(name, _)| name == "from");
    scopes.extend(from.map(|(_, from)| format!("repository:{from}:pull")));
    scopes
}

fn fields(text: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(text).into_owned().collect()
}

pub(super) fn authorization(request: &Request<Body>) -> String {
    let value = request.headers().get("authorization");
    let text = value.and_then(|value| value.to_str().ok());
    text.unwrap_or_default().to_owned()
}

pub(super) fn basic(username: &str, password: &str) -> String {
    format!(
        "Basic {}",
        STANDARD.encode(format!("{username}:{password}"))
    )
}

pub(super) fn unauthorized(challenge: String) -> Response {
    let body = json!({"errors": [{"code": "UNAUTHORIZED", "message": "log in first"}]});
    let headers = [("www-authenticate", challenge)];
    (StatusCode::UNAUTHORIZED, headers, Json(body)).into_response()
}

pub(super) fn expired() -> Response {
    let message = "Your authorization token has expired. Reauthenticate and try again.";
    let body = json!({"errors": [{"code": "DENIED", "message": message}]});
    (StatusCode::FORBIDDEN, Json(body)).into_response()
}
