//! Work that makes more work, on as many threads as help.

use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use crate::mutex::lock;

/// More threads than this wait for each other in the kernel.
const MOST_THREADS: usize = 8;

struct Queue<J, E> {
    jobs: Vec<J>,
    busy: usize,
    failure: Option<E>,
}

/// Does all jobs, and those that they add, in any order; ends with the first error.
pub(super) fn each<J: Send, E: Send>(
    first: Vec<J>,
    work: impl Fn(J, &mut Vec<J>) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let queue = Mutex::new(Queue {
        jobs: first,
        busy: 0,
        failure: None,
    });
    let changed = Condvar::new();
    let serve = || serve(&queue, &changed, &work);
    let others = thread::available_parallelism().map_or(0, |count| count.get() - 1);
    thread::scope(|scope| {
        for _ in 0..others.min(MOST_THREADS - 1) {
            // With fewer threads it only takes longer.
            if thread::Builder::new().spawn_scoped(scope, serve).is_err() {
                break;
            }
        }
        serve();
    });
    let queue = queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    queue.failure.map_or(Ok(()), Err)
}

fn serve<J, E>(
    queue: &Mutex<Queue<J, E>>,
    changed: &Condvar,
    work: &impl Fn(J, &mut Vec<J>) -> Result<(), E>,
) {
    let mut more = Vec::new();
    let mut state = lock(queue);
    loop {
        if state.failure.is_some() {
            return;
        }
        let Some(job) = state.jobs.pop() else {
            if state.busy == 0 {
                return;
            }
            state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        state.busy += 1;
        drop(state);
        let done = work(job, &mut more);
        state = lock(queue);
        state.busy -= 1;
        state.jobs.append(&mut more);
        if let Err(error) = done {
            state.failure.get_or_insert(error);
        }
        changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn jobs_of_jobs_are_done() {
        let done = AtomicUsize::new(0);
        let ended: Result<(), ()> = each(vec![10_u32], |depth, more| {
            done.fetch_add(1, Ordering::Relaxed);
            if depth > 0 {
                more.extend([depth - 1; 2]);
            }
            Ok(())
        });
        assert_eq!((ended, done.into_inner()), (Ok(()), 2047));
    }

    #[test]
    fn an_error_ends_it() {
        let ended = each((0..1000).collect(), |job: u32, more| {
            more.push(job + 1);
            if job > 5000 { Err(job) } else { Ok(()) }
        });
        assert!(ended.is_err_and(|job| job > 5000));
    }
}
