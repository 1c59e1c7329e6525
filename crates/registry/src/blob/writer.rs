//! A file that is written in any order and hashed in its own, on a thread beside the
//! network: what lies at the end of what has been hashed is hashed as it comes, the rest is
//! read again once what is missing before it is there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::Arriving;
use crate::Hasher;

/// Bytes from the network that wait to be written, over all connections: many together, since
/// a piece is whatever was in the buffer of a socket.
const WRITE_BEHIND: usize = 8 << 20;
const READ: usize = 1 << 20;

/// Takes pieces for a file.
pub(super) struct Writer {
    sender: mpsc::UnboundedSender<Piece>,
    room: Arc<Semaphore>,
    task: JoinHandle<io::Result<Written>>,
}

/// Bytes, where they belong, and the room that they take while they wait.
struct Piece {
    at: u64,
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

/// A file of which the beginning has been written and hashed.
pub(super) struct Written {
    file: File,
    pub(super) hasher: Hasher,
    /// How far it has been hashed.
    pub(super) hashed: u64,
    /// What has been written beyond: ends by beginnings.
    beyond: BTreeMap<u64, u64>,
}

impl Writer {
    pub(super) fn start(file: File, hasher: Hasher, arriving: Option<Arc<Arriving>>) -> Self {
        let (sender, mut receiver) = mpsc::unbounded_channel::<Piece>();
        let mut state = Written {
            file,
            hasher,
            hashed: 0,
            beyond: BTreeMap::new(),
        };
        let task = tokio::task::spawn_blocking(move || {
            while let Some(piece) = receiver.blocking_recv() {
                state.write(piece.at, &piece.bytes)?;
                if let Some(arriving) = &arriving {
                    arriving.reach(state.hashed);
                }
            }
            Ok(state)
        });
        Self {
            sender,
            room: Arc::new(Semaphore::new(WRITE_BEHIND)),
            task,
        }
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

    /// Waits until everything is written.
    pub(super) async fn finish(self) -> io::Result<Written> {
        drop(self.sender);
        self.task.await.map_err(io::Error::other)?
    }
}

impl Written {
    fn write(&mut self, at: u64, piece: &[u8]) -> io::Result<()> {
        self.file.write_all_at(piece, at)?;
        let end = at + piece.len() as u64;
        if at == self.hashed {
            self.hasher.update(piece);
            self.hashed = end;
            return self.catch_up();
        }
        match self.beyond.range_mut(..at).next_back() {
            Some((_, last)) if *last == at => *last = end,
            _ => {
                self.beyond.insert(at, end);
            }
        }
        Ok(())
    }

    fn catch_up(&mut self) -> io::Result<()> {
        while let Some(end) = self.beyond.remove(&self.hashed) {
            let mut buffer = vec![0; READ];
            while self.hashed < end {
                let wanted = usize::try_from(end - self.hashed).unwrap_or(READ).min(READ);
                self.file
                    .read_exact_at(&mut buffer[..wanted], self.hashed)?;
                self.hasher.update(&buffer[..wanted]);
                self.hashed += wanted as u64;
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
        let room = Arc::new(Semaphore::new(WRITE_BEHIND));
        let task = tokio::spawn(std::future::pending());
        let writer = Writer { sender, room, task };
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
        writer.task.abort();
    }

    #[test]
    fn pieces_in_any_order_give_the_hash_of_the_whole() {
        let whole: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut written = Written {
            file: tempfile::tempfile().unwrap(),
            hasher: Hasher::sha256(),
            hashed: 0,
            beyond: BTreeMap::new(),
        };
        let mut cuts = [0, 12_000_000, 5, 4_000_000, 4_000_001, 9_999_999];
        cuts.sort_unstable();
        for at in [3, 2, 4, 0, 1] {
            let (from, to) = (cuts[at], cuts[at + 1]);
            written.write(from as u64, &whole[from..to]).unwrap();
        }
        assert_eq!(written.hashed, whole.len() as u64);
        assert_eq!(written.hasher.finish(), Digest::sha256(&whole));
    }
}
