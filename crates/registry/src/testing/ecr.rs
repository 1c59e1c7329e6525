//! Amazon ECR as a client sees it: an API that gives a password for a signed request,
//! and a registry that takes this password, for a time, and makes no repository by
//! itself.
//!
//! The signature is computed here from the headers that came, by other code than the
//! client's, so that a misreading which both share does not pass.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::lock;
use super::login::{authorization, basic, expired, unauthorized};

const BODY_LIMIT: usize = 64 * 1024;
const BLOCK: usize = 64;
const TARGET: &str = "AmazonEC2ContainerRegistry_V20150921.";
/// Headers that a signature must cover.
const MUST_BE_SIGNED: [&str; 4] = ["content-type", "host", "x-amz-date", "x-amz-target"];

/// What the API knows and does.
#[derive(Debug, Clone)]
pub struct EcrService {
    /// The region that requests must be signed for.
    pub region: String,
    /// The id of the access key.
    pub key_id: String,
    /// The secret of the access key.
    pub secret: String,
    /// The session token that has to come with the key.
    pub session_token: Option<String>,
    /// How many requests a password is good for, whatever the API says.
    pub uses: Option<u32>,
    /// The life that the API promises, in seconds.
    pub expires_in: u64,
    /// A worn-out password is answered with 403 and a message instead of 401.
    pub expired_is_403: bool,
    /// Pushing to a repository needs it to have been made by the API.
    pub wants_repositories: bool,
}

impl EcrService {
    /// Knows one key, gives passwords for twelve hours and takes any repository.
    pub fn new(region: &str, key_id: &str, secret: &str) -> Self {
        Self {
            region: region.to_owned(),
            key_id: key_id.to_owned(),
            secret: secret.to_owned(),
            session_token: None,
            uses: None,
            expires_in: 12 * 3600,
            expired_is_403: false,
            wants_repositories: false,
        }
    }
}

#[derive(Default)]
pub(super) struct State {
    /// Uses that are left, by the header that a password makes.
    passwords: Mutex<HashMap<String, Option<u32>>>,
    repositories: Mutex<BTreeSet<String>>,
}

impl State {
    /// Lets a request to the registry through; answers any other.
    pub(super) async fn check(
        &self,
        service: &EcrService,
        request: Request,
    ) -> Result<Request, Box<Response>> {
        if request.uri().path() == "/" && request.method() == Method::POST {
            return Err(Box::new(self.call(service, request).await));
        }
        self.check_password(service, &authorization(&request))?;
        match upload_start(&request) {
            Some(name) if service.wants_repositories && !self.has(&name) => {
                Err(Box::new(no_repository(&name)))
            }
            _ => Ok(request),
        }
    }

    fn check_password(&self, service: &EcrService, header: &str) -> Result<(), Box<Response>> {
        let mut passwords = lock(&self.passwords);
        match passwords.get_mut(header) {
            Some(Some(0)) if service.expired_is_403 => Err(Box::new(expired())),
            None | Some(Some(0)) => {
                let challenge = "Basic realm=\"https://ecr.test/\",service=\"ecr.amazonaws.com\"";
                Err(Box::new(unauthorized(challenge.to_owned())))
            }
            Some(left) => {
                *left = left.map(|left| left - 1);
                Ok(())
            }
        }
    }

    fn has(&self, name: &str) -> bool {
        lock(&self.repositories).contains(name)
    }

    async fn call(&self, service: &EcrService, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, BODY_LIMIT).await;
        let body = body.unwrap_or_default();
        if let Err((kind, message)) = verify(service, &parts.headers, &body) {
            return exception(kind, message);
        }
        let Ok(arguments) = serde_json::from_slice::<Value>(&body) else {
            return exception("SerializationException", "the body is not JSON");
        };
        match header(&parts.headers, "x-amz-target").strip_prefix(TARGET) {
            Some("GetAuthorizationToken") => self.give_password(service),
            Some("CreateRepository") => self.create_repository(&arguments),
            _ => exception("UnknownOperationException", ""),
        }
    }

    fn give_password(&self, service: &EcrService) -> Response {
        let password = uuid::Uuid::new_v4().to_string();
        lock(&self.passwords).insert(basic("AWS", &password), service.uses);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let expires = now.unwrap_or_default().as_secs() + service.expires_in;
        let answer = json!({"authorizationData": [{
            "authorizationToken": STANDARD.encode(format!("AWS:{password}")),
            "expiresAt": expires as f64 + 0.5,
            "proxyEndpoint": "https://ecr.test",
        }]});
        amz_json(StatusCode::OK, &answer)
    }

    fn create_repository(&self, arguments: &Value) -> Response {
        let Some(name) = arguments["repositoryName"].as_str() else {
            return exception("InvalidParameterException", "it needs a name");
        };
        if !lock(&self.repositories).insert(name.to_owned()) {
            return exception("RepositoryAlreadyExistsException", "it is there");
        }
        amz_json(
            StatusCode::OK,
            &json!({"repository": {"repositoryName": name}}),
        )
    }
}

/// Gives the repository that an upload is to begin in.
fn upload_start(request: &Request) -> Option<String> {
    let path = request.uri().path().strip_prefix("/v2/")?;
    let name = path.strip_suffix("/blobs/uploads/")?;
    (request.method() == Method::POST).then(|| name.to_owned())
}

fn no_repository(name: &str) -> Response {
    let message = format!("The repository with name '{name}' does not exist in the registry");
    let body = json!({"errors": [{"code": "NAME_UNKNOWN", "message": message}]});
    (StatusCode::NOT_FOUND, Json(body)).into_response()
}

fn exception(kind: &str, message: &str) -> Response {
    amz_json(
        StatusCode::BAD_REQUEST,
        &json!({"__type": kind, "message": message}),
    )
}

fn amz_json(status: StatusCode, body: &Value) -> Response {
    let headers = [("content-type", "application/x-amz-json-1.1")];
    (status, headers, body.to_string()).into_response()
}

type Exception = (&'static str, &'static str);

/// Computes the signature anew and compares it with the one that came.
fn verify(service: &EcrService, headers: &HeaderMap, body: &[u8]) -> Result<(), Exception> {
    let given = header(headers, "authorization");
    let fields = given.strip_prefix("AWS4-HMAC-SHA256 ").unwrap_or_default();
    let field = |name: &str| {
        let parts = fields.split(", ").filter_map(|part| part.split_once('='));
        let mut found = parts.filter(|(key, _)| *key == name);
        found.next().map_or("", |(_, value)| value)
    };
    let scope: Vec<&str> = field("Credential").split('/').collect();
    let [key_id, day, region, "ecr", "aws4_request"] = scope[..] else {
        return Err(("IncompleteSignatureException", "the scope is odd"));
    };
    let token = header(headers, "x-amz-security-token");
    if key_id != service.key_id || token != service.session_token.as_deref().unwrap_or_default() {
        let message = "The security token included in the request is invalid.";
        return Err(("UnrecognizedClientException", message));
    }
    let names: Vec<&str> = field("SignedHeaders").split(';').collect();
    let token_name = service.session_token.iter().map(|_| "x-amz-security-token");
    let mut must = MUST_BE_SIGNED.into_iter().chain(token_name);
    let time = header(headers, "x-amz-date");
    let sorted = names.is_sorted() && must.all(|name| names.contains(&name));
    if !sorted || region != service.region || !time.starts_with(day) {
        return Err(("InvalidSignatureException", "what is signed is not enough"));
    }

    let mut canonical = "POST\n/\n\n".to_owned();
    for name in &names {
        canonical += &format!("{name}:{}\n", header(headers, name).trim());
    }
    canonical += &format!("\n{}\n{}", names.join(";"), hash(body));
    let scope = format!("{day}/{region}/ecr/aws4_request");
    let text = format!(
        "AWS4-HMAC-SHA256\n{time}\n{scope}\n{}",
        hash(canonical.as_bytes())
    );
    let mut key = format!("AWS4{}", service.secret).into_bytes();
    for part in scope.split('/') {
        key = hmac(&key, part.as_bytes());
    }
    match hex::encode(hmac(&key, text.as_bytes())) == field("Signature") {
        true => Ok(()),
        false => Err((
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided.",
        )),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default()
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// HMAC as RFC 2104 defines it.
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut block = [0; BLOCK];
    match key.len() > BLOCK {
        true => block[..32].copy_from_slice(&Sha256::digest(key)),
        false => block[..key.len()].copy_from_slice(key),
    }
    let padded = |pad: u8| block.map(|byte| byte ^ pad);
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(text);
    let outer = Sha256::new().chain_update(padded(0x5c));
    outer.chain_update(inner.finalize()).finalize().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_is_that_of_rfc_4231() {
        assert_eq!(
            hex::encode(hmac(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
