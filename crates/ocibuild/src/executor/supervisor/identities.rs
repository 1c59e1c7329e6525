//! All the credentials that processes of the step have had, each with a number.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use rustix::io::Errno;

use super::credentials::Credentials;

/// As many as fit in a [`super::cookie::Cookie`].
const MAX: usize = 1 << 20;

/// Credentials by number. Number 0 is what processes begin with.
#[derive(Debug)]
pub(super) struct Identities(RwLock<Known>);

#[derive(Debug)]
struct Known {
    numbers: HashMap<Arc<Credentials>, u32>,
    all: Vec<Arc<Credentials>>,
}

impl Identities {
    pub(super) fn new(first: Credentials) -> Self {
        let first = Arc::new(first);
        let numbers = HashMap::from([(Arc::clone(&first), 0)]);
        Self(RwLock::new(Known {
            numbers,
            all: vec![first],
        }))
    }

    /// Gives those with a number. One that was never given out, which a program can
    /// only have made up, is nobody's: it gets what processes begin with.
    pub(super) fn get(&self, number: u32) -> Arc<Credentials> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let found = known
            .all
            .get(number as usize)
            .or_else(|| known.all.first())
            .cloned();
        drop(known);
        found.unwrap_or_else(|| Arc::new(Credentials::root(0)))
    }

    /// Gives the number of credentials.
    pub(super) fn number(&self, credentials: Credentials) -> Result<u32, Errno> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = known.numbers.get(&credentials) {
            return Ok(*number);
        }
        drop(known);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let number = known.all.len();
        if number >= MAX {
            return Err(Errno::NOMEM);
        }
        let credentials = Arc::new(credentials);
        known.all.push(Arc::clone(&credentials));
        known.numbers.insert(credentials, number as u32);
        Ok(number as u32)
    }
}
