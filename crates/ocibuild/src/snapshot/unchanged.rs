//! What an upper directory has only because the kernel copied it up: a command opened it for
//! writing and wrote nothing, set what was set, gave it another name, or changed something in
//! it. It does not belong to the layer, and of the names that a file has there its old one is no link to the new ones
//! then: the same as in BuildKit's layers.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::RootView;
use crate::layer::{EntryMeta, Kind};
use crate::registry::Digest;
use ocibuild_registry::Hasher;

const BUFFER: usize = 128 << 10;

/// Tells whether the lower layers show the same at the path of `meta`, whose content is
/// `file`'s where it is a regular file. Times count in seconds, as layers have them, but not
/// those of directories, which change with what is in them.
pub(super) fn is_unchanged(
    lowers: &RootView,
    meta: &EntryMeta,
    file: Option<&File>,
) -> io::Result<bool> {
    let Some(found) = lowers.lookup(&meta.path) else {
        return Ok(false);
    };
    let lower = found.entry;
    let same = (lower.mode, lower.uid, lower.gid, &lower.xattrs)
        == (meta.mode, meta.uid, meta.gid, &meta.xattrs);
    let same_time = meta.kind == Kind::Dir || lower.mtime == meta.mtime;
    if !same || !same_time || lower.implicit {
        return Ok(false);
    }
    match (&meta.kind, file) {
        (Kind::Hardlink { .. }, _) => Ok(false),
        (Kind::File(size), Some(file)) => match lowers.content_of(&meta.path) {
            Some(place) if place.content.size == *size => {
                Ok(place.content.digest == digest(file, *size)?)
            }
            _ => Ok(false),
        },
        (kind, _) => Ok(lower.kind.clone().map(|content| content.size) == *kind),
    }
}

/// Hashes a file without moving its position.
fn digest(file: &File, size: u64) -> io::Result<Digest> {
    let (mut hash, mut buffer) = (Hasher::sha256(), vec![0; BUFFER]);
    let mut position = 0;
    while position < size {
        let count = file.read_at(&mut buffer, position)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        position += count as u64;
    }
    Ok(hash.finish())
}
