//! The builds that run here, and how somebody ends one of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ocibuild_store::TaskId;
use tokio::sync::watch;

/// All builds that run here.
#[derive(Debug, Clone, Default)]
pub(crate) struct Running {
    builds: Arc<Mutex<HashMap<TaskId, watch::Sender<Option<String>>>>>,
}

impl Running {
    /// Takes a build in; it is out when the answer is dropped.
    pub(crate) fn enter(&self, id: &TaskId) -> Build {
        let (sender, wish) = watch::channel(None);
        self.builds().insert(id.clone(), sender);
        Build {
            running: self.clone(),
            id: id.clone(),
            wish,
        }
    }

    /// Ends a build, if it runs here.
    pub(crate) fn cancel(&self, id: &TaskId, reason: &str) {
        if let Some(wish) = self.builds().get(id) {
            wish.send_if_modified(|wish| {
                let first = wish.is_none();
                wish.get_or_insert_with(|| reason.to_owned());
                first
            });
        }
    }

    /// Tells how many builds run here.
    pub(crate) fn count(&self) -> usize {
        self.builds().len()
    }

    /// Tells whether no build runs here.
    pub(crate) fn is_empty(&self) -> bool {
        self.builds().is_empty()
    }

    fn builds(&self) -> std::sync::MutexGuard<'_, HashMap<TaskId, watch::Sender<Option<String>>>> {
        self.builds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A build that runs here.
#[derive(Debug)]
pub(crate) struct Build {
    running: Running,
    id: TaskId,
    wish: watch::Receiver<Option<String>>,
}

impl Build {
    /// Waits until somebody wants the build to end; gives the reason.
    pub(crate) async fn cancelled(&self) -> String {
        let mut wish = self.wish.clone();
        let reason = wish
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            // The sender lives as long as this build.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        self.running.builds().remove(&self.id);
    }
}
