//! One blob over several connections. Whoever has loaded its part takes the next one, and
//! when all are given out, half of what is left of the largest: so a slow connection ends
//! with a small rest, and no byte is asked for twice. A connection that stands still is
//! given up soon, and its part is asked for anew behind what has come.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;

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
/// What is left of a part is divided as long as it is larger.
const DIVIDED: u64 = 4 << 20;

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

/// What has been given out and what has not.
#[derive(Debug, Default)]
struct Plan {
    waiting: VecDeque<Span>,
    /// By the number of the connection.
    taken: Vec<Span>,
}

impl Plan {
    fn new(size: u64, downloads: Downloads) -> Self {
        let starts = (0..size).step_by(usize::try_from(downloads.part).unwrap_or(usize::MAX));
        let span = |at| Span {
            at,
            end: size.min(at + downloads.part),
        };
        Self {
            waiting: starts.map(span).collect(),
            taken: vec![Span { at: 0, end: 0 }; downloads.at_once],
        }
    }

    /// Gives a connection something to do; false when there is nothing left.
    fn give(&mut self, worker: usize) -> bool {
        if let Some(next) = self.waiting.pop_front() {
            self.taken[worker] = next;
            return true;
        }
        let largest = (0..self.taken.len()).max_by_key(|&other| self.taken[other].left());
        let Some(other) = largest.filter(|&other| self.taken[other].left() >= DIVIDED) else {
            return false;
        };
        let whole = self.taken[other];
        let middle = whole.at + whole.left() / 2;
        self.taken[other].end = middle;
        self.taken[worker] = Span {
            at: middle,
            end: whole.end,
        };
        true
    }

    /// Takes in bytes that have come; gives where they belong, and how many of them still
    /// belong to this connection.
    fn advance(&mut self, worker: usize, length: u64) -> (u64, u64) {
        let span = &mut self.taken[worker];
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
            plan: Mutex::new(Plan::new(size, downloads)),
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
        while self.plan().give(worker) {
            loop {
                match self.load_part(worker, writer, progress, &mut backoff).await {
                    Ok(()) => break,
                    Err((Some(place), error)) if self.places.leave(place, &error) => {}
                    Err((_, error)) => backoff.pause(error).await?,
                }
            }
            if self.plan().taken[worker].left() > 0 {
                // The file takes no more.
                break;
            }
        }
        Ok(())
    }

    /// Loads what is left of a connection's part, over one answer.
    async fn load_part(
        &self,
        worker: usize,
        writer: &Writer,
        progress: &Progress,
        backoff: &mut Backoff,
    ) -> Result<(), (Option<Place>, Error)> {
        let span = self.plan().taken[worker];
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
            if self.plan().taken[worker].left() == 0 {
                return Ok(());
            }
        }
        match self.plan().taken[worker].left() {
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

    #[test]
    fn what_is_left_of_a_slow_part_is_divided() {
        let downloads = Downloads {
            part: 16 << 20,
            at_once: 2,
        };
        let mut plan = Plan::new((32 << 20) + 5, downloads);
        assert!(plan.give(0) && plan.give(1));
        assert_eq!(plan.advance(0, 3), (0, 3));
        assert_eq!(plan.advance(1, 20 << 20), (16 << 20, 16 << 20));
        // The last whole part, of five bytes, then half of the slow one.
        assert!(plan.give(1));
        assert_eq!(plan.taken[1].left(), 5);
        plan.advance(1, 5);
        assert!(plan.give(1));
        let (slow, fast) = (plan.taken[0], plan.taken[1]);
        assert_eq!((slow.at, slow.end, fast.end), (3, fast.at, 16 << 20));
        // Bytes that come late belong to the other by now.
        assert_eq!(plan.advance(0, 16 << 20).1, slow.left());
        plan.advance(1, fast.left());
        assert!(!plan.give(0) && !plan.give(1));
    }
}
