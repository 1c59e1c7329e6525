//! The calls for extended attributes: what only the step's root could set is recorded,
//! and what is recorded is shown as it should be.

use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};
use rustix::io::Errno;

use super::Owners;
use super::access::owns;
use super::call::{Answer, Call, DONE, Fault, Outcome};
use super::credentials::cap;
use super::guest::{name_of, os};
use super::resolve::{Follow, Found};
use crate::ownership;

const MAX_NAME: usize = 256;
const MAX_VALUE: usize = 64 << 10;

/// Who sees and keeps an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeper {
    /// The kernel, as it is.
    Kernel,
    /// The record.
    Record,
    /// Nobody: it is one of the records.
    Hidden,
    /// Nobody: it is a list of who may do what, which would change the mode on the disk
    /// behind the record, and which no layer keeps. Programs set the mode then.
    AccessList,
}

fn keeper(call: &Call<'_>, name: &[u8]) -> Keeper {
    if call.guest.shared.plan.owners == Owners::Real {
        return Keeper::Kernel;
    }
    if ownership::is_ours(name) {
        return Keeper::Hidden;
    }
    if name.starts_with(b"system.posix_acl_") {
        return Keeper::AccessList;
    }
    if name.starts_with(b"security.") || name.starts_with(b"trusted.") {
        return Keeper::Record;
    }
    Keeper::Kernel
}

type Find = fn(&Call<'_>) -> Result<Found, Fault>;

fn by_path(call: &Call<'_>) -> Result<Found, Fault> {
    call.guest.find(libc::AT_FDCWD, &call.path(0)?, Follow::Yes)
}

fn by_link(call: &Call<'_>) -> Result<Found, Fault> {
    call.guest.find(libc::AT_FDCWD, &call.path(0)?, Follow::No)
}

fn by_descriptor(call: &Call<'_>) -> Result<Found, Fault> {
    call.guest.find_open(call.int(0))
}

/// getxattr(2).
pub(super) fn get_by_path(call: &Call<'_>) -> Outcome {
    get(call, by_path)
}

/// lgetxattr(2).
pub(super) fn get_by_link(call: &Call<'_>) -> Outcome {
    get(call, by_link)
}

/// fgetxattr(2).
pub(super) fn get_by_descriptor(call: &Call<'_>) -> Outcome {
    get(call, by_descriptor)
}

/// setxattr(2).
pub(super) fn set_by_path(call: &Call<'_>) -> Outcome {
    set(call, by_path)
}

/// lsetxattr(2).
pub(super) fn set_by_link(call: &Call<'_>) -> Outcome {
    set(call, by_link)
}

/// fsetxattr(2).
pub(super) fn set_by_descriptor(call: &Call<'_>) -> Outcome {
    set(call, by_descriptor)
}

/// listxattr(2).
pub(super) fn list_by_path(call: &Call<'_>) -> Outcome {
    list(call, by_path)
}

/// llistxattr(2).
pub(super) fn list_by_link(call: &Call<'_>) -> Outcome {
    list(call, by_link)
}

/// flistxattr(2).
pub(super) fn list_by_descriptor(call: &Call<'_>) -> Outcome {
    list(call, by_descriptor)
}

/// removexattr(2).
pub(super) fn remove_by_path(call: &Call<'_>) -> Outcome {
    remove(call, by_path)
}

/// lremovexattr(2).
pub(super) fn remove_by_link(call: &Call<'_>) -> Outcome {
    remove(call, by_link)
}

/// fremovexattr(2).
pub(super) fn remove_by_descriptor(call: &Call<'_>) -> Outcome {
    remove(call, by_descriptor)
}

fn name(call: &Call<'_>) -> Result<Vec<u8>, Errno> {
    let name = call.guest.string(call.long(1), MAX_NAME, Errno::RANGE)?;
    if name.is_empty() {
        return Err(Errno::RANGE);
    }
    Ok(name)
}

fn get(call: &Call<'_>, find: Find) -> Outcome {
    let name = name(call)?;
    let keeper = keeper(call, &name);
    if keeper == Keeper::Kernel && call.guest.kernel_can() {
        return Ok(Answer::Continue);
    }
    let found = find(call)?;
    if keeper == Keeper::Kernel && call.guest.kernel_takes(&found) {
        return Ok(Answer::Continue);
    }
    let value = match keeper {
        Keeper::Hidden => return Err(Errno::NODATA.into()),
        Keeper::AccessList => return Err(Errno::OPNOTSUPP.into()),
        Keeper::Record => ownership::attribute(&found.file, &name)?.ok_or(Errno::NODATA)?,
        Keeper::Kernel => {
            let mut value = vec![0; MAX_VALUE];
            let path = name_of(&found.file);
            let length = call
                .guest
                .acting(|| getxattr(path, os(&name), &mut value[..]))?;
            value.truncate(length);
            value
        }
    };
    give(call, 2, 3, &value)
}

/// Gives a value to a buffer of the caller's, or its length to who asks for that.
fn give(call: &Call<'_>, address: usize, size: usize, value: &[u8]) -> Outcome {
    let room = call.long(size);
    if room > 0 {
        if (room as usize) < value.len() {
            return Err(Errno::RANGE.into());
        }
        call.guest.write(call.long(address), value)?;
    }
    Ok(Answer::Value(value.len() as i64))
}

fn set(call: &Call<'_>, find: Find) -> Outcome {
    let name = name(call)?;
    let keeper = keeper(call, &name);
    if matches!(keeper, Keeper::Hidden | Keeper::AccessList) {
        return Err(Errno::OPNOTSUPP.into());
    }
    if keeper == Keeper::Kernel && call.guest.needs_no_check() {
        return Ok(Answer::Continue);
    }
    let found = find(call)?;
    check_change(call, &found, keeper, &name)?;
    if keeper == Keeper::Kernel && call.guest.kernel_takes(&found) {
        return Ok(Answer::Continue);
    }
    let size = call.long(3) as usize;
    if size > MAX_VALUE {
        return Err(Errno::TOOBIG.into());
    }
    let mut value = vec![0; size];
    call.guest.read(call.long(2), &mut value)?;
    let flags = XattrFlags::from_bits_truncate(call.word(4));
    match keeper {
        Keeper::Record => ownership::set_attribute(&found.file, &name, &value, flags)?,
        _ => {
            let path = name_of(&found.file);
            call.guest
                .acting(|| setxattr(path, os(&name), &value, flags))?;
        }
    }
    DONE
}

/// Fails unless the caller may change an attribute.
fn check_change(call: &Call<'_>, found: &Found, keeper: Keeper, name: &[u8]) -> Result<(), Fault> {
    found.check_writable()?;
    if call.guest.shared.plan.owners == Owners::Real {
        return Ok(());
    }
    let who = call.guest.credentials();
    let is_allowed = match keeper {
        Keeper::Record if name == b"security.capability" => who.can(cap::SETFCAP),
        Keeper::Record => who.can(cap::SYS_ADMIN),
        _ => owns(&who, &call.guest.look(found)?.meant()),
    };
    if is_allowed {
        Ok(())
    } else {
        Err(Errno::PERM.into())
    }
}

fn list(call: &Call<'_>, find: Find) -> Outcome {
    if call.guest.kernel_can() && call.guest.shared.plan.owners == Owners::Real {
        return Ok(Answer::Continue);
    }
    let found = find(call)?;
    if call.guest.shared.plan.owners == Owners::Real && call.guest.kernel_takes(&found) {
        return Ok(Answer::Continue);
    }
    let names = match call.guest.shared.plan.owners {
        Owners::Recorded => ownership::attribute_names(&found.file)?
            .iter()
            .flat_map(|name| [name.as_slice(), b"\0"].concat())
            .collect(),
        Owners::Real => {
            let mut names = vec![0; MAX_VALUE];
            let length = listxattr(name_of(&found.file), &mut names[..])?;
            names.truncate(length);
            names
        }
    };
    give(call, 1, 2, &names)
}

fn remove(call: &Call<'_>, find: Find) -> Outcome {
    let name = name(call)?;
    let keeper = keeper(call, &name);
    match keeper {
        Keeper::Hidden => return Err(Errno::NODATA.into()),
        Keeper::AccessList => return Err(Errno::OPNOTSUPP.into()),
        Keeper::Kernel if call.guest.needs_no_check() => return Ok(Answer::Continue),
        _ => {}
    }
    let found = find(call)?;
    check_change(call, &found, keeper, &name)?;
    match keeper {
        Keeper::Record if ownership::remove_attribute(&found.file, &name)? => DONE,
        Keeper::Record => Err(Errno::NODATA.into()),
        _ if call.guest.kernel_takes(&found) => Ok(Answer::Continue),
        _ => {
            let path = name_of(&found.file);
            call.guest.acting(|| removexattr(path, os(&name)))?;
            DONE
        }
    }
}
