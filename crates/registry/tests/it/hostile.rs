//! Registries that lie.

use ocibuild_registry::testing::{Answer, Fault, Registry};
use ocibuild_registry::{Descriptor, Error, Progress, media_type};

use crate::support::{blob, client, image};

/// Tells whether an error is the one that should come.
type Expected = fn(&Error) -> bool;

fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Fault {
    Fault::Answer(Answer {
        status,
        headers: headers
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        body: body.into(),
    })
}

#[tokio::test]
async fn blobs_that_are_not_what_they_should_be() {
    let registry = Registry::start().unwrap();
    let repository = registry.repository("app");
    let (descriptor, _) = blob(60, 1000);
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("blob");
    let none = Progress::none();
    let cases: [(Fault, Expected); 4] = [
        (answer(200, &[], vec![0; 1000]), |e| {
            matches!(e, Error::DigestMismatch { .. })
        }),
        (answer(200, &[], vec![0; 999]), |e| {
            matches!(e, Error::SizeMismatch { actual: 999, .. })
        }),
        (answer(200, &[], vec![0; 100_000]), |e| {
            matches!(e, Error::SizeMismatch { .. })
        }),
        (
            answer(206, &[("content-range", "bytes 0-999/1000")], vec![0; 1000]),
            |e| matches!(e, Error::Protocol { .. }),
        ),
    ];
    for (fault, expected) in cases {
        registry.inject("GET", "/v2/app/blobs/", 1, fault);
        let error = client()
            .download_blob(&repository, &descriptor, &dest, &none)
            .await
            .unwrap_err();
        assert!(expected(&error), "{error:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_resumed_blob_is_checked_as_a_whole() {
    let registry = Registry::start().unwrap();
    let repository = registry.repository("app");
    let (descriptor, source) = blob(61, 300_000);
    let client = client();
    let none = Progress::none();
    client
        .push_blob(&repository, &descriptor, &source, &[], &none)
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("blob");
    registry.inject("GET", "/v2/app/blobs/", 1, Fault::TruncateAfter(100_000));
    let rest = [("content-range", "bytes 100000-299999/300000")];
    registry.inject(
        "GET",
        "/v2/app/blobs/",
        2,
        answer(206, &rest, vec![0; 200_000]),
    );
    let error = client
        .download_blob(&repository, &descriptor, &dest, &none)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error:?}");

    // A registry that does not know ranges sends everything again, which is fine.
    registry.inject("GET", "/v2/app/blobs/", 1, Fault::TruncateAfter(100_000));
    let ocibuild_registry::BlobSource::Bytes(bytes) = &source else {
        unreachable!("the blob is made of bytes")
    };
    registry.inject("GET", "/v2/app/blobs/", 2, answer(200, &[], bytes.to_vec()));
    client
        .download_blob(&repository, &descriptor, &dest, &none)
        .await
        .unwrap();
    assert!(std::fs::read(&dest).unwrap() == *bytes);
}

#[tokio::test]
async fn manifests_that_are_not_what_they_should_be() {
    let registry = Registry::start().unwrap();
    let image = image(62, &[10]);
    let oci = ("content-type", media_type::MANIFEST);
    let zero = format!("sha256:{}", "0".repeat(64));
    let by_digest = registry
        .repository("app")
        .with_digest(ocibuild_registry::Digest::sha256(b"another"));
    let by_tag = registry.reference("app:v1");
    let huge = vec![b' '; 5 * 1024 * 1024];
    let cases: [(_, Fault, Expected); 7] = [
        (
            &by_digest,
            answer(200, &[oci], image.manifest.to_vec()),
            |e| matches!(e, Error::DigestMismatch { .. }),
        ),
        (
            &by_tag,
            answer(
                200,
                &[oci, ("docker-content-digest", &zero)],
                image.manifest.to_vec(),
            ),
            |e| matches!(e, Error::DigestMismatch { .. }),
        ),
        (
            &by_tag,
            answer(200, &[oci, ("docker-content-digest", "no digest")], "{}"),
            |e| matches!(e, Error::Protocol { .. }),
        ),
        (&by_tag, answer(200, &[oci], huge), |e| {
            matches!(e, Error::TooLarge { .. })
        }),
        (&by_tag, answer(200, &[oci], "<html>"), |e| {
            matches!(e, Error::Document { .. })
        }),
        (
            &by_tag,
            answer(
                200,
                &[("content-type", media_type::INDEX)],
                image.manifest.to_vec(),
            ),
            |e| matches!(e, Error::Protocol { .. }),
        ),
        (
            &by_tag,
            answer(302, &[("location", "file:///etc/passwd")], ""),
            |e| matches!(e, Error::Protocol { .. }),
        ),
    ];
    for (reference, fault, expected) in cases {
        registry.inject("GET", "/v2/app/manifests/", 1, fault);
        let error = client().manifest(reference).await.unwrap_err();
        assert!(expected(&error), "{error:?}");
    }
}

#[tokio::test]
async fn a_push_is_only_believed_with_the_right_digest() {
    let registry = Registry::start().unwrap();
    let image = image(63, &[10]);
    let reference = registry.reference("app:v1");
    let zero = format!("sha256:{}", "0".repeat(64));
    let wrong = [("docker-content-digest", zero.as_str())];
    let client = client();
    let none = Progress::none();
    registry.inject("PUT", "/v2/app/blobs/", 1, answer(201, &wrong, ""));
    let error = client.push_image(&reference, &image, &none).await;
    assert!(
        matches!(error, Err(Error::DigestMismatch { .. })),
        "{error:?}"
    );
    registry.inject("PUT", "/v2/app/manifests/", 1, answer(201, &wrong, ""));
    let error = client.push_image(&reference, &image, &none).await;
    assert!(
        matches!(error, Err(Error::DigestMismatch { .. })),
        "{error:?}"
    );
    // Without the header the registry is asked; it has not stored anything here.
    registry.inject("PUT", "/v2/app/manifests/", 1, answer(201, &[], ""));
    let error = client.push_image(&reference, &image, &none).await;
    assert!(error.unwrap_err().is_not_found());
}

#[tokio::test]
async fn endless_redirects_and_pages_end() {
    let registry = Registry::start().unwrap();
    let (descriptor, _) = blob(64, 10);
    let path = format!("/v2/app/blobs/{}", descriptor.digest);
    for _ in 0..10 {
        registry.inject("GET", &path, 1, answer(307, &[("location", &path)], ""));
    }
    let error = client()
        .blob(&registry.repository("app"), &descriptor)
        .await
        .unwrap_err();
    assert!(
        error.to_string().ends_with("it redirects too often"),
        "{error}"
    );

    let next = [(
        "link",
        "<http://elsewhere.example/v2/app/tags/list>; rel=\"next\"",
    )];
    registry.inject(
        "GET",
        "/v2/app/tags/",
        1,
        answer(200, &next, r#"{"tags":["a"]}"#),
    );
    let tags = client().tags(&registry.repository("app")).await.unwrap();
    assert_eq!(tags, ["a"]);
}

#[tokio::test]
async fn error_texts_show_no_url_and_no_control_characters() {
    let registry = Registry::start().unwrap();
    let body = r#"{"errors":[{"code":"DENIED","message":"\u001b[2J go\naway"}]}"#;
    registry.inject("PUT", "/v2/app/blobs/uploads/", 1, answer(403, &[], body));
    let (descriptor, source) = blob(65, 10);
    let repository = registry.repository("app");
    let error = client()
        .push_blob(&repository, &descriptor, &source, &[], &Progress::none())
        .await
        .unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(
        error.to_string().ends_with("DENIED:  [2J go away"),
        "{text}"
    );
    assert!(
        !text.contains("http://") && !text.contains("digest="),
        "{text}"
    );
}

#[tokio::test]
async fn a_source_of_another_size_is_not_sent() {
    let registry = Registry::start().unwrap();
    let (descriptor, source) = blob(66, 10);
    let wrong = Descriptor {
        size: 11,
        ..descriptor
    };
    let repository = registry.repository("app");
    let error = client()
        .push_blob(&repository, &wrong, &source, &[], &Progress::none())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::SizeMismatch { .. }), "{error:?}");
}
