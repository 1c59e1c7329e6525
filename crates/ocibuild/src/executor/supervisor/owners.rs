//! Whose a file is and what may be done with it, as the step sees it.

use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, chownat, fstat, openat};
use rustix::io::Errno;

use super::super::sys;
use super::access::{self, EXECUTE};
use super::call::Fault;
use super::credentials::Credentials;
use super::guest::{Guest, name_of, os, path_of};
use super::resolve::{Follow, Found, Origin};
use super::tree::Place;
use super::{Owners, View};
use crate::ownership::{self, Record, Seen};

/// The type of a file on the disk.
pub(super) fn kind(seen: &Seen) -> FileType {
    FileType::from_raw_mode(seen.stat.st_mode)
}

impl Guest<'_> {
    /// What a file is.
    pub(super) fn look(&self, found: &Found) -> Result<Seen, Fault> {
        if self.shared.plan.owners == Owners::Recorded {
            return Ok(ownership::look(&found.file)?);
        }
        let stat = fstat(&found.file)?;
        let record = Record {
            uid: stat.st_uid,
            gid: stat.st_gid,
            ..Record::plain(stat.st_mode)
        };
        Ok(Seen {
            stat,
            record: Some(record),
        })
    }

    /// Makes a file be this.
    pub(super) fn change(&self, found: &Found, record: &Record) -> Result<(), Fault> {
        found.check_writable()?;
        if found.origin == Origin::Kernel {
            return Err(Errno::ROFS.into());
        }
        if self.shared.plan.owners == Owners::Recorded {
            return Ok(ownership::write(&found.file, record)?);
        }
        let (uid, gid) = (Uid::from_raw(record.uid), Gid::from_raw(record.gid));
        chownat(&found.file, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
        let is_link = FileType::from_raw_mode(fstat(&found.file)?.st_mode) == FileType::Symlink;
        if !is_link {
            let mode = Mode::from_raw_mode(record.mode);
            rustix::fs::chmod(name_of(&found.file), mode)?;
        }
        Ok(())
    }

    /// Whether nothing but the kernel needs to be asked for this caller: it is root in all
    /// that concerns files.
    pub(super) fn is_plain_root(who: &Credentials) -> bool {
        who.uid.files == 0 && who.gid.files == 0 && who.can(super::credentials::cap::DAC_OVERRIDE)
    }

    /// Whether the kernel, which resolves paths as the step sees them, can make a call
    /// that was found to be allowed.
    pub(super) fn kernel_can(&self) -> bool {
        self.shared.plan.view == View::Mounts
    }

    /// Whether the kernel can make a call that was found to be allowed, about this file.
    pub(super) fn kernel_takes(&self, found: &Found) -> bool {
        match self.shared.plan.view {
            View::Mounts => true,
            View::Translated => false,
            View::Chroot => {
                found.plain
                    && self.shared.plan.owners == Owners::Real
                    && Self::is_plain_root(&self.credentials())
            }
        }
    }

    /// Whether the kernel finds a file by the path of the call, if not with the right to use it.
    pub(super) fn kernel_finds(&self, found: &Found) -> bool {
        self.shared.plan.view == View::Chroot && found.plain
    }

    /// Fails unless a file may be used so, and every directory on the way to it searched.
    pub(super) fn check(&self, who: &Credentials, found: &Found, wanted: u32) -> Result<(), Fault> {
        if self.leaves_rights_to_kernel(found) {
            return Ok(());
        }
        self.check_seen(who, found, &self.look(found)?, wanted)
    }

    /// The same for a file that was looked at.
    pub(super) fn check_seen(
        &self,
        who: &Credentials,
        found: &Found,
        seen: &Seen,
        wanted: u32,
    ) -> Result<(), Fault> {
        if self.leaves_rights_to_kernel(found) {
            return Ok(());
        }
        if wanted != 0 {
            access::check(who, &seen.meant(), kind(seen), wanted)?;
        }
        self.check_way(who, found)
    }

    fn leaves_rights_to_kernel(&self, found: &Found) -> bool {
        found.origin == Origin::Kernel || self.shared.plan.owners == Owners::Real
    }

    /// Fails unless every directory above a file may be searched.
    pub(super) fn check_way(&self, who: &Credentials, found: &Found) -> Result<(), Fault> {
        if who.can(super::credentials::cap::DAC_OVERRIDE) || self.leaves_rights_to_kernel(found) {
            return Ok(());
        }
        let path = self.inside(path_of(&found.file)?.as_bytes());
        for (slash, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            let above = match path.get(..slash) {
                Some([]) | None => b"/",
                Some(above) => above,
            };
            // What cannot be found that way was removed, or is no path of the step's.
            let Ok(directory) = self.find(libc::AT_FDCWD, above, Follow::No) else {
                return Ok(());
            };
            let seen = self.look(&directory)?;
            access::check(who, &seen.meant(), kind(&seen), EXECUTE)?;
        }
        Ok(())
    }

    /// A path of an open file as the step sees it.
    pub(super) fn inside(&self, shown: &[u8]) -> Vec<u8> {
        let tree = self.shared.tree().ok();
        let seen = tree.and_then(|tree| self.shared.seen_inside(tree, shown));
        seen.map_or_else(|| shown.to_vec(), |(inside, _)| inside)
    }

    /// Does something as the kernel would let the caller do it, where owners are real.
    pub(super) fn acting<T, E>(&self, action: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        if self.shared.plan.owners == Owners::Recorded {
            return action();
        }
        let who = self.credentials();
        if Self::is_plain_root(&who) {
            return action();
        }
        sys::use_file_rights(who.uid.files, who.gid.files, &who.groups);
        let done = action();
        let own = &self.shared.own;
        sys::use_own_rights(own.user, own.group, &own.groups);
        done
    }

    /// Fails for a place at which something of the builder is shown.
    pub(super) fn check_not_mounted(&self, directory: &Found, name: &[u8]) -> Result<(), Fault> {
        let Ok(tree) = self.shared.tree() else {
            return Ok(());
        };
        let name = trimmed(name);
        let ends_so =
            |place: &Place| place.inside.rsplit(|byte| *byte == b'/').next() == Some(name);
        let is_proc = name == b"proc";
        if !is_proc && !tree.places().iter().any(ends_so) {
            return Ok(());
        }
        let above = self.inside(path_of(&directory.file)?.as_bytes());
        let path = [above.strip_suffix(b"/").unwrap_or(&above), b"/", name].concat();
        if tree.place(&path).is_some() || path == b"/proc" {
            return Err(Errno::BUSY.into());
        }
        Ok(())
    }

    /// Opens a new file that is nobody else's, so that what it is can be set.
    pub(super) fn made(&self, directory: &Found, name: &[u8]) -> Result<Found, Errno> {
        let name = trimmed(name);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&directory.file, os(name), flags, Mode::empty())?;
        Ok(Found {
            origin: directory.origin,
            ..Found::in_step(file)
        })
    }
}

/// A name without the slashes after it.
fn trimmed(name: &[u8]) -> &[u8] {
    let end = name.iter().rposition(|byte| *byte != b'/');
    name.get(..=end.unwrap_or_default()).unwrap_or(name)
}
