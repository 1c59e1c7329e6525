//! The end of a log in memory: what everybody who follows it reads, so that any number of
//! followers costs one reading.

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;

/// How much of the end is kept. Who is further behind reads the log itself.
const TAIL_BYTES: usize = 256 << 10;

/// How far a log has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Feed {
    /// The length that readers may see.
    pub(crate) length: u64,
    /// The log does not grow any more.
    pub(crate) ended: bool,
    /// The last bytes.
    tail: Bytes,
}

impl Feed {
    /// Begins behind `length` bytes, none of which are in memory.
    pub(crate) fn at(length: u64, ended: bool) -> Self {
        Self {
            length,
            ended,
            tail: Bytes::new(),
        }
    }

    /// Adds bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let room = TAIL_BYTES.saturating_sub(bytes.len());
        let kept = self.tail.len().min(room);
        let mut tail = BytesMut::with_capacity(kept + bytes.len().min(TAIL_BYTES));
        tail.extend_from_slice(&self.tail[self.tail.len() - kept..]);
        tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]);
        self.tail = tail.freeze();
        self.length += bytes.len() as u64;
    }

    /// Gives what follows `offset`, if it is in memory.
    pub(crate) fn since(&self, offset: u64) -> Option<Bytes> {
        let behind = usize::try_from(self.length.checked_sub(offset)?).ok()?;
        let start = self.tail.len().checked_sub(behind)?;
        Some(self.tail.slice(start..))
    }
}

/// Where a feed is written.
pub(crate) type FeedSender = watch::Sender<Feed>;
/// Where a feed is read.
pub(crate) type FeedReceiver = watch::Receiver<Feed>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_there_and_the_rest_is_not() {
        let mut feed = Feed::at(10, false);
        assert_eq!(feed.since(10).as_deref(), Some(&b""[..]));
        assert_eq!(feed.since(9), None);
        feed.push(b"hello");
        feed.push(b" world");
        assert_eq!(feed.length, 21);
        assert_eq!(feed.since(10).as_deref(), Some(&b"hello world"[..]));
        assert_eq!(feed.since(15).as_deref(), Some(&b" world"[..]));
        assert_eq!(feed.since(21).as_deref(), Some(&b""[..]));
        assert_eq!(feed.since(22), None, "nobody is further than the log");
    }

    #[test]
    fn memory_is_limited() {
        let mut feed = Feed::at(0, false);
        feed.push(&vec![b'a'; TAIL_BYTES - 1]);
        feed.push(b"bc");
        let all = TAIL_BYTES as u64 + 1;
        assert_eq!(
            feed.since(all - TAIL_BYTES as u64).unwrap().len(),
            TAIL_BYTES
        );
        assert_eq!(feed.since(0), None);
        feed.push(&vec![b'd'; 3 * TAIL_BYTES]);
        assert_eq!(feed.tail.len(), TAIL_BYTES);
        assert_eq!(feed.length, all + 3 * TAIL_BYTES as u64);
    }
}
