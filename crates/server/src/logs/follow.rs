//! Following one log: every byte from a place on, in order, once, until the log has ended.

use std::sync::Arc;

use bytes::Bytes;
use ocibuild_store::TaskId;

use super::{FeedReceiver, LogError, Logs};

/// The most that is given at once.
const PART_BYTES: u64 = 64 << 10;

/// Somebody who follows a log. It may move from one replica to another meanwhile.
pub(crate) struct Follower {
    logs: Logs,
    id: TaskId,
    offset: u64,
    source: Option<Source>,
    /// Is counted as long as it is held.
    _following: Arc<()>,
}

/// What a follower listens to.
enum Source {
    /// This replica builds the task.
    Live(FeedReceiver),
    /// Another one does, or nobody yet. The first keeps the feed going.
    Watched(
        #[expect(dead_code, reason = "it is held")] Arc<FeedReceiver>,
        FeedReceiver,
    ),
}

impl Source {
    fn feed(&mut self) -> &mut FeedReceiver {
        match self {
            Self::Live(feed) | Self::Watched(_, feed) => feed,
        }
    }
}

impl Follower {
    pub(super) fn new(logs: Logs, id: TaskId, offset: u64) -> Self {
        Self {
            _following: Arc::clone(&logs.inner.following),
            logs,
            id,
            offset,
            source: None,
        }
    }

    /// Where the next part begins.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Waits for the next part; none at the end of the log. A caller that stops waiting
    /// loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, LogError> {
        loop {
            let part = self.now().await?;
            if !part.is_empty() {
                self.offset += part.len() as u64;
                return Ok(Some(part));
            }
            if self.ended().await? {
                return Ok(None);
            }
            self.wait().await;
        }
    }

    /// Gives what is there behind the offset, from memory where it is.
    async fn now(&mut self) -> Result<Bytes, LogError> {
        let limit = usize::try_from(PART_BYTES).unwrap_or(usize::MAX);
        let offset = self.offset;
        if let Some(part) = self.listen().borrow().since(offset) {
            return Ok(part.slice(..part.len().min(limit)));
        }
        match self.logs.open(&self.id).await? {
            Some(log) => Ok(log.read(offset, PART_BYTES).await?.into()),
            None => Ok(Bytes::new()),
        }
    }

    /// Tells whether nothing comes behind the offset any more.
    async fn ended(&mut self) -> Result<bool, LogError> {
        let (length, ended) = {
            let feed = self.listen().borrow();
            (feed.length, feed.ended)
        };
        if !ended || length > self.offset {
            return Ok(false);
        }
        // What this replica gave back may go on elsewhere; the table knows.
        let log = self.logs.open(&self.id).await?;
        let over = log.is_none_or(|log| log.info.ended && log.info.length <= self.offset);
        if !over {
            self.source = None;
        }
        Ok(over)
    }

    async fn wait(&mut self) {
        let changed = self.listen().changed().await;
        if changed.is_err() {
            // The build here is over, or the log moved: begin to listen anew, but not in a
            // hurry, since the table may not have the end yet.
            self.source = None;
            tokio::time::sleep(super::POLL).await;
        }
    }

    fn listen(&mut self) -> &mut FeedReceiver {
        let (logs, id) = (&self.logs, &self.id);
        let source = self.source.get_or_insert_with(|| match logs.live(id) {
            Some(feed) => Source::Live(feed),
            None => {
                let watched = logs.watched(id);
                let feed = (*watched).clone();
                Source::Watched(watched, feed)
            }
        });
        source.feed()
    }
}
