//! Brings the record of a running build into the task table: its log and its steps.
//!
//! The file of the log is the buffer: what was written there and is not in the table yet is
//! read from it again, however long the database is away. Readers see what the table has,
//! so that a log looks the same when another replica goes on with the task; only when the
//! table does not answer they see the file.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ocibuild_store::{Lease, Progress, Step, StoreError, TaskStore};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::logs::{LiveLog, LogFolder};

/// What came within this time goes to the table together.
const GATHER: Duration = Duration::from_millis(100);
/// The most that goes to the table at once.
const PART_BYTES: u64 = 256 << 10;
/// How long a database that does not answer is left alone.
const PAUSE: Duration = Duration::from_millis(500);
/// How long readers wait for the table before they see what only the file has.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the writer of a log tells the recorder.
#[derive(Debug, Clone, Default)]
pub(super) struct Written {
    /// How much of the log is in its file.
    length: u64,
    /// How many changes of steps there were.
    changes: u64,
    /// Nothing more comes.
    ended: bool,
}

/// The writer's end.
#[derive(Debug, Clone)]
pub(super) struct Record {
    written: Arc<watch::Sender<Written>>,
    pending: Arc<Mutex<Pending>>,
}

/// What waits beside the log.
#[derive(Debug, Default)]
struct Pending {
    steps: BTreeMap<u32, Step>,
    commit: Option<String>,
}

impl Record {
    /// Begins behind `length` bytes that the table has already.
    pub(super) fn new(length: u64) -> Self {
        let written = Written {
            length,
            ..Written::default()
        };
        Self {
            written: Arc::new(watch::Sender::new(written)),
            pending: Arc::default(),
        }
    }

    /// Says that the file has grown to `length`.
    pub(super) fn grew(&self, length: u64) {
        self.written
            .send_if_modified(|written| std::mem::replace(&mut written.length, length) != length);
    }

    /// Says how a step stands.
    pub(super) fn step(&self, step: Step) {
        self.pending().steps.insert(step.number, step);
        self.written.send_modify(|written| written.changes += 1);
    }

    /// Says which commit is built.
    pub(super) fn commit(&self, id: &str) {
        self.pending().commit = Some(id.to_owned());
        self.written.send_modify(|written| written.changes += 1);
    }

    /// Says that nothing more comes.
    pub(super) fn end(&self) {
        self.written.send_modify(|written| written.ended = true);
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for what belongs together; nothing comes any more behind the end.
async fn gather(written: &mut watch::Receiver<Written>) {
    let ended = written.wait_for(|written| written.ended);
    // No writer is an end, too.
    let _ = tokio::time::timeout(GATHER, ended).await;
}

/// The table's end.
pub(super) struct Recorder {
    pub(super) store: Arc<dyn TaskStore>,
    pub(super) folder: LogFolder,
    pub(super) lease: Lease,
    pub(super) record: Record,
    /// What readers here see.
    pub(super) live: LiveLog,
    /// How much of the log the table has.
    pub(super) stored: u64,
}

impl Recorder {
    /// Works until everything is in the table, or until the lease is lost. Gives what readers
    /// here see, which is to be ended when the task is.
    pub(super) async fn run(mut self) -> LiveLog {
        let mut written = self.record.written.subscribe();
        let mut changes = 0;
        let mut failing: Option<Instant> = None;
        loop {
            let now = written.borrow_and_update().clone();
            if now.length == self.stored && now.changes == changes {
                if now.ended || written.changed().await.is_err() {
                    return self.live;
                }
                continue;
            }
            match self.bring(now.length).await {
                Ok(()) => {
                    changes = now.changes;
                    failing = None;
                    self.show(self.stored);
                    gather(&mut written).await;
                }
                Err(StoreError::LeaseLost { .. }) => return self.live,
                Err(error) => {
                    let task = &self.lease.task;
                    super::log_task_error(task, "record the progress of a build", &error);
                    let since = *failing.get_or_insert_with(Instant::now);
                    if since.elapsed() >= PATIENCE {
                        self.show(now.length);
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Brings a part of the log, up to `length`, and all steps into the table.
    async fn bring(&mut self, length: u64) -> Result<(), StoreError> {
        let part = PART_BYTES.min(length.saturating_sub(self.stored));
        let (steps, commit) = {
            let mut pending = self.record.pending();
            (std::mem::take(&mut pending.steps), pending.commit.take())
        };
        let progress = Progress {
            offset: self.stored,
            log: self.read(self.stored, part),
            steps: steps.into_values().collect(),
            commit,
        };
        match self.store.record(&self.lease, &progress).await {
            Ok(stored) => {
                self.stored = stored.min(length);
                Ok(())
            }
            Err(error) => {
                self.put_back(progress);
                Err(error)
            }
        }
    }

    /// What did not reach the table waits again, unless something newer does.
    fn put_back(&self, progress: Progress) {
        let mut pending = self.record.pending();
        for step in progress.steps {
            pending.steps.entry(step.number).or_insert(step);
        }
        if pending.commit.is_none() {
            pending.commit = progress.commit;
        }
    }

    /// Shows readers the log up to `length`.
    fn show(&self, length: u64) {
        while self.live.shown() < length {
            let from = self.live.shown();
            let part = self.read(from, PART_BYTES.min(length - from));
            self.live.show(&part);
        }
    }

    /// Reads a part of the file that was written a moment ago. If the disk gives it back
    /// otherwise, the log shows the gap and keeps its length.
    fn read(&self, offset: u64, count: u64) -> Vec<u8> {
        let wanted = usize::try_from(count).unwrap_or(usize::MAX);
        let mut part = match self.folder.read(&self.lease.task, offset, count) {
            Ok(part) => part,
            Err(error) => {
                tracing::error!(task = %self.lease.task, %error, "a log cannot be read back");
                Vec::new()
            }
        };
        part.resize(wanted, b'?');
        part
    }
}
