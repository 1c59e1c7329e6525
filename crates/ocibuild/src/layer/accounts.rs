//! The texts of `/etc/passwd` and `/etc/group`, kept beside a table of contents so
//! that names become ids without opening the layer again.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use super::{EntryMeta, Kind, TreePath};

/// The two account files of a layer, where it has them as regular files of bounded size.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountFiles {
    passwd: Option<Vec<u8>>,
    group: Option<Vec<u8>>,
}

impl AccountFiles {
    /// Longest text that is kept.
    pub const MAX_SIZE: u64 = 1 << 20;

    /// Gives the text of the file at `path`, if it is one of the two and was kept.
    pub fn get(&self, path: &TreePath) -> Option<&[u8]> {
        match path.as_bytes() {
            b"etc/passwd" => self.passwd.as_deref(),
            b"etc/group" => self.group.as_deref(),
            _ => None,
        }
    }

    /// Gives the place for the text of `meta`, emptied, if it is one of the two files.
    pub(super) fn slot(&mut self, meta: &EntryMeta) -> Option<&mut Vec<u8>> {
        let slot = match meta.path.as_bytes() {
            b"etc/passwd" => &mut self.passwd,
            b"etc/group" => &mut self.group,
            _ => return None,
        };
        *slot = None;
        match meta.kind {
            Kind::File(size) if size <= Self::MAX_SIZE => Some(slot.insert(Vec::new())),
            _ => None,
        }
    }
}

/// Passes content on and keeps a copy where one is wanted.
pub(super) struct Keep<'a, R> {
    pub(super) from: R,
    pub(super) copy: Option<&'a mut Vec<u8>>,
}

impl<R: Read> Read for Keep<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        if let Some(copy) = &mut self.copy {
            copy.extend_from_slice(&buffer[..count]);
        }
        Ok(count)
    }
}
