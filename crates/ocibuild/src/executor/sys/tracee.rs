//! Memory, limits and descriptors of another process.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::fd::AsFd;

use super::process::last_errno;

/// Reads memory of another process; gives how much there was up to the first page that
/// cannot be read.
pub(in super::super) fn read_memory(
    pid: i32,
    address: u64,
    bytes: &mut [u8],
) -> rustix::io::Result<usize> {
    let local = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    let remote = libc::iovec {
        iov_base: ptr::without_provenance_mut(address as usize),
        iov_len: bytes.len(),
    };
    // SAFETY: the kernel writes at most `len` bytes to `bytes`, which is borrowed; the
    // remote address means nothing in this process and is checked by the kernel.
    let done = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(done).map_err(|_| last_errno())
}

/// Writes memory of another process that it could write itself.
pub(in super::super) fn write_memory(
    pid: i32,
    address: u64,
    bytes: &[u8],
) -> rustix::io::Result<usize> {
    let local = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let remote = libc::iovec {
        iov_base: ptr::without_provenance_mut(address as usize),
        iov_len: bytes.len(),
    };
    // SAFETY: the kernel only reads `bytes`, which is borrowed; the remote address means
    // nothing in this process and is checked by the kernel.
    let done =
        unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(done).map_err(|_| last_errno())
}

/// Gives the soft and the hard limit on file locks of another process. The kernel has not
/// used it since 2.4, and passes it on to children and through exec.
pub(in super::super) fn lock_limit(pid: i32) -> rustix::io::Result<(u64, u64)> {
    let mut limit = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes one such struct, which lives across the call.
    let done = unsafe { libc::prlimit64(pid, libc::RLIMIT_LOCKS, ptr::null(), &raw mut limit) };
    if done < 0 {
        return Err(last_errno());
    }
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Sets the soft and the hard limit on file locks of another process.
pub(in super::super) fn set_lock_limit(pid: i32, soft: u64, hard: u64) -> rustix::io::Result<()> {
    let limit = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: the kernel reads one such struct, which lives across the call.
    let done =
        unsafe { libc::prlimit64(pid, libc::RLIMIT_LOCKS, &raw const limit, ptr::null_mut()) };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Copies a descriptor of another process into this one.
pub(in super::super) fn copy_descriptor(
    pidfd: impl AsFd,
    descriptor: i32,
) -> rustix::io::Result<OwnedFd> {
    // SAFETY: takes numbers and no memory.
    let copied = unsafe {
        libc::syscall(
            libc::SYS_pidfd_getfd,
            pidfd.as_fd().as_raw_fd(),
            descriptor,
            0_u32,
        )
    };
    if copied < 0 {
        return Err(last_errno());
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(copied as i32) })
}

/// Who is at the other end of a Unix socket: process, as this process sees it, user and
/// group.
pub(in super::super) fn peer_of(socket: impl AsFd) -> rustix::io::Result<libc::ucred> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes one such struct, whose size it is told, and the size.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    if done < 0 {
        Err(last_errno())
    } else {
        Ok(peer)
    }
}
