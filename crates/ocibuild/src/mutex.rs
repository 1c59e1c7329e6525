//! Mutexes of values that are whole after every statement.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks one, also after a thread has panicked that held it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
