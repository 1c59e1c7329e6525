//! The processor as all stages of a build share it. What takes a layer apart works with one
//! core, what packs a large one with all of them, one at a time; so several stages keep the
//! machine as busy as one does, and take no more memory.

use tokio::sync::{Semaphore, SemaphorePermit};

/// What is packed in less time than it is worth to wait for.
const SMALL: u64 = 4 << 20;

/// As many as a build may use.
pub(crate) struct Cores {
    free: Semaphore,
    all: u32,
}

impl Cores {
    pub(crate) fn new(threads: usize) -> Self {
        let all = u32::try_from(threads).unwrap_or(u32::MAX).max(1);
        Self {
            free: Semaphore::new(all as usize),
            all,
        }
    }

    /// Waits for one.
    pub(crate) async fn one(&self) -> Option<SemaphorePermit<'_>> {
        // Nobody closes the semaphore.
        self.free.acquire().await.ok()
    }

    /// Waits for all of them, unless there is little to pack.
    pub(crate) async fn to_pack(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        match bytes < SMALL {
            true => None,
            false => self.free.acquire_many(self.all).await.ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_large_layer_has_the_machine_for_itself() {
        let cores = Cores::new(2);
        let one = cores.one().now_or_never().expect("a free core");
        assert!(cores.to_pack(SMALL).now_or_never().is_none());
        let small = cores.to_pack(SMALL - 1).now_or_never();
        assert!(small.expect("no waiting for little").is_none());
        drop(one);
        let all = cores.to_pack(SMALL).now_or_never().expect("all cores");
        assert!(cores.one().now_or_never().is_none());
        drop(all);
        assert!(cores.one().now_or_never().is_some());
    }
}
