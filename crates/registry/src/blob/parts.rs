//! One blob over several connections. Whoever has loaded its part takes the next one, and
//! when all are given out, half of what is left of the slowest: so a slow connection ends
//! with a small rest. What a fast one still has to load is left to it: most of that is under
//! way already and would come twice. A connection that stands still is given up soon, and its
//! part is asked for anew behind what has come.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::try_join_all;
use tokio::sync::Notify;

use super::place::{ODD_STATUS, OTHER_RANGE, Place, Places, range_begin};
use super::source::Source;
use super::writer::{Loaded, Writer};
use super::{Arriving, Downloads};
use crate::progress::{Progress, Transfer, TransferState};
use crate::retry::Backoff;
use crate::transport::Response;
use crate::{Descriptor, Error, Hasher};

/// A connection of several is given up after this time without a byte.
const PART_IDLE: Duration = Duration::from_secs(10);
/// What is left of a part is divided as long as it is larger,
const DIVIDED: u64 = 1 << 20;
/// and as it would take longer: what is on its way to the slow one then comes twice.
const SLOW: Duration = Duration::from_secs(3);
/// How often somebody who has nothing to do looks for what is slow.
const LOOK: Duration = Duration::from_millis(250);

/// A range of a blob that one connection loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    /// The next byte.
    at: u64,
    end: u64,
}

impl Span {
    fn left(&self) -> u64 {
        self.end.saturating_sub(self.at)
    }
}

/// What a connection has to load, and since when.
#[derive(Debug, Clone, Copy)]
struct Taken {
    span: Span,
    begin: u64,
    since: Instant,
}

impl Taken {
    fn new(span: Span, now: Instant) -> Self {
        Self {
            span,
            begin: span.at,
            since: now,
        }
    }

    /// How long the rest takes if it goes on as it went, in seconds.
    fn seconds_left(&self, now: Instant) -> f64 {
        // Precision does not matter; a byte more so that there is always a rate.
        let loaded = (self.span.at - self.begin + 1) as f64;
        let spent = now.duration_since(self.since).as_secs_f64();
        self.span.left() as f64 * spent / loaded
    }
}

/// What a connection is given to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    Part,
    /// Nothing yet: perhaps another one turns out to be slow.
    Nothing,
    /// Nothing any more.
    End,
}

/// What has been given out and what has not.
#[derive(Debug, Default)]
struct Plan {
    waiting: VecDeque<Span>,
    /// By the number of the connection.
    taken: Vec<Taken>,
}

impl Plan {
    fn new(size: u64, downloads: Downloads, now: Instant) -> Self {
        let starts = (0..size).step_by(usize::try_from(downloads.part).unwrap_or(usize::MAX));
        let span = |at| Span {
            at,
            end: size.min(at + downloads.part),
        };
        Self {
            waiting: starts.map(span).collect(),
            taken: vec![Taken::new(Span { at: 0, end: 0 }, now); downloads.at_once],
        }
    }

    /// Gives a connection something to do.
    fn give(&mut self, worker: usize, now: Instant) -> Given {
        if let Some(next) = self.waiting.pop_front() {
            self.taken[worker] = Taken::new(next, now);
            return Given::Part;
        }
        if self.taken.iter().all(|taken| taken.span.left() == 0) {
            return Given::End;
        }
        let divisible = self.taken.iter_mut().filter(|taken| {
            taken.span.left() >= DIVIDED && taken.seconds_left(now) > SLOW.as_secs_f64()
        });
        let slowest = divisible
            .max_by(|one, other| one.seconds_left(now).total_cmp(&other.seconds_left(now)));
        let Some(slowest) = slowest else {
            return Given::Nothing;
        };
        let whole = slowest.span;
        let middle = whole.at + whole.left() / 2;
        slowest.span.end = middle;
        let half = Span {
            at: middle,
            end: whole.end,
        };
        self.taken[worker] = Taken::new(half, now);
        Given::Part
    }

    /// Leaves nothing to do to anybody.
    fn end(&mut self) {
        self.waiting.clear();
        for taken in &mut self.taken {
            taken.span.end = taken.span.at;
        }
    }

    /// Takes in bytes that have come; gives where they belong, and how many of them still
    /// belong to this connection.
    fn advance(&mut self, worker: usize, length: u64) -> (u64, u64) {
        let span = &mut self.taken[worker].span;
        let at = span.at;
        let taken = length.min(span.left());
        span.at += taken;
        (at, taken)
    }
}

/// A blob that is loaded in parts.
pub(super) struct Parts {
    places: Places,
    descriptor: Descriptor,
    plan: Mutex<Plan>,
    /// Told whenever a part is loaded.
    ended: Notify,
    loaded: AtomicU64,
    /// The answer with which the first connection begins.
    first: Mutex<Option<(Response, Place)>>,
    workers: usize,
}

impl Parts {
    /// Asks for the first part. None where the blob is small, or the registry sends no
    /// ranges: then the source has the answer already.
    pub(super) async fn open(
        source: &mut Source,
        downloads: Downloads,
    ) -> Result<Option<Self>, Error> {
        let size = source.descriptor.size;
        let part = downloads.part.max(1);
        let count = usize::try_from(size.div_ceil(part)).unwrap_or(usize::MAX);
        let workers = downloads.at_once.min(count);
        if workers < 2 {
            return Ok(None);
        }
        let places = source.places.clone();
        let mut backoff = places.backoff();
        let first = loop {
            match places.open(Some(&format!("bytes=0-{}", part - 1))).await {
                Ok(answer) => break answer,
                Err(error) => backoff.pause(error).await?,
            }
        };
        if first.0.status() != 206 {
            source.begin_with(first);
            return Ok(None);
        }
        let downloads = Downloads {
            part,
            at_once: workers,
        };
        Ok(Some(Self {
            places,
            descriptor: source.descriptor.clone(),
            plan: Mutex::new(Plan::new(size, downloads, Instant::now())),
            ended: Notify::new(),
            loaded: AtomicU64::new(0),
            first: Mutex::new(Some(first)),
            workers,
        }))
    }

    /// Loads everything into a file; gives the hash of it.
    pub(super) async fn load(
        self,
        file: File,
        arriving: Option<Arc<Arriving>>,
        progress: &Progress,
        at_dest: &(dyn Fn(io::Error) -> Error + Sync),
    ) -> Result<Hasher, Error> {
        let size = self.descriptor.size;
        let hasher = Hasher::new(self.descriptor.digest.algorithm());
        let writer = Writer::start(file, size, hasher, arriving).map_err(at_dest)?;
        let workers = (0..self.workers).map(|worker| self.work(worker, &writer, progress));
        let parts = try_join_all(workers).await;
        let loaded = writer.finish().await.map_err(at_dest)?;
        parts?;
        match loaded {
            Loaded::Whole(hasher) => Ok(*hasher),
            Loaded::Part(actual) => Err(Error::SizeMismatch {
                action: self.places.action(),
                expected: size,
                actual,
            }),
        }
    }

    async fn work(&self, worker: usize, writer: &Writer, progress: &Progress) -> Result<(), Error> {
        let mut backoff = self.places.backoff();
        loop {
            let ended = self.ended.notified();
            let given = self.plan().give(worker, Instant::now());
            match given {
                Given::Part => {}
                Given::Nothing => {
                    // Either way there may be something to do.
                    let _ = tokio::time::timeout(LOOK, ended).await;
                    continue;
                }
                Given::End => return Ok(()),
            }
            loop {
                match self.load_part(worker, writer, progress, &mut backoff).await {
                    Ok(()) => break,
                    Err((Some(place), error)) if self.places.leave(place, &error) => {}
                    Err((_, error)) => backoff.pause(error).await?,
                }
            }
            if self.left(worker) > 0 {
                // The file takes no more.
                self.plan().end();
            }
            self.ended.notify_waiters();
        }
    }

    fn left(&self, worker: usize) -> u64 {
        self.plan().taken[worker].span.left()
    }

    /// Loads what is left of a connection's part, over one answer.
    async fn load_part(
        &self,
        worker: usize,
        writer: &Writer,
        progress: &Progress,
        backoff: &mut Backoff,
    ) -> Result<(), (Option<Place>, Error)> {
        let span = self.plan().taken[worker].span;
        if span.left() == 0 {
            return Ok(());
        }
        let (mut response, place) = self.answer(span).await.map_err(|error| (None, error))?;
        let failed = |error| (Some(place), error);
        let begins = range_begin(&response);
        if response.status() != 206 || begins != Some(span.at) {
            let problem = if begins.is_none() {
                ODD_STATUS
            } else {
                OTHER_RANGE
            };
            return Err(failed(self.places.protocol(problem)));
        }
        loop {
            let piece = next(&mut response, &self.places).await.map_err(failed)?;
            let Some(mut piece) = piece else {
                break;
            };
            let (at, taken) = self.plan().advance(worker, piece.len() as u64);
            backoff.moved();
            // Lossless: at most the piece's length.
            piece.truncate(taken as usize);
            if !piece.is_empty() && !writer.write(at, piece).await {
                // The writer's own error tells why.
                return Ok(());
            }
            let loaded = self.loaded.fetch_add(taken, Ordering::Relaxed) + taken;
            progress.report(Transfer {
                digest: self.descriptor.digest,
                current: loaded,
                total: self.descriptor.size,
                state: TransferState::Moving,
            });
            if self.left(worker) == 0 {
                return Ok(());
            }
        }
        match self.left(worker) {
            0 => Ok(()),
            left => Err(failed(Error::SizeMismatch {
                action: self.places.action(),
                expected: self.descriptor.size,
                actual: self.descriptor.size - left,
            })),
        }
    }

    async fn answer(&self, span: Span) -> Result<(Response, Place), Error> {
        if span.at == 0 {
            let first = self
                .first
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some(first) = first {
                return Ok(first);
            }
        }
        let range = format!("bytes={}-{}", span.at, span.end - 1);
        self.places.open(Some(&range)).await
    }

    /// The plan is whole after every statement, so a panic elsewhere does not spoil it.
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the next piece, which must not be long in coming: another connection may do
/// better.
async fn next(response: &mut Response, places: &Places) -> Result<Option<Bytes>, Error> {
    match tokio::time::timeout(PART_IDLE, response.chunk()).await {
        Ok(piece) => piece,
        Err(_) => Err(Error::Stalled {
            action: places.action(),
            peer: places.origin().registry().to_owned(),
            idle: PART_IDLE,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOWNLOADS: Downloads = Downloads {
        part: 16 << 20,
        at_once: 2,
    };

    #[test]
    fn what_is_left_of_a_slow_part_is_divided() {
        let start = Instant::now();
        let mut plan = Plan::new((32 << 20) + 5, DOWNLOADS, start);
        let give = |plan: &mut Plan, worker, seconds| {
            plan.give(worker, start + Duration::from_secs(seconds))
        };
        assert_eq!(give(&mut plan, 0, 0), Given::Part);
        assert_eq!(give(&mut plan, 1, 0), Given::Part);
        assert_eq!(plan.advance(0, 3), (0, 3));
        assert_eq!(plan.advance(1, 20 << 20), (16 << 20, 16 << 20));
        // The last whole part, of five bytes, then half of the slow one.
        assert_eq!(give(&mut plan, 1, 1), Given::Part);
        assert_eq!(plan.taken[1].span.left(), 5);
        plan.advance(1, 5);
        assert_eq!(give(&mut plan, 1, 2), Given::Part);
        let (slow, fast) = (plan.taken[0].span, plan.taken[1].span);
        assert_eq!((slow.at, slow.end, fast.end), (3, fast.at, 16 << 20));
        // Bytes that come late belong to the other by now.
        assert_eq!(plan.advance(0, 16 << 20).1, slow.left());
        plan.advance(1, fast.left());
        assert_eq!(give(&mut plan, 0, 3), Given::End);
        assert_eq!(give(&mut plan, 1, 3), Given::End);
    }

    #[test]
    fn nobody_waits_for_a_file_that_takes_no_more() {
        let start = Instant::now();
        let mut plan = Plan::new(32 << 20, DOWNLOADS, start);
        plan.give(0, start);
        plan.give(1, start);
        plan.advance(0, (16 << 20) - 5);
        plan.advance(1, 16 << 20);
        // Too little to be divided.
        assert_eq!(plan.give(1, start + LOOK), Given::Nothing);
        plan.end();
        assert_eq!(plan.give(0, start + LOOK), Given::End);
        assert_eq!(plan.give(1, start + LOOK), Given::End);
    }

    #[test]
    fn a_fast_part_is_left_to_its_connection() {
        let start = Instant::now();
        let moment = Duration::from_millis(100);
        let mut plan = Plan::new(32 << 20, DOWNLOADS, start);
        plan.give(0, start);
        plan.give(1, start);
        plan.advance(0, 8 << 20);
        plan.advance(1, 16 << 20);
        // The rest takes as long as the first half has.
        assert_eq!(plan.give(1, start + SLOW - moment), Given::Nothing);
        // It has stood still since.
        assert_eq!(plan.give(1, start + SLOW + moment), Given::Part);
        assert_eq!(plan.taken[1].span.left(), 4 << 20);
    }
}
