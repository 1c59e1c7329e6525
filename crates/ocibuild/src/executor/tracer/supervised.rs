//! The supervisor of a traced command. It starts while the command's first process is
//! being prepared, and is waited for when it is needed first.

use std::cell::OnceCell;
use std::sync::mpsc::Receiver;

use rustix::io::Errno;

use crate::executor::supervisor::Supervisor;

/// A supervisor that is there or is coming.
pub(in crate::executor) struct Supervised {
    coming: Receiver<Supervisor>,
    come: OnceCell<Supervisor>,
}

impl Supervised {
    /// Expects one.
    pub(in crate::executor) fn new(coming: Receiver<Supervisor>) -> Self {
        let come = OnceCell::new();
        Self { coming, come }
    }

    /// Waits for it; there is none if the command could not be prepared.
    pub(super) fn get(&self) -> Result<&Supervisor, Errno> {
        if let Some(supervisor) = self.come.get() {
            return Ok(supervisor);
        }
        let supervisor = self.coming.recv().map_err(|_| Errno::PERM)?;
        Ok(self.come.get_or_init(|| supervisor))
    }

    /// Whether it was there when it was asked for. Before, the command's first process sends
    /// what the supervisor cannot be without.
    pub(super) fn has_come(&self) -> bool {
        self.come.get().is_some()
    }
}
