//! The logs of all tasks, from whichever replica they are asked for.
//!
//! The truth is the task table: bytes at offsets that are the same everywhere. A task that
//! this replica builds is read from its file, which is never behind the table; when the
//! table does not answer, a file is better than nothing. Followers share one [`Feed`] for each log.

mod feed;
mod folder;
mod follow;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use ocibuild_store::{LogInfo, StoreError, TaskId, TaskStore};
use tokio::sync::watch;

pub(crate) use self::feed::{Feed, FeedReceiver, FeedSender};
pub(crate) use self::folder::LogFolder;
pub(crate) use self::follow::Follower;

/// How often the log of a task that another replica builds is looked at while somebody
/// follows it.
const POLL: Duration = Duration::from_millis(300);
/// The most that one look takes over.
const PART_BYTES: u64 = 256 << 10;

/// All logs.
#[derive(Clone)]
pub(crate) struct Logs {
    inner: Arc<Inner>,
}

struct Inner {
    folder: LogFolder,
    store: Arc<dyn TaskStore>,
    /// The logs of tasks that this replica builds now.
    live: Mutex<HashMap<TaskId, FeedReceiver>>,
    /// The logs of other tasks that somebody follows now.
    followed: Mutex<HashMap<TaskId, Weak<FeedReceiver>>>,
    /// Everybody who follows a log holds this, too.
    following: Arc<()>,
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// The table does not answer, and there is no file.
    #[error("the task table does not give the log")]
    Store(#[from] StoreError),
    /// The file cannot be read.
    #[error("cannot read the file of the log")]
    File(#[from] io::Error),
}

/// One log, as it can be read now.
pub(crate) struct LogReader {
    logs: Logs,
    id: TaskId,
    place: Place,
    /// How long it is.
    pub(crate) info: LogInfo,
}

/// Where a log is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    File,
    Table,
}

impl Logs {
    pub(crate) fn new(folder: LogFolder, store: Arc<dyn TaskStore>) -> Self {
        let inner = Inner {
            folder,
            store,
            live: Mutex::default(),
            followed: Mutex::default(),
            following: Arc::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    pub(crate) fn folder(&self) -> &LogFolder {
        &self.inner.folder
    }

    /// Opens the log of a task; none where there is none.
    pub(crate) async fn open(&self, id: &TaskId) -> Result<Option<LogReader>, LogError> {
        let reader = |place, info| LogReader {
            logs: self.clone(),
            id: id.clone(),
            place,
            info,
        };
        if let Some(feed) = self.live(id) {
            let (length, ended) = (feed.borrow().length, feed.borrow().ended);
            return Ok(Some(reader(Place::File, LogInfo { length, ended })));
        }
        let file = |ended| {
            let length = self.inner.folder.length(id)?;
            Some(reader(Place::File, LogInfo { length, ended }))
        };
        match self.inner.store.log_info(id).await {
            Ok(Some(info)) => Ok(Some(reader(Place::Table, info))),
            // A build of Darwin's builder left no more than its file.
            Ok(None) => Ok(file(true)),
            Err(error) => file(false).map(Some).ok_or(LogError::Store(error)),
        }
    }

    /// Says that this replica builds a task, whose log is in its file from now on.
    pub(crate) fn announce(&self, id: &TaskId, length: u64) -> LiveLog {
        let (sender, receiver) = watch::channel(Feed::at(length, false));
        lock(&self.inner.live).insert(id.clone(), receiver);
        LiveLog {
            logs: self.clone(),
            id: id.clone(),
            feed: sender,
        }
    }

    /// Follows a log from a place on.
    pub(crate) fn follow(&self, id: &TaskId, offset: u64) -> Follower {
        Follower::new(self.clone(), id.clone(), offset)
    }

    /// Tells how many follow a log here.
    pub(crate) fn followers(&self) -> usize {
        Arc::strong_count(&self.inner.following) - 1
    }

    fn live(&self, id: &TaskId) -> Option<FeedReceiver> {
        lock(&self.inner.live).get(id).cloned()
    }

    /// Gives the feed of a log that another replica writes; all its followers share one.
    fn watched(&self, id: &TaskId) -> Arc<FeedReceiver> {
        let mut followed = lock(&self.inner.followed);
        if let Some(feed) = followed.get(id).and_then(Weak::upgrade) {
            return feed;
        }
        followed.retain(|_, feed| feed.strong_count() > 0);
        let (sender, receiver) = watch::channel(Feed::default());
        let receiver = Arc::new(receiver);
        followed.insert(id.clone(), Arc::downgrade(&receiver));
        tokio::spawn(
            self.clone()
                .watch(id.clone(), sender, Arc::downgrade(&receiver)),
        );
        receiver
    }

    /// Fills a feed from the table until the log has ended or nobody follows it.
    async fn watch(self, id: TaskId, feed: FeedSender, followers: Weak<FeedReceiver>) {
        let mut began = false;
        while followers.strong_count() > 0 && self.live(&id).is_none() {
            match self.look(&id, &feed, &mut began).await {
                Ok(true) => continue,
                Ok(false) if feed.borrow().ended => return,
                Ok(false) => {}
                Err(error) => tracing::debug!(task = %id, %error, "a followed log cannot be read"),
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Takes over what is new in the table; true if there may be more.
    async fn look(
        &self,
        id: &TaskId,
        feed: &FeedSender,
        began: &mut bool,
    ) -> Result<bool, StoreError> {
        let Some(info) = self.inner.store.log_info(id).await? else {
            let length = self.inner.folder.length(id).unwrap_or_default();
            feed.send_replace(Feed::at(length, true));
            return Ok(false);
        };
        // What was there before is not needed in memory; who wants it reads the table.
        if !std::mem::replace(began, true) {
            feed.send_replace(Feed::at(info.length, info.ended));
            return Ok(false);
        }
        let from = feed.borrow().length;
        if info.length > from {
            let part = self.inner.store.read_log(id, from, PART_BYTES).await?;
            feed.send_modify(|feed| feed.push(&part.data));
            return Ok(!part.data.is_empty());
        }
        feed.send_if_modified(|feed| std::mem::replace(&mut feed.ended, info.ended) != info.ended);
        Ok(false)
    }
}

impl LogReader {
    /// Reads a part: less than `limit` bytes or nothing only at the end.
    pub(crate) async fn read(&self, offset: u64, limit: u64) -> Result<Vec<u8>, LogError> {
        let limit = limit.min(self.info.length.saturating_sub(offset));
        if limit == 0 {
            return Ok(Vec::new());
        }
        let inner = &self.logs.inner;
        match self.place {
            Place::File => Ok(inner.folder.read(&self.id, offset, limit)?),
            Place::Table => Ok(inner.store.read_log(&self.id, offset, limit).await?.data),
        }
    }
}

/// The log of a task that this replica builds; it is not live any more when this is dropped.
pub(crate) struct LiveLog {
    logs: Logs,
    id: TaskId,
    feed: FeedSender,
}

impl LiveLog {
    /// Shows bytes to readers.
    pub(crate) fn show(&self, bytes: &[u8]) {
        self.feed.send_modify(|feed| feed.push(bytes));
    }

    /// Tells how much readers see.
    pub(crate) fn shown(&self) -> u64 {
        self.feed.borrow().length
    }

    /// Says that the log does not grow any more.
    pub(crate) fn end(&self) {
        self.feed.send_modify(|feed| feed.ended = true);
    }
}

impl Drop for LiveLog {
    fn drop(&mut self) {
        lock(&self.logs.inner.live).remove(&self.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
