//! What every request and every worker of one service share.

use std::sync::Arc;
use std::time::Duration;

use ocibuild_store::TaskStore;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::auth::Guard;
use crate::config::Config;
use crate::health::Health;
use crate::logs::{LogFolder, Logs};
use crate::metrics::{self, Metrics};
use crate::traces::Traces;
use crate::worker::Running;

/// The state of a service.
pub(crate) struct App {
    /// The task table.
    pub(crate) store: Arc<dyn TaskStore>,
    /// The settings.
    pub(crate) config: Config,
    /// The logs of all tasks.
    pub(crate) logs: Logs,
    /// Who may ask for what.
    pub(crate) guard: Guard,
    /// The builds that run here.
    pub(crate) running: Running,
    /// Signs of life.
    pub(crate) health: Health,
    /// What is counted.
    pub(crate) metrics: Metrics,
    /// Where spans go.
    pub(crate) traces: Traces,
    /// How often a followed log says that it is alive.
    pub(crate) heartbeat: Duration,
    /// Wakes the worker when a task was queued.
    pub(crate) queued: Notify,
    /// The service ends: streams are to end, too.
    pub(crate) closing: CancellationToken,
}

impl App {
    pub(crate) fn new(store: Arc<dyn TaskStore>, config: Config, heartbeat: Duration) -> Self {
        let metrics = Metrics::new();
        let store = metrics::counted(store, &metrics);
        let logs = Logs::new(LogFolder::new(config.logs.clone()), Arc::clone(&store));
        Self {
            guard: Guard::new(&config.tokens),
            traces: Traces::new(config.telemetry.otel.as_ref()),
            metrics,
            store,
            config,
            logs,
            running: Running::default(),
            health: Health::default(),
            heartbeat,
            queued: Notify::new(),
            closing: CancellationToken::new(),
        }
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
