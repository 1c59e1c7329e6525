//! What builder and helper say to each other: frames of a length (four bytes,
//! little-endian) and a value in postcard's encoding. A descriptor may come along with
//! the length.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::supervisor::Owners;
use super::userns::IdMaps;
use super::{Exit, Failure, RunSpec};

/// The longest value; a job's answer can list a large directory.
const MAX_LENGTH: u32 = 1 << 30;

/// What the builder asks for; a user namespace to work in comes along with it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Make a user namespace and send it back.
    MakeUserNamespace(IdMaps),
    /// Run a command.
    Run {
        /// What.
        spec: Box<RunSpec>,
        /// How.
        settings: Settings,
        /// Where merged trees wait for the next command of their chain.
        pool: Option<PathBuf>,
    },
    /// Do a job.
    Call {
        /// Its name.
        job: String,
        /// What it is given.
        input: Vec<u8>,
    },
}

/// The engine that runs a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Engine {
    /// Namespaces and mounts.
    Namespaces,
    /// A root directory of its own.
    Chroot,
    /// Translated paths.
    Emulation,
}

/// What the engine knows about this machine, the same for each command.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Settings {
    /// Which engine it is.
    pub(super) engine: Engine,
    /// Where owners of files are, where there is a supervisor.
    pub(super) owners: Owners,
    /// Whether processes get ids of their own and a /proc that shows just them. Where
    /// the builder's own /proc is partly hidden, as in pods, the kernel mounts no other.
    pub(super) pid_namespace: bool,
    /// How many ids a command may have.
    pub(super) ids: u32,
    /// Whether ids and owners are emulated by a supervisor, since the kernel knows the
    /// command's processes as one user only.
    pub(super) supervised: bool,
    /// Whether to do everything but start the command.
    pub(super) rehearsal: bool,
}

/// What the helper answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// The user namespace that comes along.
    UserNamespace,
    /// The command ended.
    Exit(Exit),
    /// The job's answer.
    Answer(Vec<u8>),
    /// The job's own failure.
    JobFailed(String),
    /// The helper could not do it.
    Failed(Failure),
}

/// Sends a value, and a descriptor with it.
pub(super) fn send(
    mut socket: &UnixStream,
    value: &impl Serialize,
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let bytes = postcard::to_stdvec(value).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len())
        .ok()
        .filter(|length| *length <= MAX_LENGTH);
    let length = length.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;

    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = descriptor.into_iter().collect();
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    let header = length.to_le_bytes();
    // NOSIGNAL: the other side may be gone, which is an error and no reason to die.
    let sent = sendmsg(
        socket,
        &[IoSlice::new(&header)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    socket.write_all(header.get(sent..).unwrap_or_default())?;
    socket.write_all(&bytes)
}

/// Receives a value and the descriptor that came with it; nothing if the other side
/// has closed the socket.
pub(super) fn receive<T: DeserializeOwned>(
    mut socket: &UnixStream,
) -> io::Result<Option<(T, Option<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut header = [0; 4];
    let received = recvmsg(
        socket.as_fd(),
        &mut [IoSliceMut::new(&mut header)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes == 0 {
        return Ok(None);
    }
    socket.read_exact(header.get_mut(received.bytes..).unwrap_or_default())?;
    let descriptor = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });

    let length = u32::from_le_bytes(header);
    if length > MAX_LENGTH {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    socket.take(length.into()).read_to_end(&mut bytes)?;
    let value = postcard::from_bytes(&bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Some((value, descriptor)))
}
