//! What all stages of one build share: the plan, the store, the context, the means to
//! run and to report. Nothing here is decided; it is looked up and counted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use tokio::sync::{OnceCell, Semaphore};
use tokio_util::task::TaskTracker;

use super::stage::StageState;
use crate::Cancel;
use crate::build::{NamedContext, StepRecord};
use crate::causes::one_line;
use crate::content::ContentStore;
use crate::context::Context;
use crate::error::{Error, Location};
use crate::event::{Event, EventSink, LayerSummary, StepId};
use crate::executor::{Helper, Sandbox};
use crate::graph::Plan;
use crate::output::Output;
use crate::registry::{Client, Platform, Reference};
use crate::source::BaseImage;
use crate::time;

/// The result of a stage, as everybody who waits for it gets it.
pub(crate) type StageResult = Result<Arc<StageState>, Arc<Error>>;

/// An image that is loaded once.
pub(crate) type BaseCell = Arc<OnceCell<Result<BaseImage, Arc<Error>>>>;

/// See the head of this file.
pub(crate) struct Session {
    pub(crate) plan: Plan,
    pub(crate) store: ContentStore,
    pub(crate) client: Client,
    pub(crate) context: Arc<Context>,
    pub(crate) named: BTreeMap<String, NamedContext>,
    pub(crate) named_directories: BTreeMap<String, Arc<Context>>,
    pub(crate) platform: Platform,
    pub(crate) names: Vec<Reference>,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) outputs: Vec<Output>,
    pub(crate) use_cache: bool,
    pub(crate) epoch: Option<i64>,
    pub(crate) now: SystemTime,
    pub(crate) threads: usize,
    pub(crate) commit: Option<String>,
    pub(crate) cancel: Cancel,
    pub(crate) stages: Vec<OnceCell<StageResult>>,
    /// Images that were loaded, by name and platform.
    pub(crate) bases: Mutex<BTreeMap<String, BaseCell>>,
    pub(crate) helper: Helper,
    pub(crate) sandbox: OnceCell<Result<Arc<dyn Sandbox>, String>>,
    /// One layer is packed at a time, with all threads.
    pub(crate) packing: Semaphore,
    pub(crate) events: EventSink,
    pub(crate) steps: Mutex<Vec<StepRecord>>,
    pub(crate) next_step: AtomicU32,
    pub(crate) blocking: TaskTracker,
}

impl Session {
    /// Gives the time of this build in seconds since 1970.
    pub(crate) fn created(&self) -> i64 {
        self.epoch.unwrap_or_else(|| time::seconds(self.now))
    }

    /// Gives the time of this build as the configuration writes it.
    pub(crate) fn created_text(&self) -> String {
        match self.epoch {
            Some(seconds) => time::rfc3339(seconds),
            None => time::rfc3339_of(self.now),
        }
    }

    /// Runs what blocks on a thread of its own; the build does not end before it has.
    pub(crate) async fn block<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.blocking
            .spawn_blocking(work)
            .await
            .map_err(|lost| Error::Lost(lost.to_string()))?
    }

    /// Begins a step.
    pub(crate) fn step(&self, name: impl Into<String>) -> Step<'_> {
        let id = StepId(self.next_step.fetch_add(1, Ordering::Relaxed));
        let name = name.into();
        self.events.emit(Event::StepStarted {
            step: id,
            name: name.clone(),
        });
        Step {
            session: self,
            id,
            name,
            started: Instant::now(),
        }
    }

    /// Gives the sandbox, and finds out which one works here when it is first asked for.
    pub(crate) async fn sandbox(self: &Arc<Self>) -> Result<Arc<dyn Sandbox>, Error> {
        let found = self
            .sandbox
            .get_or_init(|| async {
                let (helper, folder) = (self.helper.clone(), self.store.root().join("tmp"));
                let probed = self
                    .block(move || Ok(crate::executor::probe::select(&helper, &folder)))
                    .await;
                match probed {
                    Ok(Ok(sandbox)) => Ok(Arc::from(sandbox)),
                    Ok(Err(refusals)) => Err(refusals.to_string()),
                    Err(error) => Err(error.to_string()),
                }
            })
            .await;
        found.clone().map_err(Error::NoSandbox)
    }

    /// Gives where an image is kept once it is loaded.
    pub(crate) fn base_cell(&self, name: String) -> BaseCell {
        lock(&self.bases).entry(name).or_default().clone()
    }

    /// Gives the finished steps in their order.
    pub(crate) fn records(&self) -> Vec<StepRecord> {
        let mut steps = lock(&self.steps).clone();
        steps.sort_by_key(|step| step.step);
        steps
    }
}

/// A step that is being done.
pub(crate) struct Step<'a> {
    session: &'a Session,
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
            Err(error) => self.session.events.emit(Event::StepFailed {
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
        self.session.events.emit(Event::StepDone {
            step: self.id,
            cached,
            millis,
            layer: layer.clone(),
        });
        lock(&self.session.steps).push(StepRecord {
            step: self.id,
            name: self.name.clone(),
            cached,
            millis,
            layer,
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds a place in the Dockerfile to an error.
pub(crate) trait Located<T> {
    /// Says where.
    fn located(self, location: &Location) -> Result<T, Error>;
}

impl<T, E: Into<Error>> Located<T> for Result<T, E> {
    fn located(self, location: &Location) -> Result<T, Error> {
        self.map_err(|error| error.into().at(location))
    }
}
