//! Calls that ask whether a file may be used, or use it by its path alone.

use rustix::fs::{FileType, ftruncate};
use rustix::io::Errno;

use super::access::{EXECUTE, WRITE};
use super::call::{Answer, Call, DONE, Outcome};
use super::credentials::{Credentials, cap};
use super::owners::kind;
use super::resolve::Follow;

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
    if call.guest.kernel_can() {
        return Ok(Answer::Continue);
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

/// chdir(2).
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
    if !call.guest.credentials().can(cap::SYS_CHROOT) {
        return Err(Errno::PERM.into());
    }
    // From now on its root is looked up each time.
    call.guest.carry(call.guest.cookie.with_root(1))?;
    Ok(Answer::Continue)
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
    if call.guest.kernel_can() {
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
