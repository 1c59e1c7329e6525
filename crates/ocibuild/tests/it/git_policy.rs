//! Checkouts under a policy: servers that may not be asked, and servers that send too
//! much, too slowly, too little, or not what they say.

use std::convert::Infallible;
use std::io::Write;
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Response, Uri, header};
use flate2::write::ZlibEncoder;
use futures::{Stream, StreamExt, stream};
use ocibuild::git::{
    self, Checkout, Excess, Forbidden, GitError, GitSnapshot, GitSource, HostPattern, Limits,
    Policy,
};
use ocibuild::net::AddressPolicy;
use ocibuild::registry::Secret;
use ocibuild::testing::{GitRepository, GitServer};
use ocibuild::{Cancel, ContextSource, ErrorKind};

use crate::built::Workshop;

fn check_out(policy: &Policy, url: &str) -> Result<Checkout, GitError> {
    let dest = tempfile::tempdir().unwrap();
    let source = GitSource::parse(url).unwrap();
    git::checkout(&source, policy, dest.path(), &Cancel::new(), &|_| {})
}

fn refused(policy: &Policy, url: &str) -> GitError {
    check_out(policy, url).unwrap_err()
}

fn reason(error: &GitError) -> Forbidden {
    match error {
        GitError::Forbidden { reason, .. } => *reason,
        GitError::Submodule { source, .. } => reason(source),
        other => panic!("{other}"),
    }
}

/// The host and port of a URL, as a pattern.
fn host_of(url: &str) -> HostPattern {
    let rest = url.strip_prefix("http://").unwrap();
    rest.split('/').next().unwrap().parse().unwrap()
}

fn repository(server: &GitServer) -> GitRepository {
    let repository = server.repository("app.git");
    repository
        .file("f", "text")
        .file("d/g", "more")
        .commit("first");
    repository
}

#[test]
fn a_host_that_is_not_allowed_is_not_asked() {
    let server = GitServer::start();
    let repository = repository(&server);
    let https_only = Policy::default().https_only();
    let error = refused(&https_only, repository.url());
    assert_eq!(reason(&error), Forbidden::PlainHttp);
    let error = refused(&Policy::default().only_from([]), repository.url());
    assert_eq!(reason(&error), Forbidden::Host);
    assert!(server.seen().is_empty());

    let listed = https_only.plain_http_from(host_of(repository.url()));
    check_out(&listed, repository.url()).unwrap();
}

#[test]
fn a_redirect_is_judged_before_it_is_followed() {
    let (allowed, other) = (GitServer::start(), GitServer::start());
    let repository = repository(&other);
    allowed.redirect("app.git", repository.url());
    let url = allowed.url("app.git");
    let policy = Policy::default().only_from([host_of(&url)]);
    let error = refused(&policy, &url);
    assert_eq!(reason(&error), Forbidden::Host);
    assert_eq!(allowed.seen().len(), 1);
    assert!(other.seen().is_empty());
}

#[test]
fn submodules_are_judged_too() {
    let (allowed, other) = (GitServer::start(), GitServer::start());
    let library = repository(&other);
    let commit = library.git(&["rev-parse", "HEAD"]);
    let app = allowed.repository("group/app.git");
    app.submodule("lib", library.url(), &commit).commit("app");
    let asked = other.seen().len();
    let policy = Policy::default().only_from([host_of(app.url())]);
    let error = refused(&policy, app.url());
    assert!(matches!(error, GitError::Submodule { .. }), "{error}");
    assert_eq!(reason(&error), Forbidden::Host);
    assert_eq!(other.seen().len(), asked);
}

#[test]
fn addresses_are_judged_where_they_are_connected_to() {
    let server = GitServer::start();
    let repository = repository(&server);
    let by_name = repository.url().replace("127.0.0.1", "localhost");
    let notations = [
        repository.url().to_owned(),
        by_name.clone(),
        repository.url().replace("127.0.0.1", "0x7f.1"),
        repository.url().replace("127.0.0.1", "2130706433"),
        repository.url().replace("127.0.0.1", "[::ffff:127.0.0.1]"),
    ];
    let policy = Policy::default().addresses(AddressPolicy::default().refuse_loopback());
    for url in &notations {
        let error = refused(&policy, url);
        assert!(
            matches!(reason(&error), Forbidden::Address(_)),
            "{url}: {error}"
        );
    }
    assert!(server.seen().is_empty());
    // A name is looked up by the same resolver where its address is permitted.
    check_out(&Policy::default(), &by_name).unwrap();

    let metadata = refused(&Policy::default(), "http://169.254.169.254/latest/app.git");
    assert!(
        matches!(reason(&metadata), Forbidden::Address(_)),
        "{metadata}"
    );
}

#[test]
fn a_redirect_to_a_refused_address_is_not_followed() {
    let server = GitServer::start();
    for (name, target) in [
        ("metadata.git", "http://169.254.169.254/app.git"),
        ("mapped.git", "http://[::ffff:a9fe:a9fe]/app.git"),
        ("decimal.git", "http://2852039166/app.git"),
    ] {
        server.redirect(name, target);
        let error = refused(&Policy::default(), &server.url(name));
        assert!(
            matches!(reason(&error), Forbidden::Address(_)),
            "{name}: {error}"
        );
    }
}

#[test]
fn a_build_takes_the_policy() {
    let (workshop, server) = (Workshop::new(), GitServer::start());
    let mut source = GitSource::parse(repository(&server).url()).unwrap();
    source.token = Some(Secret::new("s3cret"));
    let build = workshop.build_from("store", ContextSource::Git(source));
    let error = workshop.fails(build.git_policy(Policy::default().https_only()));
    assert_eq!(error.kind(), ErrorKind::User);
    assert!(server.seen().is_empty());
}

/// What a server does with the answer that an honest one would give.
type Twist = Arc<dyn Fn(Vec<u8>) -> Body + Send + Sync>;

/// A server of one repository that is honest up to some point.
struct Twisted {
    url: String,
    /// How often the point was reached.
    reached: Arc<AtomicUsize>,
}

/// Where a server ceases to be honest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Discovery,
    References,
    Pack,
}

impl Part {
    fn of(uri: &Uri, body: &[u8]) -> Self {
        let asks = |words: &str| String::from_utf8_lossy(body).contains(words);
        match uri.path().ends_with("/info/refs") {
            true => Self::Discovery,
            false if asks("command=ls-refs") => Self::References,
            false => Self::Pack,
        }
    }
}

impl Twisted {
    fn serve(point: Part, twist: Twist) -> Self {
        let content: Vec<u8> = (0..100_000_u32)
            .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        let files = [
            ("Dockerfile", b"FROM scratch\n".as_slice()),
            ("f", &content),
        ];
        Self::serve_repository(GitSnapshot::new(files), point, twist)
    }

    fn serve_repository(snapshot: GitSnapshot, point: Part, twist: Twist) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}/app.git", listener.local_addr().unwrap());
        let reached = Arc::new(AtomicUsize::new(0));
        let count = reached.clone();
        let app = axum::Router::new().fallback(
            async move |method: axum::http::Method, uri: Uri, body: Bytes| {
                let path = uri.path().strip_prefix("/app.git").unwrap_or_default();
                let query = uri.query().unwrap_or_default();
                let answer = snapshot.answer(method.as_str(), path, query, &body);
                let is_there = Part::of(&uri, &body) == point;
                count.fetch_add(usize::from(is_there), Ordering::SeqCst);
                let body = match is_there {
                    true => twist(answer.body),
                    false => Body::from(answer.body),
                };
                Response::builder()
                    .status(answer.status)
                    .header(header::CONTENT_TYPE, answer.content_type)
                    .body(body)
                    .unwrap()
            },
        );
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, app).await.unwrap();
            });
        });
        Self { url, reached }
    }

    fn reached(&self) -> usize {
        self.reached.load(Ordering::SeqCst)
    }
}

fn limited(limits: Limits) -> Policy {
    Policy::default().limits(limits)
}

fn excess(error: &GitError) -> Excess {
    match error {
        GitError::TooMuch { excess, .. } => *excess,
        other => panic!("{other}: {:?}", std::error::Error::source(other)),
    }
}

fn endless(piece: impl Into<Bytes>) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::repeat(piece.into()).map(Ok)
}

/// The answer, and then the same piece without end.
fn then_endless(answer: Vec<u8>, piece: impl Into<Bytes> + 'static) -> Body {
    let begin = stream::iter([Ok(Bytes::from(answer))]);
    Body::from_stream(begin.chain(endless(piece)))
}

fn deflated(content: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// A packet of the band that carries the pack.
fn packet_of_pack(bytes: &[u8]) -> Vec<u8> {
    let head = format!("{:04x}\x01", bytes.len() + 5);
    [head.as_bytes(), bytes].concat()
}

#[test]
fn a_server_that_sends_for_ever_is_ended() {
    let limits = Limits {
        bytes: 4 << 20,
        ..Limits::default()
    };
    // The same reference again and again, without the packet that ends the list.
    let reference = "0123456789012345678901234567890123456789 refs/heads/main\n";
    let reference = format!("{:04x}{reference}", reference.len() + 4);
    let references: Twist = Arc::new(move |_| Body::from_stream(endless(reference.repeat(1000))));
    // Ever more of the objects that the head of the pack announces.
    let object = [&[0x31_u8][..], &deflated(b"x")].concat();
    let head = [b"PACK\0\0\0\x02".as_slice(), &1_000_000_u32.to_be_bytes()].concat();
    let begin = [b"000dpackfile\n".to_vec(), packet_of_pack(&head)].concat();
    let objects = packet_of_pack(&object.repeat(1000));
    let pack: Twist = Arc::new(move |_| then_endless(begin.clone(), objects.clone()));
    // The band that shows progress.
    let chatter: Twist = Arc::new(|_| {
        let begin = b"000dpackfile\n".to_vec();
        then_endless(begin, b"0010\x02more to do\n".repeat(1000))
    });
    for (point, twist) in [
        (Part::References, references),
        (Part::Pack, pack),
        (Part::Pack, chatter),
    ] {
        let server = Twisted::serve(point, twist);
        let error = refused(&limited(limits), &server.url);
        assert_eq!(excess(&error), Excess::Received(4 << 20), "{error}");
        assert_eq!(server.reached(), 1, "a limit is not tried again");
    }
}

#[test]
fn a_server_that_is_silent_or_slow_is_ended() {
    let time = Duration::from_millis(700);
    let policy = limited(Limits {
        time,
        ..Limits::default()
    });
    let hangs: Twist =
        Arc::new(|_| Body::from_stream(stream::pending::<Result<Bytes, Infallible>>()));
    let dribbles: Twist = Arc::new(|answer| {
        let bytes = stream::iter(answer).then(async |byte| {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok::<_, Infallible>(Bytes::from(vec![byte]))
        });
        Body::from_stream(bytes)
    });
    for twist in [hangs, dribbles] {
        for point in [Part::References, Part::Pack] {
            let server = Twisted::serve(point, twist.clone());
            let error = refused(&policy, &server.url);
            assert_eq!(excess(&error), Excess::Time(time), "{error}");
            assert_eq!(server.reached(), 1);
        }
    }
    // It takes the connection and never says a word.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = refused(
        &policy,
        &format!("http://{}/app.git", mute.local_addr().unwrap()),
    );
    assert_eq!(excess(&error), Excess::Time(time), "{error}");
}

#[test]
fn a_server_that_dies_in_the_middle_is_tried_again_and_told() {
    let deaths = Arc::new(Mutex::new(u32::MAX));
    let left = deaths.clone();
    let dies: Twist = Arc::new(move |answer| {
        let mut left = left.lock().unwrap();
        *left = left.saturating_sub(1);
        if *left == 0 {
            return Body::from(answer);
        }
        let half = Bytes::from(answer[..answer.len() / 2].to_vec());
        // What has come is sent before the server is gone.
        let gone = stream::once(async {
            tokio::task::yield_now().await;
            Err(std::io::Error::other("the server is gone"))
        });
        Body::from_stream(stream::iter([Ok(half)]).chain(gone))
    });
    let server = Twisted::serve(Part::Pack, dies);
    let error = refused(&Policy::default(), &server.url);
    assert_eq!(
        error.to_string(),
        format!("cannot fetch from {}", server.url)
    );
    assert_eq!(
        server.reached(),
        3,
        "{}",
        ocibuild::causes::one_line(&error)
    );

    *deaths.lock().unwrap() = 2;
    check_out(&Policy::default(), &server.url).unwrap();
    assert_eq!(server.reached(), 5);
}

#[test]
fn packs_that_are_not_what_they_say_are_refused() {
    let cut: Twist = Arc::new(|mut answer| {
        // Whole packets, and less of a pack than its head tells.
        answer.truncate(answer.len() / 2);
        Body::from(answer)
    });
    let flipped: Twist = Arc::new(|mut answer| {
        let middle = answer.len() / 2;
        answer[middle] ^= 0xff;
        Body::from(answer)
    });
    let wrong_packet: Twist = Arc::new(|mut answer| {
        answer.splice(.., *b"fff0packfile\n");
        Body::from(answer)
    });
    let nothing: Twist = Arc::new(|_| Body::empty());
    for twist in [cut, flipped, wrong_packet, nothing] {
        let server = Twisted::serve(Part::Pack, twist);
        let error = refused(&Policy::default(), &server.url);
        let expected = format!("cannot fetch from {}", server.url);
        assert_eq!(error.to_string(), expected);
        assert!(std::error::Error::source(&error).is_some());
    }
}

#[test]
fn an_object_that_fills_memory_is_refused() {
    let zeros = vec![0_u8; 4 << 20];
    let snapshot = GitSnapshot::new([("f", zeros.as_slice())]);
    let honest: Twist = Arc::new(Body::from);
    let server = Twisted::serve_repository(snapshot, Part::Pack, honest);
    check_out(&Policy::default(), &server.url).unwrap();
    let object = 1 << 20;
    let policy = limited(Limits {
        object,
        ..Limits::default()
    });
    let error = refused(&policy, &server.url);
    let text = ocibuild::causes::one_line(&error);
    assert!(text.contains("cannot fetch from"), "{text}");
    assert_eq!(server.reached(), 2, "it is not tried again");
}

#[test]
fn a_tree_that_unfolds_without_end_is_refused() {
    let server = GitServer::start();
    let repository = server.repository("bomb.git");
    repository.file("d/f", "x").commit("first");
    // Each level names the one below ten times: 10^12 files in a dozen objects.
    let mut tree = repository.git(&["rev-parse", "HEAD:d"]);
    for _ in 0..12 {
        let lines: String = (0..10)
            .map(|n| format!("040000 tree {tree}\t{n}\n"))
            .collect();
        tree = repository.git_with_input(&["mktree"], &lines);
    }
    let bomb = repository.git(&["commit-tree", "-m", "bomb", &tree]);
    repository.git(&["update-ref", "refs/heads/main", &bomb]);
    let files = 1000;
    let policy = limited(Limits {
        files,
        ..Limits::default()
    });
    let error = refused(&policy, repository.url());
    assert_eq!(excess(&error), Excess::Files(files), "{error}");

    let policy = limited(Limits {
        bytes: 100_000,
        ..Limits::default()
    });
    let large = server.repository("large.git");
    large
        .file("f", "a".repeat(200_000))
        .commit("large and easily packed");
    let error = refused(&policy, large.url());
    assert_eq!(excess(&error), Excess::FileBytes(100_000), "{error}");
}
