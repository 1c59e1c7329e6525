//! The login to Amazon ECR, against an API and a registry that do as Amazon's do.

use std::fmt::Write as _;

use ocibuild_registry::testing::{Answer, EcrService, Fault, Login, Registry};
use ocibuild_registry::{
    AccessKey, Client, Credential, Credentials, EcrLogin, EcrSettings, Error, ImagePush, Phase,
    Progress, Secret,
};

use crate::support::{image, quick};

const REGION: &str = "eu-central-1";
const KEY: &str = "AKIATESTTESTTESTTEST";
const SECRET: &str = "geheim/geheim+geheim";
const SESSION: &str = "sitzung==";

fn registry(change: impl FnOnce(&mut EcrService)) -> Registry {
    let mut service = EcrService::new(REGION, KEY, SECRET);
    change(&mut service);
    Registry::start_with(Login::Ecr(service)).unwrap()
}

fn key() -> AccessKey {
    AccessKey {
        id: KEY.to_owned(),
        secret: Secret::new(SECRET),
        session_token: None,
    }
}

/// Changes the key of settings that have one.
fn change_key(settings: &mut EcrSettings, change: impl FnOnce(&mut AccessKey)) {
    let mut changed = key();
    change(&mut changed);
    settings.keys = changed.into();
}

fn settings(endpoint: &str) -> EcrSettings {
    EcrSettings {
        region: REGION.to_owned(),
        account: "123456789012".to_owned(),
        keys: key().into(),
        endpoint: Some(format!("http://{endpoint}").parse().unwrap()),
        create_repository: false,
    }
}

fn credentials(registry: &Registry, change: impl FnOnce(&mut EcrSettings)) -> Credentials {
    let mut settings = settings(&registry.host());
    change(&mut settings);
    let login = EcrLogin::new(settings).unwrap();
    Credentials::anonymous().with(&registry.host(), Credential::Ecr(login))
}

fn client(credentials: Credentials) -> Client {
    Client::builder()
        .retry(quick())
        .credentials(credentials)
        .build()
        .unwrap()
}

/// Counts the calls of the API; every other request is below `/v2/`.
fn calls(registry: &Registry) -> usize {
    let requests = registry.requests();
    requests.iter().filter(|r| r.path == "/").count()
}

/// Layers one after the other: parallel ones would wear out each other's passwords
/// faster than a real clock does.
fn in_turn(seed: u64, layers: &[usize]) -> ImagePush {
    let mut image = image(seed, layers);
    image.concurrency = 1;
    image
}

fn exception(kind: &str, message: &str) -> Fault {
    Fault::Answer(Answer {
        status: 400,
        headers: Vec::new(),
        body: format!(r#"{{"__type":"{kind}","message":"{message}"}}"#).into_bytes(),
    })
}

/// Everything that an error shows, to a reader and to a debugger.
fn shown(error: &Error) -> String {
    let mut text = error.reason();
    write!(text, " {error} {error:?}").unwrap();
    text
}

#[tokio::test]
async fn one_password_serves_all_clones() {
    let registry = registry(|service| service.session_token = Some(SESSION.to_owned()));
    let credentials = credentials(&registry, |settings| {
        change_key(settings, |key| {
            key.session_token = Some(Secret::new(SESSION))
        });
    });
    let reference = registry.reference("team/app:v1");
    let none = Progress::none();
    let (first, second) = (client(credentials.clone()), client(credentials.clone()));
    first
        .push_image(&reference, &image(100, &[1000, 2000, 3000]), &none)
        .await
        .unwrap();
    second.manifest(&reference).await.unwrap();
    assert_eq!(calls(&registry), 1);

    let secrets = credentials.secrets();
    let texts: Vec<&str> = secrets.iter().map(Secret::expose).collect();
    assert_eq!(texts[..2], [SECRET, SESSION]);
    // The password, and what Basic makes of it.
    assert_eq!(texts.len(), 4);
    assert!(texts[3].starts_with("QVdT"), "the header begins with AWS:");
}

#[tokio::test]
async fn anonymous_registries_cost_no_call() {
    let registry = Registry::start().unwrap();
    let client = client(credentials(&registry, |_| {}));
    assert_eq!(
        client.head(&registry.reference("app:v1")).await.unwrap(),
        None
    );
    assert_eq!(calls(&registry), 0);
}

#[tokio::test]
async fn passwords_that_wear_out_in_mid_push_are_renewed() {
    for expired_is_403 in [false, true] {
        for uses in 1..6 {
            let registry = registry(|service| {
                service.uses = Some(uses);
                service.expired_is_403 = expired_is_403;
            });
            let client = client(credentials(&registry, |_| {}));
            let image = in_turn(101, &[400_000, 300_000, 10]);
            let reference = registry.reference("app:v1");
            let none = Progress::none();
            let pushed = client.push_image(&reference, &image, &none).await;
            pushed.unwrap_or_else(|error| panic!("{uses} uses: {}", error.reason()));
            assert!(calls(&registry) > 1, "{uses}");
        }
    }
}

#[tokio::test]
async fn a_password_near_its_end_is_replaced_before_it_is_refused() {
    let registry = registry(|service| service.expires_in = 60);
    let client = client(credentials(&registry, |_| {}));
    let reference = registry.reference("app:v1");
    assert_eq!(client.head(&reference).await.unwrap(), None);
    registry.clear_requests();
    assert_eq!(client.head(&reference).await.unwrap(), None);
    assert_eq!(calls(&registry), 1);
    let refused = |r: &ocibuild_registry::testing::Logged| r.status == Some(401);
    assert!(!registry.requests().iter().any(refused));
}

#[tokio::test]
async fn what_is_wrong_with_the_key_is_told_without_showing_it() {
    let wrong_secret =
        |s: &mut EcrSettings| change_key(s, |key| key.secret = Secret::new("andersgeheim"));
    let wrong_id = |s: &mut EcrSettings| change_key(s, |key| key.id = "AKIAOTHER".to_owned());
    let wrong_region = |s: &mut EcrSettings| s.region = "us-east-1".to_owned();
    let missing_token =
        |s: &mut EcrSettings| change_key(s, |key| key.session_token = Some(Secret::new(SESSION)));
    type Change<'a> = &'a dyn Fn(&mut EcrSettings);
    let cases: [(Change<'_>, &str); 4] = [
        (&wrong_secret, "check the secret"),
        (&wrong_id, "check its id"),
        (&missing_token, "needs its session token"),
        (&wrong_region, "check the secret"),
    ];
    for (change, want) in cases {
        let registry = registry(|_| {});
        let client = client(credentials(&registry, change));
        let error = client
            .head(&registry.reference("app:v1"))
            .await
            .unwrap_err();
        let text = shown(&error);
        assert!(text.contains(want), "{text}");
        assert!(
            text.contains("GetAuthorizationToken at 127.0.0.1:"),
            "{text}"
        );
        assert!(!text.contains("geheim") && !text.contains("AKIA"), "{text}");
        assert!(!text.contains(SESSION), "{text}");
        assert!(error.is_denied());
        assert_eq!(error.phase(), Phase::Login);
        // It is not tried again.
        assert_eq!(calls(&registry), 1);
    }
}

#[tokio::test]
async fn refusals_of_the_api_say_what_to_do() {
    let canonical = "The Canonical String should have been x-amz-security-token:sitzung==";
    for (kind, message, want) in [
        (
            "ExpiredTokenException",
            "expired",
            "get a new temporary key",
        ),
        (
            "AccessDeniedException",
            "User u",
            "allow it ecr:GetAuthorizationToken",
        ),
        ("InvalidSignatureException", canonical, "check the secret"),
        (
            "InvalidSignatureException",
            "Signature expired: 20150830T123600Z is now earlier than 20150830T130000Z",
            "clock is wrong: set it",
        ),
        (
            "ServerException",
            "no",
            "it answered 400 ServerException: no",
        ),
    ] {
        let registry = registry(|_| {});
        registry.inject("POST", "/", 1, exception(kind, message));
        let client = client(credentials(&registry, |settings| {
            change_key(settings, |key| {
                key.session_token = Some(Secret::new(SESSION))
            });
        }));
        let error = client
            .head(&registry.reference("app:v1"))
            .await
            .unwrap_err();
        let text = shown(&error);
        assert!(text.contains(want), "{kind}: {text}");
        assert!(
            !text.contains(SESSION) && !text.contains("geheim"),
            "{text}"
        );
        assert_eq!(calls(&registry), 1, "{kind}");
    }
}

#[tokio::test]
async fn a_busy_api_is_asked_again() {
    let registry = registry(|_| {});
    registry.inject(
        "POST",
        "/",
        1,
        exception("ThrottlingException", "slow down"),
    );
    registry.inject("POST", "/", 2, Fault::Status(503));
    registry.inject("POST", "/", 3, Fault::Reset);
    let client = client(credentials(&registry, |_| {}));
    assert_eq!(
        client.head(&registry.reference("app:v1")).await.unwrap(),
        None
    );
    assert_eq!(calls(&registry), 4);
}

#[tokio::test]
async fn an_api_that_is_not_there_or_not_one_is_told_so() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = listener.local_addr().unwrap().to_string();
    drop(listener);
    let registry = registry(|_| {});
    let unreachable = client(credentials(&registry, |settings| {
        settings.endpoint = Some(format!("http://{nobody}").parse().unwrap());
    }));
    let reference = registry.reference("app:v1");
    let text = unreachable.head(&reference).await.unwrap_err().reason();
    let want = format!("GetAuthorizationToken at {nobody} failed: it cannot be reached: check");
    assert!(text.contains(&want), "{text}");

    let page = Answer {
        status: 200,
        headers: Vec::new(),
        body: b"<html>".to_vec(),
    };
    registry.inject("POST", "/", 1, Fault::Answer(page));
    let fooled = client(credentials(&registry, |_| {}));
    let text = fooled.head(&reference).await.unwrap_err().reason();
    assert!(text.contains("check the endpoint"), "{text}");
}

#[tokio::test]
async fn repositories_are_made_where_that_is_wanted() {
    let registry = registry(|service| service.wants_repositories = true);
    let reference = registry.reference("team/app:v1");
    let none = Progress::none();
    let image = image(102, &[300_000, 200_000, 100_000]);

    let cautious = client(credentials(&registry, |_| {}));
    let pushed = cautious.push_image(&reference, &image, &none).await;
    let error = pushed.unwrap_err();
    assert!(matches!(error.phase(), Phase::StartUpload(_)), "{error}");
    assert!(error.reason().contains("NAME_UNKNOWN"), "{error}");

    let credentials = credentials(&registry, |settings| settings.create_repository = true);
    let eager = client(credentials);
    eager.push_image(&reference, &image, &none).await.unwrap();

    // Somebody else was quicker: that it is there already is no failure.
    let missing = Answer {
        status: 404,
        headers: Vec::new(),
        body: br#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#.to_vec(),
    };
    let start = "/v2/team/app/blobs/uploads/";
    registry.inject("POST", start, 1, Fault::Answer(missing));
    registry.clear_requests();
    let more = in_turn(103, &[1000]);
    eager.push_image(&reference, &more, &none).await.unwrap();
    assert_eq!(calls(&registry), 1);
}

#[tokio::test]
async fn a_repository_that_may_not_be_made_names_the_permission() {
    let registry = registry(|service| service.wants_repositories = true);
    let client = client(credentials(&registry, |s| s.create_repository = true));
    // The first call is the login, the second request the start of the upload.
    let denied = exception("AccessDeniedException", "User u is not authorized");
    registry.inject("POST", "/", 3, denied);
    let reference = registry.reference("app:v1");
    let image = in_turn(104, &[1000]);
    let none = Progress::none();
    let pushed = client.push_image(&reference, &image, &none).await;
    let error = pushed.unwrap_err();
    let digest = image.layers[0].descriptor.digest;
    assert_eq!(error.phase(), Phase::StartUpload(digest));
    let reason = error.reason();
    assert!(reason.contains("allow it ecr:CreateRepository"), "{reason}");
}
