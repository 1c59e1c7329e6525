//! User and group in the access time of what has no attributes: symbolic links, pipes
//! and sockets.
//!
//! A new inode has the time of now and a layer has no access times, so a time after
//! 2106 can only be a record. The kernel changes no access time that is in the future
//! (`relatime`). What fits is what ext4 holds, 34 bits of seconds from 1901 on:
//!
//! ```text
//! n       = (group + 65536 mod 2^32) * 2^32 + user
//! seconds = 2^32 + n / 10^9        nanoseconds = n mod 10^9
//! ```
//!
//! That is room for every user, and for groups up to 2,499,934,462 and from -65536 on.

use rustix::fs::{Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use super::{Error, Record};

const FIRST_SECOND: i64 = 1 << 32;
/// One less than the last of ext4, which the kernel cuts to a whole second.
const LAST_SECOND: i64 = (1 << 34) - (1 << 31) - 2;
const NANOSECONDS: u64 = 1_000_000_000;
/// So that small negative groups, as some images have them, fit too.
const GROUP_OFFSET: u32 = 65_536;

/// The time that says nothing.
pub(super) const NOW: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: UTIME_NOW,
};

/// Gives the access time for a record.
pub(super) fn of(record: &Record) -> Result<Timespec, Error> {
    let group = record.gid.wrapping_add(GROUP_OFFSET);
    let number = u64::from(group) << 32 | u64::from(record.uid);
    let seconds = FIRST_SECOND + (number / NANOSECONDS) as i64;
    if seconds > LAST_SECOND {
        return Err(Error::Group { gid: record.gid });
    }
    Ok(Timespec {
        tv_sec: seconds,
        tv_nsec: (number % NANOSECONDS) as _,
    })
}

/// Gives the record in an access time, if it is one.
pub(super) fn record(stat: &Stat) -> Option<Record> {
    if !(FIRST_SECOND..=LAST_SECOND).contains(&stat.st_atime) {
        return None;
    }
    let seconds = (stat.st_atime - FIRST_SECOND) as u64;
    let number = seconds * NANOSECONDS + stat.st_atime_nsec;
    Some(Record {
        uid: number as u32,
        gid: ((number >> 32) as u32).wrapping_sub(GROUP_OFFSET),
        ..Record::plain(stat.st_mode)
    })
}

/// Gives times that leave the modification time as it is.
pub(super) fn access_only(access: Timespec) -> Timestamps {
    Timestamps {
        last_access: access,
        last_modification: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
    }
}
