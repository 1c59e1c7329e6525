//! How far a transfer has come, for whoever shows it.

use std::sync::Arc;

use crate::Digest;

/// The state of one blob's transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// The blob.
    pub digest: Digest,
    /// Bytes that have been moved; less than before when a transfer starts again.
    pub current: u64,
    /// Bytes in all.
    pub total: u64,
    /// What is happening.
    pub state: TransferState,
}

/// What is happening to a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferState {
    /// Bytes are being moved.
    Moving,
    /// All bytes are moved and the registry has confirmed them.
    Done,
    /// The registry has the blob already; nothing is moved.
    Exists,
    /// The registry took the blob over from another repository; nothing is moved.
    Mounted,
}

/// Where progress goes; called from any thread, so it must be quick.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(Transfer) + Send + Sync>);

impl Progress {
    /// Wraps a function.
    pub fn new(sink: impl Fn(Transfer) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sink))
    }

    /// Drops everything.
    pub fn none() -> Self {
        Self::new(drop)
    }

    pub(crate) fn report(&self, transfer: Transfer) {
        (self.0)(transfer);
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Progress")
    }
}
