//! What of ours goes on in a traced thread.

use super::memory::{Lease, Room};
use super::rewrite::Rewrite;
use super::socket::LongName;
use crate::executor::supervisor::Program;
use crate::executor::sys::Registers;

/// A program that a thread is about to become.
pub(super) struct Executed {
    /// The name by which it was called.
    pub(super) name: Vec<u8>,
    /// The file, which is not the script.
    pub(super) program: Program,
}

/// What there is to do when a call is done.
pub(super) enum After {
    /// Nothing.
    Nothing,
    /// The thread is another program.
    Program(Executed),
    /// There is a new socket at this path.
    Socket(Vec<u8>),
    /// A directory is open for a call with the name of a socket in it.
    Open(LongName),
    /// The directory is to be closed, and then what else there is.
    Close(i64, Box<After>),
    /// The call has told who is at the other end of a socket.
    Peer,
    /// The call has told the name of a socket, for which there was so much room.
    Name(u32),
    /// One message of several was sent from a copy.
    Sent,
}

/// A traced thread.
pub(super) struct Thread {
    pub(super) room: Room,
    pub(super) phase: Phase,
}

impl Thread {
    pub(super) fn new(room: Room) -> Self {
        let phase = Phase::Idle;
        Self { room, phase }
    }
}

/// What of ours is going on in a thread. The registers are those that it came with.
pub(super) enum Phase {
    /// Nothing.
    Idle,
    /// Memory is being mapped for the arguments of a call, which comes after that.
    Mapping(Registers, Rewrite, After),
    /// The call after that is about to be made.
    Again(Registers, Lease, After),
    /// A call is made with other arguments.
    Rewritten(
        Registers,
        #[expect(dead_code, reason = "held to the end of the call")] Lease,
        After,
    ),
    /// A descriptor of ours is being closed; what the call before has given, and whether
    /// the thread has begun to.
    Closing(Registers, bool),
    /// A call is made as it is, and what it tells is looked at.
    Asked(Registers, After),
}
