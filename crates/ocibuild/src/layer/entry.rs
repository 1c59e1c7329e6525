//! One thing in a layer: what it is, who owns it, when it changed.
//! [`EntryMeta`] is known before the content has been read, [`Entry`] after.

use ocibuild_registry::Digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::TreePath;

/// An extended attribute: name and value, both bytes.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// What stands at a path; `C` is what is known of a file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind<C> {
    /// A directory.
    Dir,
    /// A regular file.
    File(C),
    /// A symbolic link.
    Symlink {
        /// Where it points; any bytes.
        target: Vec<u8>,
    },
    /// Another name of a file of the same layer.
    Hardlink {
        /// The entry that is the file.
        target: TreePath,
    },
    /// A character device.
    Char {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// Size and digest of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Number of bytes.
    pub size: u64,
    /// SHA-256 of the bytes.
    #[serde(with = "raw_digest")]
    pub digest: Digest,
}

/// An entry before its content was read: a file is known by its size only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryMeta {
    /// Where it is.
    pub path: TreePath,
    /// What it is; a file has its size.
    pub kind: Kind<u64>,
    /// Permissions with set-id and sticky bits: twelve bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, in whole seconds since 1970.
    pub mtime: i64,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<Xattr>,
}

/// An entry of a table of contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it is.
    pub path: TreePath,
    /// What it is.
    pub kind: Kind<Content>,
    /// Permissions with set-id and sticky bits: twelve bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, in whole seconds since 1970.
    pub mtime: i64,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<Xattr>,
    /// The tar has no entry for this directory, only for something below it: a
    /// directory of a lower layer keeps its owner, mode and time.
    pub implicit: bool,
}

impl EntryMeta {
    /// Makes a directory of root with mode 0755 and time 0.
    pub fn dir(path: TreePath) -> Self {
        Self {
            path,
            kind: Kind::Dir,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: 0,
            xattrs: Vec::new(),
        }
    }

    /// Makes the table entry; `digest` is that of the content read, used for files only.
    pub(super) fn into_entry(self, digest: Digest) -> Entry {
        let kind = self.kind.map(|size| Content { size, digest });
        Entry {
            path: self.path,
            kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
            xattrs: self.xattrs,
            implicit: false,
        }
    }
}

impl<C> Kind<C> {
    /// Tells whether this is a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self, Self::Dir)
    }

    /// Tells whether this is neither directory nor file nor another name of one.
    pub fn is_special(&self) -> bool {
        !matches!(self, Self::Dir | Self::File(_) | Self::Hardlink { .. })
    }

    /// Replaces what is known of a file's content.
    pub fn map<D>(self, content: impl FnOnce(C) -> D) -> Kind<D> {
        match self {
            Self::Dir => Kind::Dir,
            Self::File(known) => Kind::File(content(known)),
            Self::Symlink { target } => Kind::Symlink { target },
            Self::Hardlink { target } => Kind::Hardlink { target },
            Self::Char { major, minor } => Kind::Char { major, minor },
            Self::Block { major, minor } => Kind::Block { major, minor },
            Self::Fifo => Kind::Fifo,
        }
    }
}

impl Entry {
    /// Makes a directory of root with mode 0755 and time 0.
    pub fn dir(path: TreePath) -> Self {
        EntryMeta::dir(path).into_entry(Digest::sha256(b""))
    }

    /// Makes the directory that a tar leaves out although something lies in it.
    pub(super) fn implicit_dir(path: TreePath) -> Self {
        Self {
            implicit: true,
            ..Self::dir(path)
        }
    }

    /// Gives what is needed to write this entry into another layer.
    pub fn to_meta(&self) -> EntryMeta {
        EntryMeta {
            path: self.path.clone(),
            kind: self.kind.clone().map(|content| content.size),
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime,
            xattrs: self.xattrs.clone(),
        }
    }
}

/// A SHA-256 digest as its 32 bytes.
mod raw_digest {
    use super::{Deserialize, Deserializer, Digest, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(digest: &Digest, to: S) -> Result<S::Ok, S::Error> {
        let raw: [u8; 32] = digest
            .as_bytes()
            .try_into()
            .map_err(|_| serde::ser::Error::custom("a content digest that is not sha256"))?;
        raw.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
        <[u8; 32]>::deserialize(from).map(Digest::from_sha256)
    }
}
