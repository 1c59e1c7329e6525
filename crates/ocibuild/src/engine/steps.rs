//! The steps of a build: each gets a number when it begins, is told when it begins and
//! ends, and is remembered when it is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::build::StepRecord;
use crate::causes::one_line;
use crate::error::Error;
use crate::event::{Event, EventSink, LayerSummary, StepId, TransferState};

/// How often the progress of one item is told.
const PROGRESS_PAUSE: Duration = Duration::from_millis(500);

/// All steps of one build.
pub(crate) struct Steps {
    pub(crate) events: EventSink,
    next: AtomicU32,
    done: Mutex<Vec<StepRecord>>,
    /// What was said once and is true for every platform.
    told: Mutex<BTreeSet<String>>,
}

impl Steps {
    /// Begins to count.
    pub(crate) fn new(events: EventSink) -> Self {
        Self {
            events,
            next: AtomicU32::new(1),
            done: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// Begins a step.
    pub(crate) fn begin(&self, name: impl Into<String>) -> Step<'_> {
        let id = StepId(self.next.fetch_add(1, Ordering::Relaxed));
        let name = name.into();
        self.events.emit(Event::StepStarted {
            step: id,
            name: name.clone(),
        });
        Step {
            steps: self,
            id,
            name,
            started: Instant::now(),
        }
    }

    /// Tells whether a text has not been told before, and remembers that it is now.
    pub(crate) fn is_news(&self, text: String) -> bool {
        lock(&self.told).insert(text)
    }

    /// Begins to measure a step.
    #[cfg(feature = "git")]
    pub(crate) fn meter(&self, step: StepId) -> Meter {
        Meter::new(self.events.clone(), step)
    }

    /// Gives the finished steps in their order.
    pub(crate) fn records(&self) -> Vec<StepRecord> {
        let mut steps = lock(&self.done).clone();
        steps.sort_by_key(|step| step.step);
        steps
    }
}

/// A step that is being done.
pub(crate) struct Step<'a> {
    steps: &'a Steps,
    pub(crate) id: StepId,
    name: String,
    started: Instant,
}

impl Step<'_> {
    /// Ends the step and tells how.
    pub(crate) fn end<T>(
        self,
        result: Result<T, Error>,
        describe: impl FnOnce(&T) -> (bool, Option<LayerSummary>),
    ) -> Result<T, Error> {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        match &result {
            Ok(value) => self.done(describe(value), millis),
            Err(error) => self.steps.events.emit(Event::StepFailed {
                step: self.id,
                error: one_line(error),
                millis,
            }),
        }
        result
    }

    /// Ends a step that makes no layer.
    pub(crate) fn end_plain<T>(self, result: Result<T, Error>) -> Result<T, Error> {
        self.end(result, |_| (false, None))
    }

    fn done(&self, (cached, layer): (bool, Option<LayerSummary>), millis: u64) {
        self.steps.events.emit(Event::StepDone {
            step: self.id,
            cached,
            millis,
            layer: layer.clone(),
        });
        lock(&self.steps.done).push(StepRecord {
            step: self.id,
            name: self.name.clone(),
            cached,
            millis,
            layer,
        });
    }
}

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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
