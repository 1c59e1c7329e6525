//! Ending a build early, from any thread.

use tokio_util::sync::CancellationToken;

/// A switch that ends a build; its clones are the same switch.
#[derive(Debug, Clone, Default)]
pub struct Cancel(CancellationToken);

impl Cancel {
    /// Makes a switch that is off.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a switch that this one turns on, and that can be turned on alone.
    pub(crate) fn child(&self) -> Self {
        Self(self.0.child_token())
    }

    /// Ends the build.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// Tells whether the build is to end.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until the build is to end.
    pub async fn cancelled(&self) {
        self.0.cancelled().await;
    }
}
