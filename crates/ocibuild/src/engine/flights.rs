//! What several parts of a build have in common: steps of builds for several platforms, such
//! as those of a stage that runs on the builder's platform whatever is built for, and layers
//! of several stages. The first that needs one makes it, the others wait for its result.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::OnceCell;

use crate::cache::StepResult;
use crate::error::Error;
use crate::mutex::lock;
use crate::registry::Digest;

/// What a step gave, or how a layer was packed, once it is done.
pub(crate) type Flight = Arc<OnceCell<Result<StepResult, Arc<Error>>>>;

/// The steps of a build by their keys, and its layers by their names.
#[derive(Default)]
pub(crate) struct Flights(Mutex<BTreeMap<Digest, Flight>>);

impl Flights {
    /// Gives where the result of a step is or will be.
    pub(super) fn of(&self, key: Digest) -> Flight {
        let mut flights = lock(&self.0);
        flights.entry(key).or_default().clone()
    }

    /// Forgets every result.
    pub(super) fn clear(&self) {
        lock(&self.0).clear();
    }
}
