//! ADD of files over HTTP: names, modes and times, what is asked for again, and which
//! servers are not asked at all.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::{StreamExt, stream};
use ocibuild::git::{Limits, Policy};
use ocibuild::layer::TreePath;
use ocibuild::net::AddressPolicy;
use ocibuild::registry::Digest;
use ocibuild::{Build, ContextSource, ErrorKind};

use crate::built::{Built, Workshop};
use crate::file_server::{FileServer, gzip};

fn tar() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(4);
    header.set_mode(0o640);
    tar.append_data(&mut header, "inside", b"text".as_slice())
        .unwrap();
    tar.into_inner().unwrap()
}

fn build(workshop: &Workshop, instructions: &str) -> Build {
    let text = format!("FROM scratch\n{instructions}\n");
    let source = ocibuild::DockerfileSource::Text {
        name: "Dockerfile".to_owned(),
        text,
    };
    let build = workshop.build_from("store", ContextSource::Empty);
    build.dockerfile(source)
}

fn added(instructions: &str) -> Built {
    let workshop = Workshop::new();
    workshop.built(build(&workshop, instructions))
}

fn failure(build: impl FnOnce(&Workshop) -> Build) -> (ErrorKind, String) {
    let workshop = Workshop::new();
    let error = workshop.fails(build(&workshop));
    (error.kind(), ocibuild::causes::one_line(&error))
}

fn mtime(image: &Built, path: &str) -> i64 {
    let path = TreePath::parse(path).unwrap();
    image.view.lookup(&path).unwrap().entry.mtime
}

#[test]
fn b54_mode_owner_time_and_name() {
    let time = ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT".to_owned());
    let named = (
        "content-disposition",
        "attachment; filename=other".to_owned(),
    );
    let text = b"text".to_vec();
    let server = FileServer::start(vec![
        ("/f", 200, vec![time.clone(), named], text.clone()),
        ("/", 200, vec![], text.clone()),
        ("/a%20b", 200, vec![], text.clone()),
    ]);
    let url = &server.url;
    for (instruction, want) in [
        (format!("ADD {url}/f /"), &["f 0600 0:0 file"][..]),
        (format!("ADD {url}/f?x=1#y /d"), &["d 0600 0:0 file"]),
        (
            format!("ADD {url}/f /d/"),
            &["d 0755 0:0 dir", "d/f 0600 0:0 file"],
        ),
        (
            format!("WORKDIR /w\nADD {url}/f ."),
            &["w 0755 0:0 dir", "w/f 0600 0:0 file"],
        ),
        (
            format!("ADD {url} /d/"),
            &["d 0755 0:0 dir", "d/__unnamed__ 0600 0:0 file"],
        ),
        (
            format!("ADD [\"{url}/a%20b\", \"/\"]"),
            &["a b 0600 0:0 file"],
        ),
        (format!("ARG U={url}\nADD $U/f /"), &["f 0600 0:0 file"]),
        (
            format!("ADD --chmod=755 --chown=1:2 {url}/f /d/"),
            &["d 0755 1:2 dir", "d/f 0755 1:2 file"],
        ),
        (format!("ADD --chmod=go=u {url}/f /"), &["f 0666 0:0 file"]),
        (format!("ADD --link {url}/f /"), &["f 0600 0:0 file"]),
        (
            format!("ADD {url}/f {url}/a%20b <<doc /d/\nx\ndoc"),
            &[
                "d 0755 0:0 dir",
                "d/a b 0600 0:0 file",
                "d/doc 0644 0:0 file",
                "d/f 0600 0:0 file",
            ],
        ),
    ] {
        assert_eq!(added(&instruction).list(""), want, "{instruction}");
    }
    let image = added(&format!("ADD {url}/f {url}/a%20b /d/"));
    assert_eq!(image.text("d/f"), "text");
    assert_eq!(mtime(&image, "d/f"), 784_111_777);
    assert_eq!(mtime(&image, "d/a b"), 0);
    assert_eq!(
        image.history(),
        [format!("ADD {url}/f {url}/a%20b /d/ # buildkit")]
    );
}

#[test]
fn b54_archives_are_extracted_when_that_is_asked_for() {
    let server = FileServer::with(&gzip(&tar()), vec![]);
    let url = &server.url;
    for (flags, want) in [
        ("", &["d 0600 0:0 file"][..]),
        ("--unpack=false", &["d 0600 0:0 file"]),
        ("--unpack", &["d 0755 0:0 dir", "d/inside 0640 0:0 file"]),
        (
            "--unpack=true",
            &["d 0755 0:0 dir", "d/inside 0640 0:0 file"],
        ),
    ] {
        let image = added(&format!("ADD {flags} {url}/f /d"));
        assert_eq!(image.list(""), want, "{flags}");
    }
}

#[test]
fn b54_a_compressed_answer_is_decoded() {
    let encoding = vec![("content-encoding", "gzip".to_owned())];
    let server = FileServer::with(&gzip(b"text"), encoding);
    let image = added(&format!("ADD {}/f /", server.url));
    assert_eq!(image.text("f"), "text");
}

#[test]
fn b54_redirects_are_followed() {
    let to = |target: &str| vec![("location", target.to_owned())];
    let server = FileServer::start(vec![
        ("/a", 302, to("/b"), vec![]),
        ("/b", 308, to("deep/f"), vec![]),
        ("/deep/f", 200, vec![], b"text".to_vec()),
        ("/loop", 302, to("/loop"), vec![]),
        ("/file", 302, to("file:///etc/passwd"), vec![]),
        ("/nowhere", 302, vec![], vec![]),
    ]);
    let image = added(&format!("ADD {}/a /", server.url));
    assert_eq!(
        (image.list(""), image.text("a")),
        (vec!["a 0600 0:0 file".into()], "text".into())
    );
    for (path, reason) in [
        ("loop", "too many redirects"),
        ("file", "the target is not HTTP"),
        ("nowhere", "the target is not a URL"),
    ] {
        let url = format!("{}/{path}", server.url);
        let (_, text) = failure(|workshop| build(workshop, &format!("ADD {url} /")));
        assert!(
            text.starts_with(&format!("Dockerfile:2: {url} redirects to ")),
            "{text}"
        );
        assert!(text.ends_with(reason), "{text}");
    }
}

#[test]
fn b54_what_is_no_file_is_an_error() {
    let server = FileServer::start(vec![
        ("/forbidden", 403, vec![], vec![]),
        ("/part", 206, vec![], b"x".to_vec()),
        ("/busy", 503, vec![], vec![]),
    ]);
    for (path, status) in [
        ("missing", 404),
        ("forbidden", 403),
        ("part", 206),
        ("busy", 503),
    ] {
        let url = format!("{}/{path}", server.url);
        let instruction = format!("ADD {}?token=s3cret /", url.replace("://", "://me:s3cret@"));
        let (kind, text) = failure(|workshop| build(workshop, &instruction));
        assert_eq!(
            text,
            format!("Dockerfile:2: {url} answered with HTTP status {status}")
        );
        assert_eq!(kind, ErrorKind::Registry);
    }
    let asked = |path: &str| {
        server
            .seen()
            .iter()
            .filter(|seen| seen.contains(path))
            .count()
    };
    assert_eq!(
        (asked("missing"), asked("busy")),
        (1, 3),
        "the busy one is asked again"
    );
    assert_eq!(
        server.last("authorization").as_deref(),
        Some("Basic bWU6czNjcmV0")
    );
}

#[test]
fn b54_a_checksum_is_kept_to() {
    let server = FileServer::with(b"text", vec![]);
    let (url, right) = (&server.url, Digest::sha256(b"text"));
    let image = added(&format!("ADD --checksum={right} {url}/f /"));
    assert_eq!(image.text("f"), "text");
    let wrong = Digest::sha256(b"other");
    let (kind, text) =
        failure(|workshop| build(workshop, &format!("ADD --checksum={wrong} {url}/f /")));
    let want = format!("{url}/f has the digest {right}, --checksum says {wrong}");
    assert_eq!(text, format!("Dockerfile:2: {want}"));
    assert_eq!(kind, ErrorKind::User);
    for (flag, sources, want) in [
        (
            "sha256:12",
            "https://h/f",
            "want sha256: and 64 hexadecimal digits",
        ),
        (
            "sha512:12",
            "https://h/f",
            "want sha256: and 64 hexadecimal digits",
        ),
        (
            "1",
            "https://h/f https://h/g",
            "--checksum needs one source",
        ),
        ("1", "f", "--checksum needs the URL of a file or repository"),
    ] {
        let instruction = format!("RUN true\nADD --checksum={flag} {sources} /d/");
        let (kind, text) = failure(|workshop| build(workshop, &instruction));
        assert!(text.contains(want), "{text}");
        assert_eq!(kind, ErrorKind::User);
    }
}

#[test]
fn what_has_not_changed_does_not_travel_and_its_content_is_the_key() {
    let validators = [
        ("etag", "\"one\"", "if-none-match"),
        (
            "last-modified",
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "if-modified-since",
        ),
    ];
    for (name, value, asks) in validators {
        let server = FileServer::with(b"text", vec![(name, value.to_owned())]);
        let workshop = Workshop::new();
        let instruction = format!("ADD {}/f /", server.url);
        let add = || workshop.built(build(&workshop, &instruction));
        let (first, second) = (add(), add());
        assert_eq!(server.last(asks).as_deref(), Some(value));
        assert_eq!(first.cached(), [(&*instruction, false)]);
        assert_eq!(second.cached(), [(&*instruction, true)]);
        assert!(
            second.image().steps[0]
                .name
                .starts_with("[internal] download http://")
        );
        assert!(second.image().steps[0].cached && !first.image().steps[0].cached);
        // Other validators and the same bytes: it travels, and the step is known.
        server.set((
            "/f",
            200,
            vec![("etag", "\"two\"".to_owned())],
            b"text".to_vec(),
        ));
        let third = add();
        assert_eq!(third.cached(), [(&*instruction, true)]);
        assert!(!third.image().steps[0].cached);
        server.set((
            "/f",
            200,
            vec![("etag", "\"three\"".to_owned())],
            b"new".to_vec(),
        ));
        let fourth = add();
        assert_eq!(
            (fourth.cached(), fourth.text("f")),
            (vec![(&*instruction, false)], "new".into())
        );
    }
}

#[test]
fn with_a_checksum_that_is_known_nobody_is_asked() {
    let server = FileServer::with(b"text", vec![]);
    let workshop = Workshop::new();
    let digest = Digest::sha256(b"text");
    let instruction = format!("ADD --checksum={digest} {}/f /", server.url);
    workshop.built(build(&workshop, &instruction));
    let image = workshop.built(build(&workshop, &format!("{instruction}\nWORKDIR /w")));
    assert_eq!((image.text("f"), server.seen().len()), ("text".into(), 1));
}

#[test]
fn the_policy_of_the_build_is_kept_to() {
    let server = FileServer::with(b"text", vec![]);
    let add = format!("ADD {}/f /", server.url);
    let no_loopback = AddressPolicy::default().refuse_loopback();
    let host = |name: &str| name.parse().unwrap();
    for (instruction, policy, reason) in [
        (
            "ADD http://169.254.169.254/latest/meta-data /",
            Policy::default(),
            "its address is that of a metadata service or of no machine",
        ),
        (
            "ADD http://[fd00:ec2::254]/latest /",
            Policy::default(),
            "its address is that of a metadata service or of no machine",
        ),
        (
            "ADD http://0xa9fea9fe/latest /",
            Policy::default(),
            "its address is that of a metadata service or of no machine",
        ),
        (
            &add,
            Policy::default().addresses(no_loopback),
            "its address is this machine",
        ),
        (
            &add.replace("127.0.0.1", "localhost"),
            Policy::default().addresses(no_loopback),
            "its address is this machine",
        ),
        (
            &add,
            Policy::default().https_only(),
            "plain http is not allowed",
        ),
        (
            &add,
            Policy::default().only_from([host("example.com")]),
            "its host is not among those that are allowed",
        ),
    ] {
        let (kind, text) = failure(|workshop| build(workshop, instruction).git_policy(policy));
        assert!(text.starts_with("Dockerfile:2: http://"), "{text}");
        assert!(
            text.contains(" is refused: ") && text.contains(reason),
            "{text}"
        );
        assert_eq!(kind, ErrorKind::User, "{text}");
    }
    assert_eq!(server.seen(), [""; 0]);

    let target = vec![("location", "http://169.254.169.254/latest".to_owned())];
    server.set(("/f", 302, target, vec![]));
    let (_, text) = failure(|workshop| build(workshop, &add));
    assert!(
        text.contains("http://169.254.169.254/latest is refused"),
        "{text}"
    );
}

#[test]
fn a_download_has_limits() {
    let bomb = gzip(&vec![0; 1 << 20]);
    let server = FileServer::start(vec![
        ("/f", 200, vec![], vec![b'x'; 70_000]),
        (
            "/bomb",
            200,
            vec![("content-encoding", "gzip".to_owned())],
            bomb,
        ),
    ]);
    let bytes = Limits {
        bytes: 60_000,
        ..Limits::default()
    };
    for path in ["f", "bomb"] {
        let url = format!("{}/{path}", server.url);
        let policy = Policy::default().limits(bytes);
        let (kind, text) =
            failure(|workshop| build(workshop, &format!("ADD {url} /")).git_policy(policy));
        let want = format!("Dockerfile:2: {url} is refused: it sends more than 60000 bytes");
        assert_eq!((kind, text), (ErrorKind::User, want));
    }
    let policy = Policy::default().limits(Limits {
        time: Duration::ZERO,
        ..Limits::default()
    });
    let url = format!("{}/f", server.url);
    let (_, text) = failure(|workshop| build(workshop, &format!("ADD {url} /")).git_policy(policy));
    assert!(text.contains("is refused: it takes longer than"), "{text}");
}

#[test]
fn a_connection_that_breaks_is_tried_again() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let tries = Arc::new(Mutex::new(0));
    let counted = tries.clone();
    let app = axum::Router::new().fallback(move || {
        let counted = counted.clone();
        async move {
            let mut tries = counted.lock().unwrap();
            *tries += 1;
            let end = match *tries {
                3 => Ok(Bytes::from_static(b"xt")),
                _ => Err(std::io::Error::other("the server is gone")),
            };
            let first = stream::iter([Ok(Bytes::from_static(b"te"))]);
            // What has come is sent before the end of it is known.
            let rest = stream::once(async move {
                tokio::task::yield_now().await;
                end
            });
            Body::from_stream(first.chain(rest))
        }
    });
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let url = format!("http://{}/f", listener.local_addr().unwrap());
    runtime.spawn(async move { axum::serve(listener, app).await });
    let image = added(&format!("ADD {url} /"));
    assert_eq!(
        (image.text("f"), *tries.lock().unwrap()),
        ("text".into(), 3)
    );

    *tries.lock().unwrap() = 3;
    let (kind, text) = failure(|workshop| build(workshop, &format!("ADD {url} /")));
    assert!(
        text.starts_with(&format!("Dockerfile:2: cannot read {url}")),
        "{text}"
    );
    assert_eq!(kind, ErrorKind::Registry);

    drop(runtime);
    let (_, text) = failure(|workshop| build(workshop, &format!("ADD {url} /")));
    assert!(text.contains("cannot reach 127.0.0.1:"), "{text}");
}
