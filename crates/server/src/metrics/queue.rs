//! The queue as the task table knows it: asked when somebody wants to read it, but neither
//! often nor for long. When the table does not answer, nothing is said, rather than a zero
//! that nobody knows.

use std::fmt::Write as _;
use std::time::Duration;

use ocibuild_store::{QueueState, TaskStore};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::names::{Name, QUEUE_OLDEST, QUEUE_RUNNING, QUEUE_WAITING};

/// How long an answer is good.
const FRESH: Duration = Duration::from_secs(1);
/// How long an answer is waited for.
const TIME_LIMIT: Duration = Duration::from_secs(2);

/// What the table answered last.
#[derive(Default)]
pub(super) struct Queue {
    last: Mutex<Option<(Instant, Option<QueueState>)>>,
}

impl Queue {
    /// Adds the state of the queue to a text of metrics.
    pub(super) async fn write(&self, store: &dyn TaskStore, text: &mut String) {
        let Some(queue) = self.ask(store).await else {
            return;
        };
        let oldest = queue.oldest_waiting.unwrap_or_default();
        gauge(text, &QUEUE_WAITING, &queue.waiting.to_string());
        gauge(text, &QUEUE_RUNNING, &queue.running.to_string());
        gauge(text, &QUEUE_OLDEST, &oldest.as_secs_f64().to_string());
    }

    /// Many who ask at once get one answer.
    async fn ask(&self, store: &dyn TaskStore) -> Option<QueueState> {
        let mut last = self.last.lock().await;
        if let Some((when, queue)) = &*last
            && when.elapsed() < FRESH
        {
            return queue.clone();
        }
        let queue = match tokio::time::timeout(TIME_LIMIT, store.queue()).await {
            Ok(Ok(queue)) => Some(queue),
            Ok(Err(error)) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "the queue is unknown"
                );
                None
            }
            Err(_) => None,
        };
        *last = Some((Instant::now(), queue.clone()));
        queue
    }
}

fn gauge(text: &mut String, name: &Name, value: &str) {
    let Name {
        text: name,
        meaning,
        ..
    } = name;
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "# HELP {name} {meaning}\n# TYPE {name} gauge\n{name} {value}\n\n"
    );
}
