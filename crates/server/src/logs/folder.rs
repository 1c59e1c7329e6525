//! The folder of logs: `{task id}.log` each, the layout that Darwin's builder has.
//!
//! The task table has the same bytes at the same places. A file is what the replica that
//! builds a task writes first, and what is left of builds of Darwin's own builder.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
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

    /// Begins the file of a task anew, with what its log holds so far.
    pub(crate) fn begin(&self, id: &TaskId, so_far: &[u8]) -> io::Result<File> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .open(self.path(id))?;
        file.write_all(so_far)?;
        Ok(file)
    }

    /// Tells how long the file of a task is; none where there is no file.
    pub(crate) fn length(&self, id: &TaskId) -> Option<u64> {
        let metadata = std::fs::metadata(self.path(id)).ok()?;
        metadata.is_file().then_some(metadata.len())
    }

    /// Reads a part of a file; less than `limit` bytes only at its end.
    pub(crate) fn read(&self, id: &TaskId, offset: u64, limit: u64) -> io::Result<Vec<u8>> {
        let file = File::open(self.path(id))?;
        let left = file.metadata()?.len().saturating_sub(offset).min(limit);
        let mut part = vec![0; usize::try_from(left).unwrap_or(usize::MAX)];
        let mut filled = 0;
        while filled < part.len() {
            match file.read_at(&mut part[filled..], offset + filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        part.truncate(filled);
        Ok(part)
    }

    /// Removes the file of a task, if there is one.
    pub(crate) fn remove(&self, id: &TaskId) -> io::Result<()> {
        match std::fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
