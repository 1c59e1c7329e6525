//! How far a transfer has come, told not more often than somebody can read.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::event::{Event, EventSink, StepId, TransferState};
use crate::mutex::lock;

/// How often the progress of one item is told.
const PROGRESS_PAUSE: Duration = Duration::from_millis(500);

/// Tells the progress of a step, and of each item not more often than somebody can read.
pub(crate) struct Meter {
    events: EventSink,
    step: StepId,
    told: Mutex<BTreeMap<String, Told>>,
}

struct Told {
    at: Instant,
    current: u64,
}

impl Told {
    fn is_old(&self, current: u64, now: Instant) -> bool {
        current != self.current && now.duration_since(self.at) >= PROGRESS_PAUSE
    }
}

impl Meter {
    /// Begins to measure a step.
    pub(crate) fn new(events: EventSink, step: StepId) -> Self {
        Self {
            events,
            step,
            told: Mutex::default(),
        }
    }

    /// Tells how far an item has come, if it has moved and was not told just now.
    pub(crate) fn moved(&self, item: &str, current: u64, total: u64) {
        let now = Instant::now();
        let mut told = lock(&self.told);
        if told
            .get(item)
            .is_some_and(|last| !last.is_old(current, now))
        {
            return;
        }
        told.insert(item.to_owned(), Told { at: now, current });
        drop(told);
        self.events.emit(Event::StepProgress {
            step: self.step,
            item: item.to_owned(),
            current,
            total,
            state: TransferState::Moving,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_when_it_is_news() {
        let told = Told {
            at: Instant::now(),
            current: 7,
        };
        let later = told.at + PROGRESS_PAUSE;
        assert!(told.is_old(8, later));
        assert!(!told.is_old(7, later), "nothing has moved");
        assert!(!told.is_old(8, told.at), "told just now");
    }
}
