//! execve(2), as far as it changes who a process is: set-id bits and capabilities of the
//! program's file, which the kernel does not see.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::access::{EXECUTE, SET_GROUP, SET_USER};
use super::call::{Answer, Call, Fault, Outcome};
use super::credentials::{FileCapabilities, ProgramBits};
use super::guest::{Guest, name_of, path_of};
use super::owners::kind;
use super::resolve::{Follow, Found};
use super::tree::is_below;
use super::{Owners, View};
use crate::ownership::{self, Seen};

const CAPABILITIES: &str = "security.capability";
/// As long as the longest value of the attribute.
const MAX_VALUE: usize = 24;

/// execve(2).
pub(super) fn execve(call: &Call<'_>) -> Outcome {
    let path = call.path(0)?;
    let found = call.guest.find(libc::AT_FDCWD, &path, Follow::Yes)?;
    begin(call, &found, &path, call.long(0))
}

/// execveat(2).
pub(super) fn execveat(call: &Call<'_>) -> Outcome {
    let path = call.path(1)?;
    let found = call.guest.find_at(call.int(0), &path, call.int(4))?;
    begin(call, &found, &path, call.long(1))
}

fn begin(call: &Call<'_>, found: &Found, path: &[u8], address: u64) -> Outcome {
    call.guest.begin_program(found)?;
    if call.guest.shared.plan.view == View::Chroot && is_below(path, b"/proc") {
        call.guest.name_program(found, path, address)?;
    }
    Ok(Answer::Continue)
}

impl Guest<'_> {
    /// Makes the process who it is once it executes a file, if it may execute it. Comes
    /// before the kernel's own part, so that part should not fail any more.
    pub(super) fn begin_program(&self, found: &Found) -> Result<(), Fault> {
        let who = self.credentials();
        let seen = self.look(found)?;
        if kind(&seen) != FileType::RegularFile || seen.meant().mode & 0o111 == 0 {
            // The kernel refuses it.
            return Ok(());
        }
        if self.shared.plan.owners == Owners::Recorded {
            self.check(&who, found, EXECUTE)?;
        }
        let bits = self.program_bits(found, &seen);
        self.become_other(who.after_exec(&bits))?;
        Ok(())
    }

    /// Says in the caller's own memory where a program is that the kernel, which has no
    /// /proc there, would not find: the memory ends with exec. A longer name has no room.
    fn name_program(&self, found: &Found, path: &[u8], address: u64) -> Result<(), Fault> {
        let mut inside = self.inside(path_of(&found.file)?.as_bytes());
        if inside.len() > path.len() || !self.shared.tree()?.is_plain(&inside) {
            return Err(Errno::NOENT.into());
        }
        inside.push(0);
        Ok(self.overwrite(address, &inside)?)
    }

    fn program_bits(&self, found: &Found, seen: &Seen) -> ProgramBits {
        let what = seen.meant();
        let user = (what.mode & SET_USER != 0).then_some(what.uid);
        // Without the group's right to execute it means mandatory locks.
        let group = (what.mode & (SET_GROUP | 0o010) == SET_GROUP | 0o010).then_some(what.gid);
        let capabilities = self.capabilities_of(found);
        let is_plain = user.is_none() && group.is_none() && capabilities.is_none();
        if is_plain || is_script(found) {
            return ProgramBits::default();
        }
        ProgramBits {
            user,
            group,
            capabilities,
        }
    }

    fn capabilities_of(&self, found: &Found) -> Option<FileCapabilities> {
        let value = match self.shared.plan.owners {
            Owners::Recorded => {
                ownership::attribute(&found.file, CAPABILITIES.as_bytes()).ok()??
            }
            Owners::Real => {
                let mut value = vec![0; MAX_VALUE];
                let path = name_of(&found.file);
                let length = rustix::fs::getxattr(path, CAPABILITIES, &mut value[..]).ok()?;
                value.truncate(length);
                value
            }
        };
        FileCapabilities::parse(&value)
    }
}

/// Whether a file is run by an interpreter, which then gets no rights by it.
fn is_script(found: &Found) -> bool {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let Ok(file) = rustix::fs::open(name_of(&found.file), flags, Mode::empty()) else {
        return true;
    };
    let mut magic = [0; 2];
    !matches!(rustix::io::read(file.as_fd(), &mut magic), Ok(2)) || &magic == b"#!"
}
