//! What became of the steps of a build: kept for `cache why`, and for the caches that
//! are exported.

use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::sync::OnceCell;
use tokio::sync::mpsc::UnboundedSender;

use super::Shared;
use crate::cache::StepResult;
use crate::cache::document::CachedStep;
use crate::cache::why::{self, BuildTrace, History, KeyRecord, Outcome, StepTrace};
use crate::content::{self, ContentStore};
use crate::event::{Event, StepId};
use crate::graph::key::StepKey;
use crate::mutex::lock;
use crate::registry::Digest;

/// The steps of a build, in the order in which they were done.
pub(crate) struct Ledger {
    /// When the build began, in milliseconds since 1970.
    began: u64,
    /// Misses are told while the build goes on.
    explain: bool,
    steps: Mutex<BTreeMap<StepId, Noted>>,
    same: Mutex<BTreeMap<Digest, Digest>>,
    history: OnceCell<History>,
    /// Takes steps that are exported while the build goes on.
    queue: Mutex<Option<UnboundedSender<StepResult>>>,
}

struct Noted {
    trace: StepTrace,
    result: StepResult,
}

impl Ledger {
    pub(crate) fn new(
        began: u64,
        explain: bool,
        queue: Option<UnboundedSender<StepResult>>,
    ) -> Self {
        Self {
            began,
            explain,
            steps: Mutex::default(),
            same: Mutex::default(),
            history: OnceCell::new(),
            queue: Mutex::new(queue),
        }
    }

    /// Gives what is kept of a key's parts.
    pub(crate) fn record(&self, step: &str, parts: Vec<crate::graph::parts::KeyPart>) -> KeyRecord {
        KeyRecord {
            step: step.to_owned(),
            made: self.began,
            parts,
        }
    }

    /// Notes what became of a step.
    pub(crate) fn note(&self, step: StepId, trace: StepTrace, result: &StepResult) {
        let result = result.clone();
        lock(&self.steps).insert(step, Noted { trace, result });
    }

    /// Forgets every step, because the build begins again.
    pub(crate) fn forget(&self) {
        lock(&self.steps).clear();
    }

    /// Notes another name of a step.
    pub(crate) fn note_same(&self, name: &StepKey, key: &StepKey) {
        lock(&self.same).insert(name.0, key.0);
    }

    /// Hands a step over to the exports that go on beside the build.
    pub(crate) fn export(&self, result: &StepResult) {
        if let Some(queue) = &*lock(&self.queue) {
            // Nobody listens where the export has ended, and all is exported at the end.
            let _ = queue.send(result.clone());
        }
    }

    /// Says that nothing more comes for the exports beside the build.
    pub(crate) fn close(&self) {
        drop(lock(&self.queue).take());
    }

    /// Says why a step is not known, where that is to be told.
    pub(crate) async fn why(
        &self,
        session: &Shared,
        step: StepId,
        key: &StepKey,
        now: &KeyRecord,
    ) -> Option<String> {
        if !self.explain && session.imports.is_empty() {
            return None;
        }
        let history = self.history.get_or_init(|| async {
            let store = session.store.clone();
            let mut history = session.block(move || Ok(History::of(&store))).await;
            if let Ok(history) = &mut history {
                session.imports.tell(history);
            }
            history.unwrap_or_default()
        });
        let text = history.await.why(key, now, self.began).to_string();
        if self.explain {
            session.steps.events.emit(Event::StepMissed {
                step,
                why: text.clone(),
            });
        }
        Some(text)
    }

    /// Gives every step, each key once, and the other names of steps.
    pub(crate) fn cached(
        &self,
        store: &ContentStore,
    ) -> (Vec<CachedStep>, BTreeMap<Digest, Digest>) {
        let mut by_key: BTreeMap<Digest, CachedStep> = BTreeMap::new();
        for noted in lock(&self.steps).values() {
            let key = StepKey(noted.trace.key);
            let made_of = why::record(store, &key);
            let result = noted.result.clone();
            by_key.insert(
                key.0,
                CachedStep {
                    key,
                    result,
                    made_of,
                },
            );
        }
        (by_key.into_values().collect(), lock(&self.same).clone())
    }

    /// Leaves in the store what became of the steps.
    pub(crate) fn keep(&self, store: &ContentStore) -> Result<(), content::Error> {
        let steps = lock(&self.steps);
        let steps: Vec<StepTrace> = steps.values().map(|noted| noted.trace.clone()).collect();
        if steps.is_empty() {
            return Ok(());
        }
        let began = self.began;
        why::remember_build(store, &BuildTrace { began, steps })
    }
}

/// Gives what is noted of a step.
pub(crate) fn trace(step: &str, key: &StepKey, outcome: Outcome, why: Option<String>) -> StepTrace {
    StepTrace {
        step: step.to_owned(),
        key: key.0,
        outcome,
        why,
    }
}
