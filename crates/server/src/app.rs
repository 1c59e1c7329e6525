//! What every request and every worker of one service share.

use std::sync::Arc;

use ocibuild_store::TaskStore;
use tokio::sync::Notify;

use crate::config::Config;
use crate::logs::LogFolder;

/// The state of a service.
pub(crate) struct App {
    /// The task table.
    pub(crate) store: Arc<dyn TaskStore>,
    /// The settings.
    pub(crate) config: Config,
    /// The logs of all tasks.
    pub(crate) logs: LogFolder,
    /// Wakes the worker when a task was queued.
    pub(crate) queued: Notify,
}

impl App {
    pub(crate) fn new(store: Arc<dyn TaskStore>, config: Config) -> Self {
        let logs = LogFolder::new(config.logs.clone());
        Self {
            store,
            config,
            logs,
            queued: Notify::new(),
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
