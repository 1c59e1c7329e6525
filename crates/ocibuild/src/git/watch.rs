//! The outside world of a checkout: who and what may end it, and who wants to know how far
//! it is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use gix::progress::tree;

use super::Progress;
use super::error::GitError;
use super::limits::Budget;
use crate::Cancel;

pub(super) const TICK: Duration = Duration::from_millis(50);

/// What ends a checkout, and who hears of it.
pub(super) struct Watch<'a> {
    pub(super) cancel: &'a Cancel,
    pub(super) progress: &'a (dyn Fn(Progress) + Sync),
    pub(super) budget: &'a Budget,
}

impl Watch<'_> {
    pub(super) fn check(&self) -> Result<(), GitError> {
        match self.cancel.is_cancelled() {
            true => Err(GitError::Cancelled),
            false => Ok(()),
        }
    }

    /// Waits, and ends early when the build is cancelled.
    pub(super) fn pause(&self, time: Duration) -> Result<(), GitError> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.check()?;
            std::thread::sleep(TICK.min(time));
        }
        self.check()
    }

    /// Runs `work` while another thread hands on its progress and raises its interrupt flag.
    pub(super) fn during<T>(
        &self,
        work: impl FnOnce(&AtomicBool, &tree::Root) -> Result<T, GitError>,
    ) -> Result<T, GitError> {
        let interrupt = AtomicBool::new(false);
        let root = tree::Root::new();
        let (done, is_done) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let (interrupt, root) = (&interrupt, &root);
            scope.spawn(move || {
                while is_done.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                    let ends = self.cancel.is_cancelled() || self.budget.excess().is_some();
                    interrupt.fetch_or(ends, Ordering::Relaxed);
                    self.report(root);
                }
            });
            let result = work(interrupt, root);
            drop(done);
            result
        })
    }

    fn report(&self, root: &tree::Root) {
        let mut tasks = Vec::new();
        root.sorted_snapshot(&mut tasks);
        for (_, task) in tasks {
            if let Some(value) = task.progress {
                (self.progress)(Progress {
                    task: task.name,
                    current: value.step.load(Ordering::Relaxed) as u64,
                    total: value.done_at.map(|total| total as u64),
                });
            }
        }
    }
}
