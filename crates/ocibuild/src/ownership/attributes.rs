//! Extended attributes that this process may not set (`security.*`, `trusted.*`), under
//! names that it may.

use std::os::fd::AsFd;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::{Error, calls};

const OURS: &[u8] = b"user.ocibuild.";
const PREFIX: &[u8] = b"user.ocibuild.xattr.";

/// Tells whether an attribute of the disk is one of this module and no program's.
pub fn is_ours(name: &[u8]) -> bool {
    name.starts_with(OURS)
}

/// Gives the name under which a program is to see an attribute of the disk, if it is to
/// see it at all.
pub fn shown_name(on_disk: &[u8]) -> Option<&[u8]> {
    match on_disk.strip_prefix(PREFIX) {
        Some(name) => Some(name),
        None => Some(on_disk).filter(|name| !is_ours(name)),
    }
}

/// Records an attribute of an open file, with the flags of setxattr(2).
pub fn set_attribute(
    file: impl AsFd,
    name: &[u8],
    value: &[u8],
    flags: XattrFlags,
) -> Result<(), Error> {
    calls::set(file.as_fd(), &on_disk(name), value, flags).map_err(Error::of("setxattr"))
}

/// Gives the value of a recorded attribute, if there is one.
pub fn attribute(file: impl AsFd, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    let name = on_disk(name);
    match calls::growing(|buffer| calls::get(file.as_fd(), &name, buffer)) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(Error::of("getxattr")(errno)),
    }
}

/// Gives the names of all attributes that a program is to see: recorded ones and those
/// that are really there.
pub fn attribute_names(file: impl AsFd) -> Result<Vec<Vec<u8>>, Error> {
    let names = match calls::growing(|buffer| calls::list(file.as_fd(), buffer)) {
        Err(Errno::OPNOTSUPP) => Vec::new(),
        names => names.map_err(Error::of("listxattr"))?,
    };
    let names = names
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty());
    Ok(names.filter_map(shown_name).map(<[u8]>::to_vec).collect())
}

/// Removes a recorded attribute and tells whether there was one.
pub fn remove_attribute(file: impl AsFd, name: &[u8]) -> Result<bool, Error> {
    match calls::remove(file.as_fd(), &on_disk(name)) {
        Ok(()) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(Error::of("removexattr")(errno)),
    }
}

fn on_disk(name: &[u8]) -> Vec<u8> {
    [PREFIX, name].concat()
}
