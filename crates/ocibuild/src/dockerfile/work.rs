//! Counts the characters that the parser and the expansion of words look at, so that
//! tests can tell work that grows with the input from work that grows with its square.
//! Without the feature `testing` nothing is counted.

#[cfg(feature = "testing")]
thread_local! {
    static WORK: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Adds to the work of this thread.
#[cfg(feature = "testing")]
pub(super) fn count(amount: usize) {
    WORK.with(|work| work.set(work.get().saturating_add(amount as u64)));
}

/// Adds to the work of this thread.
#[cfg(not(feature = "testing"))]
pub(super) fn count(_amount: usize) {}

/// Gives how many characters this thread looks at while `measured` runs.
#[cfg(feature = "testing")]
pub fn of(measured: impl FnOnce()) -> u64 {
    let before = WORK.with(std::cell::Cell::get);
    measured();
    WORK.with(std::cell::Cell::get) - before
}
