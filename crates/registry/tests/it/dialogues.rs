//! Logins as the large registries have them, request by request: what each of them documents
//! or is known to answer, with the host of its token service in the path. Amazon's and
//! Google's own dialogues are in `ecr` and `identities`.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ocibuild_registry::{
    Client, Credentials, Descriptor, Error, Manifest, Platform, Reference, media_type,
};

use crate::support::quick;

/// One request and its answer.
struct Exchange {
    method: &'static str,
    /// Path and query, whose parts may come in any order.
    target: String,
    /// What stands in `Authorization`.
    login: String,
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
}

/// A server that knows its part by heart.
struct Script {
    host: String,
    state: Arc<Mutex<Stage>>,
}

#[derive(Default)]
struct Stage {
    left: VecDeque<Exchange>,
    mistakes: Vec<String>,
}

impl Script {
    async fn start() -> Self {
        let state = Arc::<Mutex<Stage>>::default();
        let app = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&state));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        tokio::spawn(axum::serve(listener, app).into_future());
        Self { host, state }
    }

    fn expect(&self, method: &'static str, target: &str, login: &str) -> Expected<'_> {
        Expected {
            script: self,
            exchange: Exchange {
                method,
                target: target.to_owned(),
                login: login.to_owned(),
                status: 200,
                headers: Vec::new(),
                body: String::new(),
            },
        }
    }

    /// The challenge of a registry whose token service is elsewhere.
    fn challenge(&self, realm: &str, service: &str, scope: &str) -> (&'static str, String) {
        let realm = format!("http://{}/{realm}", self.host);
        let text = format!("Bearer realm=\"{realm}\",service=\"{service}\",scope=\"{scope}\"");
        ("www-authenticate", text)
    }

    /// A client that reaches a registry by its name, with a `config.json` of Docker.
    fn client(&self, registry: &str, config: &str) -> Client {
        let credentials = Credentials::from_docker_config(config.as_bytes()).unwrap();
        let builder = Client::builder().retry(quick()).credentials(credentials);
        let endpoint = format!("http://{}", self.host);
        builder.alias(registry, endpoint).build().unwrap()
    }

    /// Everything was said, and nothing else.
    fn ended(self) {
        let stage = self.state.lock().unwrap();
        assert!(stage.mistakes.is_empty(), "{:#?}", stage.mistakes);
        let left: Vec<_> = stage.left.iter().map(|e| (e.method, &e.target)).collect();
        assert!(left.is_empty(), "not asked for: {left:#?}");
    }
}

/// An exchange that is being described.
struct Expected<'a> {
    script: &'a Script,
    exchange: Exchange,
}

impl Expected<'_> {
    fn header(mut self, header: (&'static str, String)) -> Self {
        self.exchange.headers.push(header);
        self
    }

    fn answer(mut self, status: u16, body: impl Into<String>) {
        self.exchange.status = status;
        self.exchange.body = body.into();
        let mut stage = self.script.state.lock().unwrap();
        stage.left.push_back(self.exchange);
    }
}

async fn answer(State(state): State<Arc<Mutex<Stage>>>, request: Request) -> Response {
    let mut stage = state.lock().unwrap();
    let login = request.headers().get("authorization");
    let login = login.map_or("", |value| value.to_str().unwrap()).to_owned();
    let asked = format!("{} {} ({login})", request.method(), request.uri());
    let Some(next) = stage.left.pop_front() else {
        stage.mistakes.push(format!("after the end: {asked}"));
        return response(500, &[], String::new());
    };
    let fits = request.method().as_str() == next.method
        && parts(&request.uri().to_string()) == parts(&next.target)
        && login == next.login;
    if !fits {
        let wanted = format!("{} {} ({})", next.method, next.target, next.login);
        stage.mistakes.push(format!("{asked} in place of {wanted}"));
        return response(500, &[], String::new());
    }
    response(next.status, &next.headers, next.body)
}

fn response(status: u16, headers: &[(&'static str, String)], body: String) -> Response {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    response.body(Body::from(body)).unwrap()
}

/// A path, and what its query says.
fn parts(target: &str) -> (String, BTreeSet<(String, String)>) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pairs = url::form_urlencoded::parse(query.as_bytes()).into_owned();
    (path.to_owned(), pairs.collect())
}

fn basic(login: &str) -> String {
    format!("Basic {}", STANDARD.encode(login))
}

fn config(key: &str, login: &str) -> String {
    let auth = STANDARD.encode(login);
    format!(r#"{{"auths": {{"{key}": {{"auth": "{auth}"}}}}}}"#)
}

fn refusal(code: &str, message: &str) -> String {
    format!(r#"{{"errors":[{{"code":"{code}","message":"{message}","detail":null}}]}}"#)
}

fn manifest() -> String {
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::MANIFEST.to_owned()),
        config: Descriptor::of(media_type::CONFIG, b"{}"),
        layers: Vec::new(),
        annotations: Default::default(),
    };
    serde_json::to_string(&manifest).unwrap()
}

fn json() -> (&'static str, String) {
    ("content-type", media_type::MANIFEST.to_owned())
}

async fn pull(client: &Client, name: &str) -> Result<(), Error> {
    let name: Reference = name.parse().unwrap();
    client.image(&name, &Platform::host()).await.map(drop)
}

/// How a registry asks for a login.
struct House {
    registry: &'static str,
    /// Its key in Docker's `config.json`.
    key: &'static str,
    realm: &'static str,
    service: &'static str,
    /// A name in it, and its path.
    name: &'static str,
    path: &'static str,
    login: &'static str,
    /// What its token service says, with `T` for the token.
    token: &'static str,
}

const HOUSES: [House; 6] = [
    House {
        registry: "docker.io",
        key: "https://index.docker.io/v1/",
        realm: "auth.docker.io/token",
        service: "registry.docker.io",
        name: "alpine:3",
        path: "library/alpine",
        login: "ann:dckr_pat_x",
        token: r#"{"token":"T","access_token":"T","expires_in":300,"issued_at":"2026-01-01T00:00:00Z"}"#,
    },
    House {
        registry: "ghcr.io",
        key: "ghcr.io",
        realm: "ghcr.io/token",
        service: "ghcr.io",
        name: "ghcr.io/org/app:3",
        path: "org/app",
        login: "ann:ghp_x",
        token: r#"{"token":"T"}"#,
    },
    House {
        registry: "harbor.example.org",
        key: "harbor.example.org",
        realm: "harbor.example.org/service/token",
        service: "harbor-registry",
        name: "harbor.example.org/project/team/app:3",
        path: "project/team/app",
        login: "robot$project+ci:x",
        token: r#"{"token":"T","access_token":"","expires_in":1800,"issued_at":"2026-01-01T00:00:00Z"}"#,
    },
    House {
        registry: "us-docker.pkg.dev",
        key: "us-docker.pkg.dev",
        realm: "us-docker.pkg.dev/v2/token",
        service: "us-docker.pkg.dev",
        name: "us-docker.pkg.dev/project/repository/app:3",
        path: "project/repository/app",
        login: "oauth2accesstoken:ya29.x",
        token: r#"{"expires_in":43200,"token":"T"}"#,
    },
    House {
        registry: "registry.gitlab.com",
        key: "registry.gitlab.com",
        realm: "gitlab.com/jwt/auth",
        service: "container_registry",
        name: "registry.gitlab.com/group/app:3",
        path: "group/app",
        login: "gitlab-ci-token:glcbt-x",
        token: r#"{"token":"T"}"#,
    },
    House {
        registry: "team.azurecr.io",
        key: "team.azurecr.io",
        realm: "team.azurecr.io/oauth2/token",
        service: "team.azurecr.io",
        name: "team.azurecr.io/app:3",
        path: "app",
        login: "team:x",
        token: r#"{"access_token":"T"}"#,
    },
];

impl House {
    fn scope(&self) -> String {
        format!("repository:{}:pull", self.path)
    }

    fn manifest(&self) -> String {
        format!("/v2/{}/manifests/3", self.path)
    }

    /// The request of whoever has no login.
    fn token_request(&self) -> String {
        let (realm, service, scope) = (self.realm, self.service, self.scope());
        format!("/{realm}?service={service}&scope={scope}")
    }

    /// The request of whoever has one: some services want to know the name beside it.
    fn token_request_with_login(&self) -> String {
        let name = self.login.split_once(':').unwrap().0;
        let name: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
        format!("{}&account={name}", self.token_request())
    }

    /// The registry wants a token first.
    fn asks_for_token(&self, script: &Script) {
        let challenge = script.challenge(self.realm, self.service, &self.scope());
        let body = refusal("UNAUTHORIZED", "authentication required");
        let asked = script.expect("GET", &self.manifest(), "");
        asked.header(challenge).answer(401, body);
    }

    fn gives_image(&self, script: &Script, token: &str) {
        let asked = script.expect("GET", &self.manifest(), &format!("Bearer {token}"));
        asked.header(json()).answer(200, manifest());
    }
}

#[tokio::test]
async fn everybody_gets_a_token_for_what_is_public() {
    for house in HOUSES {
        let script = Script::start().await;
        house.asks_for_token(&script);
        let token = house.token.replace('T', "anonymous-1");
        script
            .expect("GET", &house.token_request(), "")
            .answer(200, token);
        house.gives_image(&script, "anonymous-1");
        // A token is kept.
        house.gives_image(&script, "anonymous-1");
        let client = script.client(house.registry, "{}");
        pull(&client, house.name).await.unwrap();
        pull(&client, house.name).await.unwrap();
        script.ended();
    }
}

#[tokio::test]
async fn a_login_buys_a_token_and_another_one_when_that_is_refused() {
    for house in HOUSES {
        let script = Script::start().await;
        let login = basic(house.login);
        house.asks_for_token(&script);
        let bought = |token: &str| {
            let answer = house.token.replace('T', token);
            script
                .expect("GET", &house.token_request_with_login(), &login)
                .answer(200, answer);
        };
        bought("first-1");
        house.gives_image(&script, "first-1");
        let refused = script.expect("GET", &house.manifest(), "Bearer first-1");
        let challenge = script.challenge(house.realm, house.service, &house.scope());
        let body = refusal("UNAUTHORIZED", "authentication required");
        refused.header(challenge).answer(401, body);
        bought("second-2");
        house.gives_image(&script, "second-2");
        let client = script.client(house.registry, &config(house.key, house.login));
        pull(&client, house.name).await.unwrap();
        pull(&client, house.name).await.unwrap();
        script.ended();
    }
}

#[tokio::test]
async fn refusals_come_in_the_words_of_the_registry_and_without_the_password() {
    // What the token service of each says to a wrong login.
    for (house, status, body, words) in [
        (
            &HOUSES[0],
            401,
            r#"{"details":"incorrect username or password"}"#.to_owned(),
            "401",
        ),
        (&HOUSES[1], 403, refusal("DENIED", "denied"), "DENIED"),
        (
            &HOUSES[2],
            401,
            refusal("UNAUTHORIZED", "unauthorized: robot account is disabled"),
            "robot account",
        ),
        (
            &HOUSES[3],
            403,
            refusal("DENIED", "Unauthenticated request"),
            "Unauthenticated",
        ),
        (
            &HOUSES[4],
            403,
            refusal("DENIED", "access forbidden"),
            "access forbidden",
        ),
        (
            &HOUSES[5],
            401,
            refusal("UNAUTHORIZED", "authentication required"),
            "UNAUTHORIZED",
        ),
    ] {
        let script = Script::start().await;
        house.asks_for_token(&script);
        let asked = script.expect(
            "GET",
            &house.token_request_with_login(),
            &basic(house.login),
        );
        asked.answer(status, body);
        let client = script.client(house.registry, &config(house.key, house.login));
        let error = pull(&client, house.name).await.unwrap_err();
        let text = format!("{error}: {}", error.reason());
        assert!(text.contains(words) && text.contains(house.path), "{text}");
        let (_, password) = house.login.split_once(':').unwrap();
        assert!(
            !format!("{error:?}").contains(&format!(":{password}")),
            "{error:?}"
        );
        script.ended();
    }
}

#[tokio::test]
async fn docker_hub_says_that_its_limit_is_reached() {
    let (script, house) = (Script::start().await, &HOUSES[0]);
    house.asks_for_token(&script);
    let token = house.token.replace('T', "anonymous-1");
    script
        .expect("GET", &house.token_request(), "")
        .answer(200, token);
    let limit = "You have reached your unauthenticated pull rate limit";
    for _ in 0..quick().attempts {
        let asked = script.expect("GET", &house.manifest(), "Bearer anonymous-1");
        asked.answer(429, refusal("TOOMANYREQUESTS", limit));
    }
    let error = pull(&script.client(house.registry, "{}"), house.name).await;
    let error = error.unwrap_err();
    assert_eq!(error.status(), Some(429));
    assert!(error.reason().contains(limit), "{}", error.reason());
    script.ended();
}

#[tokio::test]
async fn an_identity_token_of_azure_is_sent_in_a_form() {
    let (script, house) = (Script::start().await, &HOUSES[5]);
    house.asks_for_token(&script);
    let token = house.token.replace('T', "exchanged-1");
    script
        .expect("POST", &format!("/{}", house.realm), "")
        .answer(200, token);
    house.gives_image(&script, "exchanged-1");
    let auth = STANDARD.encode("00000000-0000-0000-0000-000000000000:");
    let config = format!(
        r#"{{"auths": {{"team.azurecr.io": {{"auth": "{auth}", "identitytoken": "refresh-x"}}}}}}"#
    );
    pull(&script.client(house.registry, &config), house.name)
        .await
        .unwrap();
    script.ended();
}
