//! The extended attributes of an open file.

use std::os::fd::AsFd;

use rustix::fs::{fgetxattr, flistxattr};
use rustix::io::Errno;

use super::Error;
use super::error::At;
use crate::layer::TreePath;

/// Room for the names or the value that nearly every file has.
const USUAL_SIZE: usize = 256;

/// The kernel's limit for one value and for all names.
const MAX_SIZE: usize = 64 << 10;

pub(super) fn names(fd: impl AsFd, path: &TreePath) -> Result<Vec<Vec<u8>>, Error> {
    let names = match read_growing(|buffer| flistxattr(&fd, buffer)) {
        Err(Errno::OPNOTSUPP) => Vec::new(),
        names => names.at("list the attributes of", path)?,
    };
    let names = names
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty());
    Ok(names.map(<[u8]>::to_vec).collect())
}

pub(super) fn value(fd: impl AsFd, name: &[u8], path: &TreePath) -> Result<Vec<u8>, Error> {
    read_growing(|buffer| fgetxattr(&fd, name, buffer)).at("read an attribute of", path)
}

fn read_growing(mut read: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
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
