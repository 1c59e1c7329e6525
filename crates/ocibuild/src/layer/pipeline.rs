//! Blocks of a tar become a blob: compressed on several threads, written in order.
//!
//! The caller hands over blocks; workers compress whichever comes next; one thread
//! writes the results in the order of the blocks and computes the digest of the
//! blob. The queue of results is bounded, which bounds the memory: about three
//! MiB per thread with blocks of one MiB. One thread means no thread but the caller's.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use ocibuild_registry::{Digest, Hasher};

use super::compress::{BlockEncoder, Encoded};
use super::{Options, gzip};

/// Results that may wait beyond those that are being made.
const SPARE_BLOCKS: usize = 2;

/// A blob that has been written.
pub(super) struct Blob<W> {
    pub(super) out: W,
    pub(super) size: u64,
    /// The digest of the blob; `None` where it is the tar itself.
    pub(super) digest: Option<Digest>,
}

/// Takes blocks and writes the blob.
pub(super) enum Pipeline<W> {
    Inline(Box<Inline<W>>),
    Threads(Threads<W>),
}

impl<W: Write + Send + 'static> Pipeline<W> {
    pub(super) fn new(options: &Options, out: W) -> io::Result<Self> {
        let encoder = options.compression.encoder(options.level)?;
        let sink = Sink::new(options, out);
        Ok(match encoder {
            Some(_) if options.threads > 1 => Self::Threads(Threads::spawn(options, sink)?),
            encoder => Self::Inline(Box::new(Inline {
                encoder,
                sink,
                spare: None,
            })),
        })
    }

    /// Gives room for a block: that of an earlier one where it is not needed any more.
    pub(super) fn room(&mut self, size: usize) -> Vec<u8> {
        let spare = match self {
            Self::Inline(inline) => inline.spare.take(),
            Self::Threads(threads) => threads.spare.try_recv().ok(),
        };
        match spare {
            Some(mut room) => {
                room.resize(size, 0);
                room
            }
            // Cleared memory of the kernel, which costs nothing until it is used.
            None => vec![0; size],
        }
    }

    pub(super) fn submit(&mut self, block: Vec<u8>) -> io::Result<()> {
        match self {
            Self::Inline(inline) => {
                inline.submit(&block)?;
                inline.spare = Some(block);
                Ok(())
            }
            Self::Threads(threads) => threads.submit(block),
        }
    }

    pub(super) fn finish(self) -> io::Result<Blob<W>> {
        match self {
            Self::Inline(inline) => inline.sink.finish(),
            Self::Threads(threads) => threads.finish(),
        }
    }
}

/// Everything on the caller's thread.
pub(super) struct Inline<W> {
    encoder: Option<BlockEncoder>,
    sink: Sink<W>,
    /// The block before, for its room.
    spare: Option<Vec<u8>>,
}

impl<W: Write> Inline<W> {
    fn submit(&mut self, block: &[u8]) -> io::Result<()> {
        match &mut self.encoder {
            None => self.sink.write(block),
            Some(encoder) => {
                let encoded = encoder.encode(block)?;
                self.sink.add(&encoded, block.len())
            }
        }
    }
}

/// The end of the line: what stands around the blocks, digest, size, output.
struct Sink<W> {
    out: W,
    frame: Option<gzip::Frame>,
    hasher: Option<Hasher>,
    size: u64,
    begun: bool,
}

impl<W: Write> Sink<W> {
    fn new(options: &Options, out: W) -> Self {
        let compressed = options.compression != super::Compression::None;
        Self {
            out,
            frame: options.compression.frame(),
            hasher: compressed.then(Hasher::sha256),
            size: 0,
            begun: false,
        }
    }

    fn add(&mut self, encoded: &Encoded, size: usize) -> io::Result<()> {
        self.begin()?;
        self.write(&encoded.bytes)?;
        if let Some(frame) = &mut self.frame {
            frame.add(encoded, size);
        }
        Ok(())
    }

    fn begin(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.begun, true)
            && let Some(frame) = &self.frame
        {
            self.write(frame.begin())?;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.size += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn finish(mut self) -> io::Result<Blob<W>> {
        self.begin()?;
        if let Some(frame) = self.frame.take() {
            self.write(&frame.end())?;
        }
        self.out.flush()?;
        Ok(Blob {
            out: self.out,
            size: self.size,
            digest: self.hasher.map(Hasher::finish),
        })
    }
}

/// A block on its way to a worker, with the place where its result is awaited.
struct Job {
    block: Vec<u8>,
    done: SyncSender<Done>,
}

/// A compressed block and the size that it had before.
type Done = io::Result<(Encoded, usize)>;

/// Workers and the writing thread. Dropped without [`Threads::finish`], it waits for
/// them, so that nothing is written after the caller has gone on.
pub(super) struct Threads<W> {
    queues: Option<Queues>,
    workers: Vec<JoinHandle<()>>,
    writer: Option<JoinHandle<io::Result<Blob<W>>>>,
    /// Blocks that have been compressed, for their room.
    spare: Receiver<Vec<u8>>,
}

struct Queues {
    jobs: Sender<Job>,
    results: SyncSender<Receiver<Done>>,
}

impl<W: Write + Send + 'static> Threads<W> {
    fn spawn(options: &Options, sink: Sink<W>) -> io::Result<Self> {
        let (jobs, todo) = channel();
        let (results, in_order) = sync_channel(options.threads + SPARE_BLOCKS);
        let (done_with, spare) = channel();
        let mut threads = Self {
            queues: Some(Queues { jobs, results }),
            workers: Vec::new(),
            writer: None,
            spare,
        };
        let todo = Arc::new(Mutex::new(todo));
        for _ in 0..options.threads {
            let Some(encoder) = options.compression.encoder(options.level)? else {
                break;
            };
            let (todo, done_with) = (Arc::clone(&todo), done_with.clone());
            let worker = Builder::new().name("layer-compress".to_owned());
            threads
                .workers
                .push(worker.spawn(move || compress_all(&todo, &done_with, encoder))?);
        }
        let writer = Builder::new().name("layer-write".to_owned());
        threads.writer = Some(writer.spawn(move || write_all(&in_order, sink))?);
        Ok(threads)
    }

    fn submit(&mut self, block: Vec<u8>) -> io::Result<()> {
        let (done, result) = sync_channel(1);
        let accepted = self.queues.as_ref().is_some_and(|queues| {
            // The bounded queue comes first: it is what makes the caller wait.
            queues.results.send(result).is_ok() && queues.jobs.send(Job { block, done }).is_ok()
        });
        if accepted {
            return Ok(());
        }
        // The writing thread has gone: it failed, and its result says why.
        Err(match self.join() {
            Err(error) => error,
            Ok(_) => gone(),
        })
    }

    fn finish(mut self) -> io::Result<Blob<W>> {
        self.join()
    }
}

impl<W> Threads<W> {
    fn join(&mut self) -> io::Result<Blob<W>> {
        self.queues = None;
        let workers = self.workers.drain(..).map(JoinHandle::join);
        let workers_ended = workers.fold(true, |all, ended| all & ended.is_ok());
        let writer = self.writer.take().ok_or_else(gone)?;
        let written = writer.join().map_err(|_| gone())?;
        if workers_ended { written } else { Err(gone()) }
    }
}

impl<W> Drop for Threads<W> {
    fn drop(&mut self) {
        // After `finish` there is nothing left to join; otherwise the layer is given up
        // and its result is of no interest.
        drop(self.join());
    }
}

fn gone() -> io::Error {
    io::Error::other("a thread of the layer pipeline ended early")
}

fn compress_all(
    todo: &Mutex<Receiver<Job>>,
    done_with: &Sender<Vec<u8>>,
    mut encoder: BlockEncoder,
) {
    loop {
        let job = todo.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { block, done }) = job else {
            return;
        };
        let result = encoder.encode(&block).map(|bytes| (bytes, block.len()));
        // A writer that has failed takes no more results, and a layer that ends no blocks.
        let _ = done.send(result);
        let _ = done_with.send(block);
    }
}

fn write_all<W: Write>(
    in_order: &Receiver<Receiver<Done>>,
    mut sink: Sink<W>,
) -> io::Result<Blob<W>> {
    for result in in_order {
        let (encoded, size) = result.recv().map_err(|_| gone())??;
        sink.add(&encoded, size)?;
    }
    sink.finish()
}
