//! Attribute calls for any descriptor. By itself the kernel takes none of `O_PATH`, and nearly
//! all are of that kind here, so each is reached by its name in /proc.

use std::ffi::CStr;
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};
use rustix::io::Errno;

/// Room for the names or the value that nearly every file has.
const USUAL_SIZE: usize = 256;

/// The kernel's limit for one value and for all names.
const MAX_SIZE: usize = 64 << 10;

/// The name of an open file for calls that take no `O_PATH` descriptor.
pub(super) struct ProcPath([u8; Self::SIZE]);

impl ProcPath {
    /// As long as the longest, with its end.
    const SIZE: usize = "/proc/self/fd/2147483647".len() + 1;

    pub(super) fn of(file: BorrowedFd<'_>) -> Self {
        let mut path = [0; Self::SIZE];
        // There is room for every descriptor.
        let _ = write!(&mut path[..], "/proc/self/fd/{}", file.as_raw_fd());
        Self(path)
    }

    pub(super) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

pub(super) fn get(file: BorrowedFd<'_>, name: &[u8], value: &mut [u8]) -> Result<usize, Errno> {
    getxattr(ProcPath::of(file).as_c_str(), name, value)
}

pub(super) fn set(
    file: BorrowedFd<'_>,
    name: &[u8],
    value: &[u8],
    flags: XattrFlags,
) -> Result<(), Errno> {
    setxattr(ProcPath::of(file).as_c_str(), name, value, flags)
}

pub(super) fn remove(file: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    removexattr(ProcPath::of(file).as_c_str(), name)
}

pub(super) fn list(file: BorrowedFd<'_>, names: &mut [u8]) -> Result<usize, Errno> {
    listxattr(ProcPath::of(file).as_c_str(), names)
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
