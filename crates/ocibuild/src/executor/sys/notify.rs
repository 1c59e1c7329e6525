//! seccomp(2) user notifications: a filter with a listener, and the listener's ioctls.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use super::filter::{Instruction, set_filter};
use super::process::last_errno;

/// Makes the kernel switch to the serving thread at once (Linux 6.6).
const SYNC_WAKE_UP: u64 = 1;

/// A call that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Notification {
    /// Names the call in answers.
    pub(in super::super) id: u64,
    /// The calling thread.
    pub(in super::super) pid: i32,
    /// The number of the call.
    pub(in super::super) number: u32,
    /// Its arguments.
    pub(in super::super) arguments: [u64; 6],
}

/// Puts this process under a filter, for good, as [`super::install`] does; calls that the
/// program hands over wait at the descriptor until they are answered.
///
/// Once a call was received there, only a fatal signal interrupts it.
pub(in super::super) fn install_listened(program: &[Instruction]) -> rustix::io::Result<OwnedFd> {
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER
        | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
        | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    let listener = set_filter(flags, program)?;
    // SAFETY: with NEW_LISTENER the call gives a new descriptor, which nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(listener) })
}

/// Asks for quick switches to the serving thread. Kernels before 6.6 refuse.
pub(in super::super) fn wake_synchronously(listener: BorrowedFd<'_>) -> rustix::io::Result<()> {
    // SAFETY: the descriptor is open; for this request the argument is a value.
    let done = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS as _,
            SYNC_WAKE_UP,
        )
    };
    result(done).map(drop)
}

/// Waits for a call. NOENT means that it was interrupted meanwhile, or that nobody is
/// left who could make one.
pub(in super::super) fn receive(listener: BorrowedFd<'_>) -> rustix::io::Result<Notification> {
    // SAFETY: the struct consists of numbers, for which zero is a value; the kernel
    // demands that all of it is zero.
    let mut received: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one such struct, which lives across the call.
    let done = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_RECV as _,
            &raw mut received,
        )
    };
    result(done)?;
    Ok(Notification {
        id: received.id,
        pid: received.pid as i32,
        number: received.data.nr as u32,
        arguments: received.data.args,
    })
}

/// Tells whether a call still waits, and its process therefore is the one it was.
pub(in super::super) fn still_waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the kernel reads one number, which lives across the call.
    let done = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_ID_VALID as _,
            &raw const id,
        )
    };
    done == 0
}

/// Lets the kernel make the call.
pub(in super::super) fn let_continue(listener: BorrowedFd<'_>, id: u64) -> rustix::io::Result<()> {
    let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
    respond(listener, id, 0, 0, flags)
}

/// Answers a call with a value or an error.
pub(in super::super) fn answer(
    listener: BorrowedFd<'_>,
    id: u64,
    value: rustix::io::Result<i64>,
) -> rustix::io::Result<()> {
    match value {
        Ok(value) => respond(listener, id, value, 0, 0),
        Err(errno) => respond(listener, id, 0, -errno.raw_os_error(), 0),
    }
}

fn respond(
    listener: BorrowedFd<'_>,
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
) -> rustix::io::Result<()> {
    let mut response = libc::seccomp_notif_resp {
        id,
        val: value,
        error,
        flags,
    };
    // SAFETY: the kernel reads one such struct, which lives across the call.
    let done = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SEND as _,
            &raw mut response,
        )
    };
    result(done).map(drop)
}

/// Gives a descriptor to the caller. With `answer` its number is the value of the call,
/// else the number is given back and the call goes on waiting.
pub(in super::super) fn give_descriptor(
    listener: BorrowedFd<'_>,
    id: u64,
    descriptor: impl AsFd,
    close_on_exec: bool,
    answer: bool,
) -> rustix::io::Result<i32> {
    let request = libc::seccomp_notif_addfd {
        id,
        flags: if answer {
            libc::SECCOMP_ADDFD_FLAG_SEND as u32
        } else {
            0
        },
        srcfd: descriptor.as_fd().as_raw_fd() as u32,
        newfd: 0,
        newfd_flags: if close_on_exec {
            libc::O_CLOEXEC as u32
        } else {
            0
        },
    };
    // SAFETY: the kernel reads one such struct, which lives across the call, and makes a
    // copy of the descriptor, which is open.
    let done = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_ADDFD as _,
            &raw const request,
        )
    };
    result(done)
}

fn result(done: i32) -> rustix::io::Result<i32> {
    if done < 0 {
        Err(last_errno())
    } else {
        Ok(done)
    }
}

/// Errors after which a call is nobody's any more.
pub(in super::super) fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::SRCH | Errno::INPROGRESS)
}
