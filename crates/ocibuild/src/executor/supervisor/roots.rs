//! The root directories to which processes of the step have changed.

use std::sync::{PoisonError, RwLock};

use rustix::io::Errno;

/// As many as fit in a [`super::cookie::Cookie`].
const MAX: usize = (1 << 12) - 1;

/// Root directories by number, from 1 on, as the step sees them.
#[derive(Debug, Default)]
pub(super) struct Roots(RwLock<Vec<Vec<u8>>>);

impl Roots {
    /// Gives the path of one.
    pub(super) fn get(&self, number: u32) -> Option<Vec<u8>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.get((number as usize).checked_sub(1)?).cloned()
    }

    /// Gives the number of one.
    pub(super) fn number(&self, path: Vec<u8>) -> Result<u32, Errno> {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = known.iter().position(|root| *root == path) {
            return Ok(place as u32 + 1);
        }
        if known.len() >= MAX {
            return Err(Errno::NOMEM);
        }
        known.push(path);
        Ok(known.len() as u32)
    }
}
