//! Blobs that go to a registry while they are written.

use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ocibuild_registry::testing::{Fault, Registry};
use ocibuild_registry::{
    BlobOutcome, Client, Descriptor, Digest, Error, Growing, Growth, Progress, Retry, growing,
    media_type,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::support::{Judged, noise, quick};

const MIB: usize = 1 << 20;
const UPLOADS: &str = "/v2/app/blobs/uploads/";
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A chunk is written to a disk before it is answered, which a busy machine takes time for.
fn client() -> Client {
    let retry = Retry {
        idle: PATIENCE,
        ..quick()
    };
    Client::builder().retry(retry).build().unwrap()
}

/// A blob whose first part is in its file.
struct Half {
    folder: TempDir,
    file: File,
    content: Bytes,
    written: usize,
    growth: Growth,
    growing: Growing,
}

impl Half {
    fn new(seed: u64, written: usize, size: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blob");
        let content = noise(seed, size);
        let mut file = File::create(&path).unwrap();
        file.write_all(&content[..written]).unwrap();
        let (growth, growing) = growing(path);
        Self {
            folder,
            file,
            content,
            written,
            growth,
            growing,
        }
    }

    /// Begins to send it.
    fn sent_by(
        &self,
        client: &Client,
        judged: &Judged,
    ) -> JoinHandle<Result<Option<BlobOutcome>, Error>> {
        let (client, repository) = (client.clone(), judged.repository("app"));
        let growing = self.growing.clone();
        let progress = Progress::none();
        tokio::spawn(async move { client.push_growing(&repository, &growing, &progress).await })
    }

    /// Writes the rest, moves the file, and says so.
    fn end(mut self) -> (TempDir, Descriptor, bool) {
        self.file.write_all(&self.content[self.written..]).unwrap();
        let place = self.folder.path().join("elsewhere");
        std::fs::rename(self.folder.path().join("blob"), &place).unwrap();
        let digest = Digest::sha256(&self.content);
        let size = self.content.len() as u64;
        let blob = Descriptor::new(media_type::LAYER_GZIP, digest, size);
        let is_begun = self.growth.end(blob.clone(), place);
        (self.folder, blob, is_begun)
    }
}

/// Waits until so many chunks have come, or begun to.
async fn chunks_came(registry: &Registry, count: usize) {
    until(registry, || registry.count("PATCH", UPLOADS) >= count).await;
}

/// Waits until so many chunks have been answered.
async fn chunks_answered(registry: &Registry, count: usize) {
    let is_answered = || {
        let requests = registry.requests();
        let chunks = requests.iter().filter(|r| r.method == "PATCH");
        chunks.filter(|r| r.status.is_some()).count() >= count
    };
    until(registry, is_answered).await;
}

async fn until(registry: &Registry, what: impl Fn() -> bool) {
    let begin = Instant::now();
    while !what() {
        assert!(begin.elapsed() < PATIENCE, "{:?}", registry.requests());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn ours(judged: &Judged) -> &Registry {
    match judged {
        Judged::Ours(registry) => registry,
        Judged::Debian(_) => unreachable!("a registry of ours"),
    }
}

#[tokio::test]
async fn a_blob_is_sent_while_it_is_written_and_once() {
    for judged in [Some(Judged::ours()), Judged::debian()]
        .into_iter()
        .flatten()
    {
        let client = client();
        let half = Half::new(300, 17 * MIB, 30 * MIB);
        let sent = half.sent_by(&client, &judged);
        match judged.is_ours() {
            true => chunks_came(ours(&judged), 2).await,
            false => tokio::time::sleep(Duration::from_millis(500)).await,
        }
        let (_folder, blob, is_begun) = half.end();
        assert!(is_begun);
        let outcome = sent.await.unwrap().unwrap();
        assert_eq!(outcome, Some(BlobOutcome::Uploaded));
        let repository = judged.repository("app");
        assert!(client.exists(&repository, &blob.digest).await.unwrap());
        if judged.is_ours() {
            assert_eq!(ours(&judged).uploaded_bytes(), blob.size);
            assert_eq!(ours(&judged).count("POST", UPLOADS), 1);
        }
    }
}

#[tokio::test]
async fn what_fails_meanwhile_goes_on_when_the_blob_is_whole() {
    for (fault, sessions) in [
        (Fault::ResetAfter(3_000_000), 1),
        (Fault::LoseAnswer, 1),
        (Fault::Status(500), 1),
        (Fault::Status(404), 1),
        (Fault::Status(413), 1),
    ] {
        let judged = Judged::ours();
        let registry = ours(&judged);
        registry.inject("PATCH", UPLOADS, 2, fault.clone());
        let client = client();
        let half = Half::new(301, 20 * MIB, 24 * MIB);
        let sent = half.sent_by(&client, &judged);
        chunks_came(registry, 2).await;
        let (_folder, blob, is_begun) = half.end();
        assert!(is_begun, "{fault:?}");
        let outcome = sent.await.unwrap().unwrap();
        assert_eq!(outcome, Some(BlobOutcome::Uploaded), "{fault:?}");
        let repository = judged.repository("app");
        assert!(client.exists(&repository, &blob.digest).await.unwrap());
        assert_eq!(registry.count("POST", UPLOADS), sessions, "{fault:?}");
        // One chunk may have gone in vain.
        let most = blob.size + 8 * MIB as u64;
        assert!(registry.uploaded_bytes() <= most, "{fault:?}");
    }
}

#[tokio::test]
async fn a_blob_that_is_there_by_then_is_not_sent_to_its_end() {
    let judged = Judged::ours();
    let registry = ours(&judged);
    let client = client();
    let whole = Half::new(302, 17 * MIB, 40 * MIB);
    let first = whole.sent_by(&client, &judged);
    chunks_came(registry, 2).await;
    let again = Half::new(302, 17 * MIB, 40 * MIB);
    let second = again.sent_by(&client, &judged);
    chunks_answered(registry, 4).await;
    let (_folder, ..) = whole.end();
    assert_eq!(first.await.unwrap().unwrap(), Some(BlobOutcome::Uploaded));
    let before = registry.uploaded_bytes();
    let (_folder, ..) = again.end();
    assert_eq!(second.await.unwrap().unwrap(), Some(BlobOutcome::Exists));
    assert_eq!(registry.uploaded_bytes(), before);
    assert_eq!(registry.count("DELETE", UPLOADS), 1);
}

#[tokio::test]
async fn a_blob_that_is_given_up_leaves_no_session() {
    let judged = Judged::ours();
    let registry = ours(&judged);
    let half = Half::new(303, 17 * MIB, 40 * MIB);
    let sent = half.sent_by(&client(), &judged);
    chunks_came(registry, 1).await;
    drop(half);
    assert_eq!(sent.await.unwrap().unwrap(), None);
    assert_eq!(registry.count("DELETE", UPLOADS), 1);
}

#[tokio::test]
async fn a_small_blob_is_left_to_the_push() {
    let judged = Judged::ours();
    let half = Half::new(304, 15 * MIB, 15 * MIB);
    let sent = half.sent_by(&client(), &judged);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (_folder, _, is_begun) = half.end();
    assert!(!is_begun);
    assert_eq!(sent.await.unwrap().unwrap(), None);
    assert!(ours(&judged).requests().is_empty());
}
