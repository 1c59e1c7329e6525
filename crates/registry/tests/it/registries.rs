//! What an operator says about registries: mirrors, names, policies of tags; and the
//! question before a build whether its image can be pushed.

use ocibuild_registry::testing::{EcrService, Fault, Login, Registry};
use ocibuild_registry::{
    AccessKey, AwsKeys, Client, ClientBuilder, CloudEnvironment, Credential, Credentials, EcrLogin,
    EcrSettings, Error, Platform, Progress, Reference, Registries, Secret, TagPolicy,
};

use crate::support::{client, image, quick};

fn settings(text: &str) -> ClientBuilder {
    let registries = Registries::parse(text).unwrap();
    let builder = Client::builder().retry(quick());
    let environment = CloudEnvironment::default();
    builder.registries(&registries, &environment).unwrap()
}

fn mirrored(origin: &Registry, mirrors: &[String]) -> ClientBuilder {
    let host = origin.host();
    settings(&format!("[registry.\"{host}\"]\nmirrors = {mirrors:?}"))
}

async fn push(registry: &Registry, name: &str, seed: u64) -> Reference {
    let reference = registry.reference(name);
    send(&client(), &reference, seed, &[5000]).await.unwrap();
    registry.clear_requests();
    reference
}

async fn send(client: &Client, name: &Reference, seed: u64, layers: &[usize]) -> Result<(), Error> {
    let image = image(seed, layers);
    let pushed = client.push_image(name, &image, &Progress::none()).await;
    pushed.map(drop)
}

/// Pulls manifest and layers, and throws them away.
async fn pull(client: &Client, reference: &Reference) -> Result<(), Error> {
    let platform: Platform = "linux/amd64".parse().unwrap();
    let found = client.image(reference, &platform).await?;
    let folder = tempfile::tempdir().unwrap();
    for layer in &found.manifest.layers {
        let file = folder.path().join("layer");
        let repository = reference.repository();
        client
            .download_blob(repository, layer, &file, &Progress::none())
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn mirrors_are_asked_in_their_order_and_pushes_go_to_the_registry() {
    let registries = [(); 3].map(|()| Registry::start().unwrap());
    let [origin, first, second] = &registries;
    let name = push(origin, "team/app:v1", 20).await;
    push(second, "hub/team/app:v1", 20).await;
    let hosts = [first.host(), format!("http://{}/hub", second.host())];
    let client = mirrored(origin, &hosts).build().unwrap();
    pull(&client, &name).await.unwrap();
    assert_eq!(origin.requests().len(), 0);
    assert!(first.count("GET", "/v2/team/app/manifests/v1") > 0);
    assert_eq!(second.count("GET", "/v2/hub/team/app/manifests/v1"), 1);

    let other = origin.reference("team/app:v2");
    send(&client, &other, 21, &[100]).await.unwrap();
    let sent: u64 = [first, second].iter().map(|r| r.uploaded_bytes()).sum();
    assert_eq!((sent, first.count("HEAD", "v2")), (0, 0));
}

#[tokio::test]
async fn a_mirror_that_fails_is_passed_over() {
    for fault in [
        Fault::Status(404),
        Fault::Status(429),
        Fault::Status(503),
        Fault::Status(401),
        Fault::Reset,
        Fault::TruncateAfter(10),
    ] {
        let (origin, mirror) = (Registry::start().unwrap(), Registry::start().unwrap());
        let name = push(&origin, "app:v1", 22).await;
        push(&mirror, "app:v1", 22).await;
        for part in ["/v2/app/manifests", "/v2/app/blobs"] {
            for nth in 1..=9 {
                mirror.inject("GET", part, nth, fault.clone());
            }
        }
        let client = mirrored(&origin, &[mirror.host()]).build().unwrap();
        pull(&client, &name).await.unwrap();
        assert_eq!(origin.count("GET", "/manifests/v1"), 1, "{fault:?}");
        assert_eq!(origin.count("GET", "/blobs/"), 1, "{fault:?}");
        let tried = mirror.count("GET", "/blobs/");
        assert!((1..=2).contains(&tried), "{fault:?}: {tried}");
    }
}

#[tokio::test]
async fn what_nobody_has_is_refused_in_the_words_of_the_registry() {
    let (origin, mirror) = (Registry::start().unwrap(), Registry::start().unwrap());
    let client = mirrored(&origin, &[mirror.host()]).build().unwrap();
    let error = pull(&client, &origin.reference("app:v1"))
        .await
        .unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(error.repository().registry(), origin.host());
}

#[tokio::test]
async fn a_mirror_has_a_login_of_its_own() {
    let origin = Registry::start_with(Login::basic("hub", "one")).unwrap();
    let mirror = Registry::start_with(Login::token("mirror", "two")).unwrap();
    let login = |user: &str, password: &str| Credential::password(user, password);
    let credentials = Credentials::anonymous()
        .with(&origin.host(), login("hub", "one"))
        .with(&mirror.host(), login("mirror", "two"));
    let (name, copy) = (origin.reference("app:v1"), mirror.reference("app:v1"));
    let direct = Client::builder()
        .retry(quick())
        .credentials(credentials.clone());
    let direct = direct.build().unwrap();
    for name in [&name, &copy] {
        let image = image(23, &[500]);
        direct
            .push_image(name, &image, &Progress::none())
            .await
            .unwrap();
    }
    origin.clear_requests();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "two\n").unwrap();
    let text = format!(
        "[registry.\"{}\"]\nmirrors = [\"{}\"]\n[registry.\"{}\"]\nusername = \"mirror\"\n\
         password_file = \"password\"\n",
        origin.host(),
        mirror.host(),
        mirror.host()
    );
    let toml = folder.path().join("registries.toml");
    std::fs::write(&toml, text).unwrap();
    let registries = Registries::read(&toml).unwrap();
    let client = Client::builder().retry(quick());
    let client = client.registries(&registries, &CloudEnvironment::default());
    pull(&client.unwrap().build().unwrap(), &name)
        .await
        .unwrap();
    assert_eq!(origin.requests().len(), 0);
}

#[tokio::test]
async fn tags_are_kept_where_their_policy_says_so() {
    for (policy, same, other) in [
        (TagPolicy::Overwrite, true, true),
        (TagPolicy::KeepIfSame, true, false),
        (TagPolicy::FailIfExists, false, false),
    ] {
        let registry = Registry::start().unwrap();
        let name = push(&registry, "app:v1", 24).await;
        let client = Client::builder().retry(quick()).tag_policy(policy);
        let client = client.build().unwrap();
        for (seed, want) in [(24, same), (25, other)] {
            let pushed = send(&client, &name, seed, &[5000]).await;
            assert_eq!(pushed.is_ok(), want, "{policy} {pushed:?}");
            assert!(pushed.is_ok() || matches!(pushed, Err(Error::TagExists { .. })));
        }
        let fresh = registry.reference("app:v2");
        send(&client, &fresh, 25, &[5000]).await.unwrap();
    }
}

#[tokio::test]
async fn a_tag_that_was_set_by_an_attempt_before_is_no_failure() {
    let registry = Registry::start().unwrap();
    let name = registry.reference("app:v1");
    // The manifest arrives, its answer does not, and the tag cannot be set twice.
    registry.inject("PUT", "/v2/app/manifests/", 1, Fault::LoseAnswer);
    registry.inject("PUT", "/v2/app/manifests/", 2, Fault::Status(409));
    let pushed = client()
        .push_image(&name, &image(26, &[100]), &Progress::none())
        .await;
    pushed.unwrap();
    assert_eq!(registry.count("PUT", "/manifests/"), 2);
}

#[tokio::test]
async fn a_preflight_leaves_nothing_behind() {
    let registry = Registry::start().unwrap();
    client()
        .preflight(&registry.reference("app:v1"))
        .await
        .unwrap();
    assert_eq!(registry.count("DELETE", "/blobs/uploads/"), 1);
    assert_eq!(registry.uploaded_bytes(), 0);
}

#[tokio::test]
async fn a_preflight_tells_what_a_push_would_meet() {
    let registry = Registry::start().unwrap();
    let name = push(&registry, "app:v1", 27).await;
    let keeping = Client::builder().tag_policy(TagPolicy::FailIfExists);
    let error = keeping.build().unwrap().preflight(&name).await.unwrap_err();
    assert!(matches!(error, Error::TagExists { .. }), "{error}");

    let body = br#"{"errors": [{"code": "DENIED", "message": "requested access is denied"}]}"#;
    let denied = ocibuild_registry::testing::Answer {
        status: 403,
        headers: Vec::new(),
        body: body.to_vec(),
    };
    registry.inject("POST", "/v2/app/blobs/uploads/", 1, Fault::Answer(denied));
    let error = client().preflight(&name).await.unwrap_err();
    assert!(error.reason().contains("DENIED"), "{}", error.reason());

    let gone = registry.host();
    drop(registry);
    let error = client().preflight(&name).await.unwrap_err();
    assert!(error.to_string().contains("2 attempts"), "{error}");
    assert!(error.reason().contains(&gone), "{}", error.reason());
}

#[tokio::test]
async fn a_preflight_makes_a_repository_at_amazon() {
    let service = EcrService {
        wants_repositories: true,
        ..EcrService::new("eu-1", "AKID", "geheim")
    };
    let registry = Registry::start_with(Login::Ecr(service)).unwrap();
    let login = |create_repository| {
        let login = EcrLogin::new(EcrSettings {
            region: "eu-1".to_owned(),
            account: "123456789012".to_owned(),
            keys: AwsKeys::Fixed(AccessKey {
                id: "AKID".to_owned(),
                secret: Secret::new("geheim"),
                session_token: None,
            }),
            endpoint: Some(format!("http://{}", registry.host()).parse().unwrap()),
            create_repository,
        });
        let credential = Credential::Ecr(login.unwrap());
        let credentials = Credentials::anonymous().with(&registry.host(), credential);
        let builder = Client::builder().retry(quick()).credentials(credentials);
        builder.build().unwrap()
    };
    let name = registry.reference("team/app:v1");
    let error = login(false).preflight(&name).await.unwrap_err();
    assert!(
        error.reason().contains("NAME_UNKNOWN"),
        "{}",
        error.reason()
    );
    login(true).preflight(&name).await.unwrap();
    login(false).preflight(&name).await.unwrap();
}
