//! The result of a step: from the store, from a cache that others left, from another
//! platform of the same build, or made and remembered.

use std::sync::Arc;

use super::ledger::trace;
use super::steps::Step;
use super::{Shared, exports};
use crate::cache::why::{self, Outcome};
use crate::cache::{self, StepResult};
use crate::error::Error;
use crate::event::StepId;
use crate::executor::Identity;
use crate::graph::key::{KeyBuilder, StepKey};

/// A result that need not be made.
pub(super) struct Known {
    pub(super) key: StepKey,
    result: StepResult,
    outcome: Outcome,
}

/// Finds a step.
async fn find(session: &Shared, key: &StepKey) -> Option<Known> {
    if !session.use_cache {
        return None;
    }
    let (result, outcome) = match cache::lookup(&session.store, key) {
        Some(result) => (result, Outcome::Known),
        None => {
            let (source, step) = session.imports.find(session, key).await?;
            (step.result, Outcome::Imported(source))
        }
    };
    // One that was made with a single id serves only a builder that could do no better.
    if result.single_id {
        let sandbox = session.sandbox().await.ok()?;
        if *sandbox.identity() != Identity::Single {
            return None;
        }
    }
    let key = *key;
    Some(Known {
        key,
        result,
        outcome,
    })
}

/// Finds a step that is known by another name.
pub(super) async fn by_name(session: &Shared, name: &StepKey) -> Option<Known> {
    if !session.use_cache {
        return None;
    }
    if let Some(key) = cache::same_as(&session.store, name)
        && let Some(known) = find(session, &key).await
    {
        return Some(known);
    }
    let key = session.imports.same_as(session, name).await?;
    find(session, &key).await
}

/// A step that somebody has come to.
pub(super) struct Asked<'a> {
    pub(super) session: &'a Shared,
    /// The stage that it is in.
    pub(super) index: usize,
    pub(super) step: Step<'a>,
    pub(super) key: StepKey,
}

impl Asked<'_> {
    /// Gives the result, and makes it where nobody has it.
    pub(super) async fn done(
        self,
        key: &(dyn Fn(bool) -> KeyBuilder + Sync),
        name: Option<StepKey>,
        make: impl AsyncFnOnce(StepId) -> Result<StepResult, Error>,
    ) -> Result<StepResult, Error> {
        let session = self.session;
        let done = match session.several {
            true => self.shared(key, make).await,
            false => self.alone(key, make).await,
        };
        if let (Some(name), Ok(_)) = (name, &done) {
            cache::remember_same(&session.store, &name, &self.key)?;
            session.ledger.note_same(&name, &self.key);
        }
        self.end(done)
    }

    /// Gives a result that was found by another name.
    pub(super) fn known_as(self, name: &StepKey, known: Known) -> Result<StepResult, Error> {
        self.session.ledger.note_same(name, &self.key);
        self.end(Ok((known.result, known.outcome, None)))
    }

    fn end(self, done: Result<Done, Error>) -> Result<StepResult, Error> {
        if let Ok((result, outcome, why)) = &done {
            let trace = trace(&self.step.name, &self.key, outcome.clone(), why.clone());
            self.session.ledger.note(self.step.id, trace, result);
            if !exports::waits(self.session, self.index) {
                self.session.ledger.export(result);
            }
        }
        let ended = self.step.end(done, |(result, outcome, _)| {
            let is_cached = !matches!(outcome, Outcome::Missed | Outcome::Forced);
            (is_cached, Some(result.summary()))
        });
        ended.map(|(result, ..)| result)
    }

    async fn alone(
        &self,
        key: &(dyn Fn(bool) -> KeyBuilder + Sync),
        make: impl AsyncFnOnce(StepId) -> Result<StepResult, Error>,
    ) -> Result<Done, Error> {
        let session = self.session;
        if let Some(known) = find(session, &self.key).await {
            return Ok((known.result, known.outcome, None));
        }
        let record = session
            .ledger
            .record(&self.step.name, key(true).into_parts());
        let (outcome, why) = match session.use_cache {
            true => {
                let ledger = &session.ledger;
                let why = ledger.why(session, self.step.id, &self.key, &record).await;
                (Outcome::Missed, why)
            }
            false => (Outcome::Forced, None),
        };
        let made = make(self.step.id).await?;
        why::remember(&session.store, &self.key, &record)?;
        cache::remember(&session.store, &self.key, &made)?;
        Ok((made, outcome, why))
    }

    /// The same where another platform may need the step too: it is done once.
    async fn shared(
        &self,
        key: &(dyn Fn(bool) -> KeyBuilder + Sync),
        make: impl AsyncFnOnce(StepId) -> Result<StepResult, Error>,
    ) -> Result<Done, Error> {
        let flight = self.session.flights.of(self.key.0);
        let (mut outcome, mut told) = (Outcome::Shared, None);
        let result = flight.get_or_init(|| async {
            let (result, how, why) = self.alone(key, make).await.map_err(Arc::new)?;
            (outcome, told) = (how, why);
            Ok(result)
        });
        let result = result.await.clone().map_err(Error::Shared)?;
        Ok((result, outcome, told))
    }
}

/// A result, how it was had, and why it was not known.
type Done = (StepResult, Outcome, Option<String>);
