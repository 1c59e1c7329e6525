//! How often and how soon a failed request is tried again.

use std::hash::{BuildHasher, Hasher as _, RandomState};
use std::time::{Duration, Instant};

use crate::Error;

/// Limits of a client's patience.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// How many attempts there are in all; a transfer that moves on starts counting anew.
    pub attempts: u32,
    /// The pause after the first failure; each further pause is twice as long.
    pub first_pause: Duration,
    /// The longest pause of our own choice.
    pub longest_pause: Duration,
    /// After this time no new attempt begins. A transfer that moves is not cut off.
    pub deadline: Duration,
    /// For how long a connection may stay silent.
    pub idle: Duration,
}

impl Retry {
    /// Two attempts within a few seconds, for what somebody waits for.
    pub(crate) fn short(idle: Duration) -> Self {
        Self {
            attempts: 2,
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_millis(500),
            deadline: idle,
            idle,
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 6,
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(20),
            deadline: Duration::from_secs(15 * 60),
            idle: Duration::from_secs(120),
        }
    }
}

/// The attempts of one piece of work.
pub(crate) struct Backoff {
    retry: Retry,
    start: Instant,
    failures: u32,
    in_a_row: u32,
}

impl Backoff {
    pub(crate) fn new(retry: &Retry) -> Self {
        Self {
            retry: retry.clone(),
            start: Instant::now(),
            failures: 0,
            in_a_row: 0,
        }
    }

    /// Notes that the work has come further since the last failure.
    pub(crate) fn moved(&mut self) {
        self.in_a_row = 0;
    }

    /// Waits before the next attempt, or gives the error back where there is none.
    pub(crate) async fn pause(&mut self, error: Error) -> Result<(), Error> {
        if !error.is_transient() {
            return Err(error);
        }
        self.failures += 1;
        self.in_a_row += 1;
        let asked = error.retry_after();
        let pause = asked.unwrap_or_else(|| self.own_pause());
        let too_late = self.start.elapsed().saturating_add(pause) > self.retry.deadline;
        if self.in_a_row >= self.retry.attempts || too_late {
            return Err(self.gave_up(error));
        }
        tracing::debug!(%error, ?pause, "a registry request failed and is tried again");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn gave_up(&self, error: Error) -> Error {
        match self.failures {
            1 => error,
            attempts => Error::GaveUp {
                attempts,
                source: Box::new(error),
            },
        }
    }

    /// Doubles with every failure; a random half of it keeps parallel uploads from
    /// coming back all at once.
    fn own_pause(&self) -> Duration {
        let doublings = self.in_a_row.saturating_sub(1).min(16);
        let whole = self
            .retry
            .first_pause
            .saturating_mul(1 << doublings)
            .min(self.retry.longest_pause);
        // The standard library's only source of randomness: the keys of a new hasher.
        let random = RandomState::new().build_hasher().finish() % 1024;
        whole.mul_f64(0.5 + random as f64 / 2048.0)
    }
}
