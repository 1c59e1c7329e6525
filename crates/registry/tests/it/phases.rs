//! A push that fails says where it was going, how far it came, and why.

use ocibuild_registry::testing::{Fault, Login, Registry};
use ocibuild_registry::{Client, Credential, Error, ImagePush, Phase, Progress, Reference};

use crate::support::{client, client_with, image};

/// The sentence that a caller makes of an error.
fn sentence(reference: &Reference, error: &Error) -> String {
    let (phase, reason) = (error.phase(), error.reason());
    format!("push to {reference} failed while {phase}: {reason}")
}

async fn failure(client: &Client, reference: &Reference, image: &ImagePush) -> Error {
    let pushed = client.push_image(reference, image, &Progress::none()).await;
    pushed.unwrap_err()
}

#[tokio::test]
async fn each_phase_is_named() {
    let mut image = image(110, &[300_000]);
    image.concurrency = 1;
    let layer = image.layers[0].descriptor.digest;
    let config = image.config.digest;
    for (method, path, nth, phase, words) in [
        (
            "HEAD",
            "manifests/",
            1,
            Phase::Resolve,
            "looking the name up".to_owned(),
        ),
        (
            "HEAD",
            "blobs/",
            1,
            Phase::FindBlob(layer),
            format!("looking for blob {layer}"),
        ),
        (
            "POST",
            "blobs/uploads/",
            1,
            Phase::StartUpload(layer),
            format!("starting the upload of blob {layer}"),
        ),
        (
            "PUT",
            "blobs/uploads/",
            1,
            Phase::Upload(layer),
            format!("uploading blob {layer}"),
        ),
        (
            "PUT",
            "blobs/uploads/",
            2,
            Phase::Upload(config),
            format!("uploading blob {config}"),
        ),
        (
            "PUT",
            "manifests/",
            1,
            Phase::PushManifest,
            "sending the manifest".to_owned(),
        ),
    ] {
        let registry = Registry::start().unwrap();
        let reference = registry.reference("team/app:v1");
        let path = format!("/v2/team/app/{path}");
        registry.inject(method, &path, nth, Fault::Status(400));
        let error = failure(&client(), &reference, &image).await;
        assert_eq!(error.phase(), phase);
        assert_eq!(error.repository(), reference.repository());
        assert_eq!(
            sentence(&reference, &error),
            format!(
                "push to {reference} failed while {words}: the registry answered 400 Bad Request"
            )
        );
        // Its own text names the place too.
        let text = error.to_string();
        assert!(text.contains(&reference.repository().to_string()), "{text}");
    }
}

#[tokio::test]
async fn a_mount_that_breaks_is_named() {
    let registry = Registry::start().unwrap();
    let mut image = image(111, &[1000]);
    let layer = &mut image.layers[0];
    layer.mount_from = vec![registry.repository("base")];
    let digest = layer.descriptor.digest;
    // Only failures that are not a refusal: else the upload goes on without a mount.
    for _ in 0..4 {
        registry.inject("POST", "/v2/app/blobs/uploads/", 1, Fault::Status(503));
    }
    let reference = registry.reference("app:v1");
    let error = failure(&client(), &reference, &image).await;
    assert_eq!(error.phase(), Phase::Mount(digest));
    assert_eq!(
        sentence(&reference, &error),
        format!(
            "push to {reference} failed while mounting blob {digest}: gave up after 4 attempts: \
             the registry answered 503 Service Unavailable"
        )
    );
}

#[tokio::test]
async fn a_connection_that_breaks_names_its_other_end() {
    let registry = Registry::start().unwrap();
    let image = image(112, &[300_000]);
    for _ in 0..8 {
        for method in ["PUT", "PATCH"] {
            registry.inject(method, "/v2/app/blobs/uploads/", 1, Fault::Reset);
        }
    }
    let reference = registry.reference("app:v1");
    let error = failure(&client(), &reference, &image).await;
    let digest = image.layers[0].descriptor.digest;
    assert_eq!(error.phase(), Phase::Upload(digest));
    let text = sentence(&reference, &error);
    let want = format!(
        "push to {reference} failed while uploading blob {digest}: gave up after 4 attempts: \
         the connection to {} failed: ",
        registry.host()
    );
    assert!(text.starts_with(&want), "{text}");
    assert!(!text.contains("http://"), "{text}");
}

#[tokio::test]
async fn a_login_that_fails_is_named_whatever_it_was_for() {
    let image = image(113, &[1000]);
    let wrong = || Credential::password("user", "geheim");

    let basic = Registry::start_with(Login::basic("user", "pass")).unwrap();
    let token = Registry::start_with(Login::token("user", "pass")).unwrap();
    for (registry, why) in [
        (&basic, "the registry answered 401 Unauthorized"),
        (
            &token,
            "wrong user name, password or token (401); UNAUTHORIZED: log in first",
        ),
    ] {
        let reference = registry.reference("app:v1");
        let client = client_with(registry, wrong());
        let error = failure(&client, &reference, &image).await;
        let text = sentence(&reference, &error);
        let begin = format!("push to {reference} failed while logging in: ");
        assert!(text.starts_with(&begin) && text.ends_with(why), "{text}");
        assert_eq!(error.repository(), reference.repository());
        assert!(!text.contains("geheim"), "{text}");
    }

    // No right to push is not a failed login.
    let registry = Registry::start().unwrap();
    registry.inject("POST", "/v2/app/blobs/uploads/", 1, Fault::Status(403));
    let error = failure(&client(), &registry.reference("app:v1"), &image).await;
    assert!(matches!(error.phase(), Phase::StartUpload(_)), "{error}");
}
