//! What a layer will be, told from its entries before one of them is packed. The writer is
//! canonical: the same entries, written in the same way, give the same tar and the same blob.

use ocibuild_registry::{Digest, Hasher};

use super::{Compression, Entry, Options};

/// The version of what the writer makes of entries; a change of its bytes raises it, so that
/// what an older one has packed is packed again.
const VERSION: &str = "ocibuild-layer-1";

/// Names a layer by all that its bytes depend on.
pub(crate) struct LayerName {
    hasher: Hasher,
    clamp_mtime: Option<i64>,
    buffer: Vec<u8>,
}

impl LayerName {
    /// Begins the name of a layer that is written with these options. Threads change no bytes.
    pub(crate) fn new(options: &Options) -> Self {
        let Options {
            compression,
            level,
            threads: _,
            clamp_mtime,
        } = options;
        let level = match compression {
            Compression::None => None,
            Compression::Gzip | Compression::Zstd => *level,
        };
        let mut hasher = Hasher::sha256();
        hasher.update(format!("{VERSION} {compression:?} {level:?}\0").as_bytes());
        Self {
            hasher,
            clamp_mtime: *clamp_mtime,
            buffer: Vec::new(),
        }
    }

    /// Adds the next entry in the order of the tar; none where its content has a digest of
    /// another kind than tables have.
    pub(crate) fn add(&mut self, mut entry: Entry) -> Option<()> {
        // As the writer takes it.
        entry.mtime = self
            .clamp_mtime
            .map_or(entry.mtime, |latest| entry.mtime.min(latest));
        entry.mode &= 0o7777;
        entry.xattrs.sort();
        entry.implicit = false;
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let bytes = postcard::to_extend(&entry, buffer).ok()?;
        self.hasher.update(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(&bytes);
        self.buffer = bytes;
        Some(())
    }

    /// Gives the name of a layer of entries in the order of the tar. A directory that the tar
    /// leaves out is no entry of it.
    pub(crate) fn of<'a>(
        options: &Options,
        entries: impl IntoIterator<Item = &'a Entry>,
    ) -> Option<Digest> {
        let mut name = Self::new(options);
        for entry in entries.into_iter().filter(|entry| !entry.implicit) {
            name.add(entry.clone())?;
        }
        Some(name.finish())
    }

    /// Gives the name.
    pub(crate) fn finish(self) -> Digest {
        self.hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Content, Kind, TreePath};
    use super::*;

    fn entry() -> Entry {
        let path = TreePath::root().join(b"f").unwrap();
        let digest = Digest::sha256(b"x");
        Entry {
            kind: Kind::File(Content { size: 1, digest }),
            mtime: 5,
            xattrs: vec![(b"user.b".to_vec(), vec![1]), (b"user.a".to_vec(), vec![2])],
            ..Entry::dir(path)
        }
    }

    fn name(options: &Options, entry: Entry) -> Digest {
        LayerName::of(options, [&entry]).unwrap()
    }

    #[test]
    fn what_changes_bytes_changes_the_name() {
        let usual = Options::default();
        let other = |change: fn(&mut Entry)| {
            let mut other = entry();
            change(&mut other);
            name(&usual, other)
        };
        let written = |options: Options| name(&options, entry());
        let names = [
            name(&usual, entry()),
            other(|entry| entry.path = TreePath::root().join(b"g").unwrap()),
            other(|entry| entry.kind = Kind::Fifo),
            other(|entry| {
                let digest = Digest::sha256(b"y");
                entry.kind = Kind::File(Content { size: 1, digest });
            }),
            other(|entry| entry.mode = 0o644),
            other(|entry| entry.uid = 1),
            other(|entry| entry.gid = 1),
            other(|entry| entry.mtime = 6),
            other(|entry| drop(entry.xattrs.pop())),
            written(Options {
                clamp_mtime: Some(4),
                ..usual.clone()
            }),
            written(Options {
                level: Some(9),
                ..usual.clone()
            }),
            written(Options {
                compression: Compression::Zstd,
                ..usual.clone()
            }),
            LayerName::of(&usual, [&entry(), &entry()]).unwrap(),
            LayerName::of(&usual, []).unwrap(),
        ];
        for (at, name) in names.iter().enumerate() {
            assert!(!names[..at].contains(name), "name {at} is there twice");
        }
    }

    #[test]
    fn what_changes_no_byte_changes_no_name() {
        let usual = Options::default();
        let mut same = entry();
        same.xattrs.reverse();
        same.mode |= 0o100_000;
        assert_eq!(name(&usual, same), name(&usual, entry()));
        let threads = Options {
            threads: 4,
            clamp_mtime: Some(5),
            ..usual.clone()
        };
        assert_eq!(name(&threads, entry()), name(&usual, entry()));
    }
}
