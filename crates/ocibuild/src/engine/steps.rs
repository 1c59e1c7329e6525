//! The steps of a build: each gets a number when it begins, is told when it begins and
//! ends, and is remembered when it is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use super::meter::Meter;
use crate::build::StepRecord;
use crate::causes::one_line;
use crate::error::Error;
use crate::event::{Event, EventSink, LayerSummary, StepId};
use crate::mutex::lock;

/// All steps of one build.
pub(crate) struct Steps {
    pub(crate) events: EventSink,
    next: AtomicU32,
    done: Mutex<Vec<StepRecord>>,
    running: Mutex<BTreeMap<StepId, String>>,
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
            running: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// Begins a step.
    pub(crate) fn begin(&self, name: impl Into<String>) -> Step<'_> {
        let id = StepId(self.next.fetch_add(1, Ordering::Relaxed));
        let name = name.into();
        lock(&self.running).insert(id, name.clone());
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
    pub(crate) fn meter(&self, step: StepId) -> Meter {
        Meter::new(self.events.clone(), step)
    }

    /// Gives the names of the steps that are being done.
    pub(crate) fn running(&self) -> Vec<String> {
        lock(&self.running).values().cloned().collect()
    }

    /// Forgets the finished steps, because the build begins again.
    pub(crate) fn forget(&self) {
        lock(&self.done).clear();
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
    pub(crate) name: String,
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
        lock(&self.steps.running).remove(&self.id);
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
