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
    /// Those that take a layer apart while it arrives wait for the network and use little of
    /// a core: they are counted by themselves.
    streams: Semaphore,
}

impl Cores {
    pub(crate) fn new(threads: usize) -> Self {
        let all = u32::try_from(threads).unwrap_or(u32::MAX).max(1);
        Self {
            free: Semaphore::new(all as usize),
            all,
            streams: Semaphore::new(all as usize),
        }
    }

    /// Lets somebody take a layer apart while it arrives, unless as many do as there are
    /// cores.
    pub(crate) fn stream(&self) -> Option<SemaphorePermit<'_>> {
        self.streams.try_acquire().ok()
    }

    /// Waits for one.
    pub(crate) async fn one(&self) -> Option<SemaphorePermit<'_>> {
        // Nobody closes the semaphore.
        self.free.acquire().await.ok()
    }

    /// Waits for all of them, unless there is little to pack.
    pub(crate) async fn to_pack(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        match is_large(bytes) {
            true => self.free.acquire_many(self.all).await.ok(),
            false => None,
        }
    }
}

/// Tells whether it takes time to pack so many bytes.
pub(super) fn is_large(bytes: u64) -> bool {
    bytes >= SMALL
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

    #[test]
    fn layers_that_arrive_leave_the_cores_to_others() {
        let cores = Cores::new(2);
        let streams = [cores.stream(), cores.stream()];
        assert!(streams.iter().all(Option::is_some) && cores.stream().is_none());
        assert!(cores.to_pack(SMALL).now_or_never().flatten().is_some());
    }
}
