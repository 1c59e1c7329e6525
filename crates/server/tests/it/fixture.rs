//! A service on a free loopback port, with a folder of its own; another replica beside it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::StreamExt;
use ocibuild_server::{Config, Defaults, Options, Service};
use ocibuild_store::testing::MariaDb;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What the fake worker builds.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// What the fake worker confirms.
pub(crate) const DIGEST: &str =
    "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// How long anything may take that happens by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Fixture {
    pub(crate) folder: TempDir,
    /// Where the fake worker and the test meet; replicas share it.
    meet: PathBuf,
    vars: Vec<(String, String)>,
    heartbeat: Duration,
    client: Client,
    token: Option<String>,
    url: String,
    shutdown: CancellationToken,
    running: Option<JoinHandle<()>>,
}

impl Fixture {
    /// Starts a service with these settings beside those that every test needs.
    pub(crate) async fn start(vars: &[(&str, &str)]) -> Self {
        let mut fixture = Self::prepare(vars);
        fixture.start_again().await;
        fixture
    }

    /// As [`Fixture::start`], on a server of MariaDB.
    pub(crate) async fn start_on(database: &MariaDb, vars: &[(&str, &str)]) -> Self {
        let port = database.settings("").port.to_string();
        let own = [("MYSQL_HOST", "127.0.0.1"), ("MYSQL_PORT", port.as_str())];
        Self::start(&[&own, vars].concat()).await
    }

    /// Starts another replica, whose builds meet the test where those of this one do.
    pub(crate) async fn beside(&self) -> Self {
        let vars: Vec<_> = self
            .vars
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let mut fixture = Self::prepare(&vars);
        fixture.meet.clone_from(&self.meet);
        fixture.start_again().await;
        fixture
    }

    /// Makes the folder of a service that does not run yet.
    pub(crate) fn prepare(vars: &[(&str, &str)]) -> Self {
        // Some other crate may have enabled TLS for the client that all share.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let vars = vars
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let meet = folder.path().join("meet");
        std::fs::create_dir(&meet).unwrap();
        Self {
            meet,
            folder,
            vars: vars.collect(),
            heartbeat: Duration::from_millis(300),
            client: Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .unwrap(),
            token: None,
            url: String::new(),
            shutdown: CancellationToken::new(),
            running: None,
        }
    }

    /// Starts the service on the folder and the settings that it had.
    pub(crate) async fn start_again(&mut self) {
        let common = [
            ("OCIBUILD_LISTEN", "127.0.0.1:0"),
            ("APP_LAYER_URL", "http://builder.example"),
            ("LOCAL_REGISTRY", "localhost:5000"),
            ("OCIBUILD_SHUTDOWN_GRACE", "0"),
            ("PATH", "/usr/bin:/bin"),
        ];
        let common = common.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let defaults = Defaults {
            data: self.folder.path().join("data"),
            max_builds: 2,
        };
        // Of two values for one name the last counts.
        let vars = common.into_iter().chain(self.vars.clone());
        let config = Config::from_vars(vars, &defaults).unwrap();
        let mut options = Options::new(PathBuf::from("/bin/sh"));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/fake-worker.sh");
        options.worker_arguments = vec![script.to_owned(), self.meet().display().to_string()];
        options.timing.poll = Duration::from_millis(100);
        options.timing.grace = Duration::from_millis(200);
        options.timing.heartbeat = self.heartbeat;
        let service = Service::start(config, options).await.unwrap();
        self.url = format!("http://{}", service.address());
        self.shutdown = CancellationToken::new();
        let shutdown = self.shutdown.clone();
        self.running = Some(tokio::spawn(
            async move { service.run(shutdown).await.unwrap() },
        ));
    }

    /// Tells the service to end, as SIGTERM does.
    pub(crate) fn begin_to_stop(&self) {
        self.shutdown.cancel();
    }

    /// Ends the service and waits until it has ended.
    pub(crate) async fn stop(&mut self) {
        self.begin_to_stop();
        if let Some(running) = self.running.take() {
            tokio::time::timeout(PATIENCE, running)
                .await
                .expect("the service ends")
                .unwrap();
        }
    }

    /// The folder where the fake worker and the test meet.
    pub(crate) fn meet(&self) -> PathBuf {
        self.meet.clone()
    }

    /// Shows this token with every request from now on.
    pub(crate) fn show(&mut self, token: &str) {
        self.token = Some(token.to_owned());
    }

    /// The address that the service listens on.
    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.request(Method::POST, path)
    }

    pub(crate) fn patch(&self, path: &str) -> RequestBuilder {
        self.request(Method::PATCH, path)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, self.url(path));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Gets a page's status and text.
    pub(crate) async fn read(&self, path: &str) -> (StatusCode, String) {
        answer(self.get(path)).await
    }

    /// Gets a document that is there.
    pub(crate) async fn json(&self, path: &str) -> Value {
        let (status, body) = self.read(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Queues a build as Darwin's services do; gives the task's id.
    pub(crate) async fn build(&self, image_tag: &str) -> String {
        let (status, body) =
            answer(self.post("/build_with_dockerfile").form(&form(image_tag))).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        task_id(&body)
    }

    /// Queues a build in JSON; gives the build.
    pub(crate) async fn submit(&self, build: &Value) -> Value {
        let (status, body) = answer(self.post("/v1/builds").json(build)).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// A build in JSON.
    pub(crate) async fn shown(&self, id: &str) -> Value {
        self.json(&format!("/v1/builds/{id}")).await
    }

    /// The state of a task.
    pub(crate) async fn state(&self, id: &str) -> String {
        let (_, body) = self.read(&format!("/task/status?task_id={id}")).await;
        let answer: Value = serde_json::from_str(&body).unwrap();
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

    /// Waits until the log of a task has this text.
    pub(crate) async fn reach_line(&self, id: &str, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = self.log(id).await;
            if log.contains(text) {
                return;
            }
            assert!(Instant::now() < deadline, "no {text:?} in {log}");
            pause().await;
        }
    }

    /// Waits until the fake worker has left a note; gives its text.
    pub(crate) async fn noted(&self, name: &str) -> String {
        let path = self.meet().join(name);
        until(&format!("the note {name}"), || path.exists()).await;
        std::fs::read_to_string(path).unwrap().trim().to_owned()
    }

    /// Forgets a note.
    pub(crate) fn forget(&self, name: &str) {
        std::fs::remove_file(self.meet().join(name)).unwrap();
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

/// An answer that comes little by little.
pub(crate) struct Stream {
    parts: futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    pub(crate) text: String,
}

impl Stream {
    /// Sends a request whose answer is to be read as it comes.
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        Self {
            parts: response.bytes_stream().boxed(),
            text: String::new(),
        }
    }

    /// Reads until a text has come.
    pub(crate) async fn until(&mut self, text: &str) {
        while !self.text.contains(text) {
            assert!(self.more().await, "no {text:?} in {}", self.text);
        }
    }

    /// Reads until a text has come so often.
    pub(crate) async fn until_count(&mut self, text: &str, count: usize) {
        while self.text.matches(text).count() < count {
            assert!(self.more().await, "{text:?} is too rare in {}", self.text);
        }
    }

    /// Reads to the end; gives everything.
    pub(crate) async fn rest(mut self) -> String {
        while self.more().await {}
        self.text
    }

    async fn more(&mut self) -> bool {
        let part = tokio::time::timeout(PATIENCE, self.parts.next()).await;
        match part.expect("the stream goes on") {
            Some(part) => {
                self.text.push_str(&String::from_utf8_lossy(
                    &part.expect("the stream is whole"),
                ));
                true
            }
            None => false,
        }
    }
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

/// A build in JSON without files.
pub(crate) fn empty_build(image_tag: &str) -> Value {
    json!({
        "app_name": "serve",
        "image_tag": image_tag,
        "context": {"type": "empty"},
        "dockerfile": {"text": "FROM scratch\nLABEL a=1\n"},
    })
}

/// Takes the id out of an answer as Darwin's scripts do, which allow no space.
pub(crate) fn task_id(body: &str) -> String {
    let (_, rest) = body
        .split_once(r#""task_id":""#)
        .expect("the answer has a task id");
    rest.split('"').next().unwrap().to_owned()
}

/// The id of a build in JSON.
pub(crate) fn id(build: &Value) -> String {
    build["id"].as_str().unwrap().to_owned()
}

/// Tells whether a process is still there and not only waits to be buried.
pub(crate) fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z"))
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    within(what, PATIENCE, holds).await;
}

/// Waits until something holds, which may take no longer than this.
pub(crate) async fn within(what: &str, time: Duration, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + time;
    while !holds() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        pause().await;
    }
}

pub(crate) async fn pause() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}
