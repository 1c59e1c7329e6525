//! Large blobs over several connections.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use ocibuild_registry::testing::{Answer, Fault, Registry};
use ocibuild_registry::{Arriving, BlobSource, Client, Descriptor, Downloads, Error, Progress};
use ocibuild_registry::{CloudEnvironment, TransferState};
use ocibuild_registry::{Registries, arriving};

use crate::support::{Judged, blob, client, quick};

const PART: u64 = 256 * 1024;
const SIZE: usize = 2_000_000;

fn in_parts() -> Client {
    let downloads = Downloads {
        part: PART,
        at_once: 4,
    };
    let builder = Client::builder().retry(quick());
    builder.downloads(downloads).build().unwrap()
}

async fn push(registry: &Judged, seed: u64) -> (Descriptor, Vec<u8>) {
    let (descriptor, source) = blob(seed, SIZE);
    let repository = registry.repository("app");
    client()
        .push_blob(&repository, &descriptor, &source, &[], &Progress::none())
        .await
        .unwrap();
    match source {
        BlobSource::Bytes(bytes) => (descriptor, bytes.to_vec()),
        _ => unreachable!("the blob is made of bytes"),
    }
}

async fn load(
    client: &Client,
    registry: &Judged,
    descriptor: &Descriptor,
    dest: &Path,
) -> Result<(), Error> {
    let repository = registry.repository("app");
    client
        .download_blob(&repository, descriptor, dest, &Progress::none())
        .await
}

#[tokio::test]
async fn parts_make_a_whole() {
    for registry in [Some(Judged::ours()), Judged::debian()]
        .into_iter()
        .flatten()
    {
        let (descriptor, want) = push(&registry, 30).await;
        let folder = tempfile::tempdir().unwrap();
        let dest = folder.path().join("blob");
        let done = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let log = std::sync::Arc::clone(&done);
        let progress = Progress::new(move |transfer| log.lock().unwrap().push(transfer));
        let repository = registry.repository("app");
        in_parts()
            .download_blob(&repository, &descriptor, &dest, &progress)
            .await
            .unwrap();
        assert!(std::fs::read(&dest).unwrap() == want);
        let reports = done.lock().unwrap();
        assert!(reports.iter().all(|report| report.current <= SIZE as u64));
        let last = reports.last().unwrap();
        assert_eq!(
            (last.current, last.state),
            (SIZE as u64, TransferState::Done)
        );
        if let Judged::Ours(registry) = &registry {
            let count = registry.count("GET", "/blobs/");
            assert_eq!(count, SIZE.div_ceil(PART as usize));
        }
    }
}

#[tokio::test]
async fn what_breaks_is_asked_for_anew_behind_what_came() {
    for fault in [
        Fault::TruncateAfter(100_000),
        Fault::StallAfter(100_000),
        Fault::Reset,
        Fault::Status(503),
    ] {
        let registry = Judged::ours();
        let (descriptor, want) = push(&registry, 31).await;
        let Judged::Ours(ours) = &registry else {
            unreachable!("it was just started")
        };
        ours.clear_requests();
        for nth in [2, 3, 5] {
            ours.inject("GET", "/v2/app/blobs/", nth, fault.clone());
        }
        let folder = tempfile::tempdir().unwrap();
        let dest = folder.path().join("blob");
        load(&in_parts(), &registry, &descriptor, &dest)
            .await
            .unwrap();
        assert!(std::fs::read(&dest).unwrap() == want);
        let ranges: Vec<String> = ours
            .requests()
            .into_iter()
            .filter_map(|r| r.range)
            .collect();
        let asked: std::collections::BTreeSet<&String> = ranges.iter().collect();
        let repeats = matches!(fault, Fault::Reset | Fault::Status(_));
        assert_eq!(asked.len() < ranges.len(), repeats, "{fault:?} {ranges:?}");
    }
}

#[tokio::test]
async fn a_registry_without_ranges_is_read_in_one() {
    let registry = Judged::ours();
    let (descriptor, want) = push(&registry, 32).await;
    let Judged::Ours(ours) = &registry else {
        unreachable!("it was just started")
    };
    let whole = Answer {
        status: 200,
        headers: Vec::new(),
        body: want.clone(),
    };
    ours.clear_requests();
    ours.inject("GET", "/v2/app/blobs/", 1, Fault::Answer(whole));
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("blob");
    load(&in_parts(), &registry, &descriptor, &dest)
        .await
        .unwrap();
    assert!(std::fs::read(&dest).unwrap() == want);
    assert_eq!(ours.count("GET", "/blobs/"), 1);
}

#[tokio::test]
async fn wrong_bytes_and_wrong_ranges_are_found_out() {
    let part = |begin: u64, end: u64, byte: u8| {
        let range = format!("bytes {begin}-{}/{SIZE}", end - 1);
        Fault::Answer(Answer {
            status: 206,
            headers: vec![("content-range".to_owned(), range)],
            body: vec![byte; (end - begin) as usize],
        })
    };
    for fault in [part(PART, 2 * PART, 7), part(0, PART, 7)] {
        let registry = Judged::ours();
        let (descriptor, _) = push(&registry, 33).await;
        let Judged::Ours(ours) = &registry else {
            unreachable!("it was just started")
        };
        ours.inject("GET", "/v2/app/blobs/", 2, fault);
        let folder = tempfile::tempdir().unwrap();
        let dest = folder.path().join("blob");
        let loaded = load(&in_parts(), &registry, &descriptor, &dest).await;
        let error = loaded.unwrap_err();
        assert!(
            matches!(error, Error::DigestMismatch { .. } | Error::Protocol { .. }),
            "{error}"
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_mirror_with_other_content_is_made_good_by_the_registry() {
    let (origin, mirror) = (Judged::ours(), Registry::start().unwrap());
    let (descriptor, want) = push(&origin, 34).await;
    let Judged::Ours(ours) = &origin else {
        unreachable!("it was just started")
    };
    let other = Answer {
        status: 200,
        headers: Vec::new(),
        body: vec![7; SIZE],
    };
    mirror.inject("GET", "/v2/app/blobs/", 1, Fault::Answer(other));
    let text = format!(
        "[registry.\"{}\"]\nmirrors = [\"{}\"]",
        ours.host(),
        mirror.host()
    );
    let registries = Registries::parse(&text).unwrap();
    let builder = Client::builder().retry(quick());
    let builder = builder.registries(&registries, &CloudEnvironment::default());
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("blob");
    let client = builder.unwrap().build().unwrap();
    load(&client, &origin, &descriptor, &dest).await.unwrap();
    assert!(std::fs::read(&dest).unwrap() == want);
    assert_eq!(mirror.count("GET", "/blobs/"), 1);
}

async fn load_arriving(
    client: Client,
    registry: &Judged,
    descriptor: Descriptor,
    arriving: Arriving,
) -> Result<(), Error> {
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("blob");
    let (repository, progress) = (registry.repository("app"), Progress::none());
    let arriving = Some(Arc::new(arriving));
    client
        .download_arriving(&repository, &descriptor, &dest, &progress, arriving)
        .await
}

#[tokio::test]
async fn a_blob_is_read_while_it_arrives() {
    for (client, fault) in [
        (in_parts(), None),
        // The breaks are mended, in one and in several parts.
        (in_parts(), Some(Fault::TruncateAfter(100_000))),
        (client(), Some(Fault::TruncateAfter(100_000))),
    ] {
        let registry = Judged::ours();
        let (descriptor, want) = push(&registry, 33).await;
        if let (Judged::Ours(ours), Some(fault)) = (&registry, fault) {
            ours.inject("GET", "/v2/app/blobs/", 1, fault);
        }
        let (arriving, mut arrived) = arriving();
        let reader = tokio::task::spawn_blocking(move || {
            let mut read = Vec::new();
            arrived.read_to_end(&mut read).map(|_| read)
        });
        let loaded = load_arriving(client, &registry, descriptor, arriving);
        loaded.await.unwrap();
        assert!(reader.await.unwrap().unwrap() == want);
    }
}

#[tokio::test]
async fn what_has_come_is_read_before_the_rest() {
    let registry = Judged::ours();
    let (descriptor, want) = push(&registry, 34).await;
    let Judged::Ours(ours) = &registry else {
        unreachable!("it was just started")
    };
    ours.inject("GET", "/v2/app/blobs/", 7, Fault::StallAfter(1000));
    let (arriving, mut arrived) = arriving();
    let (tell, told) = tokio::sync::oneshot::channel();
    let reader = tokio::task::spawn_blocking(move || {
        let mut begin = vec![0; 6 * PART as usize];
        arrived.read_exact(&mut begin).unwrap();
        tell.send(begin).unwrap();
        arrived.read_to_end(&mut Vec::new())
    });
    tokio::select! {
        begin = told => assert!(begin.unwrap() == want[..6 * PART as usize]),
        loaded = load_arriving(in_parts(), &registry, descriptor, arriving) => {
            panic!("nothing was read before all had come: {loaded:?}")
        }
    }
    // Nobody loads the rest any more.
    reader.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn a_blob_that_is_another_has_no_end() {
    let registry = Judged::ours();
    let (descriptor, mut want) = push(&registry, 35).await;
    let Judged::Ours(ours) = &registry else {
        unreachable!("it was just started")
    };
    *want.last_mut().unwrap() ^= 1;
    let other = Answer {
        status: 200,
        body: want,
        ..Answer::default()
    };
    ours.inject("GET", "/v2/app/blobs/", 1, Fault::Answer(other));
    let (arriving, mut arrived) = arriving();
    let reader =
        tokio::task::spawn_blocking(move || arrived.read_to_end(&mut Vec::new()).map(drop));
    let loaded = load_arriving(client(), &registry, descriptor, arriving).await;
    assert!(matches!(loaded, Err(Error::DigestMismatch { .. })));
    reader.await.unwrap().unwrap_err();
}
