//! How large a request to a registry may be: what refusals (413, 408) and broken lines
//! have taught. Kept for each registry as long as its client lives, so that the next
//! blob starts with what works.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Sizes in bytes that are tried after a refusal: below Cloudflare's 100 MB, down to
/// nginx's default of 1 MiB, and one step below that.
const STEPS: [u64; 5] = [64 << 20, 16 << 20, 4 << 20, 1 << 20, SMALLEST];
const SMALLEST: u64 = 256 << 10;
/// A chunk is this part of what passes between two breaks, so that losing one costs
/// little.
const SHARE: u64 = 32;
/// A request up to this size costs less when it is refused than a hold would.
const CHEAP: u64 = 4 << 20;
/// The same once the registry has refused one: the size that passes is being looked for.
const CHEAP_AFTER_REFUSAL: u64 = 1 << 20;
/// Below this a chunk costs more in round trips than its loss would.
const SMALLEST_AFTER_BREAK: u64 = 128 << 10;

/// What is known of the way to one registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Most bytes of one request, as far as refusals have said.
    largest: u64,
    /// The largest request that has been taken.
    taken: u64,
    /// Larger requests are never taken, so that chunks are the only way.
    bound: bool,
    /// Bytes that passed between two breaks that cost more than their share.
    spacing: Option<u64>,
    /// The registry has refused chunks.
    chunkless: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            largest: u64::MAX,
            taken: 0,
            bound: false,
            spacing: None,
            chunkless: false,
        }
    }
}

impl Pace {
    /// Tells whether a blob of `size` bytes may go in one request; `run` bytes have
    /// passed since the last break.
    pub(super) fn takes_whole(&self, size: u64, run: u64) -> bool {
        self.chunkless || size <= self.request(run)
    }

    /// Gives the most bytes of a chunk.
    pub(super) fn chunk(&self, run: u64) -> u64 {
        self.request(run).min(STEPS[0])
    }

    fn request(&self, run: u64) -> u64 {
        let by_breaks = self.spacing.map_or(u64::MAX, |spacing| {
            (spacing.max(run) / SHARE).clamp(SMALLEST_AFTER_BREAK, STEPS[0])
        });
        self.largest.min(by_breaks)
    }

    /// Tells whether a request of `length` bytes may be refused for its size, and is large
    /// enough that it matters.
    pub(super) fn may_refuse(&self, length: u64) -> bool {
        let cheap = match self.bound {
            true => CHEAP_AFTER_REFUSAL,
            false => CHEAP,
        };
        length > self.taken.max(cheap)
    }

    /// Notes that a request of `length` bytes was taken.
    pub(super) fn took(&mut self, length: u64) {
        self.taken = self.taken.max(length);
    }

    /// Gives the size above which the registry refuses every request.
    pub(super) fn bound(&self) -> Option<u64> {
        self.bound.then_some(self.largest)
    }

    pub(super) fn is_chunkless(&self) -> bool {
        self.chunkless
    }

    /// Notes that a request of `length` bytes is too large; tells whether there is a
    /// smaller size to try.
    pub(super) fn too_large(&mut self, length: u64) -> bool {
        let shrunk = self.shrink(length);
        self.bound |= shrunk;
        shrunk
    }

    /// Notes that a request of `length` bytes takes too long.
    pub(super) fn too_slow(&mut self, length: u64) {
        self.shrink(length);
    }

    fn shrink(&mut self, length: u64) -> bool {
        let Some(&step) = STEPS.iter().find(|&&step| step < length) else {
            return false;
        };
        self.largest = self.largest.min(step);
        true
    }

    /// Notes that a connection broke after `run` bytes, `lost` of which have to be sent
    /// again.
    pub(super) fn broken(&mut self, run: u64, lost: u64) {
        self.largest = self.largest.min(STEPS[0]);
        if lost > run / SHARE {
            self.spacing = Some(run);
        }
    }

    /// Notes that so many bytes passed and nothing broke.
    pub(super) fn passed(&mut self, run: u64) {
        self.spacing = self.spacing.map(|spacing| spacing.max(run));
    }

    /// Notes that the registry does not take chunks.
    pub(super) fn refuses_chunks(&mut self) {
        self.chunkless = true;
    }
}

/// The paces of one client, by registry.
#[derive(Debug, Default)]
pub(crate) struct Paces(Mutex<HashMap<String, Pace>>);

impl Paces {
    pub(super) fn get(&self, registry: &str) -> Pace {
        self.lock().get(registry).copied().unwrap_or_default()
    }

    pub(super) fn learn<T>(&self, registry: &str, lesson: impl FnOnce(&mut Pace) -> T) -> T {
        lesson(self.lock().entry(registry.to_owned()).or_default())
    }

    /// The map is valid after every statement, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Pace>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn refusals_shrink_a_request_down_to_the_smallest() {
        let mut pace = Pace::default();
        assert!(pace.takes_whole(u64::MAX, 0));
        assert_eq!(pace.bound(), None);
        let mut sizes = Vec::new();
        let mut length = 1000 * MIB;
        while pace.too_large(length) {
            length = pace.chunk(0);
            sizes.push(length);
        }
        assert_eq!(sizes, STEPS);
        assert_eq!(pace.bound(), Some(SMALLEST));
        assert!(pace.takes_whole(SMALLEST, 0) && !pace.takes_whole(SMALLEST + 1, 0));
    }

    #[test]
    fn a_small_request_that_is_refused_is_followed_by_a_smaller_one() {
        let mut pace = Pace::default();
        assert!(pace.too_large(5 * MIB));
        assert_eq!(pace.chunk(0), 4 * MIB);
        assert!(!pace.too_large(SMALLEST));
        assert_eq!(pace.chunk(0), 4 * MIB);
    }

    #[test]
    fn what_has_been_taken_once_is_not_held_again() {
        let mut pace = Pace::default();
        assert!(pace.may_refuse(5 * MIB) && !pace.may_refuse(4 * MIB));
        pace.took(100 * MIB);
        assert!(!pace.may_refuse(100 * MIB) && pace.may_refuse(101 * MIB));

        let mut pace = Pace::default();
        pace.too_large(9 * MIB);
        assert!(pace.may_refuse(4 * MIB) && !pace.may_refuse(MIB));
        pace.took(4 * MIB);
        assert!(!pace.may_refuse(4 * MIB));
    }

    #[test]
    fn a_break_that_costs_much_makes_chunks_small_until_more_passes() {
        let mut pace = Pace::default();
        pace.broken(200 * MIB, MIB);
        assert_eq!(pace.chunk(0), 64 * MIB);
        pace.broken(200 * MIB, 200 * MIB);
        assert_eq!(pace.chunk(0), 200 * MIB / 32);
        assert_eq!(pace.chunk(640 * MIB), 20 * MIB);
        pace.passed(640 * MIB);
        assert_eq!(pace.chunk(0), 20 * MIB);
        pace.broken(MIB, MIB);
        assert_eq!(pace.chunk(0), SMALLEST_AFTER_BREAK);
        assert_eq!(pace.bound(), None);
    }
}
