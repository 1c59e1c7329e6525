//! Calls that ask whether a file may be used, or use it by its path alone.

use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, CWD, FileType, ftruncate, readlinkat};
use rustix::io::Errno;

use super::super::sys;
use super::access::{EXECUTE, WRITE};
use super::call::{Answer, Call, DONE, Outcome};
use super::credentials::{Credentials, cap};
use super::guest::{name_of, path_of};
use super::owners::kind;
use super::resolve::{Follow, Origin};
use super::tree::is_below;
use super::{Owners, View};

/// access(2).
pub(super) fn access(call: &Call<'_>) -> Outcome {
    check(call, libc::AT_FDCWD, 0, call.word(1), 0)
}

/// faccessat(2), which knows no flags.
pub(super) fn faccessat(call: &Call<'_>) -> Outcome {
    check(call, call.int(0), 1, call.word(2), 0)
}

/// faccessat2(2).
pub(super) fn faccessat2(call: &Call<'_>) -> Outcome {
    check(call, call.int(0), 1, call.word(2), call.int(3))
}

fn check(call: &Call<'_>, directory: i32, path: usize, wanted: u32, flags: i32) -> Outcome {
    if wanted & !7 != 0 {
        return Err(Errno::INVAL.into());
    }
    let who = call.guest.credentials();
    let who = if flags & libc::AT_EACCESS == 0 {
        as_real_user(&who)
    } else {
        Credentials::clone(&who)
    };
    if call.guest.kernel_can() && who.uid.files == 0 && who.can(cap::DAC_OVERRIDE) {
        return Ok(Answer::Continue);
    }
    let found = call.guest.find_at(directory, &call.path(path)?, flags)?;
    call.guest.check(&who, &found, wanted)?;
    if wanted & WRITE != 0 {
        found.check_writable()?;
    }
    if call.guest.kernel_takes(&found) {
        return Ok(Answer::Continue);
    }
    if call.guest.shared.plan.owners == Owners::Real || found.origin == Origin::Kernel {
        let mode = rustix::fs::Access::from_bits_truncate(wanted);
        let path = name_of(&found.file);
        call.guest
            .acting(|| rustix::fs::accessat(CWD, path, mode, AtFlags::EACCESS))?;
    }
    DONE
}

/// Credentials with the rights of who started the process rather than those it uses.
fn as_real_user(who: &Credentials) -> Credentials {
    let mut real = who.clone();
    real.uid.files = who.uid.real;
    real.gid.files = who.gid.real;
    real.caps.effective = if who.uid.real == 0 {
        who.caps.permitted
    } else {
        0
    };
    real
}

/// chdir(2), where the kernel finds the directory.
pub(super) fn chdir(call: &Call<'_>) -> Outcome {
    if !call.guest.needs_no_check() {
        let found = call
            .guest
            .find(libc::AT_FDCWD, &call.path(0)?, Follow::Yes)?;
        let who = call.guest.credentials();
        call.guest.check(&who, &found, EXECUTE)?;
    }
    Ok(Answer::Continue)
}

/// chroot(2).
pub(super) fn chroot(call: &Call<'_>) -> Outcome {
    let guest = &call.guest;
    if !guest.credentials().can(cap::SYS_CHROOT) {
        return Err(Errno::PERM.into());
    }
    match guest.shared.plan.view {
        View::Mounts => {
            // From now on its root is looked up each time.
            guest.carry(guest.cookie.with_root(1))?;
            Ok(Answer::Continue)
        }
        // Programs would be looked for in the root that there was.
        View::Chroot => Err(Errno::PERM.into()),
        View::Translated => {
            let found = guest.find(libc::AT_FDCWD, &call.path(0)?, Follow::Yes)?;
            if kind(&guest.look(&found)?) != FileType::Directory {
                return Err(Errno::NOTDIR.into());
            }
            let mut path = guest.inside(path_of(&found.file)?.as_bytes());
            if path == b"/" {
                path.clear();
            }
            let number = guest.shared.roots.number(path)?;
            guest.carry(guest.cookie.with_root(number))?;
            DONE
        }
    }
}

/// readlink(2).
pub(super) fn readlink(call: &Call<'_>) -> Outcome {
    read_link(call, libc::AT_FDCWD, &call.path(0)?, 1)
}

/// readlinkat(2).
pub(super) fn readlinkat_(call: &Call<'_>) -> Outcome {
    read_link(call, call.int(0), &call.path(1)?, 2)
}

fn read_link(call: &Call<'_>, directory: i32, path: &[u8], buffer: usize) -> Outcome {
    let size = call.int(buffer + 1);
    if size <= 0 {
        return Err(Errno::INVAL.into());
    }
    let found = if path.is_empty() {
        call.guest.find_open(directory)?
    } else {
        call.guest.find(directory, path, Follow::No)?
    };
    if found.link.is_none() && call.guest.kernel_takes(&found) {
        return Ok(Answer::Continue);
    }
    let target = match found.link {
        Some(target) => target,
        None => readlinkat(&found.file, "", Vec::new())
            // A file that is no link has no name here.
            .map_err(|errno| {
                if errno == Errno::NOENT {
                    Errno::INVAL
                } else {
                    errno
                }
            })?
            .into_bytes(),
    };
    let length = target.len().min(size as usize);
    let shown = target.get(..length).unwrap_or_default();
    call.guest.write(call.long(buffer), shown)?;
    Ok(Answer::Value(length as i64))
}

/// statfs(2).
pub(super) fn statfs(call: &Call<'_>) -> Outcome {
    let found = call
        .guest
        .find(libc::AT_FDCWD, &call.path(0)?, Follow::Yes)?;
    if call.guest.kernel_takes(&found) {
        return Ok(Answer::Continue);
    }
    let bytes = sys::statfs_bytes(&found.file)?;
    call.guest.write(call.long(1), &bytes)?;
    DONE
}

/// getcwd(2).
pub(super) fn getcwd(call: &Call<'_>) -> Outcome {
    let guest = &call.guest;
    let tree = guest.shared.tree()?;
    let shown = guest.own_path("cwd")?;
    if shown.as_bytes().ends_with(b" (deleted)") {
        return Err(Errno::NOENT.into());
    }
    let seen = guest.shared.seen_inside(tree, shown.as_bytes());
    let (mut path, _) = seen.ok_or(Errno::NOENT)?;
    if let Some(root) = guest.root_path()
        && is_below(&path, &root)
    {
        path.drain(..root.len());
        if path.is_empty() {
            path.push(b'/');
        }
    }
    path.push(0);
    if call.long(1) < path.len() as u64 {
        return Err(Errno::RANGE.into());
    }
    guest.write(call.long(0), &path)?;
    Ok(Answer::Value(path.len() as i64))
}

/// truncate(2).
pub(super) fn truncate(call: &Call<'_>) -> Outcome {
    if call.guest.needs_no_check() {
        return Ok(Answer::Continue);
    }
    let found = call
        .guest
        .find(libc::AT_FDCWD, &call.path(0)?, Follow::Yes)?;
    let who = call.guest.credentials();
    call.guest.check(&who, &found, WRITE)?;
    found.check_writable()?;
    if call.guest.kernel_takes(&found) {
        return Ok(Answer::Continue);
    }
    if kind(&call.guest.look(&found)?) == FileType::Directory {
        return Err(Errno::ISDIR.into());
    }
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
    let path = super::guest::name_of(&found.file);
    let file = call
        .guest
        .acting(|| rustix::fs::open(path.as_str(), flags, rustix::fs::Mode::empty()))?;
    ftruncate(file, call.long(1))?;
    DONE
}
