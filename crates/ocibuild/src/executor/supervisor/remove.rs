//! The calls that remove and move names.

use rustix::fs::{AtFlags, RenameFlags, renameat_with, unlinkat};
use rustix::io::Errno;

use super::Owners;
use super::access::check_sticky;
use super::call::{Answer, Call, DONE, Fault, Outcome};
use super::guest::{Guest, os};
use super::resolve::Found;

/// unlink(2).
pub(super) fn unlink(call: &Call<'_>) -> Outcome {
    remove(call, libc::AT_FDCWD, &call.path(0)?, AtFlags::empty())
}

/// rmdir(2).
pub(super) fn rmdir(call: &Call<'_>) -> Outcome {
    remove(call, libc::AT_FDCWD, &call.path(0)?, AtFlags::REMOVEDIR)
}

/// unlinkat(2).
pub(super) fn unlinkat_(call: &Call<'_>) -> Outcome {
    let flags = match call.int(2) {
        0 => AtFlags::empty(),
        libc::AT_REMOVEDIR => AtFlags::REMOVEDIR,
        _ => return Err(Errno::INVAL.into()),
    };
    remove(call, call.int(0), &call.path(1)?, flags)
}

fn remove(call: &Call<'_>, directory: i32, path: &[u8], flags: AtFlags) -> Outcome {
    let guest = &call.guest;
    if guest.needs_no_check() {
        return Ok(Answer::Continue);
    }
    let (parent, name) = guest.find_parent(directory, path)?;
    guest.check_removal(&parent, name)?;
    if guest.kernel_takes(&parent) {
        return Ok(Answer::Continue);
    }
    guest.acting(|| unlinkat(&parent.file, os(name), flags))?;
    DONE
}

/// rename(2).
pub(super) fn rename(call: &Call<'_>) -> Outcome {
    let (old, new) = (call.path(0)?, call.path(1)?);
    move_name(call, (libc::AT_FDCWD, &old), (libc::AT_FDCWD, &new), 0)
}

/// renameat(2).
pub(super) fn renameat(call: &Call<'_>) -> Outcome {
    let (old, new) = (call.path(1)?, call.path(3)?);
    move_name(call, (call.int(0), &old), (call.int(2), &new), 0)
}

/// renameat2(2).
pub(super) fn renameat2(call: &Call<'_>) -> Outcome {
    let (old, new) = (call.path(1)?, call.path(3)?);
    let flags = call.word(4);
    move_name(call, (call.int(0), &old), (call.int(2), &new), flags)
}

fn move_name(call: &Call<'_>, old: (i32, &[u8]), new: (i32, &[u8]), flags: u32) -> Outcome {
    let guest = &call.guest;
    let flags = RenameFlags::from_bits_retain(flags);
    if flags.contains(RenameFlags::WHITEOUT) {
        return Err(Errno::INVAL.into());
    }
    if guest.needs_no_check() {
        return Ok(Answer::Continue);
    }
    let (from, old_name) = guest.find_parent(old.0, old.1)?;
    guest.check_removal(&from, old_name)?;
    let (to, new_name) = guest.find_parent(new.0, new.1)?;
    guest.check_removal(&to, new_name)?;
    if guest.kernel_can() {
        return Ok(Answer::Continue);
    }
    guest.acting(|| renameat_with(&from.file, os(old_name), &to.file, os(new_name), flags))?;
    DONE
}

impl Guest<'_> {
    /// Whether the kernel refuses what is to be refused, and nothing else.
    pub(super) fn needs_no_check(&self) -> bool {
        self.kernel_can() && Self::is_plain_root(&self.credentials())
    }

    /// Fails unless a name may be taken from a directory or replaced there.
    fn check_removal(&self, directory: &Found, name: &[u8]) -> Result<(), Fault> {
        self.check_change(directory)?;
        let Ok(file) = self.made(directory, name) else {
            // The kernel says what is wrong with a name that is not there.
            return Ok(());
        };
        self.check_not_mounted(directory, name)?;
        let who = self.credentials();
        if self.shared.plan.owners == Owners::Recorded && !Self::is_plain_root(&who) {
            let (above, file) = (self.look(directory)?, self.look(&file)?);
            check_sticky(&who, &above.meant(), &file.meant())?;
        }
        Ok(())
    }
}
