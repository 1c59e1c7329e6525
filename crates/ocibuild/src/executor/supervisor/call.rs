//! One intercepted call and what can be answered to it.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::super::sys::Notification;
use super::guest::Guest;

/// What is answered to a call.
#[derive(Debug)]
pub(super) enum Answer {
    /// The kernel makes the call.
    Continue,
    /// It is done, with this value.
    Value(i64),
    /// It is done, and its value is this descriptor, as the caller has it.
    Descriptor {
        /// What the caller gets.
        file: OwnedFd,
        /// Whether exec closes it.
        close_on_exec: bool,
    },
    /// Another thread answers.
    Later,
}

/// Why a call is not done here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It fails.
    Errno(Errno),
    /// The kernel knows better.
    Continue,
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<crate::ownership::Error> for Fault {
    fn from(error: crate::ownership::Error) -> Self {
        Self::Errno(error.errno())
    }
}

/// What comes of serving a call.
pub(super) type Outcome = Result<Answer, Fault>;

/// The call was done and has nothing to say.
pub(super) const DONE: Outcome = Ok(Answer::Value(0));

/// A call that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    /// Who calls.
    pub(super) guest: Guest<'a>,
    /// What the kernel tells of it.
    pub(super) notification: Notification,
}

impl<'a> Call<'a> {
    /// An argument as the kernel has it.
    pub(super) fn long(&self, number: usize) -> u64 {
        self.notification
            .arguments
            .get(number)
            .copied()
            .unwrap_or_default()
    }

    /// An argument of 32 bits.
    pub(super) fn word(&self, number: usize) -> u32 {
        self.long(number) as u32
    }

    /// An argument that is a descriptor or another signed number.
    pub(super) fn int(&self, number: usize) -> i32 {
        self.long(number) as i32
    }

    /// A path argument.
    pub(super) fn path(&self, number: usize) -> Result<Vec<u8>, Errno> {
        self.guest.path(self.long(number))
    }
}
