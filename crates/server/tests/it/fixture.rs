//! A service on a free loopback port, with a folder of its own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ocibuild_server::{Config, Defaults, Options, Service};
use reqwest::{Client, RequestBuilder, StatusCode};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What the fake worker builds.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// What the fake worker confirms.
pub(crate) const DIGEST: &str =
    "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// How long anything may take that happens by itself.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Fixture {
    pub(crate) folder: TempDir,
    vars: Vec<(String, String)>,
    client: Client,
    url: String,
    shutdown: CancellationToken,
    running: Option<JoinHandle<()>>,
}

impl Fixture {
    /// Starts a service with these settings beside those that every test needs.
    pub(crate) async fn start(vars: &[(&str, &str)]) -> Self {
        // Some other crate may have enabled TLS for the client that all share.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let vars = vars
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut fixture = Self {
            folder,
            vars: vars.collect(),
            client: Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .unwrap(),
            url: String::new(),
            shutdown: CancellationToken::new(),
            running: None,
        };
        fixture.start_again().await;
        fixture
    }

    /// Starts the service on the folder and the settings that it had.
    pub(crate) async fn start_again(&mut self) {
        let common = [
            ("OCIBUILD_LISTEN", "127.0.0.1:0"),
            ("APP_LAYER_URL", "http://builder.example"),
            ("LOCAL_REGISTRY", "localhost:5000"),
            ("PATH", "/usr/bin:/bin"),
        ];
        let common = common.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let defaults = Defaults {
            data: self.folder.path().join("data"),
            max_builds: 2,
        };
        let vars = common.into_iter().chain(self.vars.clone());
        let config = Config::from_vars(vars, &defaults).unwrap();
        std::fs::create_dir_all(self.meet()).unwrap();
        let mut options = Options::new(PathBuf::from("/bin/sh"));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/fake-worker.sh");
        options.worker_arguments = vec![script.to_owned(), self.meet().display().to_string()];
        options.timing.poll = Duration::from_millis(100);
        options.timing.grace = Duration::from_millis(200);
        let service = Service::start(config, options).await.unwrap();
        self.url = format!("http://{}", service.address());
        self.shutdown = CancellationToken::new();
        let shutdown = self.shutdown.clone();
        self.running = Some(tokio::spawn(
            async move { service.run(shutdown).await.unwrap() },
        ));
    }

    /// Ends the service and waits until it has ended.
    pub(crate) async fn stop(&mut self) {
        self.shutdown.cancel();
        if let Some(running) = self.running.take() {
            tokio::time::timeout(PATIENCE, running)
                .await
                .expect("the service ends")
                .unwrap();
        }
    }

    /// The folder where the fake worker and the test meet.
    pub(crate) fn meet(&self) -> PathBuf {
        self.folder.path().join("meet")
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path))
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(self.url(path))
    }

    /// Gets a page's status and text.
    pub(crate) async fn read(&self, path: &str) -> (StatusCode, String) {
        answer(self.get(path)).await
    }

    /// Queues a build as Darwin's services do; gives the task's id.
    pub(crate) async fn build(&self, image_tag: &str) -> String {
        let (status, body) =
            answer(self.post("/build_with_dockerfile").form(&form(image_tag))).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        task_id(&body)
    }

    /// The state of a task.
    pub(crate) async fn state(&self, id: &str) -> String {
        let (_, body) = self.read(&format!("/task/status?task_id={id}")).await;
        let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
        answer["build_status"].as_str().unwrap().to_owned()
    }

    /// The log of a task as it is now.
    pub(crate) async fn log(&self, id: &str) -> String {
        let (status, body) = self.read(&format!("/static/{id}.log")).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    /// Waits until a task has this state.
    pub(crate) async fn reach(&self, id: &str, state: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.state(id).await;
            if now == state {
                return;
            }
            let over = matches!(now.as_str(), "completed" | "failed");
            assert!(
                !over && Instant::now() < deadline,
                "{now} and not {state}: {}",
                self.log(id).await
            );
            pause().await;
        }
    }

    /// Waits until the fake worker has left a note; gives its text.
    pub(crate) async fn noted(&self, name: &str) -> String {
        let path = self.meet().join(name);
        until(&format!("the note {name}"), || path.exists()).await;
        std::fs::read_to_string(path).unwrap().trim().to_owned()
    }

    /// Makes a gate that a build will wait at.
    pub(crate) fn make_gate(&self, tag: &str) {
        let path = self.meet().join(format!("{tag}.gate"));
        let made = std::process::Command::new("mkfifo")
            .arg(&path)
            .status()
            .unwrap();
        assert!(made.success());
    }

    /// Opens a gate; a build must be waiting at it or come to it.
    pub(crate) async fn open_gate(&self, tag: &str) {
        let path = self.meet().join(format!("{tag}.gate"));
        tokio::task::spawn_blocking(move || std::fs::write(path, "\n").unwrap())
            .await
            .unwrap();
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Sends a request; gives the answer's status and text.
pub(crate) async fn answer(request: RequestBuilder) -> (StatusCode, String) {
    let response = request.send().await.unwrap();
    (response.status(), response.text().await.unwrap())
}

/// The four fields that Darwin's services send.
pub(crate) fn form(image_tag: &str) -> Vec<(&'static str, String)> {
    vec![
        ("app_name", "serve".to_owned()),
        ("image_tag", image_tag.to_owned()),
        ("git_repo", "https://github.com/org/repo".to_owned()),
        ("branch", "main".to_owned()),
    ]
}

/// Takes the id out of an answer as Darwin's scripts do, which allow no space.
pub(crate) fn task_id(body: &str) -> String {
    let (_, rest) = body
        .split_once(r#""task_id":""#)
        .expect("the answer has a task id");
    rest.split('"').next().unwrap().to_owned()
}

/// Tells whether a process is still there and not only waits to be buried.
pub(crate) fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z"))
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        pause().await;
    }
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}
