//! A secret of limited life that is fetched when it is first needed, shared by everybody
//! who asks, and fetched anew shortly before its end.

use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};

/// What was fetched, and until when it may be used.
#[derive(Clone)]
struct Kept<T> {
    value: T,
    use_until: DateTime<Utc>,
}

/// Keeps the latest value.
pub(super) struct Renewed<T> {
    kept: Mutex<Option<Kept<T>>>,
    /// Held while a value is fetched, so that parallel requests share one.
    fetching: tokio::sync::Mutex<()>,
    /// A value is not used in the last part of its life: what begins with it should not
    /// be refused on the way.
    margin: TimeDelta,
}

impl<T: Clone> Renewed<T> {
    pub(super) fn new(margin: TimeDelta) -> Self {
        Self {
            kept: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
            margin,
        }
    }

    /// Gives the value of the moment; `fetch` gives a new one and its end.
    pub(super) async fn get<E>(
        &self,
        fetch: impl Future<Output = Result<(T, DateTime<Utc>), E>>,
    ) -> Result<T, E> {
        if let Some(usable) = self.usable() {
            return Ok(usable);
        }
        let _fetching = self.fetching.lock().await;
        // Another request may have fetched one while this one waited.
        if let Some(usable) = self.usable() {
            return Ok(usable);
        }
        let (value, expires) = fetch.await?;
        self.keep(value.clone(), expires);
        Ok(value)
    }

    pub(super) fn keep(&self, value: T, expires: DateTime<Utc>) {
        // A time at the beginning of all times has no time before it.
        let use_until = expires.checked_sub_signed(self.margin).unwrap_or(expires);
        *self.lock() = Some(Kept { value, use_until });
    }

    /// Drops the value where it is the one that somebody has refused; a newer one stays.
    pub(super) fn forget(&self, is_refused: impl FnOnce(&T) -> bool) {
        let mut kept = self.lock();
        if kept.as_ref().is_some_and(|kept| is_refused(&kept.value)) {
            *kept = None;
        }
    }

    /// Gives the latest value, be it worn out or not.
    pub(super) fn latest(&self) -> Option<T> {
        self.lock().as_ref().map(|kept| kept.value.clone())
    }

    fn usable(&self) -> Option<T> {
        let kept = self.lock();
        let usable = kept.as_ref().filter(|kept| Utc::now() < kept.use_until)?;
        Some(usable.value.clone())
    }

    /// The value is whole after every statement, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Option<Kept<T>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
