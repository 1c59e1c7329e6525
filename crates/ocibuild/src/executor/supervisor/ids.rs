//! Calls that ask who a process is, or make it somebody else.

use rustix::io::Errno;

use super::View;
use super::call::{Answer, Call, DONE, Outcome};
use super::credentials::{Capabilities, Credentials, MAX_GROUPS, cap};

const SET_DUMPABLE: u32 = 4;
const GET_KEEP_CAPS: u32 = 7;
const SET_KEEP_CAPS: u32 = 8;
const BOUNDING_READ: u32 = 23;
const BOUNDING_DROP: u32 = 24;
const GET_SECURE_BITS: u32 = 27;
const SET_SECURE_BITS: u32 = 28;
const SET_NO_NEW_PRIVILEGES: u32 = 38;
const GET_NO_NEW_PRIVILEGES: u32 = 39;
const AMBIENT: u32 = 47;

/// The requests of prctl(2) that are answered here.
pub(super) const PROCESS_CONTROLS: &[u32] = &[
    SET_DUMPABLE,
    GET_KEEP_CAPS,
    SET_KEEP_CAPS,
    BOUNDING_READ,
    BOUNDING_DROP,
    GET_SECURE_BITS,
    SET_SECURE_BITS,
    SET_NO_NEW_PRIVILEGES,
    GET_NO_NEW_PRIVILEGES,
    AMBIENT,
];

/// `SECBIT_KEEP_CAPS`, the one that is emulated.
const KEEP_CAPS_BIT: u32 = 1 << 4;

const CAPABILITIES_1: u32 = 0x1998_0330;
const CAPABILITIES_2: u32 = 0x2007_1026;
const CAPABILITIES_3: u32 = 0x2008_0522;
const RLIMIT_LOCKS: u32 = 10;
/// Beyond the last capability that there may be.
const CAPABILITY_END: u64 = 64;

fn value(number: u32) -> Outcome {
    Ok(Answer::Value(number.into()))
}

/// getuid(2).
pub(super) fn get_user(call: &Call<'_>) -> Outcome {
    value(call.guest.credentials().uid.real)
}

/// geteuid(2).
pub(super) fn get_effective_user(call: &Call<'_>) -> Outcome {
    value(call.guest.credentials().uid.effective)
}

/// getgid(2).
pub(super) fn get_group(call: &Call<'_>) -> Outcome {
    value(call.guest.credentials().gid.real)
}

/// getegid(2).
pub(super) fn get_effective_group(call: &Call<'_>) -> Outcome {
    value(call.guest.credentials().gid.effective)
}

/// getresuid(2).
pub(super) fn get_three_users(call: &Call<'_>) -> Outcome {
    let ids = call.guest.credentials().uid;
    write_three(call, [ids.real, ids.effective, ids.saved])
}

/// getresgid(2).
pub(super) fn get_three_groups(call: &Call<'_>) -> Outcome {
    let ids = call.guest.credentials().gid;
    write_three(call, [ids.real, ids.effective, ids.saved])
}

fn write_three(call: &Call<'_>, ids: [u32; 3]) -> Outcome {
    for (number, id) in ids.into_iter().enumerate() {
        call.guest.write(call.long(number), &id.to_le_bytes())?;
    }
    DONE
}

/// getgroups(2).
pub(super) fn get_groups(call: &Call<'_>) -> Outcome {
    let credentials = call.guest.credentials();
    let (room, count) = (call.int(0), credentials.groups.len());
    if room < 0 || (room > 0 && (room as usize) < count) {
        return Err(Errno::INVAL.into());
    }
    if room > 0 {
        let bytes: Vec<u8> = credentials
            .groups
            .iter()
            .flat_map(|group| group.to_le_bytes())
            .collect();
        call.guest.write(call.long(1), &bytes)?;
    }
    Ok(Answer::Value(count as i64))
}

/// setgroups(2).
pub(super) fn set_groups(call: &Call<'_>) -> Outcome {
    let count = call.int(0) as usize;
    let credentials = call.guest.credentials();
    if !credentials.can(cap::SETGID) {
        return Err(Errno::PERM.into());
    }
    if count > MAX_GROUPS {
        return Err(Errno::INVAL.into());
    }
    let mut bytes = vec![0; count * 4];
    call.guest.read(call.long(1), &mut bytes)?;
    let groups = bytes.chunks_exact(4).map(number).collect();
    become_other(call, credentials.set_groups(groups))
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.first_chunk().copied().unwrap_or_default())
}

fn become_other(call: &Call<'_>, new: Result<Credentials, Errno>) -> Outcome {
    call.guest.become_other(new?)?;
    DONE
}

/// setuid(2).
pub(super) fn set_user(call: &Call<'_>) -> Outcome {
    become_other(call, call.guest.credentials().set_user(call.word(0)))
}

/// setgid(2).
pub(super) fn set_group(call: &Call<'_>) -> Outcome {
    become_other(call, call.guest.credentials().set_group(call.word(0)))
}

/// setreuid(2).
pub(super) fn set_two_users(call: &Call<'_>) -> Outcome {
    let credentials = call.guest.credentials();
    become_other(call, credentials.set_two_users(call.word(0), call.word(1)))
}

/// setregid(2).
pub(super) fn set_two_groups(call: &Call<'_>) -> Outcome {
    let credentials = call.guest.credentials();
    become_other(call, credentials.set_two_groups(call.word(0), call.word(1)))
}

/// setresuid(2).
pub(super) fn set_three_users(call: &Call<'_>) -> Outcome {
    let ids = [0, 1, 2].map(|number| call.word(number));
    become_other(call, call.guest.credentials().set_three_users(ids))
}

/// setresgid(2).
pub(super) fn set_three_groups(call: &Call<'_>) -> Outcome {
    let ids = [0, 1, 2].map(|number| call.word(number));
    become_other(call, call.guest.credentials().set_three_groups(ids))
}

/// setfsuid(2), which gives the id that was before.
pub(super) fn set_file_user(call: &Call<'_>) -> Outcome {
    let credentials = call.guest.credentials();
    call.guest
        .become_other(credentials.set_file_user(call.word(0)))?;
    value(credentials.uid.files)
}

/// setfsgid(2), which gives the id that was before.
pub(super) fn set_file_group(call: &Call<'_>) -> Outcome {
    let credentials = call.guest.credentials();
    call.guest
        .become_other(credentials.set_file_group(call.word(0)))?;
    value(credentials.gid.files)
}

/// uname(2), with the host name of the step.
pub(super) fn get_names(call: &Call<'_>) -> Outcome {
    const FIELD: usize = 65;
    let system = rustix::system::uname();
    let mut bytes = Vec::with_capacity(6 * FIELD);
    for field in [
        system.sysname().to_bytes(),
        call.guest.shared.plan.hostname.as_bytes(),
        system.release().to_bytes(),
        system.version().to_bytes(),
        system.machine().to_bytes(),
        system.domainname().to_bytes(),
    ] {
        let length = field.len().min(FIELD - 1);
        bytes.extend(field.iter().take(length));
        bytes.resize(bytes.len() + FIELD - length, 0);
    }
    call.guest.write(call.long(0), &bytes)?;
    DONE
}

/// umask(2): noted for files that are made here, and left to the kernel.
pub(super) fn set_umask(call: &Call<'_>) -> Outcome {
    call.guest
        .carry(call.guest.cookie.with_umask(call.word(0)))?;
    Ok(Answer::Continue)
}

/// Reads the header of capget(2) and capset(2): version and process.
fn header(call: &Call<'_>) -> Result<(usize, u32), Errno> {
    let address = call.long(0);
    let version = call.guest.read_u32(address)?;
    let process = call.guest.read_u32(address.wrapping_add(4))?;
    let words = match version {
        CAPABILITIES_1 => 1,
        CAPABILITIES_2 | CAPABILITIES_3 => 2,
        _ => {
            call.guest.write(address, &CAPABILITIES_3.to_le_bytes())?;
            return Err(Errno::INVAL);
        }
    };
    Ok((words, process))
}

/// capget(2). Other processes than the caller are taken to be as the caller is.
pub(super) fn get_capabilities(call: &Call<'_>) -> Outcome {
    let words = match header(call) {
        // Asking for the version only.
        Err(Errno::INVAL) if call.long(1) == 0 => return DONE,
        other => other?.0,
    };
    let caps = call.guest.credentials().caps;
    let mut bytes = Vec::new();
    for word in 0..words {
        for set in [caps.effective, caps.permitted, caps.inheritable] {
            bytes.extend(((set >> (32 * word)) as u32).to_le_bytes());
        }
    }
    if call.long(1) != 0 {
        call.guest.write(call.long(1), &bytes)?;
    }
    DONE
}

/// capset(2).
pub(super) fn set_capabilities(call: &Call<'_>) -> Outcome {
    let (words, _) = header(call)?;
    let mut bytes = vec![0; words * 12];
    call.guest.read(call.long(1), &mut bytes)?;
    let mut sets = [0_u64; 3];
    for (place, word) in bytes.chunks_exact(4).enumerate() {
        if let Some(set) = sets.get_mut(place % 3) {
            *set |= u64::from(number(word)) << (32 * (place / 3));
        }
    }
    let [effective, permitted, inheritable] = sets;
    let credentials = call.guest.credentials();
    become_other(
        call,
        credentials.set_capabilities(effective, permitted, inheritable),
    )
}

/// prctl(2), as far as it is about rights.
pub(super) fn control_process(call: &Call<'_>) -> Outcome {
    let credentials = call.guest.credentials();
    let mut new = Credentials::clone(&credentials);
    let argument = call.long(1);
    match call.word(0) {
        // Who answers must be able to look at the process.
        SET_DUMPABLE => return DONE,
        GET_KEEP_CAPS => return value(credentials.keep_caps.into()),
        SET_KEEP_CAPS if argument <= 1 => new.keep_caps = argument == 1,
        BOUNDING_READ if argument < CAPABILITY_END => {
            return value((credentials.caps.bounding >> argument & 1) as u32);
        }
        BOUNDING_DROP if argument < CAPABILITY_END => {
            if !credentials.can(cap::SETPCAP) {
                return Err(Errno::PERM.into());
            }
            new.caps.bounding &= !(1 << argument);
        }
        GET_SECURE_BITS => {
            return value(if credentials.keep_caps {
                KEEP_CAPS_BIT
            } else {
                0
            });
        }
        SET_SECURE_BITS => {
            if !credentials.can(cap::SETPCAP) || argument & !u64::from(KEEP_CAPS_BIT) != 0 {
                return Err(Errno::PERM.into());
            }
            new.keep_caps = argument != 0;
        }
        SET_NO_NEW_PRIVILEGES if argument == 1 => {
            new.no_new_privileges = true;
            call.guest.become_other(new)?;
            // A filter of the step's own needs the real one.
            return Ok(Answer::Continue);
        }
        GET_NO_NEW_PRIVILEGES => return value(credentials.no_new_privileges.into()),
        AMBIENT => return ambient(call, new),
        _ => return Err(Errno::INVAL.into()),
    }
    become_other(call, Ok(new))
}

/// `PR_CAP_AMBIENT`.
fn ambient(call: &Call<'_>, mut new: Credentials) -> Outcome {
    const IS_SET: u64 = 1;
    const RAISE: u64 = 2;
    const LOWER: u64 = 3;
    const CLEAR_ALL: u64 = 4;
    let (request, number) = (call.long(1), call.long(2));
    if number >= CAPABILITY_END {
        return Err(Errno::INVAL.into());
    }
    let one = 1 << number;
    let Capabilities {
        permitted,
        inheritable,
        ambient,
        ..
    } = new.caps;
    match request {
        IS_SET => return value((ambient >> number & 1) as u32),
        RAISE if permitted & inheritable & one == 0 => return Err(Errno::PERM.into()),
        RAISE => new.caps.ambient |= one,
        LOWER => new.caps.ambient &= !one,
        CLEAR_ALL => new.caps.ambient = 0,
        _ => return Err(Errno::INVAL.into()),
    }
    become_other(call, Ok(new))
}

/// getrlimit(2) of the limit that carries the cookie.
pub(super) fn get_limit(call: &Call<'_>) -> Outcome {
    write_no_limit(call, call.long(1))
}

/// setrlimit(2) of the limit that carries the cookie, which nothing else uses.
pub(super) fn set_limit(_: &Call<'_>) -> Outcome {
    DONE
}

/// prlimit(2): of the limit that carries the cookie nothing is told, and of processes that
/// are not the step's there is none.
pub(super) fn change_limit(call: &Call<'_>) -> Outcome {
    if call.word(1) == RLIMIT_LOCKS {
        return write_no_limit(call, call.long(3));
    }
    let pid = call.int(0);
    let is_shared = call.guest.shared.plan.view != View::Mounts;
    if pid != 0 && is_shared && !call.guest.shared.step.has(pid) {
        return Err(Errno::SRCH.into());
    }
    Ok(Answer::Continue)
}

fn write_no_limit(call: &Call<'_>, address: u64) -> Outcome {
    if address != 0 {
        call.guest.write(address, &[0xff; 16])?;
    }
    DONE
}
