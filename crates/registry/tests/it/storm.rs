//! All at once: a line that breaks, servers that are busy or fail, tokens that wear out,
//! answers that are cut off. A layer arrives, whole, with little beside it.

use ocibuild_registry::testing::{Fault, Login, Registry};
use ocibuild_registry::{
    BlobOutcome, Client, Credential, Credentials, Descriptor, Downloads, Hasher, Progress,
    Repository, Retry,
};

use crate::support::{blob, quick};

const SIZE: usize = 64 << 20;
const UPLOADS: &str = "/v2/app/blobs/uploads/";
const BLOBS: &str = "/v2/app/blobs/";

/// A registry whose tokens are good for a few requests.
fn registry() -> Registry {
    let Login::Token(mut login) = Login::token("user", "pass") else {
        unreachable!("it makes a token login")
    };
    login.uses = Some(5);
    login.expired_is_403 = true;
    Registry::start_with(Login::Token(login)).unwrap()
}

fn client(registry: &Registry) -> Client {
    let login = Credential::password("user", "pass");
    let credentials = Credentials::anonymous().with(&registry.host(), login);
    let retry = Retry {
        attempts: 12,
        ..quick()
    };
    let builder = Client::builder().retry(retry).credentials(credentials);
    let downloads = Downloads {
        part: 8 << 20,
        at_once: 3,
    };
    builder.downloads(downloads).build().unwrap()
}

async fn push(registry: &Registry) -> Descriptor {
    let (descriptor, source) = blob(400, SIZE);
    let repository: Repository = registry.repository("app");
    let client = client(registry);
    let none = Progress::none();
    let pushed = client.push_blob(&repository, &descriptor, &source, &[], &none);
    assert_eq!(pushed.await.unwrap(), BlobOutcome::Uploaded);
    descriptor
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "the figures are of interest")]
async fn a_layer_goes_up_through_everything_with_a_tenth_more_at_most() {
    let registry = registry();
    registry.break_line_every(16 << 20);
    let busy = Fault::RetryAfter {
        status: 429,
        seconds: 0,
    };
    registry.inject("POST", UPLOADS, 1, busy);
    registry.inject("POST", UPLOADS, 1, Fault::Status(500));
    registry.inject("PATCH", UPLOADS, 2, Fault::LoseAnswer);
    registry.inject("PATCH", UPLOADS, 4, Fault::Status(503));
    registry.inject("GET", UPLOADS, 2, Fault::Reset);
    registry.inject("PUT", UPLOADS, 2, Fault::LoseAnswer);
    let descriptor = push(&registry).await;
    let share = registry.uploaded_bytes() as f64 / SIZE as f64;
    eprintln!("{:.1} % of {SIZE} bytes went up", share * 100.0);
    assert!(share <= 1.1, "{share}");
    let client = client(&registry);
    let repository = registry.repository("app");
    let there = client.exists(&repository, &descriptor.digest);
    assert!(there.await.unwrap());
}

#[tokio::test]
async fn a_layer_comes_down_through_everything() {
    let registry = registry();
    let descriptor = push(&registry).await;
    for (nth, fault) in [
        (2, Fault::Status(429)),
        (3, Fault::TruncateAfter(1_000_000)),
        (4, Fault::Status(500)),
        (5, Fault::StallAfter(3_000_000)),
        (6, Fault::Reset),
        (7, Fault::TruncateAfter(5)),
        (8, Fault::Status(503)),
    ] {
        registry.inject("GET", BLOBS, nth, fault);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("layer");
    let (client, repository) = (client(&registry), registry.repository("app"));
    let none = Progress::none();
    let load = client.download_blob(&repository, &descriptor, &file, &none);
    load.await.unwrap();
    let mut hasher = Hasher::sha256();
    hasher.update(&std::fs::read(&file).unwrap());
    assert_eq!(hasher.finish(), descriptor.digest);
}
