//! How much a repository may bring and how long that may take, counted over one
//! checkout with all its submodules and tries. A download is counted in the same way.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What one checkout may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that may be received; the files of the tree may have as many.
    pub bytes: u64,
    /// Bytes of the largest file, which has to fit into memory.
    pub object: u64,
    /// Files, links and directories in the tree.
    pub files: u64,
    /// How long all of it may take.
    pub time: Duration,
}

impl Default for Limits {
    /// What no honest repository reaches.
    fn default() -> Self {
        Self {
            bytes: 64 << 30,
            object: 4 << 30,
            files: 1_000_000,
            time: Duration::from_secs(6 * 60 * 60),
        }
    }
}

/// A limit that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Excess {
    /// More was received.
    Received(u64),
    /// The files have more bytes.
    FileBytes(u64),
    /// One file has more bytes.
    Object(u64),
    /// There are more files.
    Files(u64),
    /// It took longer.
    Time(Duration),
}

impl std::error::Error for Excess {}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Received(limit) => write!(f, "it sends more than {limit} bytes"),
            Self::FileBytes(limit) => write!(f, "its files have more than {limit} bytes"),
            Self::Object(limit) => write!(f, "one of its files has more than {limit} bytes"),
            Self::Files(limit) => write!(f, "it has more than {limit} files"),
            Self::Time(limit) => write!(f, "it takes longer than {} s", limit.as_secs_f64()),
        }
    }
}

/// What is left of the limits while a checkout runs.
#[derive(Debug)]
pub(crate) struct Budget {
    limits: Limits,
    started: Instant,
    received: AtomicU64,
    files: AtomicU64,
    file_bytes: AtomicU64,
    broken: AtomicBool,
    /// The first limit that was reached; whatever fails afterwards fails because of it.
    excess: Mutex<Option<Excess>>,
}

impl Budget {
    /// Begins to count.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            started: Instant::now(),
            received: AtomicU64::new(0),
            files: AtomicU64::new(0),
            file_bytes: AtomicU64::new(0),
            broken: AtomicBool::new(false),
            excess: Mutex::default(),
        }
    }

    /// Gives the limit of one object in memory.
    pub(super) fn object(&self) -> u64 {
        self.limits.object
    }

    /// Gives how long the checkout may still take.
    pub(crate) fn time_left(&self) -> Duration {
        self.limits.time.saturating_sub(self.started.elapsed())
    }

    /// Tells which limit has been reached, if one has.
    pub(crate) fn excess(&self) -> Option<Excess> {
        let mut excess = self.excess.lock().unwrap_or_else(PoisonError::into_inner);
        if excess.is_none() && self.time_left().is_zero() {
            *excess = Some(Excess::Time(self.limits.time));
        }
        *excess
    }

    /// Fails once a limit has been reached.
    pub(crate) fn check(&self) -> Result<(), Excess> {
        self.excess().map_or(Ok(()), Err)
    }

    /// Counts bytes from a server.
    pub(crate) fn receive(&self, bytes: u64) {
        let before = self.received.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.limits.bytes {
            self.exceed(Excess::Received(self.limits.bytes));
        }
    }

    /// Notes that a connection broke in the middle of an answer.
    pub(crate) fn note_broken(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Tells whether a connection broke since this was last forgotten.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Forgets a broken connection, for the next try.
    pub(crate) fn forget_broken(&self) {
        self.broken.store(false, Ordering::Relaxed);
    }

    /// Counts a file, link or directory of the tree.
    pub(super) fn add_file(&self, bytes: u64) -> Result<(), Excess> {
        if self.files.fetch_add(1, Ordering::Relaxed) >= self.limits.files {
            self.exceed(Excess::Files(self.limits.files));
        }
        let before = self.file_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.limits.bytes {
            self.exceed(Excess::FileBytes(self.limits.bytes));
        }
        if bytes > self.limits.object {
            self.exceed(Excess::Object(self.limits.object));
        }
        self.check()
    }

    fn exceed(&self, reached: Excess) {
        let mut excess = self.excess.lock().unwrap_or_else(PoisonError::into_inner);
        excess.get_or_insert(reached);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Limits = Limits {
        bytes: 10,
        object: 8,
        files: 2,
        time: Duration::from_secs(3600),
    };

    #[test]
    fn each_limit_ends_a_checkout() {
        let budget = Budget::new(SMALL);
        budget.receive(10);
        assert_eq!(budget.check(), Ok(()));
        budget.receive(1);
        assert_eq!(budget.excess(), Some(Excess::Received(10)));

        let budget = Budget::new(SMALL);
        assert_eq!(budget.add_file(8), Ok(()));
        assert_eq!(budget.add_file(3), Err(Excess::FileBytes(10)));
        assert_eq!(Budget::new(SMALL).add_file(9), Err(Excess::Object(8)));

        let budget = Budget::new(SMALL);
        assert_eq!((budget.add_file(0), budget.add_file(0)), (Ok(()), Ok(())));
        assert_eq!(budget.add_file(0), Err(Excess::Files(2)));
        assert_eq!(budget.check(), Err(Excess::Files(2)), "the first stays");

        let time = Duration::ZERO;
        let budget = Budget::new(Limits { time, ..SMALL });
        assert_eq!(budget.excess(), Some(Excess::Time(time)));
    }
}
