//! A file that is written in any order and hashed in its own, on two threads beside the
//! network: the hash follows what is there of the beginning of the file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::arriving::{Arrived, Arriving, arriving};
use crate::Hasher;

/// Bytes from the network that wait to be written, over all connections: many together, since
/// a piece is whatever was in the buffer of a socket.
const WRITE_BEHIND: usize = 8 << 20;
const READ: usize = 1 << 20;

/// Takes pieces for a file.
pub(super) struct Writer {
    sender: mpsc::UnboundedSender<Piece>,
    room: Arc<Semaphore>,
    writing: JoinHandle<io::Result<Written>>,
    hashing: JoinHandle<io::Result<Hasher>>,
    size: u64,
}

/// Bytes, where they belong, and the room that they take while they wait.
struct Piece {
    at: u64,
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

/// What has come of a file.
pub(super) enum Loaded {
    /// All of it, with its hash.
    Whole(Box<Hasher>),
    /// So many bytes of its beginning, and not all.
    Part(u64),
}

/// A file of which the beginning has been written.
struct Written {
    file: File,
    /// How much of the beginning is there.
    ready: u64,
    /// What has been written beyond: ends by beginnings.
    beyond: BTreeMap<u64, u64>,
    /// Who reads it meanwhile.
    readers: Vec<Arc<Arriving>>,
}

impl Writer {
    /// Begins to write a file of `size` bytes, which somebody else may read meanwhile.
    pub(super) fn start(
        file: File,
        size: u64,
        hasher: Hasher,
        reader: Option<Arc<Arriving>>,
    ) -> io::Result<Self> {
        let (to_hash, arrived) = arriving();
        to_hash.begin(file.try_clone()?);
        let readers = reader.into_iter().chain([Arc::new(to_hash)]).collect();
        let written = Written::new(file, readers);
        let (sender, receiver) = mpsc::unbounded_channel();
        Ok(Self {
            sender,
            room: Arc::new(Semaphore::new(WRITE_BEHIND)),
            writing: tokio::task::spawn_blocking(move || written.write_all(receiver)),
            hashing: tokio::task::spawn_blocking(move || hash(arrived, size, hasher)),
            size,
        })
    }

    /// Hands a piece over; false when writing has failed, which `finish` explains.
    pub(super) async fn write(&self, at: u64, bytes: Bytes) -> bool {
        // Lossless: at most the room that there is.
        let size = bytes.len().min(WRITE_BEHIND) as u32;
        let Ok(room) = Arc::clone(&self.room).acquire_many_owned(size).await else {
            return false;
        };
        let piece = Piece {
            at,
            bytes,
            _room: room,
        };
        self.sender.send(piece).is_ok()
    }

    /// Waits until everything is written and hashed.
    pub(super) async fn finish(self) -> io::Result<Loaded> {
        drop(self.sender);
        let written = self.writing.await.map_err(io::Error::other)??;
        if written.ready != self.size {
            return Ok(Loaded::Part(written.ready));
        }
        // What has been written is kept: the hash is told of no loss before it has read all.
        let hashed = self.hashing.await.map_err(io::Error::other)?;
        drop(written);
        Ok(Loaded::Whole(Box::new(hashed?)))
    }
}

/// Hashes so many bytes as they arrive.
fn hash(mut arrived: Arrived, size: u64, mut hasher: Hasher) -> io::Result<Hasher> {
    let mut buffer = vec![0; READ];
    let mut left = size;
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(READ).min(READ);
        let count = arrived.read(&mut buffer[..wanted])?;
        hasher.update(&buffer[..count]);
        left -= count as u64;
    }
    Ok(hasher)
}

impl Written {
    fn new(file: File, readers: Vec<Arc<Arriving>>) -> Self {
        Self {
            file,
            ready: 0,
            beyond: BTreeMap::new(),
            readers,
        }
    }

    fn write_all(mut self, mut pieces: mpsc::UnboundedReceiver<Piece>) -> io::Result<Self> {
        while let Some(piece) = pieces.blocking_recv() {
            self.write(piece.at, &piece.bytes)?;
        }
        Ok(self)
    }

    fn write(&mut self, at: u64, piece: &[u8]) -> io::Result<()> {
        self.file.write_all_at(piece, at)?;
        let end = at + piece.len() as u64;
        if at == self.ready {
            self.ready = end;
            while let Some(end) = self.beyond.remove(&self.ready) {
                self.ready = end;
            }
            for reader in &self.readers {
                reader.reach(self.ready);
            }
            return Ok(());
        }
        match self.beyond.range_mut(..at).next_back() {
            Some((_, last)) if *last == at => *last = end,
            _ => {
                self.beyond.insert(at, end);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::Digest;

    #[tokio::test]
    async fn no_more_bytes_wait_than_there_is_room_for() {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let writer = Writer {
            sender,
            room: Arc::new(Semaphore::new(WRITE_BEHIND)),
            writing: tokio::spawn(std::future::pending()),
            hashing: tokio::spawn(std::future::pending()),
            size: 0,
        };
        let piece = Bytes::from(vec![0; WRITE_BEHIND / 2 + 1]);
        assert!(writer.write(0, piece.clone()).await);
        assert!(writer.write(1, piece.clone()).now_or_never().is_none());
        drop(receiver.recv().await);
        assert!(writer.write(1, piece).await);
        // One that is larger than all the room has it alone.
        drop(receiver.recv().await);
        let large = Bytes::from(vec![0; WRITE_BEHIND + 1]);
        assert!(writer.write(2, large).await);
        drop(receiver);
        let refused = Bytes::from_static(b"x");
        assert!(!writer.write(3, refused).await);
        writer.writing.abort();
        writer.hashing.abort();
    }

    /// Writes parts of a content that end at these places, in this order.
    async fn loaded(content: &[u8], ends: &[usize], order: &[usize]) -> Loaded {
        let file = tempfile::tempfile().unwrap();
        let size = content.len() as u64;
        let writer = Writer::start(file, size, Hasher::sha256(), None).unwrap();
        for &part in order {
            let from = if part == 0 { 0 } else { ends[part - 1] };
            let piece = Bytes::copy_from_slice(&content[from..ends[part]]);
            assert!(writer.write(from as u64, piece).await);
        }
        writer.finish().await.unwrap()
    }

    #[tokio::test]
    async fn pieces_in_any_order_give_the_hash_of_the_whole() {
        let whole: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let ends = [5, 4_000_000, 4_000_001, 9_999_999, 12_000_000];
        match loaded(&whole, &ends, &[3, 2, 4, 0, 1]).await {
            Loaded::Whole(hasher) => assert_eq!(hasher.finish(), Digest::sha256(&whole)),
            Loaded::Part(ready) => panic!("{ready} bytes"),
        }
        let Loaded::Part(ready) = loaded(&whole, &ends, &[0, 1, 3, 4]).await else {
            panic!("a part is missing");
        };
        assert_eq!(ready, 4_000_000);
    }

    #[tokio::test]
    async fn a_file_that_takes_nothing_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, "x").unwrap();
        let read_only = File::open(path).unwrap();
        let writer = Writer::start(read_only, 1, Hasher::sha256(), None).unwrap();
        writer.write(0, Bytes::from_static(b"y")).await;
        writer.finish().await.map(drop).unwrap_err();
    }
}
