//! Debian's `docker-registry` and ours behind Debian's nginx, which takes no body above 1 MiB.

use std::time::Duration;

use ocibuild_registry::testing::{
    DebianRegistry, Fault, Nginx, Passed, Registry, StartError, not_installed,
};
use ocibuild_registry::{BlobOutcome, Error, Progress, Reference, Repository};

use crate::line::Line;
use crate::support::{blob, client, image};

/// None, with the reason said, where a program is missing.
fn start(settings: &str) -> Option<(DebianRegistry, Nginx)> {
    let registry = match DebianRegistry::start() {
        Ok(registry) => registry,
        Err(StartError::Missing) => {
            not_installed("docker-registry");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let nginx = before(&registry.host(), settings)?;
    Some((registry, nginx))
}

fn before(registry: &str, settings: &str) -> Option<Nginx> {
    let nginx = Nginx::before(registry, settings).unwrap();
    if nginx.is_none() {
        not_installed("nginx");
    }
    nginx
}

fn reference(nginx: &Nginx, name: &str) -> Reference {
    format!("{}/{name}", nginx.host()).parse().unwrap()
}

#[tokio::test]
async fn an_image_passes_a_proxy_that_takes_a_mebibyte_at_a_time() {
    for settings in [
        "client_max_body_size 1m;",
        "client_max_body_size 1m; proxy_request_buffering off;",
    ] {
        let Some((registry, nginx)) = start(settings) else {
            return;
        };
        let mut image = image(220, &[12_000_000, 7_000_000, 1_000_000]);
        image.concurrency = 1;
        let client = client();
        let pushed = client
            .push_image(&reference(&nginx, "team/app:v1"), &image, &Progress::none())
            .await
            .unwrap_or_else(|error| panic!("{}: {:?}", error.reason(), nginx.requests()));
        assert!(pushed.sent >= 20_000_000);

        // The registry itself has it, whole.
        let there = registry.reference("team/app:v1");
        let folder = tempfile::tempdir().unwrap();
        for layer in &image.layers {
            let file = folder.path().join(layer.descriptor.digest.to_string());
            let none = Progress::none();
            client
                .download_blob(there.repository(), &layer.descriptor, &file, &none)
                .await
                .unwrap();
        }
        // Only the first layer had to learn the size: 12 MB, and steps of 4 MiB each.
        let requests = nginx.requests().unwrap();
        let refused = requests.iter().filter(|request| request.status == 413);
        assert_eq!(refused.count(), 2, "{requests:?}");
        let is_chunk = |request: &&Passed| request.method == "PATCH" && request.status == 202;
        let chunks = requests.iter().filter(is_chunk);
        let lengths: Vec<u64> = chunks.map(|request| request.length).collect();
        assert_eq!(lengths.iter().sum::<u64>(), 19_000_000);
        assert_eq!(lengths.len(), 12 + 7);
    }
}

#[tokio::test]
async fn a_refusal_for_the_size_costs_little() {
    let registry = Registry::start().unwrap();
    let Some(nginx) = before(&registry.host(), "client_max_body_size 1m;") else {
        return;
    };
    let line = Line::start(nginx.host(), u64::MAX, 0).await;
    // A registry that takes its time is given time to refuse, however busy this machine is.
    let slow = Fault::Delay(Duration::from_millis(250));
    registry.inject("POST", "/v2/app/blobs/uploads/", 1, slow);
    let size = 64 << 20;
    let (descriptor, source) = blob(226, size);
    let repository = Repository::new(&line.address, "app").unwrap();
    client()
        .push_blob(&repository, &descriptor, &source, &[], &Progress::none())
        .await
        .unwrap();
    let requests = nginx.requests().unwrap();
    let refused = requests.iter().filter(|request| request.status == 413);
    let lengths: Vec<u64> = refused.map(|request| request.length).collect();
    assert_eq!(lengths, [64 << 20, 16 << 20, 4 << 20]);
    let share = line.carried() as f64 / size as f64;
    assert!(share < 1.1, "{share}");
}

#[tokio::test]
async fn a_limit_of_less_than_a_chunk_is_told() {
    let Some((_registry, nginx)) = start("client_max_body_size 100k;") else {
        return;
    };
    let image = image(221, &[3_000_000]);
    let error = client()
        .push_image(&reference(&nginx, "app:v1"), &image, &Progress::none())
        .await
        .unwrap_err();
    let reason = error.reason();
    assert!(reason.contains("(\"nginx"), "{reason}");
    assert!(reason.contains("as this one of 262144 bytes"), "{reason}");
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "the figures are of interest")]
async fn a_line_that_breaks_before_a_proxy_costs_little() {
    let Some((_registry, nginx)) = start("client_max_body_size 1m;") else {
        return;
    };
    let every = 4 << 20;
    let line = Line::start(nginx.host(), every, u64::MAX).await;
    let repository = Repository::new(&line.address, "app").unwrap();
    let (client, none) = (client(), Progress::none());
    // The first blob finds out what nginx takes; only the second is counted.
    let (descriptor, source) = blob(225, 2_000_000);
    client
        .push_blob(&repository, &descriptor, &source, &[], &none)
        .await
        .unwrap();
    let before = line.carried();
    let size = 24_000_000;
    let (descriptor, source) = blob(222, size);
    let outcome = client
        .push_blob(&repository, &descriptor, &source, &[], &none)
        .await;
    assert_eq!(outcome.unwrap(), BlobOutcome::Uploaded);
    let share = (line.carried() - before) as f64 / size as f64;
    let percent = share * 100.0;
    eprintln!("a break every {every} bytes before nginx: {percent:.1} % of {size} bytes");
    assert!(share < 1.1, "{share}");
}

#[tokio::test]
async fn one_break_is_got_over_where_the_registry_forgets_the_session() {
    let registry = match DebianRegistry::start() {
        Ok(registry) => registry,
        Err(StartError::Missing) => return not_installed("docker-registry"),
        Err(error) => panic!("{error}"),
    };
    let client = client();
    let line = Line::start(&registry.host(), 7_000_000, 1).await;
    let (descriptor, source) = blob(223, 20_000_000);
    let repository = Repository::new(&line.address, "app").unwrap();
    let none = Progress::none();
    let outcome = client
        .push_blob(&repository, &descriptor, &source, &[], &none)
        .await;
    assert_eq!(outcome.unwrap(), BlobOutcome::Uploaded);
    let there = registry.repository("app");
    assert!(client.exists(&there, &descriptor.digest).await.unwrap());

    // One that never lets the blob through ends with an error, and soon.
    let line = Line::start(&registry.host(), 3_000_000, u64::MAX).await;
    let (descriptor, source) = blob(224, 20_000_000);
    let repository = Repository::new(&line.address, "app").unwrap();
    let error = client
        .push_blob(&repository, &descriptor, &source, &[], &none)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::GaveUp { .. }), "{error}");
}
