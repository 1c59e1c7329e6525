//! A registry that is reached under another host than its name says.

use ocibuild_registry::testing::{Answer, Fault, Logged, Login, Registry, TokenLogin};
use ocibuild_registry::{
    BlobOutcome, Client, ClientBuilder, Credential, Credentials, Digest, Phase, Platform, Progress,
    Reference, Repository,
};

use crate::support::{Judged, blob, image, quick};

/// A name that no resolver knows, so that whatever works goes to the endpoint.
const NAME: &str = "registry.invalid:5000";

fn reference(name: &str) -> Reference {
    format!("{NAME}/{name}").parse().unwrap()
}

fn repository(path: &str) -> Repository {
    Repository::new(NAME, path).unwrap()
}

fn alias(endpoint: impl Into<String>) -> ClientBuilder {
    Client::builder().retry(quick()).alias(NAME, endpoint)
}

async fn everything_works_by_the_name(registry: Judged) {
    let endpoint = registry.repository("x").registry().to_owned();
    for endpoint in [endpoint.clone(), format!("http://{endpoint}")] {
        let client = alias(endpoint).build().unwrap();
        let image = image(90, &[300_000, 10]);
        let name = reference("team/app:v1");
        let none = Progress::none();
        let pushed = client.push_image(&name, &image, &none).await.unwrap();
        assert_eq!(pushed.digest, Digest::sha256(&image.manifest));
        let pulled = client.image(&name, &Platform::host()).await.unwrap();
        assert_eq!(pulled.bytes, image.manifest);
        let layer = &pulled.manifest.layers[0];
        let bytes = client.blob_bytes(name.repository(), layer, 1 << 30).await;
        assert_eq!(Digest::sha256(&bytes.unwrap()), layer.digest);
        assert_eq!(client.tags(name.repository()).await.unwrap(), ["v1"]);
    }
    // It is the registry itself that has the image, under its own name as well.
    let direct = crate::support::client();
    let there = registry.reference("team/app:v1");
    assert!(direct.head(&there).await.unwrap().is_some());
}

async fn blobs_are_mounted_by_the_name(registry: Judged) {
    let endpoint = registry.repository("x").registry().to_owned();
    let client = alias(endpoint).build().unwrap();
    let (descriptor, source) = blob(91, 200_000);
    let (base, app) = (repository("base"), repository("team/app"));
    let none = Progress::none();
    client
        .push_blob(&base, &descriptor, &source, &[], &none)
        .await
        .unwrap();
    let from = [base.clone()];
    let outcome = client
        .push_blob(&app, &descriptor, &source, &from, &none)
        .await
        .unwrap();
    assert_eq!(outcome, BlobOutcome::Mounted(base));
}

macro_rules! judged {
    ($($name:ident),* $(,)?) => {
        mod ours {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Judged::ours()).await;
            })*
        }

        mod debian {
            $(#[tokio::test]
            async fn $name() {
                if let Some(registry) = super::Judged::debian() {
                    super::$name(registry).await;
                }
            })*
        }
    };
}

judged!(everything_works_by_the_name, blobs_are_mounted_by_the_name);

#[tokio::test]
async fn errors_of_the_connection_say_both_names() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    drop(listener);
    let client = alias(&endpoint).build().unwrap();
    let error = client.resolve(&reference("app:v1")).await.unwrap_err();
    let reason = error.reason();
    let want = format!("the connection to {NAME} (reached as {endpoint}) failed");
    assert!(reason.contains(&want), "{reason}");
    assert_eq!(error.repository().registry(), NAME);

    let registry = Registry::start().unwrap();
    let client = alias(registry.host()).build().unwrap();
    for _ in 0..4 {
        registry.inject("HEAD", "/v2/app/", 1, Fault::Stall);
    }
    let error = client.resolve(&reference("app:v1")).await.unwrap_err();
    let reason = error.reason();
    let both = format!("{NAME} (reached as {})", registry.host());
    assert!(reason.contains(&both), "{reason}");

    // What the registry itself says is about the name that was asked for.
    registry.inject("PUT", "/v2/app/manifests/", 1, Fault::Status(400));
    let pushed = client
        .push_image(&reference("app:v1"), &image(92, &[10]), &Progress::none())
        .await;
    let text = pushed.unwrap_err().to_string();
    let want = format!("push manifest {NAME}/app:v1: the registry answered 400 Bad Request");
    assert_eq!(text, want);
}

#[tokio::test]
async fn credentials_are_those_of_the_name_then_those_of_the_endpoint() {
    let registry = Registry::start_with(Login::basic("user", "pass")).unwrap();
    let endpoint = registry.host();
    let good = || Credential::password("user", "pass");
    let bad = || Credential::password("user", "geheim");
    let none = Credentials::anonymous;
    for (credentials, works) in [
        (none().with(NAME, good()), true),
        (none().with(&endpoint, good()), true),
        (none().with(NAME, good()).with(&endpoint, bad()), true),
        (none().with(NAME, bad()).with(&endpoint, good()), false),
        (none(), false),
    ] {
        let client = alias(&endpoint).credentials(credentials).build().unwrap();
        let found = client.head(&reference("app:v1")).await;
        assert_eq!(found.is_ok(), works, "{found:?}");
        if let Err(error) = found {
            assert_eq!(error.phase(), Phase::Login);
        }
    }
}

#[tokio::test]
async fn answers_that_name_the_name_lead_to_the_endpoint() {
    let Login::Token(login) = Login::token("user", "pass") else {
        unreachable!("it makes a token login")
    };
    let registry = Registry::start_with(Login::Token(TokenLogin {
        realm: Some(format!("http://{NAME}/token")),
        ..login
    }))
    .unwrap();
    let credentials = Credentials::anonymous().with(NAME, Credential::password("user", "pass"));
    let client = alias(registry.host())
        .credentials(credentials)
        .build()
        .unwrap();
    let name = reference("app:v1");
    let none = Progress::none();
    client
        .push_image(&name, &image(93, &[1000]), &none)
        .await
        .unwrap();
    assert!(registry.count("GET", "/token") > 0);

    let location = format!("http://{NAME}/v2/app/blobs/uploads/unknown");
    let accepted = Answer {
        status: 202,
        headers: vec![("location".to_owned(), location)],
        body: Vec::new(),
    };
    registry.inject("POST", "/v2/app/blobs/uploads/", 1, Fault::Answer(accepted));
    let (descriptor, source) = blob(94, 1000);
    // There is no such session, so the upload goes on in another.
    client
        .push_blob(name.repository(), &descriptor, &source, &[], &none)
        .await
        .unwrap();
    let requests = registry.requests();
    let at_location = |r: &&Logged| r.path == "/v2/app/blobs/uploads/unknown";
    let upload = requests.iter().find(at_location).unwrap();
    assert_eq!(upload.status, Some(404));
    assert!(upload.authorized);
}
