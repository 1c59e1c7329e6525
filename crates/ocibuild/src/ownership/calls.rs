//! Attribute calls for any descriptor: one of `O_PATH` is reached by its name in /proc.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{
    XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr, getxattr, listxattr, removexattr,
    setxattr,
};
use rustix::io::Errno;

/// Room for the names or the value that nearly every file has.
const USUAL_SIZE: usize = 256;

/// The kernel's limit for one value and for all names.
const MAX_SIZE: usize = 64 << 10;

/// Gives a name of an open file for calls that take no `O_PATH` descriptor.
pub(super) fn proc_path(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

pub(super) fn get(file: BorrowedFd<'_>, name: &[u8], value: &mut [u8]) -> Result<usize, Errno> {
    match fgetxattr(file, name, &mut *value) {
        Err(Errno::BADF) => getxattr(proc_path(file), name, value),
        done => done,
    }
}

pub(super) fn set(
    file: BorrowedFd<'_>,
    name: &[u8],
    value: &[u8],
    flags: XattrFlags,
) -> Result<(), Errno> {
    match fsetxattr(file, name, value, flags) {
        Err(Errno::BADF) => setxattr(proc_path(file), name, value, flags),
        done => done,
    }
}

pub(super) fn remove(file: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match fremovexattr(file, name) {
        Err(Errno::BADF) => removexattr(proc_path(file), name),
        done => done,
    }
}

pub(super) fn list(file: BorrowedFd<'_>, names: &mut [u8]) -> Result<usize, Errno> {
    match flistxattr(file, &mut *names) {
        Err(Errno::BADF) => listxattr(proc_path(file), names),
        done => done,
    }
}

/// Reads what has no known size.
pub(crate) fn growing(
    mut read: impl FnMut(&mut [u8]) -> Result<usize, Errno>,
) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; USUAL_SIZE];
    let size = match read(&mut buffer) {
        Err(Errno::RANGE) => {
            buffer.resize(MAX_SIZE, 0);
            read(&mut buffer)
        }
        read => read,
    }?;
    buffer.truncate(size);
    Ok(buffer)
}
