//! The folder of logs: `{task id}.log` each, the name that clients build URLs from.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use ocibuild_store::TaskId;

/// The folder of all logs.
#[derive(Debug, Clone)]
pub(crate) struct LogFolder {
    root: PathBuf,
}

impl LogFolder {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Names the log of a task. An id cannot lead out of the folder.
    pub(crate) fn path(&self, id: &TaskId) -> PathBuf {
        self.root.join(format!("{id}.log"))
    }

    /// Opens the log of a task for writing at its end.
    pub(crate) fn append(&self, id: &TaskId) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path(id))
    }

    /// Makes the log of a task that is about to be queued, so that its URL works from the
    /// first moment.
    pub(crate) fn announce(&self, id: &TaskId) -> io::Result<()> {
        writeln!(self.append(id)?, "Task {id} waits for a free builder")
    }

    /// Takes the log of a task back that could not be queued.
    pub(crate) fn withdraw(&self, id: &TaskId) -> io::Result<()> {
        std::fs::remove_file(self.path(id))
    }
}
