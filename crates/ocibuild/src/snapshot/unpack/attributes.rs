//! What files and directories of a layer get beside their content.

use rustix::fs::{Timespec, Timestamps, UTIME_OMIT};

use crate::executor::{Identity, Notes};
use crate::layer::{Entry, EntryMeta, Xattr};
use crate::ownership::{self, Record};
use crate::snapshot::capability;

/// What files and directories get in the same way.
pub(super) struct Attributes<'a> {
    pub(super) record: Record,
    pub(super) mtime: i64,
    pub(super) xattrs: &'a [Xattr],
}

impl<'a> Attributes<'a> {
    pub(super) fn of_meta(meta: &'a EntryMeta) -> Self {
        Self {
            record: Record {
                uid: meta.uid,
                gid: meta.gid,
                ..Record::plain(meta.mode)
            },
            mtime: meta.mtime,
            xattrs: &meta.xattrs,
        }
    }

    pub(super) fn of_entry(entry: &'a Entry) -> Self {
        Self {
            record: Record {
                uid: entry.uid,
                gid: entry.gid,
                ..Record::plain(entry.mode)
            },
            mtime: entry.mtime,
            xattrs: &entry.xattrs,
        }
    }
}

/// Attributes that mean something in a root file system. Notes of overlayfs are not
/// among them: an archive could use them to show files of other layers. Nor are records
/// of owners.
pub(super) fn is_for_disk(name: &[u8]) -> bool {
    let is_note = Notes::User.strip(name).is_some() || ownership::is_ours(name);
    name == capability::NAME.as_bytes()
        || name.starts_with(b"system.posix_acl_")
        || (name.starts_with(b"user.") && !is_note)
}

/// Access times are the builder's own where they can be records.
pub(super) fn times(mtime: i64, identity: &Identity) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime,
        tv_nsec: 0,
    };
    let untouched = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_OMIT,
    };
    Timestamps {
        last_access: match identity {
            Identity::Recorded => untouched,
            _ => time,
        },
        last_modification: time,
    }
}
