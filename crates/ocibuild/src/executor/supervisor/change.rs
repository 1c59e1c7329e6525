//! The calls that change whose a file is, its mode and its times.

use rustix::fs::{AtFlags, FileType, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, utimensat};
use rustix::io::Errno;

use super::Owners;
use super::access::{SET_GROUP, SET_USER, WRITE, owns};
use super::call::{Answer, Call, DONE, Outcome};
use super::credentials::{Credentials, cap};
use super::owners::kind;
use super::resolve::{Follow, Found};
use crate::ownership::{self, Record, Seen};

/// The id that leaves things as they are.
const SAME: u32 = u32::MAX;
const CAPABILITIES: &[u8] = b"security.capability";

/// chown(2).
pub(super) fn chown(call: &Call<'_>) -> Outcome {
    let found = call
        .guest
        .find(libc::AT_FDCWD, &call.path(0)?, Follow::Yes)?;
    give_away(call, &found, call.word(1), call.word(2))
}

/// lchown(2).
pub(super) fn lchown(call: &Call<'_>) -> Outcome {
    let found = call
        .guest
        .find(libc::AT_FDCWD, &call.path(0)?, Follow::No)?;
    give_away(call, &found, call.word(1), call.word(2))
}

/// fchown(2).
pub(super) fn fchown(call: &Call<'_>) -> Outcome {
    let found = call.guest.find_open(call.int(0))?;
    give_away(call, &found, call.word(1), call.word(2))
}

/// fchownat(2).
pub(super) fn fchownat(call: &Call<'_>) -> Outcome {
    let found = call
        .guest
        .find_at(call.int(0), &call.path(1)?, call.int(4))?;
    give_away(call, &found, call.word(2), call.word(3))
}

fn give_away(call: &Call<'_>, found: &Found, uid: u32, gid: u32) -> Outcome {
    let guest = &call.guest;
    let who = guest.credentials();
    let seen = guest.look(found)?;
    guest.check_way(&who, found)?;
    let old = meant(&seen, &who);
    if guest.shared.plan.owners == Owners::Real && guest.kernel_takes(found) {
        return Ok(Answer::Continue);
    }
    if !who.can(cap::CHOWN) {
        let is_owner = who.uid.files == old.uid;
        let keeps_user = uid == SAME || uid == old.uid;
        let may_group = gid == SAME || gid == old.gid || who.in_group(gid);
        if !(is_owner && keeps_user && may_group) && (uid, gid) != (SAME, SAME) {
            return Err(Errno::PERM.into());
        }
    }
    let mut new = Record {
        uid: if uid == SAME { old.uid } else { uid },
        gid: if gid == SAME { old.gid } else { gid },
        ..old
    };
    let file_type = kind(&seen);
    if file_type == FileType::RegularFile && (uid, gid) != (SAME, SAME) {
        // Rights of the old owner are not the new one's.
        new.mode &= !SET_USER;
        if new.mode & 0o010 != 0 {
            new.mode &= !SET_GROUP;
        }
        if guest.shared.plan.owners == Owners::Recorded {
            ownership::remove_attribute(&found.file, CAPABILITIES)?;
        }
    }
    if new == old && seen.record.is_some() {
        return DONE;
    }
    match guest.change(found, &new) {
        // Pipes of a pipeline, sockets, files of the kernel: nobody will ask again.
        Err(super::call::Fault::Errno(Errno::OPNOTSUPP | Errno::PERM | Errno::ROFS))
            if is_kernels(found, file_type) =>
        {
            DONE
        }
        other => other.and(DONE),
    }
}

/// What a file is meant to be. A socket that the kernel made for bind(2) has no record; who
/// asks about one is taken for its owner, and the kernel has the last word.
fn meant(seen: &Seen, who: &Credentials) -> Record {
    let meant = seen.meant();
    match (kind(seen), seen.record) {
        (FileType::Socket, None) => Record {
            uid: who.uid.files,
            gid: who.gid.files,
            ..meant
        },
        _ => meant,
    }
}

/// Whether a file is no file of a disk.
fn is_kernels(found: &Found, kind: FileType) -> bool {
    found.origin == super::resolve::Origin::Kernel
        || matches!(
            kind,
            FileType::Fifo | FileType::Socket | FileType::CharacterDevice
        )
}

/// chmod(2).
pub(super) fn chmod(call: &Call<'_>) -> Outcome {
    let found = call
        .guest
        .find(libc::AT_FDCWD, &call.path(0)?, Follow::Yes)?;
    set_mode(call, &found, call.word(1))
}

/// fchmod(2).
pub(super) fn fchmod(call: &Call<'_>) -> Outcome {
    let found = call.guest.find_open(call.int(0))?;
    set_mode(call, &found, call.word(1))
}

/// fchmodat(2), which follows links.
pub(super) fn fchmodat(call: &Call<'_>) -> Outcome {
    let found = call.guest.find(call.int(0), &call.path(1)?, Follow::Yes)?;
    set_mode(call, &found, call.word(2))
}

/// fchmodat2(2).
pub(super) fn fchmodat2(call: &Call<'_>) -> Outcome {
    let found = call
        .guest
        .find_at(call.int(0), &call.path(1)?, call.int(3))?;
    set_mode(call, &found, call.word(2))
}

fn set_mode(call: &Call<'_>, found: &Found, mode: u32) -> Outcome {
    let guest = &call.guest;
    let who = guest.credentials();
    let seen = guest.look(found)?;
    guest.check_way(&who, found)?;
    let old = meant(&seen, &who);
    let file_type = kind(&seen);
    if file_type == FileType::Symlink {
        return Err(Errno::OPNOTSUPP.into());
    }
    if !owns(&who, &old) {
        return Err(Errno::PERM.into());
    }
    let mut mode = mode & 0o7777;
    if !who.in_group(old.gid) && !who.can(cap::FSETID) {
        mode &= !SET_GROUP;
    }
    let is_of_disk = matches!(file_type, FileType::RegularFile | FileType::Directory);
    let is_real = guest.shared.plan.owners == Owners::Real;
    if (!is_of_disk || is_real) && guest.kernel_takes(found) {
        return Ok(Answer::Continue);
    }
    guest.change(found, &Record { mode, ..old })?;
    DONE
}

/// utimensat(2).
pub(super) fn utimensat_(call: &Call<'_>) -> Outcome {
    let flags = call.int(3);
    let found = if call.long(1) == 0 {
        call.guest.find_open(call.int(0))?
    } else {
        call.guest.find_at(call.int(0), &call.path(1)?, flags)?
    };
    let times = match call.long(2) {
        0 => None,
        address => Some(read_times(call, address, 1)?),
    };
    set_times(call, &found, times)
}

/// utimes(2), whose times have microseconds.
pub(super) fn utimes(call: &Call<'_>) -> Outcome {
    let found = call
        .guest
        .find(libc::AT_FDCWD, &call.path(0)?, Follow::Yes)?;
    let times = match call.long(1) {
        0 => None,
        address => Some(read_times(call, address, 1000)?),
    };
    set_times(call, &found, times)
}

/// futimesat(2), whose times have microseconds.
pub(super) fn futimesat(call: &Call<'_>) -> Outcome {
    let found = if call.long(1) == 0 {
        call.guest.find_open(call.int(0))?
    } else {
        call.guest.find(call.int(0), &call.path(1)?, Follow::Yes)?
    };
    let times = match call.long(2) {
        0 => None,
        address => Some(read_times(call, address, 1000)?),
    };
    set_times(call, &found, times)
}

/// utime(2), whose times have seconds.
pub(super) fn utime(call: &Call<'_>) -> Outcome {
    let found = call
        .guest
        .find(libc::AT_FDCWD, &call.path(0)?, Follow::Yes)?;
    let times = match call.long(1) {
        0 => None,
        address => {
            let [access, modification] = read_longs(call, address)?;
            Some(Timestamps {
                last_access: time(access, 0),
                last_modification: time(modification, 0),
            })
        }
    };
    set_times(call, &found, times)
}

fn read_longs<const COUNT: usize>(call: &Call<'_>, address: u64) -> Result<[i64; COUNT], Errno> {
    let mut bytes = vec![0; COUNT * 8];
    call.guest.read(address, &mut bytes)?;
    let mut longs = [0; COUNT];
    for (long, bytes) in longs.iter_mut().zip(bytes.chunks_exact(8)) {
        *long = i64::from_le_bytes(bytes.first_chunk().copied().unwrap_or_default());
    }
    Ok(longs)
}

fn read_times(call: &Call<'_>, address: u64, nanoseconds: i64) -> Result<Timestamps, Errno> {
    let [access, access_part, modification, modification_part] = read_longs(call, address)?;
    let part = |part: i64| {
        if nanoseconds != 1 && !(0..1_000_000).contains(&part) {
            return Err(Errno::INVAL);
        }
        Ok(part * nanoseconds)
    };
    Ok(Timestamps {
        last_access: time(access, part(access_part)?),
        last_modification: time(modification, part(modification_part)?),
    })
}

fn time(seconds: i64, nanoseconds: i64) -> Timespec {
    Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds as _,
    }
}

const NOW: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: UTIME_NOW,
};
const OMIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: UTIME_OMIT,
};

/// Sets times; the access time of what has its owner there stays.
fn set_times(call: &Call<'_>, found: &Found, times: Option<Timestamps>) -> Outcome {
    let guest = &call.guest;
    let who = guest.credentials();
    let seen = guest.look(found)?;
    let what = seen.meant();
    if !owns(&who, &what) {
        let is_now = |time: &Timespec| time.tv_nsec == UTIME_NOW;
        let only_now = times
            .as_ref()
            .is_none_or(|times| is_now(&times.last_access) && is_now(&times.last_modification));
        if !only_now {
            return Err(Errno::PERM.into());
        }
        guest.check(&who, found, WRITE)?;
    } else {
        guest.check_way(&who, found)?;
    }
    let has_attributes = matches!(kind(&seen), FileType::RegularFile | FileType::Directory);
    let is_stamped =
        !has_attributes && seen.record.is_some() && guest.shared.plan.owners == Owners::Recorded;
    if guest.kernel_takes(found) && !is_stamped {
        return Ok(Answer::Continue);
    }
    found.check_writable()?;
    let mut times = times.unwrap_or(Timestamps {
        last_access: NOW,
        last_modification: NOW,
    });
    if is_stamped {
        times.last_access = OMIT;
    }
    utimensat(&found.file, "", &times, AtFlags::EMPTY_PATH)?;
    DONE
}
