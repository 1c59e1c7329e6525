//! The canonical header of a tar entry: ustar, with PAX records only for what ustar
//! cannot hold (POSIX.1-2001, pax; OCI image-spec, layer.md).
//!
//! No user and group names, no atime and ctime, whole seconds; names of directories
//! end in a slash. Names and attributes are written as the bytes that they are.

use super::pax::push_record;
use super::{EntryMeta, Error, Kind, TreePath, Xattr};

/// Size of a header and unit of padding.
pub(super) const BLOCK: usize = 512;

/// What stands before a name to remove that name of lower layers.
pub(super) const WHITEOUT_PREFIX: &[u8] = b".wh.";

/// The entry that makes its directory opaque.
pub(super) const OPAQUE_NAME: &[u8] = b".wh..wh..opq";

const NAME_SIZE: usize = 100;
const MAX_ID: u32 = 0o7777777;
const MAX_SIZE: u64 = 0o77777777777;

/// Gives the bytes that a file's content must be followed by.
pub(super) fn padding(size: u64) -> usize {
    size.wrapping_neg() as usize % BLOCK
}

/// Adds the header of an entry.
pub(super) fn push_header(out: &mut Vec<u8>, meta: &EntryMeta) -> Result<(), Error> {
    let unclear = |(name, _): &Xattr| name.is_empty() || name.iter().any(|b| b"=\0".contains(b));
    if meta.xattrs.iter().any(unclear) {
        return Err(unrepresentable(meta, "the name of an attribute is invalid"));
    }
    let mut fields = Fields::of(meta)?;
    let records = fields.take_records(&meta.xattrs);
    if !records.is_empty() {
        push_extended(out, &meta.path, &records);
    }
    out.extend_from_slice(&fields.block());
    Ok(())
}

/// Adds the entry that removes a path of lower layers.
pub(super) fn push_whiteout(out: &mut Vec<u8>, path: &TreePath) -> Result<(), Error> {
    let name = [WHITEOUT_PREFIX, path.file_name()].concat();
    push_marker(out, path.parent().unwrap_or_else(TreePath::root), &name)
}

/// Adds the entry that hides what lower layers have in a directory.
pub(super) fn push_opaque(out: &mut Vec<u8>, dir: &TreePath) -> Result<(), Error> {
    push_marker(out, dir.clone(), OPAQUE_NAME)
}

fn push_marker(out: &mut Vec<u8>, dir: TreePath, name: &[u8]) -> Result<(), Error> {
    let marker = EntryMeta {
        kind: Kind::File(0),
        mode: 0,
        ..EntryMeta::dir(dir.join(name)?)
    };
    push_header(out, &marker)
}

/// The values of a header, before it is known which of them ustar can hold.
struct Fields {
    type_flag: u8,
    name: Vec<u8>,
    link: Vec<u8>,
    size: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
    device: Option<(u32, u32)>,
}

impl Fields {
    fn of(meta: &EntryMeta) -> Result<Self, Error> {
        let (type_flag, size, link, device) = match &meta.kind {
            Kind::File(size) => (b'0', *size, &[][..], None),
            Kind::Hardlink { target } => (b'1', 0, target.as_bytes(), None),
            Kind::Symlink { target } => (b'2', 0, &target[..], None),
            Kind::Char { major, minor } => (b'3', 0, &[][..], Some((*major, *minor))),
            Kind::Block { major, minor } => (b'4', 0, &[][..], Some((*major, *minor))),
            Kind::Dir => (b'5', 0, &[][..], None),
            Kind::Fifo => (b'6', 0, &[][..], None),
        };
        if device.is_some_and(|(major, minor)| major.max(minor) > MAX_ID) {
            return Err(unrepresentable(meta, "its device number is too large"));
        }
        Ok(Self {
            type_flag,
            name: tar_name(meta),
            link: link.to_vec(),
            size,
            mode: meta.mode & 0o7777,
            uid: meta.uid,
            gid: meta.gid,
            mtime: meta.mtime,
            device,
        })
    }

    /// Moves what ustar cannot hold into PAX records; the fields then hold zero or a
    /// beginning, as readers without PAX expect.
    fn take_records(&mut self, xattrs: &[Xattr]) -> Vec<u8> {
        let mut records = Vec::new();
        if self.gid > MAX_ID {
            push_record(&mut records, b"gid", self.gid.to_string().as_bytes());
            self.gid = 0;
        }
        if self.link.len() > NAME_SIZE {
            push_record(&mut records, b"linkpath", &self.link);
            self.link.truncate(NAME_SIZE);
        }
        if !(0..=MAX_SIZE as i64).contains(&self.mtime) {
            push_record(&mut records, b"mtime", self.mtime.to_string().as_bytes());
            self.mtime = 0;
        }
        if self.name.len() > NAME_SIZE {
            push_record(&mut records, b"path", &self.name);
            self.name.truncate(NAME_SIZE);
        }
        for (name, value) in xattrs {
            push_record(&mut records, &[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
        if self.size > MAX_SIZE {
            push_record(&mut records, b"size", self.size.to_string().as_bytes());
            self.size = 0;
        }
        if self.uid > MAX_ID {
            push_record(&mut records, b"uid", self.uid.to_string().as_bytes());
            self.uid = 0;
        }
        records
    }

    fn block(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        put(&mut block, 0, &self.name);
        put_octal(&mut block, 100, 7, u64::from(self.mode));
        put_octal(&mut block, 108, 7, u64::from(self.uid));
        put_octal(&mut block, 116, 7, u64::from(self.gid));
        put_octal(&mut block, 124, 11, self.size);
        put_octal(&mut block, 136, 11, self.mtime.unsigned_abs());
        put(&mut block, 148, b"        ");
        block[156] = self.type_flag;
        put(&mut block, 157, &self.link);
        put(&mut block, 257, b"ustar\x0000");
        let (major, minor) = self.device.unwrap_or_default();
        put_octal(&mut block, 329, 7, u64::from(major));
        put_octal(&mut block, 337, 7, u64::from(minor));
        let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
        put_octal(&mut block, 148, 6, sum);
        block[154..156].copy_from_slice(b"\0 ");
        block
    }
}

fn unrepresentable(meta: &EntryMeta, reason: &'static str) -> Error {
    Error::Unrepresentable {
        path: meta.path.clone(),
        reason,
    }
}

fn tar_name(meta: &EntryMeta) -> Vec<u8> {
    let mut name = meta.path.as_bytes().to_vec();
    if meta.path.is_root() {
        name.push(b'.');
    }
    if meta.kind.is_dir() {
        name.push(b'/');
    }
    name
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Writes `digits` octal digits; the byte after them stays NUL.
fn put_octal(block: &mut [u8; BLOCK], at: usize, digits: usize, value: u64) {
    put(block, at, format!("{value:0digits$o}").as_bytes());
}

fn push_extended(out: &mut Vec<u8>, path: &TreePath, records: &[u8]) {
    let mut name = [b"PaxHeaders/", path.file_name()].concat();
    name.truncate(NAME_SIZE);
    let header = Fields {
        type_flag: b'x',
        name,
        link: Vec::new(),
        size: records.len() as u64,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: 0,
        device: None,
    };
    out.extend_from_slice(&header.block());
    out.extend_from_slice(records);
    out.resize(out.len() + padding(records.len() as u64), 0);
}
