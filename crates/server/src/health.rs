//! Signs of life of the parts of a service that nobody asks directly.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long the worker may be silent; it says something every few seconds.
const SILENCE: Duration = Duration::from_secs(30);

/// How the service is.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// When the worker was last heard of; it begins when the service runs.
    worker: Mutex<Option<Instant>>,
    draining: AtomicBool,
}

impl Health {
    /// The worker is alive.
    pub(crate) fn tick(&self) {
        *self.worker.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Tells whether the worker has been silent for too long.
    pub(crate) fn worker_is_silent(&self) -> bool {
        let last = *self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|last| last.elapsed() > SILENCE)
    }

    /// The service takes no more tasks.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Tells whether the service takes no more tasks.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
