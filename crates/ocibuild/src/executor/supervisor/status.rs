//! The calls that tell what a file is.

use std::mem::offset_of;

use super::super::sys;
use super::Owners;
use super::call::{Call, DONE, Fault, Outcome};
use super::resolve::Found;
use crate::ownership::Seen;

// Of `struct statx`, the same on every machine.
const STATX_UID: usize = 20;
const STATX_GID: usize = 24;
const STATX_MODE: usize = 28;
const STATX_ACCESS_TIME: usize = 64;
const STATX_MODIFICATION_TIME: usize = 112;
const STATX_TIME: usize = 16;
const STATX_DEVICE: usize = 128;

/// stat(2).
pub(super) fn stat(call: &Call<'_>) -> Outcome {
    let found = find(call, libc::AT_FDCWD, &call.path(0)?, 0)?;
    tell(call, &found, call.long(1))
}

/// lstat(2).
pub(super) fn lstat(call: &Call<'_>) -> Outcome {
    let found = find(
        call,
        libc::AT_FDCWD,
        &call.path(0)?,
        libc::AT_SYMLINK_NOFOLLOW,
    )?;
    tell(call, &found, call.long(1))
}

/// fstat(2).
pub(super) fn fstat(call: &Call<'_>) -> Outcome {
    let found = call.guest.opened(call.int(0))?;
    tell(call, &found, call.long(1))
}

/// fstatat(2).
pub(super) fn fstatat(call: &Call<'_>) -> Outcome {
    let path = match call.long(1) {
        0 if call.int(3) & libc::AT_EMPTY_PATH != 0 => Vec::new(),
        _ => call.path(1)?,
    };
    let found = find(call, call.int(0), &path, call.int(3))?;
    tell(call, &found, call.long(2))
}

/// Finds a file that may be looked at: one that is open, or one to which a way leads. Where
/// owners are real the kernel's own answer is right for all that it finds.
fn find(call: &Call<'_>, directory: i32, path: &[u8], flags: i32) -> Result<Found, Fault> {
    let guest = &call.guest;
    if path.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
        return Ok(guest.opened(directory)?);
    }
    let found = guest.find_at(directory, path, flags)?;
    if guest.shared.plan.owners == Owners::Real && guest.kernel_takes(&found) {
        return Err(Fault::Continue);
    }
    guest.check_way(&guest.credentials(), &found)?;
    Ok(found)
}

fn tell(call: &Call<'_>, found: &Found, address: u64) -> Outcome {
    let seen = call.guest.look(found)?;
    let mut bytes = sys::stat_bytes(&seen.stat);
    let what = seen.meant();
    put(
        &mut bytes,
        offset_of!(libc::stat, st_uid),
        &what.uid.to_le_bytes(),
    );
    put(
        &mut bytes,
        offset_of!(libc::stat, st_gid),
        &what.gid.to_le_bytes(),
    );
    let mode = seen.st_mode().to_le_bytes();
    put(&mut bytes, offset_of!(libc::stat, st_mode), &mode);
    if let Some(device) = what.device {
        let (major, minor) = device.numbers();
        let number = libc::makedev(major, minor).to_le_bytes();
        put(&mut bytes, offset_of!(libc::stat, st_rdev), &number);
    }
    if is_stamped(&seen) {
        let times = offset_of!(libc::stat, st_mtime);
        copy(&mut bytes, times, offset_of!(libc::stat, st_atime), 16);
    }
    call.guest.write(address, &bytes)?;
    DONE
}

/// statx(2).
pub(super) fn statx(call: &Call<'_>) -> Outcome {
    let flags = call.int(2);
    let path = match call.long(1) {
        0 if flags & libc::AT_EMPTY_PATH != 0 => Vec::new(),
        _ => call.path(1)?,
    };
    let found = find(call, call.int(0), &path, flags)?;
    let seen = call.guest.look(&found)?;
    let mut bytes = sys::statx_bytes(&found.file, flags, call.word(3))?;
    let what = seen.meant();
    put(&mut bytes, STATX_UID, &what.uid.to_le_bytes());
    put(&mut bytes, STATX_GID, &what.gid.to_le_bytes());
    put(
        &mut bytes,
        STATX_MODE,
        &(seen.st_mode() as u16).to_le_bytes(),
    );
    if let Some(device) = what.device {
        let (major, minor) = device.numbers();
        put(&mut bytes, STATX_DEVICE, &major.to_le_bytes());
        put(&mut bytes, STATX_DEVICE + 4, &minor.to_le_bytes());
    }
    if is_stamped(&seen) {
        copy(
            &mut bytes,
            STATX_MODIFICATION_TIME,
            STATX_ACCESS_TIME,
            STATX_TIME,
        );
    }
    call.guest.write(call.long(4), &bytes)?;
    DONE
}

/// Whether the access time is no time.
fn is_stamped(seen: &Seen) -> bool {
    use rustix::fs::FileType::{Fifo, Socket, Symlink};
    let kind = rustix::fs::FileType::from_raw_mode(seen.stat.st_mode);
    seen.record.is_some()
        && seen.stat.st_atime >= 1 << 32
        && matches!(kind, Symlink | Fifo | Socket)
}

fn put(bytes: &mut [u8], place: usize, value: &[u8]) {
    if let Some(field) = bytes.get_mut(place..place + value.len()) {
        field.copy_from_slice(value);
    }
}

fn copy(bytes: &mut [u8], from: usize, to: usize, length: usize) {
    if from.max(to) + length <= bytes.len() {
        bytes.copy_within(from..from + length, to);
    }
}
