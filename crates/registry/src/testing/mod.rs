//! Registries for tests: ours, which logs every request, wants a login, and fails on
//! purpose; Debian's `docker-registry`, a second opinion; and Debian's nginx before either.
//!
//! All run on a free port of the loopback interface with a folder of their own, can
//! be used from synchronous and asynchronous tests, and end when they are dropped.

mod connection;
mod debian;
mod ecr;
mod faults;
mod log;
mod login;
mod nginx;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::server::{self, Store};
use crate::{Reference, Repository};

pub use debian::{DebianRegistry, StartError};
pub use ecr::EcrService;
pub use faults::{Answer, Fault};
pub use log::Logged;
pub use login::{Login, TokenLogin};
pub use nginx::{Nginx, Passed};

use connection::{BreakableListener, Connection};
use faults::Faults;
use log::Log;
use login::Gate;

/// Gives bytes without any order, which nothing makes smaller: the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Says that a test does nothing because a program is not installed; fails where
/// `OCIBUILD_TEST_ALL` says that all are.
///
/// # Panics
///
/// See above.
#[expect(clippy::print_stderr, reason = "a skipped test has to be seen")]
pub fn not_installed(program: &str) {
    let all = std::env::var_os("OCIBUILD_TEST_ALL").is_some();
    assert!(!all, "{program} is not installed");
    eprintln!("skipped: {program} is not installed");
}

/// Our registry server on a thread of its own.
pub struct Registry {
    address: SocketAddr,
    shared: Arc<Shared>,
    folder: TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    log: Log,
    faults: Faults,
    gate: Gate,
}

impl Registry {
    /// Starts an empty registry that anybody may use.
    pub fn start() -> io::Result<Self> {
        Self::start_with(Login::None)
    }

    /// Starts an empty registry that wants a login.
    pub fn start_with(login: Login) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let store = Store::open(folder.path()).map_err(io::Error::other)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            log: Log::default(),
            faults: Faults::default(),
            gate: Gate::new(login, address),
        });
        let app = server::router(store).layer(middleware::from_fn_with_state(
            Arc::clone(&shared),
            intercept,
        ));
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || run(runtime, listener, app, stopped));
        Ok(Self {
            address,
            shared,
            folder,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Gives `127.0.0.1:<port>`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Gives a repository of this registry; panics when `path` is not valid.
    pub fn repository(&self, path: &str) -> Repository {
        Repository::new(&self.host(), path).expect("a test names a valid repository")
    }

    /// Gives a name in this registry, from `path:tag`; panics when it is not valid.
    pub fn reference(&self, name: &str) -> Reference {
        format!("{}/{name}", self.host())
            .parse()
            .expect("a test names a valid reference")
    }

    /// Gives the registry's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Makes the `nth` (from 1) of the coming requests with this method and this
    /// beginning of the path fail; an empty method means any.
    pub fn inject(&self, method: &str, path_prefix: &str, nth: usize, fault: Fault) {
        self.shared.faults.add(method, path_prefix, nth, fault);
    }

    /// Breaks the line from now on: whenever so many bytes of requests' bodies have
    /// passed, the connection that carries the last of them is reset.
    pub fn break_line_every(&self, bytes: u64) {
        self.shared.faults.break_every(bytes);
    }

    /// Answers 413 from now on to requests with larger bodies, as a proxy does.
    pub fn limit_bodies(&self, bytes: u64) {
        self.shared.faults.limit_bodies(bytes);
    }

    /// Hands bodies on from now on only when they are complete, as proxies do that
    /// buffer: nothing of a request that breaks gets to the registry.
    pub fn buffer_bodies(&self) {
        self.shared.faults.buffer_bodies();
    }

    /// Gives the requests so far, in the order of their arrival.
    pub fn requests(&self) -> Vec<Logged> {
        self.shared.log.all()
    }

    /// Forgets the requests so far.
    pub fn clear_requests(&self) {
        self.shared.log.clear();
    }

    /// Gives the number of requests so far with this method whose path contains a text.
    pub fn count(&self, method: &str, path_part: &str) -> usize {
        let matches = |r: &&Logged| r.method == method && r.path.contains(path_part);
        self.requests().iter().filter(matches).count()
    }

    /// Gives the number of body bytes that were sent to blob uploads so far.
    pub fn uploaded_bytes(&self) -> u64 {
        let requests = self.requests();
        let uploads = requests
            .iter()
            .filter(|r| r.path.contains("/blobs/uploads/"));
        uploads.map(|request| request.body_bytes).sum()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registry({})", self.address)
    }
}

fn run(
    runtime: Runtime,
    listener: std::net::TcpListener,
    app: Router,
    stopped: oneshot::Receiver<()>,
) {
    runtime.block_on(async move {
        let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
            return;
        };
        let app = app.into_make_service_with_connect_info::<Connection>();
        let server = axum::serve(BreakableListener(listener), app);
        tokio::select! {
            _ = server.into_future() => {}
            _ = stopped => {}
        }
    });
    // Connections that stall on purpose would never end by themselves.
    runtime.shutdown_background();
}

/// What every request passes before it comes to the server.
async fn intercept(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    request: Request,
    next: Next,
) -> Response {
    let (request, entry) = shared.log.enter(request);
    let fault = shared.faults.take(&request);
    let request = match shared.faults.carry(request, &connection).await {
        Ok(request) => request,
        Err(answer) => {
            shared.log.leave(entry, answer.status());
            return *answer;
        }
    };
    let pass = async |request| match shared.gate.check(request).await {
        Ok(request) => next.run(request).await,
        Err(refusal) => *refusal,
    };
    let response = faults::apply(fault, connection, request, pass).await;
    shared.log.leave(entry, response.status());
    response
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
