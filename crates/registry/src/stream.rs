//! Files as streams of bytes and streams of bytes as files. Reading, writing and
//! hashing happen on a blocking thread of their own, beside the network.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::Hasher;
use crate::blob::Arriving;

/// One read; small ones cost more than they carry (4 KiB reads: five times the CPU).
const PIECE: usize = 256 * 1024;
/// Pieces that are read ahead.
const READ_AHEAD: usize = 4;
/// Pieces from the network, usually smaller than ours, that wait to be written.
const WRITE_BEHIND: usize = 32;

/// Streams `length` bytes of a file from `offset`; a shorter file is an error. No thread is
/// held while nobody takes the bytes, however many files are being read.
pub(crate) fn read(
    file: File,
    offset: u64,
    length: u64,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let file = Arc::new(file);
    let end = offset + length;
    let starts = (offset..end).step_by(PIECE);
    stream::iter(starts)
        .map(move |start| {
            let (file, size) = (Arc::clone(&file), (end - start).min(PIECE as u64));
            let read = tokio::task::spawn_blocking(move || read_piece(&file, start, size));
            async { read.await.map_err(io::Error::other)? }
        })
        .buffered(READ_AHEAD)
}

/// Reads into room that is not cleared before.
fn read_piece(file: &File, start: u64, size: u64) -> io::Result<Bytes> {
    // Lossless: at most a piece.
    let mut piece = Vec::with_capacity(size as usize);
    while (piece.len() as u64) < size {
        let at = start + piece.len() as u64;
        // No more than its capacity is read, and that is what was asked for.
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut piece), at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    piece.truncate(size as usize);
    Ok(piece.into())
}

/// A file that is being written and hashed.
pub(crate) struct Sink {
    sender: mpsc::Sender<Bytes>,
    task: JoinHandle<io::Result<Written>>,
}

/// A file that has been written, with the hash of what was written so far.
pub(crate) struct Written {
    pub(crate) file: File,
    pub(crate) hasher: Hasher,
    pub(crate) length: u64,
    /// Somebody reads it meanwhile.
    pub(crate) arriving: Option<Arc<Arriving>>,
}

impl Sink {
    /// Goes on writing where `state` ends.
    pub(crate) fn start(mut state: Written) -> Self {
        let (sender, mut receiver) = mpsc::channel::<Bytes>(WRITE_BEHIND);
        let task = tokio::task::spawn_blocking(move || {
            while let Some(piece) = receiver.blocking_recv() {
                state.file.write_all(&piece)?;
                state.hasher.update(&piece);
                state.length += piece.len() as u64;
                if let Some(arriving) = &state.arriving {
                    arriving.reach(state.length);
                }
            }
            Ok(state)
        });
        Self { sender, task }
    }

    /// Hands a piece over; false when writing has failed, which `finish` explains.
    pub(crate) async fn write(&self, piece: Bytes) -> bool {
        self.sender.send(piece).await.is_ok()
    }

    /// Waits until everything is written.
    pub(crate) async fn finish(self) -> io::Result<Written> {
        drop(self.sender);
        self.task.await.map_err(io::Error::other)?
    }
}
