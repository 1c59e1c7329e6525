//! What the kernel tells of a file, as the bytes that it would give to a program.

use std::os::fd::{AsFd, AsRawFd};

use super::process::last_errno;

const STAT_SIZE: usize = size_of::<libc::stat>();
const STATX_SIZE: usize = 256;

/// fstatat(2) of a descriptor.
pub(in super::super) fn stat_bytes(file: impl AsFd) -> rustix::io::Result<[u8; STAT_SIZE]> {
    let mut bytes = [0; STAT_SIZE];
    // SAFETY: the path is an empty C string, as AT_EMPTY_PATH wants it; the kernel writes
    // one `struct stat`, which is what libc's is on 64-bit machines, and `bytes` has its
    // size and needs no alignment to be written by the kernel.
    let done = unsafe {
        libc::syscall(
            libc::SYS_newfstatat,
            file.as_fd().as_raw_fd(),
            c"".as_ptr(),
            bytes.as_mut_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    if done < 0 {
        Err(last_errno())
    } else {
        Ok(bytes)
    }
}

/// statx(2) of a descriptor; of the flags those that say how fresh it must be count.
pub(in super::super) fn statx_bytes(
    file: impl AsFd,
    flags: i32,
    mask: u32,
) -> rustix::io::Result<[u8; STATX_SIZE]> {
    let mut bytes = [0; STATX_SIZE];
    let flags = flags & libc::AT_STATX_SYNC_TYPE | libc::AT_EMPTY_PATH;
    // SAFETY: the path is an empty C string, as AT_EMPTY_PATH wants it; the kernel writes
    // one `struct statx`, which has 256 bytes for good.
    let done = unsafe {
        libc::syscall(
            libc::SYS_statx,
            file.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            mask,
            bytes.as_mut_ptr(),
        )
    };
    if done < 0 {
        Err(last_errno())
    } else {
        Ok(bytes)
    }
}

const STATFS_SIZE: usize = size_of::<libc::statfs>();

/// fstatfs(2).
pub(in super::super) fn statfs_bytes(file: impl AsFd) -> rustix::io::Result<[u8; STATFS_SIZE]> {
    let mut bytes = [0; STATFS_SIZE];
    // SAFETY: the kernel writes one `struct statfs`, which is what libc's is on 64-bit
    // machines, and `bytes` has its size and needs no alignment to be written by the kernel.
    let done = unsafe {
        libc::syscall(
            libc::SYS_fstatfs,
            file.as_fd().as_raw_fd(),
            bytes.as_mut_ptr(),
        )
    };
    if done < 0 {
        Err(last_errno())
    } else {
        Ok(bytes)
    }
}
