//! Git over smart HTTP on a free port of this machine: an HTTP server in a thread of its
//! own that runs `git http-backend` for each request (git-http-backend(1), RFC 3875).
//! It can be told to ask for a password, to redirect, to fail, and to speak the old
//! protocol only; it remembers what it was asked.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{StreamExt as _, stream};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::oneshot;

use super::git_repository::{GitRepository, hermetic_git};

/// A Git server for a test, ended when it is dropped.
#[derive(Debug)]
pub struct GitServer {
    root: TempDir,
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A request that reached the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenRequest {
    /// Path and query.
    pub target: String,
    /// The `Authorization` header.
    pub authorization: Option<String>,
}

#[derive(Debug)]
struct Shared {
    repositories: PathBuf,
    home: PathBuf,
    behaviour: Mutex<Behaviour>,
}

#[derive(Debug, Default)]
struct Behaviour {
    login: Option<String>,
    old_protocol: bool,
    failures: u32,
    redirects: BTreeMap<String, String>,
    /// What Git LFS serves, by the digest that is asked for; none where it is missing.
    large: BTreeMap<String, Vec<u8>>,
    large_failures: u32,
    seen: Vec<SeenRequest>,
    fetches: usize,
    bytes_sent: usize,
    ends: VecDeque<End>,
}

/// How a pack ends that does not come whole.
#[derive(Debug, Clone, Copy)]
enum End {
    Silent,
    Broken,
}

impl Shared {
    fn behaviour(&self) -> MutexGuard<'_, Behaviour> {
        self.behaviour
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl GitServer {
    /// Starts a server without repositories.
    ///
    /// # Panics
    ///
    /// If no port or thread is to be had.
    pub fn start() -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        let shared = Arc::new(Shared {
            repositories: root.path().join("repositories"),
            home: root.path().join("home"),
            behaviour: Mutex::default(),
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener
            .set_nonblocking(true)
            .expect("a listener for tokio");
        let address = listener.local_addr().expect("the address of a listener");
        let (stop, stopped) = oneshot::channel();
        let state = shared.clone();
        let thread = std::thread::spawn(move || serve(listener, state, stopped));
        Self {
            root,
            address,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Makes an empty repository, such as `group/app.git`.
    pub fn repository(&self, name: &str) -> GitRepository {
        GitRepository::create(
            self.shared.repositories.join(name),
            self.root.path().join("work").join(name),
            self.shared.home.clone(),
            self.url(name),
        )
    }

    /// Gives the URL of a repository, whether there is one or not.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    /// Asks everyone for this name and password from now on.
    pub fn require_login(&self, user: &str, password: &str) {
        let pair = STANDARD.encode(format!("{user}:{password}"));
        self.shared.behaviour().login = Some(format!("Basic {pair}"));
    }

    /// Speaks protocol version 0 only, which serves no commit that no reference names.
    pub fn use_old_protocol(&self) {
        self.shared.behaviour().old_protocol = true;
    }

    /// Answers the next `count` requests with status 503.
    pub fn fail_next(&self, count: u32) {
        self.shared.behaviour().failures = count;
    }

    /// Redirects the repository `name` to another URL.
    pub fn redirect(&self, name: &str, target: &str) {
        let redirects = &mut self.shared.behaviour().redirects;
        redirects.insert(format!("/{name}"), target.to_owned());
    }

    /// Serves a content by Git LFS; gives the pointer to it.
    pub fn large_file(&self, content: &[u8]) -> String {
        let digest = ocibuild_registry::Digest::sha256(content).hex();
        let pointer = format!(
            "version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {}\n",
            content.len()
        );
        self.serve_large(&pointer, content);
        pointer
    }

    /// Serves another content from now on for a pointer.
    pub fn serve_large(&self, pointer: &str, content: &[u8]) {
        let digest = pointer.split("sha256:").nth(1).unwrap_or_default();
        let digest = digest.lines().next().unwrap_or_default().to_owned();
        let large = &mut self.shared.behaviour().large;
        large.insert(digest, content.to_vec());
    }

    /// Answers the next `count` requests for large files with status 503.
    pub fn fail_next_large(&self, count: u32) {
        self.shared.behaviour().large_failures = count;
    }

    /// Forgets everything that Git LFS serves.
    pub fn forget_large_files(&self) {
        self.shared.behaviour().large.clear();
    }

    /// Sends half of each of the next `count` packs, and then nothing more.
    pub fn stall_next_packs(&self, count: usize) {
        let ends = std::iter::repeat_n(End::Silent, count);
        self.shared.behaviour().ends.extend(ends);
    }

    /// Sends half of each of the next `count` packs, and ends the connection.
    pub fn break_next_packs(&self, count: usize) {
        let ends = std::iter::repeat_n(End::Broken, count);
        self.shared.behaviour().ends.extend(ends);
    }

    /// Gives how often objects were asked for so far.
    pub fn fetches(&self) -> usize {
        self.shared.behaviour().fetches
    }

    /// Gives how many bytes Git has sent so far.
    pub fn bytes_sent(&self) -> usize {
        self.shared.behaviour().bytes_sent
    }

    /// Gives the requests so far.
    pub fn seen(&self) -> Vec<SeenRequest> {
        self.shared.behaviour().seen.clone()
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        // Both fail only when the thread has ended by itself, by a panic that it has shown.
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn serve(listener: std::net::TcpListener, state: Arc<Shared>, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime for the Git server");
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener for tokio");
        let router = axum::Router::new().fallback(handle).with_state(state);
        // Open connections end with the runtime; clients keep theirs for a while.
        tokio::select! {
            served = axum::serve(listener, router).into_future() => served.expect("serve Git"),
            _ = stopped => {}
        }
    });
}

async fn handle(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let refused = refusal(&mut shared.behaviour(), &uri, &headers);
    let answered = refused.or_else(|| large_file(&mut shared.behaviour(), &uri, &headers, &body));
    match answered {
        Some(response) => response,
        None => {
            let is_fetch = asks_for_objects(&body);
            let output = run_backend(&shared, &method, &uri, &headers, body).await;
            let behaviour = &mut shared.behaviour();
            behaviour.fetches += usize::from(is_fetch);
            behaviour.bytes_sent += output.len();
            let end = match is_fetch {
                true => behaviour.ends.pop_front(),
                false => None,
            };
            from_cgi(&output, end)
        }
    }
}

/// Answers as a server of Git LFS: where contents are, and the contents.
fn large_file(
    behaviour: &mut Behaviour,
    uri: &Uri,
    headers: &HeaderMap,
    body: &[u8],
) -> Option<Response<Body>> {
    let path = uri.path();
    let is_large = path.starts_with("/large/") || path.ends_with("/info/lfs/objects/batch");
    if is_large && behaviour.large_failures > 0 {
        behaviour.large_failures -= 1;
        return Some(answer(StatusCode::SERVICE_UNAVAILABLE, &[]));
    }
    if let Some(digest) = path.strip_prefix("/large/") {
        let is_named = headers.get("x-large").is_some_and(|value| value == digest);
        let content = behaviour.large.get(digest).filter(|_| is_named);
        return Some(match content {
            Some(content) => Response::new(Body::from(content.clone())),
            None => answer(StatusCode::FORBIDDEN, &[]),
        });
    }
    if !path.ends_with("/info/lfs/objects/batch") {
        return None;
    }
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let asked: serde_json::Value = serde_json::from_slice(body).ok()?;
    let objects = asked["objects"].as_array()?.iter().map(|object| {
        let digest = object["oid"].as_str().unwrap_or_default();
        match behaviour.large.contains_key(digest) {
            true => serde_json::json!({
                "oid": digest,
                "size": object["size"],
                "actions": {"download": {
                    "href": format!("http://{host}/large/{digest}"),
                    "header": {"X-Large": digest},
                }},
            }),
            false => serde_json::json!({
                "oid": digest,
                "size": object["size"],
                "error": {"code": 404, "message": "Object does not exist"},
            }),
        }
    });
    let objects: Vec<serde_json::Value> = objects.collect();
    let text = serde_json::json!({"transfer": "basic", "objects": objects}).to_string();
    Some(Response::new(Body::from(text)))
}

/// Answers what does not get as far as Git.
fn refusal(behaviour: &mut Behaviour, uri: &Uri, headers: &HeaderMap) -> Option<Response<Body>> {
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    let authorization = headers
        .get(header::AUTHORIZATION)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let let_in = behaviour.login.is_none() || behaviour.login == authorization;
    behaviour.seen.push(SeenRequest {
        target: target.to_owned(),
        authorization,
    });
    if behaviour.failures > 0 {
        behaviour.failures -= 1;
        return Some(answer(StatusCode::SERVICE_UNAVAILABLE, &[]));
    }
    for (name, url) in &behaviour.redirects {
        if let Some(tail) = target.strip_prefix(name.as_str()) {
            let location = format!("{url}{tail}");
            let headers = [(header::LOCATION.as_str(), location.as_str())];
            return Some(answer(StatusCode::MOVED_PERMANENTLY, &headers));
        }
    }
    let challenge = [(header::WWW_AUTHENTICATE.as_str(), "Basic realm=\"git\"")];
    (!let_in).then(|| answer(StatusCode::UNAUTHORIZED, &challenge))
}

fn answer(status: StatusCode, headers: &[(&str, &str)]) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response
        .body(Body::empty())
        .expect("headers without line ends")
}

async fn run_backend(
    shared: &Shared,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: Bytes,
) -> Vec<u8> {
    let header = |name| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    };
    let mut command = tokio::process::Command::from(hermetic_git(&shared.home));
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", &shared.repositories)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method.as_str())
        .env("PATH_INFO", uri.path())
        .env("QUERY_STRING", uri.query().unwrap_or(""))
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    if !shared.behaviour().old_protocol {
        command.env("GIT_PROTOCOL", header("git-protocol"));
    }
    let mut child = command.spawn().expect("run git http-backend");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let write = async move {
        // The backend may answer without reading everything.
        let _ = stdin.write_all(&body).await;
    };
    let ((), output) = tokio::join!(write, child.wait_with_output());
    output.expect("the output of git http-backend").stdout
}

/// Tells whether a request is one of protocol 0 or 2 that is answered with a pack.
fn asks_for_objects(body: &[u8]) -> bool {
    body.windows(5).any(|window| window == b"want ")
}

/// Turns the answer of a CGI program into one of HTTP: header lines, an empty line, the body,
/// or half of it and another end.
fn from_cgi(output: &[u8], end: Option<End>) -> Response<Body> {
    const END: &[u8] = b"\r\n\r\n";
    let Some(length) = output.windows(END.len()).position(|window| window == END) else {
        return answer(StatusCode::BAD_GATEWAY, &[]);
    };
    let (head, body) = (&output[..length], &output[length + END.len()..]);
    let mut response = Response::builder();
    for line in String::from_utf8_lossy(head).lines() {
        match line.split_once(": ") {
            Some(("Status", status)) => {
                let code = status.split(' ').next().unwrap_or_default();
                response = response.status(code);
            }
            Some((name, value)) => response = response.header(name, value),
            None => {}
        }
    }
    let body = match end {
        Some(end) => half(body, end),
        None => Body::from(body.to_vec()),
    };
    response
        .body(body)
        .unwrap_or_else(|_| answer(StatusCode::BAD_GATEWAY, &[]))
}

fn half(body: &[u8], end: End) -> Body {
    let begin = body[..body.len() / 2].to_vec();
    let begin = stream::once(async { Ok(begin) });
    let end = async move {
        match end {
            End::Silent => std::future::pending().await,
            End::Broken => Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe)),
        }
    };
    Body::from_stream(begin.chain(stream::once(end)))
}
