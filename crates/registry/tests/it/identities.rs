//! Identities that machines, containers and clusters have, against services that answer
//! as those of the clouds do.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use ocibuild_registry::testing::{EcrService, Login, Registry};
use ocibuild_registry::{
    AwsKeys, Client, CloudEnvironment, Credential, Credentials, EcrLogin, EcrSettings, Error,
    GoogleLogin, Progress, Secret,
};

use crate::support::{image, quick};

const REGION: &str = "eu-central-1";
const KEY: &str = "ASIATESTTESTTESTTEST";
const SECRET: &str = "geheim/geheim+geheim";
const SESSION: &str = "sitzung==";

/// A request as a service of a cloud saw it.
#[derive(Debug, Clone)]
struct Seen {
    line: String,
    headers: HeaderMap,
    body: String,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

/// A service on loopback; it ends with the test's runtime.
#[derive(Clone)]
struct Cloud {
    address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Cloud {
    async fn start(answer: impl Fn(&Seen) -> Response + Clone + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let handler = async move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
            let request = Seen {
                line: format!("{method} {uri}"),
                headers,
                body: String::from_utf8_lossy(&body).into_owned(),
            };
            log.lock().unwrap().push(request.clone());
            answer(&request)
        };
        let app = Router::new().fallback(handler);
        tokio::spawn(axum::serve(listener, app).into_future());
        Self { address, seen }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn count(&self, line: &str) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|request| request.line == line).count()
    }

    fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().unwrap().clone()
    }
}

fn refuse(status: u16) -> Response {
    StatusCode::from_u16(status).unwrap().into_response()
}

/// A temporary key as metadata services write it.
fn document(life: i64) -> String {
    let end = chrono_like(life);
    format!(
        r#"{{"Code": "Success", "AccessKeyId": "{KEY}", "SecretAccessKey": "{SECRET}",
            "Token": "{SESSION}", "Expiration": "{end}"}}"#
    )
}

/// The answer of the Security Token Service.
fn assumed() -> String {
    let end = chrono_like(3600);
    format!(
        "<R><Credentials><AccessKeyId>{KEY}</AccessKeyId><SecretAccessKey>{SECRET}\
         </SecretAccessKey><SessionToken>{SESSION}</SessionToken><Expiration>{end}</Expiration>\
         </Credentials></R>"
    )
}

/// A time of the coming century or of the past one: no test waits for it.
fn chrono_like(life: i64) -> &'static str {
    match life > 0 {
        true => "2090-01-02T03:04:05Z",
        false => "1990-01-02T03:04:05Z",
    }
}

fn environment(pairs: &[(&str, &str)]) -> CloudEnvironment {
    let pairs = pairs.iter();
    CloudEnvironment::from_vars(pairs.map(|(name, value)| ((*name).into(), (*value).into())))
}

fn amazon() -> Registry {
    let service = EcrService {
        session_token: Some(SESSION.to_owned()),
        wants_repositories: true,
        ..EcrService::new(REGION, KEY, SECRET)
    };
    Registry::start_with(Login::Ecr(service)).unwrap()
}

fn credentials(registry: &Registry, environment: CloudEnvironment) -> Credentials {
    let login = EcrLogin::new(EcrSettings {
        region: REGION.to_owned(),
        account: "123456789012".to_owned(),
        keys: AwsKeys::chain(environment),
        endpoint: Some(format!("http://{}", registry.host()).parse().unwrap()),
        create_repository: true,
    });
    Credentials::anonymous().with(&registry.host(), Credential::Ecr(login.unwrap()))
}

fn client(credentials: Credentials) -> Client {
    let builder = Client::builder().retry(quick());
    builder.credentials(credentials).build().unwrap()
}

async fn push(registry: &Registry, credentials: Credentials, seed: u64) -> Result<(), Error> {
    let reference = registry.reference("team/app:v1");
    let image = image(seed, &[1000]);
    let pushed = client(credentials)
        .push_image(&reference, &image, &Progress::none())
        .await;
    pushed.map(drop)
}

/// The role of a machine, as the second version of its metadata service tells it.
fn machine(life: i64) -> impl Fn(&Seen) -> Response + Clone + Send + Sync + 'static {
    move |request| {
        let is_session = request.header("x-aws-ec2-metadata-token") == "session-1";
        match request.line.as_str() {
            "PUT /latest/api/token" => {
                assert!(
                    !request
                        .header("x-aws-ec2-metadata-token-ttl-seconds")
                        .is_empty()
                );
                "session-1".into_response()
            }
            _ if !is_session => refuse(401),
            "GET /latest/meta-data/iam/security-credentials/" => "builder\n".into_response(),
            "GET /latest/meta-data/iam/security-credentials/builder" => {
                document(life).into_response()
            }
            _ => refuse(404),
        }
    }
}

#[tokio::test]
async fn the_role_of_a_machine_is_asked_for_once() {
    let (registry, cloud) = (amazon(), Cloud::start(machine(1)).await);
    let url = cloud.url();
    let vars = environment(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &url)]);
    let credentials = credentials(&registry, vars);
    push(&registry, credentials.clone(), 1).await.unwrap();
    push(&registry, credentials.clone(), 2).await.unwrap();
    assert_eq!(cloud.count("PUT /latest/api/token"), 1);
    let secrets = credentials.secrets();
    let texts: Vec<&str> = secrets.iter().map(Secret::expose).collect();
    assert_eq!(texts[..2], [SECRET, SESSION]);
}

#[tokio::test]
async fn keys_that_end_are_fetched_anew() {
    let (registry, cloud) = (amazon(), Cloud::start(machine(-1)).await);
    let url = cloud.url();
    let vars = environment(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &url)]);
    push(&registry, credentials(&registry, vars), 3)
        .await
        .unwrap();
    // For the password, and for the repository that was missing.
    assert_eq!(cloud.count("PUT /latest/api/token"), 2);
}

#[tokio::test]
async fn a_pod_is_what_its_service_account_may_be() {
    let registry = amazon();
    let cloud = Cloud::start(|_| assumed().into_response()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "jwt.of.pod\n").unwrap();
    let url = cloud.url();
    let vars = environment(&[
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/builder"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().unwrap()),
        ("AWS_ENDPOINT_URL_STS", &url),
    ]);
    push(&registry, credentials(&registry, vars), 4)
        .await
        .unwrap();
    let request = cloud.last();
    assert!(
        request.body.contains("Action=AssumeRoleWithWebIdentity"),
        "{}",
        request.body
    );
    assert!(
        request.body.contains("WebIdentityToken=jwt.of.pod"),
        "{}",
        request.body
    );
    assert!(request.body.contains("role%2Fbuilder"), "{}", request.body);
    assert_eq!(request.header("authorization"), "");
    assert_eq!(cloud.count("POST /"), 1);
}

#[tokio::test]
async fn a_container_shows_its_token() {
    let registry = amazon();
    let cloud = Cloud::start(|request| match request.header("authorization") {
        "container-token" => document(1).into_response(),
        _ => refuse(401),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "container-token\n").unwrap();
    let url = format!("{}/v1/credentials", cloud.url());
    let vars = environment(&[
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url),
        (
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            file.to_str().unwrap(),
        ),
    ]);
    push(&registry, credentials(&registry, vars), 5)
        .await
        .unwrap();
    assert_eq!(cloud.count("GET /v1/credentials"), 1);

    let vars = environment(&[
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://evil.example/"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "geheim"),
    ]);
    let error = push(&registry, credentials(&registry, vars), 6)
        .await
        .unwrap_err();
    let reason = error.reason();
    assert!(
        reason.contains("evil.example") && !reason.contains("geheim"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_profile_takes_on_a_role_with_the_key_of_another() {
    let registry = amazon();
    let cloud = Cloud::start(|_| assumed().into_response()).await;
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join(".aws");
    std::fs::create_dir(&home).unwrap();
    let config = "[profile build]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = base\n\
        external_id = x/1\n[profile sso]\nsso_session = s\n";
    std::fs::write(home.join("config"), config).unwrap();
    let keys = "[base]\naws_access_key_id = AKIABASE\naws_secret_access_key = anders\n";
    std::fs::write(home.join("credentials"), keys).unwrap();
    let (url, home) = (cloud.url(), folder.path().to_str().unwrap());
    let with_profile = |profile: &str| {
        let pairs = [
            ("HOME", home),
            ("AWS_PROFILE", profile),
            ("AWS_ENDPOINT_URL_STS", &url),
        ];
        credentials(&registry, environment(&pairs))
    };
    push(&registry, with_profile("build"), 7).await.unwrap();
    let request = cloud.last();
    assert!(
        request.body.contains("Action=AssumeRole&"),
        "{}",
        request.body
    );
    assert!(
        request.body.contains("ExternalId=x%2F1"),
        "{}",
        request.body
    );
    let signature = request.header("authorization");
    assert!(signature.contains("Credential=AKIABASE/"), "{signature}");
    assert!(
        signature.contains("/eu-central-1/sts/aws4_request"),
        "{signature}"
    );

    for (profile, why) in [("sso", "single sign-on"), ("other", "no profile \"other\"")] {
        let error = push(&registry, with_profile(profile), 8).await.unwrap_err();
        assert!(error.reason().contains(why), "{}", error.reason());
    }
}

#[tokio::test]
async fn who_has_no_identity_is_told_where_it_was_looked_for() {
    let registry = amazon();
    let vars = environment(&[("AWS_EC2_METADATA_DISABLED", "true")]);
    let error = push(&registry, credentials(&registry, vars), 9)
        .await
        .unwrap_err();
    assert!(error.is_denied());
    let reason = error.reason();
    assert!(reason.contains("AWS_ACCESS_KEY_ID"), "{reason}");
    assert!(reason.contains("no role of a machine"), "{reason}");
}

fn google(registry: &Registry, login: GoogleLogin) -> Credentials {
    Credentials::anonymous().with(&registry.host(), Credential::Google(login))
}

#[tokio::test]
async fn a_machine_of_google_has_a_token() {
    let registry = Registry::start_with(Login::token("oauth2accesstoken", "ya29.x")).unwrap();
    let cloud = Cloud::start(|request| {
        if request.header("metadata-flavor") != "Google" {
            return refuse(403);
        }
        let body = r#"{"access_token": "ya29.x", "expires_in": 3599, "token_type": "Bearer"}"#;
        ([("metadata-flavor", "Google")], body).into_response()
    })
    .await;
    let login = GoogleLogin::machine(&environment(&[("GCE_METADATA_HOST", &cloud.address)]));
    let credentials = google(&registry, login);
    push(&registry, credentials.clone(), 10).await.unwrap();
    push(&registry, credentials.clone(), 11).await.unwrap();
    let path = "GET /computeMetadata/v1/instance/service-accounts/default/token";
    assert_eq!(cloud.count(path), 1);
    assert_eq!(credentials.secrets()[0].expose(), "ya29.x");

    // Anybody else at that address is not believed.
    let cloud = Cloud::start(|_| r#"{"access_token": "ya29.x"}"#.into_response()).await;
    let login = GoogleLogin::machine(&environment(&[("GCE_METADATA_HOST", &cloud.address)]));
    let error = push(&registry, google(&registry, login), 12)
        .await
        .unwrap_err();
    assert!(
        error.reason().contains("metadata service"),
        "{}",
        error.reason()
    );
}

#[tokio::test]
async fn an_identity_of_elsewhere_becomes_a_service_account() {
    let registry = Registry::start_with(Login::token("oauth2accesstoken", "ya29.sa")).unwrap();
    let cloud = Cloud::start(|request| match request.line.as_str() {
        "GET /subject" => r#"{"value": "jwt.of.cluster"}"#.into_response(),
        "POST /token" => {
            assert!(request.body.contains("subject_token=jwt.of.cluster"));
            assert!(request.body.contains("audience=%2F%2Fiam"));
            r#"{"access_token": "federated", "expires_in": 3600}"#.into_response()
        }
        "POST /sa:generateAccessToken" if request.header("authorization") == "Bearer federated" => {
            r#"{"accessToken": "ya29.sa", "expireTime": "2090-01-02T03:04:05Z"}"#.into_response()
        }
        _ => refuse(400),
    })
    .await;
    let url = cloud.url();
    let key = format!(
        r#"{{"type": "external_account", "audience": "//iam", "token_url": "{url}/token",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "service_account_impersonation_url": "{url}/sa:generateAccessToken",
            "credential_source": {{"url": "{url}/subject",
                "format": {{"type": "json", "subject_token_field_name": "value"}}}}}}"#
    );
    let login = GoogleLogin::from_key(&Secret::new(key)).unwrap();
    push(&registry, google(&registry, login), 13).await.unwrap();
    assert_eq!(cloud.count("POST /token"), 1);
}

#[tokio::test]
async fn logins_of_google_come_from_files_in_their_order() {
    let key = r#"{"type": "service_account", "private_key": "geheim"}"#;
    let registry = Registry::start_with(Login::token("_json_key", key)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.json");
    std::fs::write(&file, key).unwrap();
    let named = environment(&[("GOOGLE_APPLICATION_CREDENTIALS", file.to_str().unwrap())]);
    let login = GoogleLogin::default_chain(&named).unwrap();
    push(&registry, google(&registry, login), 14).await.unwrap();

    let left = folder.path().join(".config/gcloud");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("application_default_credentials.json"), key).unwrap();
    let home = environment(&[("HOME", folder.path().to_str().unwrap())]);
    let login = GoogleLogin::default_chain(&home).unwrap();
    push(&registry, google(&registry, login), 15).await.unwrap();

    let gone = environment(&[("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")]);
    let error = GoogleLogin::default_chain(&gone).unwrap_err();
    assert_eq!(error.to_string(), "cannot read /nowhere/key.json");
}

#[tokio::test]
async fn a_person_of_google_has_a_refresh_token() {
    let registry = Registry::start_with(Login::token("oauth2accesstoken", "ya29.me")).unwrap();
    let cloud = Cloud::start(
        |request| match request.body.contains("refresh_token=once") {
            true => r#"{"access_token": "ya29.me....", "expires_in": 3600}"#.into_response(),
            false => (StatusCode::BAD_REQUEST, r#"{"error": "invalid_grant"}"#).into_response(),
        },
    )
    .await;
    let login = |token: &str| {
        let key = format!(
            r#"{{"type": "authorized_user", "client_id": "i", "client_secret": "s",
                "refresh_token": "{token}", "token_uri": "{}/token"}}"#,
            cloud.url()
        );
        GoogleLogin::from_key(&Secret::new(key)).unwrap()
    };
    push(&registry, google(&registry, login("once")), 16)
        .await
        .unwrap();
    let error = push(&registry, google(&registry, login("geheim")), 17)
        .await
        .unwrap_err();
    let reason = error.reason();
    assert!(
        reason.contains("400 invalid_grant") && !reason.contains("geheim"),
        "{reason}"
    );
}
