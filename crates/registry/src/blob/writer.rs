//! A file that is written in any order and hashed in its own, on a thread beside the
//! network: what lies at the end of what has been hashed is hashed as it comes, the rest is
//! read again once what is missing before it is there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Arriving;
use crate::Hasher;

/// Pieces from the network that wait to be written.
const WRITE_BEHIND: usize = 64;
const READ: usize = 1 << 20;

/// Takes pieces for a file.
pub(super) struct Writer {
    sender: mpsc::Sender<(u64, Bytes)>,
    task: JoinHandle<io::Result<Written>>,
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
        let (sender, mut receiver) = mpsc::channel::<(u64, Bytes)>(WRITE_BEHIND);
        let mut state = Written {
            file,
            hasher,
            hashed: 0,
            beyond: BTreeMap::new(),
        };
        let task = tokio::task::spawn_blocking(move || {
            while let Some((at, piece)) = receiver.blocking_recv() {
                state.write(at, &piece)?;
                if let Some(arriving) = &arriving {
                    arriving.reach(state.hashed);
                }
            }
            Ok(state)
        });
        Self { sender, task }
    }

    /// Hands a piece over; false when writing has failed, which `finish` explains.
    pub(super) async fn write(&self, at: u64, piece: Bytes) -> bool {
        self.sender.send((at, piece)).await.is_ok()
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
    use super::*;
    use crate::Digest;

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
