//! The stream of a layer's tar. A thread may decompress and hash ahead of whoever reads:
//! inflating costs about as much as taking files apart, hashing and writing them.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Builder, Scope};

use ocibuild_registry::Digest;

use super::decompress::{BUFFER, Decompressed};
use super::read::Encoding;
use super::{Error, Limits};

/// How many buffers may be filled ahead: a megabyte.
const AHEAD: usize = 8;

/// The uncompressed bytes of a layer, every one of them hashed on its way.
pub(super) struct Stream<'r> {
    source: Source<'r>,
    buffer: Vec<u8>,
    consumed: usize,
    filled: usize,
    /// Bytes that have left the source.
    total: u64,
    failed: bool,
}

/// Where the bytes come from.
enum Source<'r> {
    Here(Box<Decompressed<'r>>),
    Ahead(Ahead),
}

/// What a thread has decompressed.
struct Ahead {
    parts: Receiver<Result<Part, Error>>,
    /// Where buffers go back to.
    used: Sender<Vec<u8>>,
    digest: Option<Digest>,
}

enum Part {
    /// A buffer, and how much of it is filled.
    Bytes(Vec<u8>, usize),
    /// The end, with the digest of everything.
    End(Digest),
}

impl<'r> Stream<'r> {
    /// Decompresses while it is read.
    pub(super) fn open(
        reader: impl Read + 'r,
        encoding: Encoding,
        limits: &Limits,
    ) -> Result<Self, Error> {
        let decompressed = Decompressed::open(reader, encoding, limits)?;
        let source = Source::Here(Box::new(decompressed));
        Ok(Self::new(source, vec![0; BUFFER]))
    }

    /// Decompresses on a thread of `scope`, which ends when nobody reads any more.
    pub(super) fn ahead<'scope>(
        scope: &'scope Scope<'scope, '_>,
        reader: impl Read + Send + 'scope,
        encoding: Encoding,
        limits: &Limits,
    ) -> Result<Self, Error> {
        let (parts, received) = sync_channel(AHEAD);
        let (used, free) = channel();
        let limits = limits.clone();
        Builder::new()
            .name("decompress".to_owned())
            .spawn_scoped(scope, move || {
                let end = Decompressed::open(reader, encoding, &limits)
                    .and_then(|from| run_ahead(from, &parts, &free));
                if let Some(end) = end.transpose() {
                    // Whoever has stopped to read does not want to know how it ends.
                    let _ = parts.send(end.map(Part::End));
                }
            })
            .map_err(Error::Read)?;
        let ahead = Ahead {
            parts: received,
            used,
            digest: None,
        };
        Ok(Self::new(Source::Ahead(ahead), Vec::new()))
    }

    fn new(source: Source<'r>, buffer: Vec<u8>) -> Self {
        Self {
            source,
            buffer,
            consumed: 0,
            filled: 0,
            total: 0,
            failed: false,
        }
    }

    /// Gives the position of the next byte.
    pub(super) fn position(&self) -> u64 {
        self.total - (self.filled - self.consumed) as u64
    }

    /// Fills `target`, or as much of it as there is.
    pub(super) fn read_full(&mut self, target: &mut [u8]) -> Result<usize, Error> {
        let mut done = 0;
        while done < target.len() {
            match self.read_some(&mut target[done..])? {
                0 => break,
                count => done += count,
            }
        }
        Ok(done)
    }

    /// Reads what is at hand; 0 is the end.
    pub(super) fn read_some(&mut self, target: &mut [u8]) -> Result<usize, Error> {
        let ready = self.ready()?;
        let count = ready.len().min(target.len());
        target[..count].copy_from_slice(&ready[..count]);
        self.consumed += count;
        Ok(count)
    }

    /// Passes over `count` bytes; tells how many there were.
    pub(super) fn skip(&mut self, count: u64) -> Result<u64, Error> {
        let mut left = count;
        while left > 0 {
            let ready = self.ready()?.len();
            if ready == 0 {
                break;
            }
            let step = usize::try_from(left).map_or(ready, |left| left.min(ready));
            self.consumed += step;
            left -= step as u64;
        }
        Ok(count - left)
    }

    /// Reads to the end and gives digest and size of the whole stream.
    pub(super) fn finish(mut self) -> Result<(Digest, u64), Error> {
        self.skip(u64::MAX)?;
        let digest = match self.source {
            Source::Here(source) => source.digest(),
            Source::Ahead(ahead) => ahead.digest.ok_or_else(stopped)?,
        };
        Ok((digest, self.total))
    }

    fn ready(&mut self) -> Result<&[u8], Error> {
        if self.consumed == self.filled {
            if self.failed {
                return Err(Error::Read(io::Error::other("an earlier read failed")));
            }
            self.consumed = 0;
            self.filled = 0;
            let filled = self.source.fill(&mut self.buffer);
            self.failed = filled.is_err();
            self.filled = filled?;
            self.total += self.filled as u64;
        }
        Ok(&self.buffer[self.consumed..self.filled])
    }
}

impl Source<'_> {
    /// Puts the next bytes at the begin of `buffer`, which may be exchanged for another.
    fn fill(&mut self, buffer: &mut Vec<u8>) -> Result<usize, Error> {
        match self {
            Self::Here(source) => source.fill(buffer),
            Self::Ahead(ahead) => ahead.fill(buffer),
        }
    }
}

impl Ahead {
    fn fill(&mut self, buffer: &mut Vec<u8>) -> Result<usize, Error> {
        if self.digest.is_some() {
            return Ok(0);
        }
        match self.parts.recv().map_err(|_| stopped())?? {
            Part::Bytes(bytes, count) => {
                let used = std::mem::replace(buffer, bytes);
                // The thread may be done with everything.
                let _ = self.used.send(used);
                Ok(count)
            }
            Part::End(digest) => {
                self.digest = Some(digest);
                Ok(0)
            }
        }
    }
}

/// A thread that ends says why, unless it panics.
fn stopped() -> Error {
    Error::Read(io::Error::other("the decompression has stopped"))
}

/// Decompresses everything; gives nothing where nobody reads any more.
fn run_ahead(
    mut from: Decompressed<'_>,
    parts: &SyncSender<Result<Part, Error>>,
    free: &Receiver<Vec<u8>>,
) -> Result<Option<Digest>, Error> {
    loop {
        let mut buffer = free.try_recv().unwrap_or_default();
        buffer.resize(BUFFER, 0);
        let count = from.fill(&mut buffer)?;
        if count == 0 {
            return Ok(Some(from.digest()));
        }
        if parts.send(Ok(Part::Bytes(buffer, count))).is_err() {
            return Ok(None);
        }
    }
}
