//! The service with real builds: a repository over HTTP, this command as the process of
//! a build, Debian's registry, and both databases.

use std::time::{Duration, Instant};

use ocibuild::testing::{GitRepository, GitServer};
use ocibuild_registry::testing::{DebianRegistry, StartError};
use ocibuild_server::{Config, Defaults, Options, Service};
use ocibuild_store::testing::MariaDb;
use reqwest::blocking::{Client, multipart};
use tokio_util::sync::CancellationToken;

use crate::command::{Place, pull_and_validate};

const PATIENCE: Duration = Duration::from_secs(60);
const TOKEN: &str = "ghp_0123456789secret";

/// A service on a thread of its own.
struct Running {
    place: Place,
    registry: DebianRegistry,
    url: String,
    http: Client,
    shutdown: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    /// None where Debian's registry is not installed.
    fn start(vars: &[(&str, String)]) -> Option<Self> {
        let registry = match DebianRegistry::start() {
            Err(StartError::Missing) => {
                skip("docker-registry is not installed");
                return None;
            }
            registry => registry.unwrap(),
        };
        let _ = rustls::crypto::ring::default_provider().install_default();
        let place = Place::new();
        place.push_base(registry.reference("base:1"));
        let own = [
            ("OCIBUILD_LISTEN", "127.0.0.1:0".to_owned()),
            ("LOCAL_REGISTRY", registry.host()),
            ("GITHUB_TOKEN", TOKEN.to_owned()),
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ];
        let vars = own
            .iter()
            .chain(vars)
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        let defaults = Defaults {
            data: place.path("data"),
            max_builds: 2,
        };
        let config = Config::from_vars(vars, &defaults).unwrap();
        let (send, address) = std::sync::mpsc::channel();
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let thread = std::thread::spawn(move || {
            crate::command::wait(async {
                let options = Options::new(env!("CARGO_BIN_EXE_ocibuild").into());
                let service = Service::start(config, options).await.unwrap();
                send.send(service.address()).unwrap();
                service.run(stop).await.unwrap();
            });
        });
        Some(Self {
            url: format!("http://{}", address.recv().unwrap()),
            place,
            registry,
            http: Client::builder().no_proxy().build().unwrap(),
            shutdown,
            thread: Some(thread),
        })
    }

    /// Asks for a build and gives the id of its task.
    fn submit(&self, repository: &str, tag: &str, dockerfile: Option<&str>) -> String {
        let mut form = multipart::Form::new()
            .text("app_name", "app")
            .text("image_tag", tag.to_owned())
            .text("git_repo", repository.to_owned());
        if let Some(text) = dockerfile {
            let part = multipart::Part::text(text.to_owned()).file_name("Dockerfile");
            form = form.part("dockerfile", part);
        }
        let request = self
            .http
            .post(format!("{}/build_with_dockerfile", self.url));
        let answer: serde_json::Value = json(request.multipart(form));
        answer["task_id"].as_str().unwrap().to_owned()
    }

    /// Waits until the task has ended; gives the states that were seen, and the log.
    fn follow(&self, task: &str) -> (Vec<String>, String) {
        let (start, mut states) = (Instant::now(), Vec::new());
        loop {
            let status = self
                .http
                .get(format!("{}/task/status?task_id={task}", self.url));
            let state = json(status)["build_status"].as_str().unwrap().to_owned();
            let ended = state == "completed" || state == "failed";
            if states.last() != Some(&state) {
                states.push(state);
            }
            let log = self.http.get(format!("{}/static/{task}.log", self.url));
            let log = log.send().unwrap().text().unwrap();
            if ended {
                return (states, log);
            }
            assert!(start.elapsed() < PATIENCE, "{states:?}: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn assert_fails(&self, task: &str, reason: &str) {
        let (states, log) = self.follow(task);
        assert_eq!(states.last().unwrap(), "failed", "{log}");
        let last = log.lines().last().unwrap();
        assert!(
            last.starts_with("Build failed after ") && last.contains(reason),
            "{log}"
        );
        assert!(!log.contains(TOKEN));
    }

    fn repository(&self, server: &GitServer, name: &str, command: &str) -> GitRepository {
        let repository = server.repository(name);
        let text = format!(
            "FROM {}/base:1\nCOPY f /f\nRUN {command}\n",
            self.registry.host()
        );
        repository
            .file("f", "x")
            .file("Dockerfile", text)
            .commit("one");
        repository
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
        // A panic there has been printed already.
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

fn json(request: reqwest::blocking::RequestBuilder) -> serde_json::Value {
    serde_json::from_str(&request.send().unwrap().text().unwrap()).unwrap()
}

#[expect(clippy::print_stderr, reason = "a skipped test has to be seen")]
fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}

fn builds_and_failures(vars: &[(&str, String)]) {
    let Some(service) = Running::start(vars) else {
        return;
    };
    let server = GitServer::start();
    // The command waits until it has been seen running.
    let gate = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let wait = format!(
        "echo at-work && nc 127.0.0.1 {} < /dev/null",
        gate.local_addr().unwrap().port()
    );
    let good = service.repository(&server, "team/good.git", &wait);
    let task = service.submit(good.url(), "v1", None);
    let waiting = gate.accept().unwrap();
    let state = service
        .http
        .get(format!("{}/task/status?task_id={task}", service.url));
    assert_eq!(json(state)["build_status"], "running");
    drop(waiting);
    let (states, log) = service.follow(&task);
    assert_eq!(states.last().unwrap(), "completed", "{log}");
    assert!(log.contains(" | at-work\n"), "{log}");
    let reference = service.registry.reference("app-app:v1");
    let pushed = log
        .lines()
        .find_map(|line| line.strip_prefix("Pushed "))
        .unwrap();
    let (name, digest) = pushed.split_once('@').unwrap();
    assert_eq!(
        digest,
        pull_and_validate(&name.parse().unwrap_or(reference))
    );
    assert!(!log.contains(TOKEN));
    assert!(
        server
            .seen()
            .iter()
            .all(|request| request.authorization.is_none()),
        "the token is GitHub's"
    );

    let uploaded = format!(
        "FROM {}/base:1\nRUN echo uploaded\n",
        service.registry.host()
    );
    let (states, log) = service.follow(&service.submit(good.url(), "v2", Some(&uploaded)));
    assert_eq!(states.last().unwrap(), "completed", "{log}");
    assert!(
        log.contains(" | uploaded\n") && !log.contains("at-work"),
        "{log}"
    );

    let task = service.submit(&server.url("team/none.git"), "v3", None);
    service.assert_fails(&task, "no repository at ");
    let bad = service.repository(&server, "team/bad.git", "echo why >&2; exit 9");
    let task = service.submit(bad.url(), "v4", None);
    service.assert_fails(&task, "exit code: 9");
    let scratch = service.place.path("data/build_artifacts");
    assert_eq!(
        std::fs::read_dir(scratch).unwrap().count(),
        0,
        "nothing is left behind"
    );
}

#[test]
fn on_sqlite() {
    builds_and_failures(&[]);
}

#[test]
fn on_mariadb() {
    let database = MariaDb::start().unwrap();
    let port = database.settings("").port.to_string();
    builds_and_failures(&[("MYSQL_HOST", "127.0.0.1".to_owned()), ("MYSQL_PORT", port)]);
}

#[test]
fn a_registry_that_is_down_fails_the_push() {
    let gone = DebianRegistry::start().map(|registry| registry.host());
    let Ok(gone) = gone else {
        skip("docker-registry is not installed");
        return;
    };
    let Some(service) = Running::start(&[("LOCAL_REGISTRY", gone.clone())]) else {
        return;
    };
    let server = GitServer::start();
    let repository = server.repository("app.git");
    repository
        .file("Dockerfile", "FROM scratch\nLABEL a=1\n")
        .commit("one");
    let task = service.submit(repository.url(), "v1", None);
    service.assert_fails(&task, &format!("push {gone}/"));
}
