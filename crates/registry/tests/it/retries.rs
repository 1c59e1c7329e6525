//! Failures that pass: what is tried again, how much is sent again, and when it ends.

use std::time::{Duration, Instant};

use ocibuild_registry::testing::{Fault, Registry};
use ocibuild_registry::{BlobOutcome, BlobSource, Client, Error, Progress, Retry};

use crate::support::{blob, client, image, quick};

#[tokio::test]
async fn passing_failures_do_not_fail_a_push() {
    let faults = [
        Fault::Status(503),
        Fault::Status(500),
        Fault::Status(429),
        Fault::RetryAfter {
            status: 429,
            seconds: 0,
        },
        Fault::Reset,
        Fault::Stall,
        Fault::LoseAnswer,
        Fault::ResetAfter(100_000),
    ];
    let places = [
        ("HEAD", "/v2/app/manifests/"),
        ("HEAD", "/v2/app/blobs/"),
        ("POST", "/v2/app/blobs/uploads/"),
        ("PUT", "/v2/app/blobs/uploads/"),
        ("PUT", "/v2/app/manifests/"),
    ];
    let image = image(40, &[900_000]);
    for fault in faults {
        let registry = Registry::start().unwrap();
        for (method, path) in places {
            registry.inject(method, path, 1, fault.clone());
        }
        let reference = registry.reference("app:v1");
        let pushed = client()
            .push_image(&reference, &image, &Progress::none())
            .await;
        pushed.unwrap_or_else(|error| panic!("{fault:?}: {error}: {:?}", registry.requests()));
        assert!(client().manifest(&reference).await.is_ok());
    }
}

#[tokio::test]
async fn an_upload_whose_answer_is_lost_is_not_sent_again() {
    let registry = Registry::start().unwrap();
    let (descriptor, source) = blob(41, 500_000);
    let repository = registry.repository("app");
    registry.inject("PUT", "/v2/app/blobs/", 1, Fault::LoseAnswer);
    let outcome = client()
        .push_blob(&repository, &descriptor, &source, &[], &Progress::none())
        .await
        .unwrap();
    assert_eq!(outcome, BlobOutcome::Uploaded);
    assert_eq!(registry.uploaded_bytes(), 500_000);
}

#[tokio::test]
async fn downloads_go_on_where_they_broke() {
    for fault in [Fault::TruncateAfter(200_000), Fault::StallAfter(200_000)] {
        let registry = Registry::start().unwrap();
        let repository = registry.repository("app");
        let (descriptor, source) = blob(42, 1_000_000);
        let client = client();
        let none = Progress::none();
        client
            .push_blob(&repository, &descriptor, &source, &[], &none)
            .await
            .unwrap();
        registry.clear_requests();
        for nth in 1..=3 {
            registry.inject("GET", "/v2/app/blobs/", nth, fault.clone());
        }
        let folder = tempfile::tempdir().unwrap();
        let dest = folder.path().join("blob");
        client
            .download_blob(&repository, &descriptor, &dest, &none)
            .await
            .unwrap();
        let BlobSource::Bytes(want) = source else {
            unreachable!("the blob is made of bytes")
        };
        assert!(std::fs::read(&dest).unwrap() == want);
        let ranges: Vec<_> = registry.requests().into_iter().map(|r| r.range).collect();
        let want = [None, Some(200_000), Some(400_000), Some(600_000)]
            .map(|offset| offset.map(|offset: u64| format!("bytes={offset}-")));
        assert_eq!(ranges, want, "{fault:?}");
    }
}

#[tokio::test]
async fn a_failed_download_leaves_nothing_behind() {
    let registry = Registry::start().unwrap();
    let repository = registry.repository("app");
    let (descriptor, source) = blob(43, 300_000);
    let client = client();
    let none = Progress::none();
    client
        .push_blob(&repository, &descriptor, &source, &[], &none)
        .await
        .unwrap();
    registry.inject("GET", "/v2/app/blobs/", 1, Fault::TruncateAfter(1000));
    registry.inject("GET", "/v2/app/blobs/", 2, Fault::Status(404));
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("blob");
    let error = client
        .download_blob(&repository, &descriptor, &dest, &none)
        .await
        .unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

    let nowhere = folder.path().join("missing/blob");
    let error = client
        .download_blob(&repository, &descriptor, &nowhere, &none)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::File { .. }), "{error}");
}

#[tokio::test]
async fn patience_ends() {
    let registry = Registry::start().unwrap();
    for _ in 0..20 {
        registry.inject("HEAD", "/v2/app/", 1, Fault::Status(503));
    }
    let error = client()
        .resolve(&registry.reference("app:v1"))
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "gave up after 4 attempts");
    assert_eq!(error.status(), Some(503));
    assert_eq!(registry.requests().len(), 4);

    // A pause that would end after the deadline is not begun.
    let hurried = Retry {
        deadline: Duration::from_millis(200),
        ..quick()
    };
    let client = Client::builder().retry(hurried).build().unwrap();
    let busy = Fault::RetryAfter {
        status: 429,
        seconds: 60,
    };
    registry.inject("HEAD", "/v2/busy/", 1, busy);
    let start = Instant::now();
    let error = client
        .resolve(&registry.reference("busy:v1"))
        .await
        .unwrap_err();
    assert_eq!(error.status(), Some(429));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn failures_that_stay_are_not_tried_again() {
    let registry = Registry::start().unwrap();
    for status in [400, 403, 404, 405] {
        registry.clear_requests();
        registry.inject("HEAD", "/v2/app/", 1, Fault::Status(status));
        let error = client()
            .resolve(&registry.reference("app:v1"))
            .await
            .unwrap_err();
        assert_eq!(error.status(), Some(status));
        assert_eq!(registry.requests().len(), 1);
    }
}

#[tokio::test]
async fn nobody_there() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    drop(listener);
    let reference = format!("{host}/app:v1").parse().unwrap();
    let error = client().resolve(&reference).await.unwrap_err();
    let Error::GaveUp {
        attempts: 4,
        source,
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(
        source.to_string(),
        format!("resolve {host}/app:v1: the connection to {host} failed")
    );
}
