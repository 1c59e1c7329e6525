//! Files as streams of bytes and streams of bytes as files. Reading, writing and
//! hashing happen on a blocking thread of their own, beside the network.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use crate::Hasher;

/// One read; small ones cost more than they carry (4 KiB reads: five times the CPU).
const PIECE: usize = 256 * 1024;
/// Pieces that are read ahead.
const READ_AHEAD: usize = 4;
/// Pieces from the network, usually smaller than ours, that wait to be written.
const WRITE_BEHIND: usize = 32;

/// Streams `length` bytes of a file from `offset`; a shorter file is an error.
pub(crate) fn read(file: File, offset: u64, length: u64) -> ReceiverStream<io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = read_into(file, offset, length, &sender) {
            // Nobody is left to hear of it when the stream has been dropped.
            let _ = sender.blocking_send(Err(error));
        }
    });
    ReceiverStream::new(receiver)
}

fn read_into(
    mut file: File,
    offset: u64,
    length: u64,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    if offset > 0 {
        file.seek(SeekFrom::Start(offset))?;
    }
    let mut left = length;
    while left > 0 {
        let size = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        let mut piece = BytesMut::zeroed(size);
        file.read_exact(&mut piece)?;
        left -= size as u64;
        if sender.blocking_send(Ok(piece.freeze())).is_err() {
            return Ok(());
        }
    }
    Ok(())
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
