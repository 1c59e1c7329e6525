//! Git servers that hang, lie or die, as the service meets them: what is said about each,
//! and how often it is asked. And builders that die while a server sends.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ocibuild::testing::GitServer;
use serde_json::json;

use crate::command::{Place, build_arguments, ended};
use crate::served::Served;

/// A server that does one thing to every connection, until the test ends.
struct Faulty {
    url: String,
    requests: Arc<AtomicUsize>,
}

impl Faulty {
    fn start(answer: impl Fn(&mut TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let count = requests.clone();
        std::thread::spawn(move || {
            for mut connection in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::SeqCst);
                answer(&mut connection);
            }
        });
        Self {
            url: format!("http://{address}/team/app.git"),
            requests,
        }
    }

    /// A server that gives the same text for every request.
    fn saying(text: impl Into<String>) -> Self {
        let text = text.into();
        Self::start(move |connection| {
            let mut request = [0; 4096];
            // Whatever came is enough, and whoever asked may be gone.
            let _ = connection.read(&mut request);
            let _ = connection.write_all(text.as_bytes());
        })
    }

    fn with_status(status: u16) -> Self {
        Self::saying(format!(
            "HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        ))
    }
}

const HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n";

fn service(place: &Place) -> Served {
    let registry = ("LOCAL_REGISTRY", "127.0.0.1:1".to_owned());
    Served::start(place, "data", &[registry])
}

#[test]
fn a_server_that_hangs_costs_no_more_than_the_time_of_the_build() {
    let place = Place::new();
    let service = service(&place);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/team/app.git", silent.local_addr().unwrap());
    let task = service.submit_json(&json!({
        "app_name": "app",
        "image_tag": "v1",
        "context": {"type": "git", "url": url},
        "timeout_seconds": 2,
    }));
    // The connection is there and nothing comes.
    let _connection = silent.accept().unwrap();
    service.assert_fails(&task, "2 s");
}

#[test]
fn what_will_not_pass_is_asked_for_once() {
    let place = Place::new();
    let service = service(&place);
    let page = "<html>welcome</html>";
    let no_git = Faulty::saying(format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{page}",
        page.len()
    ));
    let outward = Faulty::saying(
        "HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/x.git/info/refs?service=git-upload-pack\r\nContent-Length: 0\r\n\r\n",
    );
    let login = Faulty::saying(
        "HTTP/1.1 302 Found\r\nLocation: /login?next=app\r\nContent-Length: 0\r\n\r\n",
    );
    let to_file = Faulty::saying(
        "HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
    );
    for (server, reason) in [
        (no_git, "is not a Git repository"),
        (Faulty::with_status(404), "no repository at "),
        (Faulty::with_status(410), "no repository at "),
        (Faulty::with_status(401), "refused access (HTTP status 401)"),
        (Faulty::with_status(403), "refused access (HTTP status 403)"),
        (Faulty::with_status(400), "answered with HTTP status 400"),
        (
            outward,
            "http://elsewhere.example/x.git is not allowed: plain http",
        ),
        (login, "the target is not a repository"),
        (to_file, "the target is not HTTP"),
    ] {
        let task = service.submit(&server.url, "v1", None);
        service.assert_fails(&task, reason);
        assert_eq!(server.requests.load(Ordering::SeqCst), 1, "{reason}");
    }
}

#[test]
fn what_may_pass_is_asked_for_three_times() {
    let place = Place::new();
    let service = service(&place);
    let closes = Faulty::start(|_| {});
    let garbles = Faulty::saying("SSH-2.0-OpenSSH_9.2\r\n");
    for (server, reason) in [
        (Faulty::with_status(500), "answered with HTTP status 500"),
        (Faulty::with_status(502), "answered with HTTP status 502"),
        (Faulty::with_status(503), "answered with HTTP status 503"),
        (Faulty::with_status(429), "answered with HTTP status 429"),
        (closes, "cannot reach 127.0.0.1"),
        (garbles, "cannot reach 127.0.0.1"),
    ] {
        let task = service.submit(&server.url, "v1", None);
        service.assert_fails(&task, reason);
        assert_eq!(server.requests.load(Ordering::SeqCst), 3, "{reason}");
    }
}

#[test]
fn answers_that_break_off_or_lie_are_said_to() {
    let place = Place::new();
    let service = service(&place);
    let dies = Faulty::saying(format!(
        "{HEAD}Content-Length: 5000\r\n\r\n001e# service=git-upload"
    ));
    // A length of a terabyte, and a packet that says it has 65,519 bytes.
    let lies = Faulty::saying(format!(
        "{HEAD}Content-Length: 1099511627776\r\n\r\nffefshort"
    ));
    for server in [dies, lies] {
        let task = service.submit(&server.url, "v1", None);
        let reason = format!("cannot list the references of {}", server.url);
        service.assert_fails(&task, &reason);
        // The head of the first answer was good; what follows is tried three times.
        assert_eq!(server.requests.load(Ordering::SeqCst), 4, "{reason}");
    }
    // What is no length at all is not asked for again.
    let babbles = Faulty::saying(format!("{HEAD}Content-Length: 8\r\n\r\nnonsense"));
    let task = service.submit(&babbles.url, "v1", None);
    let reason = format!("cannot list the references of {}", babbles.url);
    service.assert_fails(&task, &reason);
    assert_eq!(babbles.requests.load(Ordering::SeqCst), 2);
}

#[test]
fn sources_that_are_not_allowed_are_refused_before_anything_is_asked() {
    let place = Place::new();
    let service = service(&place);
    for (url, reason) in [
        ("file:///etc", "must be an http or https URL"),
        ("/etc", "must be an http or https URL"),
        ("ext::sh", "must be an http or https URL"),
        ("ext::sh -c id", "no spaces"),
        ("--upload-pack=/bin/id", "must be an http or https URL"),
        ("ssh://-oProxyCommand=id/x", "must be an http or https URL"),
        ("git@-oProxyCommand=id:x", "must be an http or https URL"),
        ("git@github.com:o/r", "ssh is not set up here"),
        ("http://elsewhere.example/x.git", "must be an https URL"),
        ("https://user:password@[::1]:0/../x", "no credentials"),
    ] {
        let form = [("app_name", "app"), ("image_tag", "v1"), ("git_repo", url)];
        let answer = service
            .post("/build_with_dockerfile")
            .form(&form)
            .send()
            .unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().unwrap();
        assert_eq!(status, 422, "{url}: {text}");
        assert!(
            !text.contains("task_id") && text.contains(reason),
            "{url}: {text}"
        );
        assert!(!text.contains("password@"), "{text}");
    }
    // The metadata service of a cloud is reached by no name.
    let task = service.submit("https://169.254.169.254/latest/app.git", "v1", None);
    service.assert_fails(
        &task,
        "is not allowed: its address is that of a metadata service",
    );
}

/// Starts a build, and kills it once a server has begun to send it `fetches` packs.
fn killed(place: &Place, url: &str, server: &GitServer, fetches: usize) {
    server.stall_next_packs(1);
    let mut build = place.command(&build_arguments(url, &[])).spawn().unwrap();
    while server.fetches() < fetches {
        assert!(build.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::yield_now();
    }
    build.kill().unwrap();
    build.wait().unwrap();
}

#[test]
fn a_builder_that_is_killed_leaves_no_half_mirror() {
    let place = Place::new();
    let server = GitServer::start();
    let repository = server.repository("app.git");
    let text = |text: &str| {
        repository.file("Dockerfile", format!("FROM busybox\nLABEL is={text}\n"));
        repository.commit(text);
    };
    let built = |want: &str| {
        let mut command = place.command(&build_arguments(repository.url(), &["-t", "app:1"]));
        let ended = ended(command.output().unwrap());
        assert_eq!(ended.status, 0, "{}", ended.err);
        assert_eq!(
            place.verify("app:1")["config"]["config"]["Labels"]["is"],
            want
        );
    };
    text("one");
    killed(&place, repository.url(), &server, 1);
    built("one");
    assert_eq!(server.fetches(), 2);
    built("one");
    assert_eq!(server.fetches(), 2, "the mirror is whole");
    // While it is added to.
    text("two");
    killed(&place, repository.url(), &server, 3);
    built("two");
    assert_eq!(server.fetches(), 4);
    let mirrors = std::fs::read_dir(place.path("store/git")).unwrap();
    assert_eq!(mirrors.count(), 1);
}
