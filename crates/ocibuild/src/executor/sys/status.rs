//! What the kernel tells of a file, as the bytes that it would give to a program.

use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::Stat;

use super::process::last_errno;

const STAT_SIZE: usize = size_of::<libc::stat>();
const STATX_SIZE: usize = 256;

/// Gives the `struct stat` of a program, which is libc's on 64-bit machines.
pub(in super::super) fn stat_bytes(stat: &Stat) -> [u8; STAT_SIZE] {
    let mut bytes = [0; STAT_SIZE];
    macro_rules! put {
        ($($field:ident: $from:ident as $kind:ty),* $(,)?) => {$(
            let begin = offset_of!(libc::stat, $field);
            let value = (stat.$from as $kind).to_ne_bytes();
            bytes[begin..begin + value.len()].copy_from_slice(&value);
        )*};
    }
    put!(
        st_dev: st_dev as libc::dev_t,
        st_ino: st_ino as libc::ino_t,
        st_mode: st_mode as libc::mode_t,
        st_nlink: st_nlink as libc::nlink_t,
        st_uid: st_uid as libc::uid_t,
        st_gid: st_gid as libc::gid_t,
        st_rdev: st_rdev as libc::dev_t,
        st_size: st_size as libc::off_t,
        st_blksize: st_blksize as libc::blksize_t,
        st_blocks: st_blocks as libc::blkcnt_t,
        st_atime: st_atime as libc::time_t,
        st_atime_nsec: st_atime_nsec as i64,
        st_mtime: st_mtime as libc::time_t,
        st_mtime_nsec: st_mtime_nsec as i64,
        st_ctime: st_ctime as libc::time_t,
        st_ctime_nsec: st_ctime_nsec as i64,
    );
    bytes
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
