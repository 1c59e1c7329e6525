//! The build service: REST to task table to worker to build to log.
//!
//! The HTTP side (`router`, `api`, `page`, `auth`) only reads and writes the task table and `logs`.
//! The `worker` claims tasks and runs one child process for each, which is this crate's
//! `child` room in the same program: `spec` is what it is told and what it answers, `request`
//! what a client asked for. `config` says which names of the environment the service listens
//! to, `targets` where an image goes, `retention` what is deleted when; `metrics` counts,
//! `traces` follows a build from its request to its steps.
//!
//! The crate is a library: its caller reads the environment, installs the TLS provider, sets
//! up logging and says when to stop.

mod api;
mod app;
mod auth;
pub mod child;
pub mod config;
pub mod demo;
mod embedded;
mod health;
mod logs;
mod metrics;
mod observe;
mod page;
mod replica;
mod request;
mod retention;
mod router;
pub mod spec;
pub mod targets;
mod traces;
mod worker;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ocibuild_store::{MySqlStore, SqliteStore, StoreError, TaskStore};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::app::App;
pub use crate::child::run_child;
pub use crate::config::{Config, ConfigError, Database, Defaults, Source, Values};
use crate::replica::Replica;
use crate::worker::{Ending, Worker};

/// What the program decides, as opposed to its configuration.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program that builds one task when it is started with `worker_arguments`.
    pub worker_program: PathBuf,
    /// The arguments that make it a worker.
    pub worker_arguments: Vec<String>,
    /// How long things take.
    pub timing: Timing,
}

impl Options {
    /// The usual options around the program that knows the `worker` command.
    pub fn new(worker_program: PathBuf) -> Self {
        Self {
            worker_program,
            worker_arguments: vec!["worker".to_owned()],
            timing: Timing::default(),
        }
    }
}

/// How long things take.
#[derive(Debug, Clone)]
pub struct Timing {
    /// How often the queue is looked at when nobody says that it grew.
    pub poll: Duration,
    /// How long a build may clean up before it is killed.
    pub grace: Duration,
    /// How long a start waits for the database.
    pub database_wait: Duration,
    /// How often a followed log says that it is alive: well below what proxies wait.
    pub heartbeat: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(2),
            grace: Duration::from_secs(5),
            database_wait: Duration::from_secs(60),
            heartbeat: Duration::from_secs(10),
        }
    }
}

/// Why the service cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A folder of the service cannot be made.
    #[error("cannot create the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The task table cannot be used.
    #[error("cannot use the task table")]
    Store(#[from] StoreError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// The embedded registry cannot start.
    #[error("cannot start the embedded registry")]
    Registry(#[from] embedded::EmbeddedError),
    /// The worker ended before the service did.
    #[error("the worker failed")]
    Worker(#[source] tokio::task::JoinError),
    /// Connections cannot be accepted any more.
    #[error("the HTTP server failed")]
    Http(#[source] std::io::Error),
}

/// Runs the service until `shutdown` is cancelled.
pub async fn serve(
    config: Config,
    options: Options,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    Service::start(config, options).await?.run(shutdown).await
}

/// A service that listens and has its tables, but serves nobody yet.
#[derive(Debug)]
pub struct Service {
    app: Arc<App>,
    worker: Worker,
    listener: TcpListener,
    address: SocketAddr,
    registry: Option<SocketAddr>,
    /// Ends the embedded registry when the service is dropped.
    _registry: DropGuard,
    /// Keeps the name of this replica from others.
    _replica: Replica,
    timing: Timing,
}

impl Service {
    /// Makes the folders, opens the task table, and listens.
    pub async fn start(config: Config, options: Options) -> Result<Self, ServeError> {
        for note in &config.notes {
            tracing::info!("{note}");
        }
        for folder in [&config.data, &config.logs, &config.work] {
            tokio::fs::create_dir_all(folder)
                .await
                .map_err(|source| ServeError::Folder {
                    path: folder.clone(),
                    source,
                })?;
        }
        let stop = CancellationToken::new();
        let store = open_store(&config.database, options.timing.database_wait).await?;
        let registry = match &config.embedded {
            Some(embedded) => Some(embedded::start(embedded, &config.data, stop.clone()).await?),
            None => None,
        };
        let stop = stop.drop_guard();
        let listen = |source| ServeError::Listen {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let timing = options.timing.clone();
        let replica = Replica::take(&config.data, config.replica.as_deref());
        let app = Arc::new(App::new(store, config, timing.heartbeat));
        let name = (replica.name.clone(), replica.is_ours());
        let registry_address = registry.as_ref().map(|registry| registry.address);
        let worker = Worker::new(Arc::clone(&app), options, name, registry);
        Ok(Self {
            app,
            worker,
            listener,
            address,
            registry: registry_address,
            _registry: stop,
            _replica: replica,
            timing,
        })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the embedded registry, where there is one.
    pub fn registry(&self) -> Option<SocketAddr> {
        self.registry
    }

    /// Serves and builds until `shutdown` is cancelled. Then no more tasks are taken; builds
    /// that have not ended within the grace of the configuration are stopped, and their tasks
    /// wait again. Requests are answered until then.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ServeError> {
        tracing::info!(address = %self.address, "the build service listens");
        let ending = Ending {
            drain: shutdown.child_token(),
            stop: CancellationToken::new(),
        };
        let closing = self.app.closing.clone();
        // A service that accepts tasks which nobody builds is worse than none.
        let ends_all = closing.clone().drop_guard();
        let builds = self.worker.run(ending.clone());
        let worker = tokio::spawn(async move {
            builds.await;
            drop(ends_all);
        });
        let upkeep = tokio::spawn(retention::run(Arc::clone(&self.app)));
        let counted = tokio::spawn(metrics::run(Arc::clone(&self.app)));
        let traces = self.app.traces.clone();
        let drained = tokio::spawn(drain(Arc::clone(&self.app), ending.clone()));
        let server = axum::serve(self.listener, router::service(self.app))
            .with_graceful_shutdown(closing.clone().cancelled_owned());
        let served = tokio::select! {
            served = async { server.await } => served.map_err(ServeError::Http),
            // A client that reads slowly must not keep the service from ending.
            () = late(&closing, self.timing.grace) => Ok(()),
        };
        ending.drain.cancel();
        ending.stop.cancel();
        drained.abort();
        upkeep.abort();
        counted.abort();
        let worked = worker.await.map_err(ServeError::Worker);
        traces.end().await;
        worked?;
        served
    }
}

/// Gives running builds their time when the service is to end, and then stops them.
async fn drain(app: Arc<App>, ending: Ending) {
    ending.drain.cancelled().await;
    app.health.drain();
    let grace = app.config.timing.shutdown_grace;
    if !app.running.is_empty() {
        tracing::info!(
            seconds = grace.as_secs(),
            "builds may end before the service does"
        );
    }
    tokio::time::sleep(grace).await;
    ending.stop.cancel();
}

async fn late(shutdown: &CancellationToken, grace: Duration) {
    shutdown.cancelled().await;
    tokio::time::sleep(grace).await;
}

/// Opens the task table, and waits for a database server that is still starting.
async fn open_store(database: &Database, wait: Duration) -> Result<Arc<dyn TaskStore>, ServeError> {
    const PAUSE: Duration = Duration::from_millis(500);
    let settings = match database {
        Database::Sqlite(file) => return Ok(Arc::new(SqliteStore::open(file).await?)),
        Database::MySql(settings) => settings,
    };
    let deadline = Instant::now() + wait;
    loop {
        match MySqlStore::connect(settings).await {
            Ok(store) => return Ok(Arc::new(store)),
            Err(error) if Instant::now() + PAUSE > deadline => return Err(error.into()),
            Err(error) => tracing::warn!(%error, "waiting for the database"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
