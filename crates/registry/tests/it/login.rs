//! Logging in: Basic, tokens, tokens that wear out, and secrets that stay at home.

use ocibuild_registry::testing::{Answer, Fault, Login, Registry, TokenLogin};
use ocibuild_registry::{Client, Credential, Credentials, Error, Progress, Secret};

use crate::support::{blob, client, client_with, image, quick};

fn user() -> Credential {
    Credential::password("user", "pass")
}

fn token_registry(change: impl FnOnce(&mut TokenLogin)) -> Registry {
    let Login::Token(mut login) = Login::token("user", "pass") else {
        unreachable!("it makes a token login")
    };
    change(&mut login);
    Registry::start_with(Login::Token(login)).unwrap()
}

#[tokio::test]
async fn basic() {
    let registry = Registry::start_with(Login::basic("user", "pass")).unwrap();
    let reference = registry.reference("app:v1");
    let image = image(20, &[1000]);
    let none = Progress::none();
    let good = client_with(&registry, user());
    good.push_image(&reference, &image, &none).await.unwrap();

    registry.clear_requests();
    let bad = client_with(&registry, Credential::password("user", "geheim"));
    let error = bad.resolve(&reference).await.unwrap_err();
    assert!(error.is_denied(), "{error}");
    assert!(!format!("{error:?}").contains("geheim"));
    // Once without a password and once with it: no account is locked by us.
    assert_eq!(registry.requests().len(), 2);
    let error = client().resolve(&reference).await.unwrap_err();
    assert_eq!(error.status(), Some(401));
}

#[tokio::test]
async fn tokens_are_fetched_once_for_a_scope() {
    let registry = token_registry(|_| {});
    let client = client_with(&registry, user());
    let reference = registry.reference("team/app:v1");
    let image = image(21, &[1000, 2000, 3000]);
    let none = Progress::none();
    client.push_image(&reference, &image, &none).await.unwrap();
    // One token to look at the tag, one to push.
    assert_eq!(registry.count("GET", "/token"), 2);
    client.manifest(&reference).await.unwrap();
    assert_eq!(registry.count("GET", "/token"), 2);
}

#[tokio::test]
async fn identity_tokens_buy_access_tokens() {
    let registry = token_registry(|login| login.identity = Some("refresh me".to_owned()));
    let identity = Credential::IdentityToken(Secret::new("refresh me"));
    let client = client_with(&registry, identity);
    let none = Progress::none();
    client
        .push_image(&registry.reference("app:v1"), &image(22, &[10]), &none)
        .await
        .unwrap();
    assert!(registry.count("POST", "/token") > 0);
    assert_eq!(registry.count("GET", "/token"), 0);
}

#[tokio::test]
async fn tokens_that_wear_out_mid_upload_are_renewed() {
    for expired_is_403 in [false, true] {
        for uses in 1..6 {
            let registry = token_registry(|login| {
                login.uses = Some(uses);
                login.expired_is_403 = expired_is_403;
            });
            let client = client_with(&registry, user());
            let mut image = image(23, &[400_000, 300_000, 10]);
            // One after the other: parallel layers would wear out each other's tokens
            // faster than a real clock does.
            image.concurrency = 1;
            let reference = registry.reference("app:v1");
            let none = Progress::none();
            let pushed = client.push_image(&reference, &image, &none).await;
            pushed.unwrap_or_else(|error| panic!("{uses} uses: {}", error.reason()));
        }
    }
}

#[tokio::test]
async fn short_lives_are_not_trusted_beyond_their_end() {
    let registry = token_registry(|login| login.expires_in = 0);
    let client = client_with(&registry, user());
    let reference = registry.reference("app:v1");
    let none = Progress::none();
    client
        .push_image(&reference, &image(24, &[10]), &none)
        .await
        .unwrap();
    registry.clear_requests();
    client.resolve(&reference).await.unwrap();
    client.resolve(&reference).await.unwrap();
    assert_eq!(registry.count("GET", "/token"), 2);
}

#[tokio::test]
async fn a_wrong_password_is_named_as_the_reason() {
    let registry = token_registry(|_| {});
    let client = client_with(&registry, Credential::password("user", "geheim"));
    let error = client.resolve(&registry.reference("app:v1")).await;
    let Err(error @ Error::Token { .. }) = error else {
        panic!("{error:?}")
    };
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        cause.contains("wrong user name, password or token"),
        "{cause}"
    );
    assert!(!format!("{error:?}").contains("geheim"));
    // It is not tried again: that would lock accounts.
    assert_eq!(registry.count("GET", "/token"), 1);
}

#[tokio::test]
async fn mounting_asks_for_the_source_too() {
    let registry = token_registry(|_| {});
    let client = client_with(&registry, user());
    let (descriptor, source) = blob(25, 1000);
    let none = Progress::none();
    let (from, to) = (registry.repository("base"), registry.repository("app"));
    client
        .push_blob(&from, &descriptor, &source, &[], &none)
        .await
        .unwrap();
    registry.clear_requests();
    client
        .push_blob(&to, &descriptor, &source, &[from], &none)
        .await
        .unwrap();
    assert_eq!(registry.uploaded_bytes(), 0);
    let tokens: Vec<_> = registry.requests();
    let token = tokens
        .iter()
        .rfind(|request| request.path == "/token")
        .unwrap();
    assert!(
        token.query.contains("repository%3Aapp%3Apull%2Cpush"),
        "{}",
        token.query
    );
    assert!(
        token.query.contains("repository%3Abase%3Apull"),
        "{}",
        token.query
    );
}

#[tokio::test]
async fn secrets_do_not_follow_realms_redirects_or_locations() {
    let elsewhere = Registry::start().unwrap();
    for realm in [
        "http://token.example/",
        "ftp://127.0.0.1/",
        "nonsense",
        "http://u:p@127.0.0.1/",
    ] {
        let registry = token_registry(|login| login.realm = Some(realm.to_owned()));
        let client = client_with(&registry, user());
        let error = client
            .resolve(&registry.reference("app:v1"))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Token { .. }), "{realm}: {error}");
    }

    let registry = Registry::start_with(Login::basic("user", "pass")).unwrap();
    let client = client_with(&registry, user());
    let (descriptor, source) = blob(26, 1000);
    let none = Progress::none();
    // The same path on another registry: there the blob is.
    let there = elsewhere.repository("app");
    client
        .push_blob(&there, &descriptor, &source, &[], &none)
        .await
        .unwrap();
    elsewhere.clear_requests();

    let here = registry.repository("app");
    client.exists(&here, &descriptor.digest).await.unwrap();
    let redirect = |path: String| {
        Fault::Answer(Answer {
            status: 307,
            headers: vec![(
                "location".to_owned(),
                format!("http://{}{path}", elsewhere.host()),
            )],
            body: Vec::new(),
        })
    };
    let path = format!("/v2/app/blobs/{}", descriptor.digest);
    registry.inject("GET", &path, 1, redirect(path.clone()));
    client.blob_bytes(&here, &descriptor, 2000).await.unwrap();

    // An upload location elsewhere is used, without our password.
    let (other, other_source) = blob(27, 1000);
    let accepted = Answer {
        status: 202,
        headers: vec![(
            "location".to_owned(),
            format!("http://{}/v2/app/blobs/uploads/unknown", elsewhere.host()),
        )],
        body: Vec::new(),
    };
    registry.inject("POST", "/v2/app/blobs/uploads/", 1, Fault::Answer(accepted));
    // There is no such session, so the upload goes on in another one here.
    client
        .push_blob(&here, &other, &other_source, &[], &none)
        .await
        .unwrap();
    let seen = elsewhere.requests();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(seen.iter().all(|request| !request.authorized), "{seen:?}");
}

/// The form of a service account's key file; there is no such account.
const SERVICE_ACCOUNT: &str = r#"{
  "type": "service_account",
  "project_id": "demo",
  "private_key_id": "0123456789abcdef",
  "private_key": "-----BEGIN PRIVATE KEY-----\nbm8ga2V5: \"x\"\n-----END PRIVATE KEY-----\n",
  "client_email": "pusher@demo.iam.gserviceaccount.com",
  "token_uri": "https://oauth2.googleapis.com/token"
}
"#;

#[tokio::test]
async fn a_key_file_of_several_lines_is_a_password() {
    use base64::Engine as _;
    // As Google's registries do it: a token of a realm, for the name `_json_key` and
    // the text of the key file.
    let registry = Registry::start_with(Login::token("_json_key", SERVICE_ACCOUNT)).unwrap();
    let host = registry.host();
    let pair = format!("_json_key:{SERVICE_ACCOUNT}");
    let auth = base64::engine::general_purpose::STANDARD.encode(pair);
    let config = format!(r#"{{"auths": {{"http://{host}": {{"auth": "{auth}"}}}}}}"#);
    let direct = Credential::password("_json_key", SERVICE_ACCOUNT);
    for credentials in [
        Credentials::anonymous().with(&host, direct),
        Credentials::from_docker_config(config.as_bytes()).unwrap(),
    ] {
        registry.clear_requests();
        let client = Client::builder()
            .retry(quick())
            .credentials(credentials.clone())
            .build()
            .unwrap();
        let reference = registry.reference("demo/app:v1");
        let none = Progress::none();
        client
            .push_image(&reference, &image(28, &[1000]), &none)
            .await
            .unwrap();
        client.manifest(&reference).await.unwrap();
        let requests = registry.requests();
        let tokens: Vec<_> = requests.iter().filter(|r| r.path == "/token").collect();
        assert!(!tokens.is_empty());
        // The name may stand in a query, which proxies log; the key may not.
        let says_name = |query: &str| query.contains("account=_json_key");
        assert!(tokens.iter().all(|token| says_name(&token.query)));
        let secrets = credentials.secrets();
        let key_line = SERVICE_ACCOUNT.lines().nth(4).unwrap().trim();
        assert!(secrets.iter().any(|secret| secret.expose() == key_line));
        assert!(
            secrets
                .iter()
                .any(|secret| secret.expose() == auth.trim_end_matches('='))
        );
    }
    let broken = SERVICE_ACCOUNT.replace('\n', " ");
    let client = client_with(&registry, Credential::password("_json_key", broken));
    let error = client.resolve(&registry.reference("demo/app:v1")).await;
    let error = error.unwrap_err();
    assert!(error.is_denied());
    assert!(!format!("{error:?} {}", error.reason()).contains("PRIVATE"));
}

#[tokio::test]
async fn credential_helpers_are_run() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let helper = folder.path().join("docker-credential-ocibuild-test");
    std::fs::write(
        &helper,
        "#!/bin/sh\nread -r host\ncase $host in\n\
         127.0.0.1:*) echo '{\"Username\":\"user\",\"Secret\":\"pass\"}' ;;\n\
         *) echo 'credentials not found in native keychain'; exit 1 ;;\nesac\n",
    )
    .unwrap();
    std::fs::set_permissions(&helper, PermissionsExt::from_mode(0o755)).unwrap();
    // A name with a folder in it is refused, so the helper has to be found by PATH:
    // a child process of this test sees the folder there.
    if std::env::var_os("OCIBUILD_TEST_HELPER").is_none() {
        let path = std::env::var("PATH").unwrap_or_default();
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "login::credential_helpers_are_run"])
            .env("PATH", format!("{}:{path}", folder.path().display()))
            .env("OCIBUILD_TEST_HELPER", "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}"
        );
        return;
    }
    let credentials =
        Credentials::from_docker_config(br#"{"credsStore": "ocibuild-test"}"#).unwrap();
    let elsewhere = "ghcr.io/team/app".parse().unwrap();
    assert_eq!(credentials.find(&elsewhere).await.unwrap(), None);
    let registry = Registry::start_with(Login::basic("user", "pass")).unwrap();
    let client = Client::builder()
        .retry(quick())
        .credentials(credentials)
        .build()
        .unwrap();
    let reference = registry.reference("app:v1");
    assert_eq!(client.head(&reference).await.unwrap(), None);
}
