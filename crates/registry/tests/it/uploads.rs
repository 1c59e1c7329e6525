//! Uploads over lines that break and through proxies that limit: what is sent in which
//! order, how much of it twice, and how it ends where it cannot go on.

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ocibuild_registry::testing::{Answer, Fault, Logged, Login, Registry};
use ocibuild_registry::{
    BlobOutcome, BlobSource, Client, Credential, Descriptor, Error, Progress, Retry, Transfer,
    TransferState,
};

use crate::support::{blob, client, client_with, noise, plain_http, quick};

const MIB: u64 = 1 << 20;
const UPLOADS: &str = "/v2/app/blobs/uploads/";

async fn push(
    client: &Client,
    registry: &Registry,
    (descriptor, source): &(Descriptor, BlobSource),
    progress: &Progress,
) -> Result<BlobOutcome, Error> {
    let repository = registry.repository("app");
    client
        .push_blob(&repository, descriptor, source, &[], progress)
        .await
}

/// The requests that carried bytes of blobs.
fn carriers(registry: &Registry) -> Vec<Logged> {
    let mut requests = registry.requests();
    requests.retain(|r| ["PUT", "PATCH"].contains(&r.method.as_str()));
    requests
}

fn refusals(registry: &Registry) -> usize {
    let refused = |r: &&Logged| r.status == Some(413);
    registry.requests().iter().filter(refused).count()
}

/// Adds up what this side has sent, and checks that reports are possible ones.
#[derive(Clone, Default)]
struct Meter {
    sent: Arc<AtomicU64>,
    last: Arc<Mutex<Option<Transfer>>>,
}

impl Meter {
    fn progress(&self) -> Progress {
        let meter = self.clone();
        Progress::new(move |now| {
            assert!(now.current <= now.total, "{now:?}");
            let mut last = meter.last.lock().unwrap();
            let before = last.map_or(0, |last| last.current);
            if now.state == TransferState::Moving && now.current > before {
                meter
                    .sent
                    .fetch_add(now.current - before, Ordering::Relaxed);
            }
            *last = Some(now);
        })
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn last(&self) -> Transfer {
        self.last.lock().unwrap().unwrap()
    }
}

#[tokio::test]
async fn a_proxy_that_limits_bodies_gets_chunks_and_the_next_blob_starts_with_them() {
    let registry = Registry::start().unwrap();
    registry.limit_bodies(MIB);
    let client = client();
    let none = Progress::none();
    let outcome = push(&client, &registry, &blob(200, 5_000_000), &none).await;
    assert_eq!(outcome.unwrap(), BlobOutcome::Uploaded);
    // The whole blob, and a chunk of 4 MiB.
    assert_eq!(refusals(&registry), 2);
    assert_eq!(registry.count("POST", UPLOADS), 1);

    registry.clear_requests();
    let (clone, size) = (client.clone(), 2 * MIB + 5);
    push(&clone, &registry, &blob(201, size as usize), &none)
        .await
        .unwrap();
    let sent: Vec<_> = carriers(&registry)
        .into_iter()
        .map(|r| (r.method, r.content_range, r.body_bytes))
        .collect();
    let patch = |range: &str, bytes| ("PATCH".to_owned(), Some(range.to_owned()), bytes);
    let want = [
        patch("0-1048575", MIB),
        patch("1048576-2097151", MIB),
        patch("2097152-2097156", 5),
        ("PUT".to_owned(), None, 0),
    ];
    assert_eq!(sent, want);
    // What fits into one request still goes in one.
    registry.clear_requests();
    push(&client, &registry, &blob(202, 1_000_000), &none)
        .await
        .unwrap();
    assert_eq!(carriers(&registry).len(), 1);
}

#[tokio::test]
async fn a_limit_below_every_chunk_is_told_with_the_name_of_the_proxy() {
    let registry = Registry::start().unwrap();
    registry.limit_bodies(1000);
    let none = Progress::none();
    let error = push(&client(), &registry, &blob(203, 8_000_000), &none).await;
    let text = error.unwrap_err().to_string();
    let want = "the registry answered 413 Payload Too Large: it, or a proxy before it \
                (\"test-proxy\"), takes no request as large as this one of 262144 bytes";
    assert!(text.ends_with(want), "{text}");
}

#[tokio::test]
async fn a_broken_upload_goes_on_behind_what_has_arrived() {
    let registry = Registry::start().unwrap();
    registry.inject("PUT", UPLOADS, 1, Fault::ResetAfter(3_000_000));
    registry.inject("PATCH", UPLOADS, 1, Fault::ResetAfter(100_000));
    let meter = Meter::default();
    let outcome = push(
        &client(),
        &registry,
        &blob(204, 8_000_000),
        &meter.progress(),
    )
    .await;
    assert_eq!(outcome.unwrap(), BlobOutcome::Uploaded);
    assert_eq!(registry.count("POST", UPLOADS), 1);
    let begins: Vec<_> = carriers(&registry)
        .into_iter()
        .filter_map(|r| Some(r.content_range?.split_once('-')?.0.to_owned()))
        .collect();
    assert_eq!(begins[..2], ["3000000", "3100000"]);
    assert_eq!(meter.last().state, TransferState::Done);
    assert_eq!(meter.last().current, 8_000_000);
}

/// Pushes over a line that breaks; gives the bytes that came out of it and those that
/// the client let go, which the machine held back in part when the line broke.
async fn worn_line(every: u64, size: u64, buffering: bool) -> (u64, u64) {
    let registry = Registry::start().unwrap();
    registry.break_line_every(every);
    if buffering {
        registry.buffer_bodies();
    }
    for nth in [5, 25, 45, 65] {
        registry.inject("PATCH", UPLOADS, nth, Fault::Status(503));
    }
    let bytes = noise(every ^ size, size as usize);
    let descriptor = Descriptor::of("application/octet-stream", &bytes);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    let source = BlobSource::File(file.path().to_owned());
    let meter = Meter::default();
    let progress = meter.progress();
    let outcome = push(&client(), &registry, &(descriptor, source), &progress).await;
    assert_eq!(outcome.unwrap(), BlobOutcome::Uploaded);
    assert_eq!(registry.count("POST", UPLOADS), 1);
    (registry.uploaded_bytes(), meter.sent())
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "the figures are of interest")]
async fn a_line_that_breaks_again_and_again_costs_little() {
    for (every, size, buffering) in [
        (4 * MIB, 64 * MIB, false),
        (4 * MIB, 64 * MIB, true),
        (10 * MIB, 48 * MIB, false),
    ] {
        let (arrived, sent) = worn_line(every, size, buffering).await;
        let share = |bytes: u64| bytes as f64 * 100.0 / size as f64;
        let (came, went) = (share(arrived), share(sent));
        eprintln!(
            "a break every {every} bytes, buffering {buffering}: {came:.1} % of {size} bytes arrived, {went:.1} % were sent"
        );
        // A proxy that buffers loses the first request whole, before anything is known.
        let first = if buffering { every } else { 0 };
        let limit = size + size / 10 - if buffering { size / 20 } else { 0 } + first;
        assert!(arrived <= limit, "{arrived} of {size}");
    }
}

/// Opens a session by hand and lets the client's POST be answered with it.
async fn open_with(registry: &Registry, headers: &[(&str, &str)]) {
    let http = plain_http();
    let url = format!("http://{}{UPLOADS}", registry.host());
    let opened = http.post(url).send().await.unwrap();
    let location = opened.headers()["location"].to_str().unwrap().to_owned();
    let mut headers: Vec<_> = headers
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    headers.push(("location".to_owned(), location));
    let answer = Answer {
        status: 202,
        headers,
        body: Vec::new(),
    };
    registry.inject("POST", UPLOADS, 1, Fault::Answer(answer));
}

#[tokio::test]
async fn chunks_are_not_shorter_than_the_registry_wants() {
    let registry = Registry::start().unwrap();
    let (client, none) = (client(), Progress::none());
    // The line has taught the client to send small chunks.
    registry.inject("PUT", UPLOADS, 1, Fault::Reset);
    push(&client, &registry, &blob(205, 1_000_000), &none)
        .await
        .unwrap();
    registry.clear_requests();
    open_with(&registry, &[("oci-chunk-min-length", "3000000")]).await;
    push(&client, &registry, &blob(206, 8_000_000), &none)
        .await
        .unwrap();
    let sizes: Vec<_> = carriers(&registry).iter().map(|r| r.body_bytes).collect();
    assert_eq!(sizes, [3_000_000, 3_000_000, 2_000_000, 0]);
}

#[tokio::test]
async fn a_session_that_is_lost_is_followed_by_another() {
    for (method, status) in [("GET", 404), ("GET", 405), ("PATCH", 404), ("PATCH", 400)] {
        let registry = Registry::start().unwrap();
        registry.inject("PUT", UPLOADS, 1, Fault::ResetAfter(2_000_000));
        registry.inject(method, UPLOADS, 1, Fault::Status(status));
        let none = Progress::none();
        let outcome = push(&client(), &registry, &blob(207, 5_000_000), &none).await;
        assert_eq!(outcome.unwrap(), BlobOutcome::Uploaded, "{method} {status}");
        assert_eq!(registry.count("POST", UPLOADS), 2, "{method} {status}");
    }
}

#[tokio::test]
async fn a_registry_without_chunks_gets_the_blob_in_one_request_or_an_error_says_why() {
    let none = Progress::none();
    for status in [400, 404, 405, 416] {
        let registry = Registry::start().unwrap();
        for _ in 0..20 {
            registry.inject("PATCH", UPLOADS, 1, Fault::Status(status));
        }
        registry.inject("PUT", UPLOADS, 1, Fault::ResetAfter(2_000_000));
        let outcome = push(&client(), &registry, &blob(208, 5_000_000), &none).await;
        assert_eq!(outcome.unwrap(), BlobOutcome::Uploaded, "{status}");
        let last = carriers(&registry).pop().unwrap();
        assert_eq!((last.method.as_str(), last.body_bytes), ("PUT", 5_000_000));

        let registry = Registry::start().unwrap();
        registry.limit_bodies(4 * MIB);
        for _ in 0..20 {
            registry.inject("PATCH", UPLOADS, 1, Fault::Status(status));
        }
        let error = push(&client(), &registry, &blob(208, 5_000_000), &none).await;
        let error = error.unwrap_err();
        assert_eq!(error.status(), Some(status));
        assert!(
            error
                .reason()
                .contains("5000000 bytes is too large for one request"),
            "{}",
            error.reason()
        );
    }
}

#[tokio::test]
async fn a_registry_that_lies_about_what_it_has_is_not_believed() {
    let answer = |range: &str| {
        Fault::Answer(Answer {
            status: 202,
            headers: vec![("range".to_owned(), range.to_owned())],
            body: Vec::new(),
        })
    };
    let none = Progress::none();
    for range in ["0-99999999999", "0-18446744073709551614"] {
        let registry = Registry::start().unwrap();
        registry.limit_bodies(MIB);
        registry.inject("PATCH", UPLOADS, 2, answer(range));
        let error = push(&client(), &registry, &blob(209, 3_000_000), &none).await;
        let text = error.unwrap_err().to_string();
        assert!(
            text.ends_with("it claims more bytes than were sent"),
            "{text}"
        );

        // Asked, it gets another session.
        let registry = Registry::start().unwrap();
        registry.inject("PUT", UPLOADS, 1, Fault::ResetAfter(500_000));
        registry.inject("GET", UPLOADS, 1, answer(range));
        push(&client(), &registry, &blob(209, 3_000_000), &none)
            .await
            .unwrap();
        assert_eq!(registry.count("POST", UPLOADS), 2);
    }
    // More than it has: the digest tells, and everything is sent anew.
    let registry = Registry::start().unwrap();
    registry.inject("PUT", UPLOADS, 1, Fault::ResetAfter(500_000));
    registry.inject("GET", UPLOADS, 1, answer("0-599999"));
    let outcome = push(&client(), &registry, &blob(209, 3_000_000), &none).await;
    assert_eq!(outcome.unwrap(), BlobOutcome::Uploaded);
}

#[tokio::test]
async fn tokens_are_renewed_between_chunks_without_losing_the_session() {
    for expired_is_403 in [false, true] {
        for uses in 1..4 {
            let Login::Token(mut login) = Login::token("user", "pass") else {
                unreachable!("it makes a token login")
            };
            login.uses = Some(uses);
            login.expired_is_403 = expired_is_403;
            let registry = Registry::start_with(Login::Token(login)).unwrap();
            registry.limit_bodies(MIB);
            registry.inject("PATCH", UPLOADS, 4, Fault::ResetAfter(100_000));
            let client = client_with(&registry, Credential::password("user", "pass"));
            let pushed = push(&client, &registry, &blob(210, 5_000_000), &Progress::none()).await;
            pushed.unwrap_or_else(|error| panic!("{uses} uses: {}", error.reason()));
            let opened = |r: &&Logged| r.method == "POST" && r.status == Some(202);
            let opened = registry.requests().iter().filter(opened).count();
            assert_eq!(opened, 1, "{uses} uses, 403 {expired_is_403}");
        }
    }
}

#[tokio::test]
async fn a_busy_registry_is_waited_for_until_the_deadline_and_no_longer() {
    let busy = |seconds| Fault::RetryAfter {
        status: 429,
        seconds,
    };
    let registry = Registry::start().unwrap();
    registry.limit_bodies(MIB);
    registry.inject("PATCH", UPLOADS, 3, busy(1));
    let start = Instant::now();
    let none = Progress::none();
    push(&client(), &registry, &blob(211, 5_000_000), &none)
        .await
        .unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(registry.count("POST", UPLOADS), 1);

    let registry = Registry::start().unwrap();
    registry.limit_bodies(MIB);
    registry.inject("PATCH", UPLOADS, 3, busy(100));
    let retry = Retry {
        deadline: Duration::from_secs(10),
        ..quick()
    };
    let hurried = Client::builder().retry(retry).build().unwrap();
    let start = Instant::now();
    let error = push(&hurried, &registry, &blob(211, 5_000_000), &none).await;
    assert_eq!(error.unwrap_err().status(), Some(429));
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn requests_that_take_too_long_become_smaller() {
    for status in [408, 504] {
        let registry = Registry::start().unwrap();
        registry.inject("PUT", UPLOADS, 1, Fault::Status(status));
        let none = Progress::none();
        push(&client(), &registry, &blob(212, 5_000_000), &none)
            .await
            .unwrap();
        let sizes: Vec<_> = carriers(&registry)[1..]
            .iter()
            .map(|r| r.body_bytes)
            .collect();
        assert_eq!(sizes, [4 * MIB, 5_000_000 - 4 * MIB, 0], "{status}");
    }
}
