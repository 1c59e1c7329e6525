//! The result of a step: from the store, from a cache that others left, from another
//! platform of the same build, or made and remembered.

use std::sync::Arc;

use super::late::Made;
use super::ledger::trace;
use super::steps::Step;
use super::{Shared, exports};
use crate::cache::why::{self, KeyRecord, Outcome};
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

/// A result, how it was had, and why it was not known.
type Done = (StepResult, Outcome, Option<String>);

/// What a step that was not known gave.
struct New {
    made: Made,
    record: KeyRecord,
    outcome: Outcome,
    why: Option<String>,
}

/// A step whose layer is packed while others are done.
pub(super) struct Late<'a> {
    asked: Asked<'a>,
    new: New,
    name: Option<StepKey>,
}

impl<'a> Asked<'a> {
    /// Gives the result, and makes it where nobody has it. What is left to do is given too.
    pub(super) async fn done(
        self,
        key: &(dyn Fn(bool) -> KeyBuilder + Sync),
        name: Option<StepKey>,
        make: impl AsyncFnOnce(StepId) -> Result<Made, Error>,
    ) -> Result<(StepResult, Option<Late<'a>>), Error> {
        let done = if self.session.several {
            self.shared(key, make).await
        } else if let Some(known) = find(self.session, &self.key).await {
            Ok((known.result, known.outcome, None))
        } else {
            match self.made(key, make).await {
                Ok(new) if new.made.pack.is_some() => {
                    let asked = self;
                    let result = new.made.result.clone();
                    return Ok((result, Some(Late { asked, new, name })));
                }
                Ok(new) => self.remember(new),
                Err(error) => Err(error),
            }
        };
        if done.is_ok() {
            self.remember_name(name)?;
        }
        Ok((self.end(done)?, None))
    }

    /// Gives a result that was found by another name.
    pub(super) fn known_as(self, name: &StepKey, known: Known) -> Result<StepResult, Error> {
        self.session.ledger.note_same(name, &self.key);
        self.end(Ok((known.result, known.outcome, None)))
    }

    fn remember_name(&self, name: Option<StepKey>) -> Result<(), Error> {
        if let Some(name) = name {
            cache::remember_same(&self.session.store, &name, &self.key)?;
            self.session.ledger.note_same(&name, &self.key);
        }
        Ok(())
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

    /// Makes a step that is not known.
    async fn made(
        &self,
        key: &(dyn Fn(bool) -> KeyBuilder + Sync),
        make: impl AsyncFnOnce(StepId) -> Result<Made, Error>,
    ) -> Result<New, Error> {
        let session = self.session;
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
        Ok(New {
            made: make(self.step.id).await?,
            record,
            outcome,
            why,
        })
    }

    fn remember(&self, new: New) -> Result<Done, Error> {
        let store = &self.session.store;
        why::remember(store, &self.key, &new.record)?;
        cache::remember(store, &self.key, &new.made.result)?;
        Ok((new.made.result, new.outcome, new.why))
    }

    /// The same where another platform may need the step too: it is done once.
    async fn shared(
        &self,
        key: &(dyn Fn(bool) -> KeyBuilder + Sync),
        make: impl AsyncFnOnce(StepId) -> Result<Made, Error>,
    ) -> Result<Done, Error> {
        let flight = self.session.flights.of(self.key.0);
        let (mut outcome, mut told) = (Outcome::Shared, None);
        let result = flight.get_or_init(|| async {
            let done = match find(self.session, &self.key).await {
                Some(known) => Ok((known.result, known.outcome, None)),
                None => match self.made(key, make).await {
                    Ok(new) => self.packed(new).await,
                    Err(error) => Err(error),
                },
            };
            let (result, how, why) = done.map_err(Arc::new)?;
            (outcome, told) = (how, why);
            Ok(result)
        });
        let result = result.await.clone().map_err(Error::Shared)?;
        Ok((result, outcome, told))
    }

    async fn packed(&self, mut new: New) -> Result<Done, Error> {
        if let Some(pack) = new.made.pack.take() {
            new.made.result = pack.run().await?;
        }
        self.remember(new)
    }
}

impl Late<'_> {
    /// Packs the layer and ends the step.
    pub(super) async fn end(self) -> Result<StepResult, Error> {
        let Self { asked, new, name } = self;
        let done = asked.packed(new).await;
        if let Ok((result, ..)) = &done {
            asked.remember_name(name)?;
            let layer = result.clone().into_layer();
            asked
                .session
                .early
                .below(asked.session, asked.index, &[layer]);
        }
        asked.end(done)
    }
}
