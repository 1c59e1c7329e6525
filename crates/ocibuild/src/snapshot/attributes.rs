//! The extended attributes of an open file.

use std::os::fd::AsFd;

use rustix::fs::{fgetxattr, flistxattr};
use rustix::io::Errno;

use super::Error;
use super::error::At;
use crate::layer::TreePath;
use crate::ownership::growing;

pub(super) fn names(fd: impl AsFd, path: &TreePath) -> Result<Vec<Vec<u8>>, Error> {
    let names = match growing(|buffer| flistxattr(&fd, buffer)) {
        Err(Errno::OPNOTSUPP) => Vec::new(),
        names => names.at("list the attributes of", path)?,
    };
    let names = names
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty());
    Ok(names.map(<[u8]>::to_vec).collect())
}

pub(super) fn value(fd: impl AsFd, name: &[u8], path: &TreePath) -> Result<Vec<u8>, Error> {
    growing(|buffer| fgetxattr(&fd, name, buffer)).at("read an attribute of", path)
}
