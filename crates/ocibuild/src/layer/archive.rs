//! A tar that is no layer: an archive that somebody wants extracted. It may also be
//! compressed with bzip2 or xz, names may be absolute or go up, `.wh.` means nothing,
//! and a name may come again.
//!
//! Archives are as hostile as layers: the same [`Limits`] hold, and no name or target of
//! a hard link leads out of the tree. What comes after the end of the archive is not read.

use std::io::Read;

#[cfg(feature = "git")]
use super::Kind;
use super::entries::Entries;
use super::read::{Body, Budget, Encoding, checked_path};
use super::stream::Stream;
use super::toc_builder::Cost;
use super::{EntryMeta, Error, Limits, TreePath, names};

/// Tells whether this is an archive, compressed or not: whether it begins with the header
/// of an entry.
pub fn is_archive(file: impl Read) -> bool {
    let limits = Limits::default();
    Stream::open(file, Encoding::Archive, &limits)
        .and_then(|stream| Entries::new(stream, &limits).begins())
        .unwrap_or(false)
}

/// Reads an archive and shows its entries in their order; what is not read of a content
/// is passed over.
pub fn read_archive<E: From<Error>>(
    file: impl Read,
    limits: &Limits,
    mut show: impl FnMut(EntryMeta, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let stream = Stream::open(file, Encoding::Archive, limits)?;
    let mut entries = Entries::new(stream, limits);
    let mut budget = Budget::new(limits);
    while let Some(mut raw) = entries.next()? {
        budget.spend(&raw, Cost::default())?;
        let sparse = raw.take_sparse(limits)?;
        if raw.type_flag == b'1' {
            raw.link = clamp(&raw.link);
        }
        let path = inside(&raw.name, limits)?;
        let meta = raw.into_meta(path, limits)?;
        show(meta, &mut Body::new(sparse, &mut entries))?;
    }
    Ok(())
}

/// Gives the time of the newest file of an archive, in seconds since 1970.
#[cfg(feature = "git")]
pub(crate) fn newest_file(file: impl Read) -> Result<Option<i64>, Error> {
    let mut newest = None;
    read_archive(file, &Limits::default(), |meta, _| {
        if let Kind::File(_) = meta.kind {
            newest = newest.max(Some(meta.mtime));
        }
        Ok::<_, Error>(())
    })?;
    Ok(newest)
}

fn inside(name: &[u8], limits: &Limits) -> Result<TreePath, Error> {
    checked_path(&clamp(name), limits)
}

/// Resolves `..` by text alone, as if the name began at a root.
fn clamp(name: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in names(name) {
        match part {
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b52_names_stay_inside() {
        for (name, want) in [
            ("a/b", "a/b"),
            ("/etc/passwd", "etc/passwd"),
            ("../../etc/passwd", "etc/passwd"),
            ("a/../../b", "b"),
            ("./", ""),
            ("..", ""),
            ("a//./b/", "a/b"),
        ] {
            assert_eq!(clamp(name.as_bytes()), want.as_bytes(), "{name}");
        }
    }
}
