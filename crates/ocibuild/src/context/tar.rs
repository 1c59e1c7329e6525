//! A context that arrives as a tar, plain or compressed, becomes a directory.
//!
//! Enters: any byte stream, from anyone. Leaves: files, directories and links below one
//! directory of ours, or an error. Every path is walked from that directory one name at a
//! time without following links, so no entry can reach outside, whatever came before it.
//! Formats: ustar, pax and GNU tar; plain, or compressed with gzip (RFC 1952), Zstandard
//! (RFC 8878), bzip2 or xz.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

use crate::layer;

/// What a zip begins with, which people take for a tar now and then.
const ZIP: &[u8] = b"PK\x03\x04";
/// Long names and pax records in front of one entry; they are held in memory.
const MAX_HEADER_BYTES: u64 = 1 << 20;
/// What the kernel takes for a path.
const MAX_PATH_BYTES: usize = 4095;

/// How much a context may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of all files together, uncompressed.
    pub bytes: u64,
}

impl Default for Limits {
    /// A million entries and 64 GiB.
    fn default() -> Self {
        Self {
            entries: 1_000_000,
            bytes: 64 << 30,
        }
    }
}

impl Limits {
    /// Gives what is left of them.
    pub(crate) fn without(self, done: Extracted) -> Self {
        Self {
            entries: self.entries.saturating_sub(done.entries),
            bytes: self.bytes.saturating_sub(done.bytes),
        }
    }
}

/// What an archive held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extracted {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of all files together.
    pub bytes: u64,
}

/// Why a tar did not become a context.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// The stream ended early, or is no tar at all.
    #[error("cannot read the context archive")]
    Read(#[source] io::Error),
    /// The stream is an archive of another kind.
    #[error("the context archive is a {0}, not a tar")]
    Format(&'static str),
    /// There is more in the archive than allowed.
    #[error("the context archive has more than {limit} {what}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// An entry with a name that leads elsewhere.
    #[error("entry {name:?} of the context archive {reason}")]
    Name {
        /// The name.
        name: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An entry that is neither file, directory nor link.
    #[error("entry {name:?} of the context archive is a {kind}, which a context cannot hold")]
    Kind {
        /// The name.
        name: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// An entry could not be written.
    #[error("cannot extract {name:?} of the context archive")]
    Write {
        /// The name.
        name: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Extracts an archive into the existing directory `dest`.
///
/// Modes and times are kept; owners are not, because a context has none. Directories stay
/// readable and writable for their owner, so that they can be read and removed again. A
/// later entry replaces an earlier one of the same name. The directory must not be open to
/// other users: set-user-id bits are kept as well.
pub fn extract(reader: impl Read, dest: &Path, limits: &Limits) -> Result<Extracted, TarError> {
    let root = open_directory(CWD, dest.as_os_str()).map_err(write_error(dest))?;
    let allowance = Rc::new(Cell::new(MAX_HEADER_BYTES));
    let stream = Metered {
        inner: decompress(reader)?,
        allowance: allowance.clone(),
    };
    let mut archive = Archive::new(stream);
    let mut entries = archive.entries().map_err(TarError::Read)?;
    let mut extraction = Extraction::new(root, limits);
    loop {
        // Between two contents the archive reads only headers, and these have a limit.
        allowance.set(MAX_HEADER_BYTES);
        let Some(entry) = entries.next() else {
            break;
        };
        allowance.set(u64::MAX);
        extraction.add(entry.map_err(TarError::Read)?)?;
    }
    extraction.finish()
}

/// Puts one file into the existing directory `dest`, under a name that is judged like that of
/// an entry. It has no time of its own.
pub(crate) fn place(
    content: impl Read,
    name: &str,
    dest: &Path,
    limits: &Limits,
) -> Result<Extracted, TarError> {
    let root = open_directory(CWD, dest.as_os_str()).map_err(write_error(dest))?;
    let mut extraction = Extraction::new(root, limits);
    extraction.count()?;
    let path = relative(name.as_bytes())?;
    if path.as_os_str().is_empty() {
        return Err(TarError::Name {
            name: name.into(),
            reason: "names the whole context",
        });
    }
    let attributes = Attributes {
        mode: Mode::from_raw_mode(0o644),
        modified: Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
    };
    extraction.file(&path, content, attributes)?;
    extraction.finish()
}

fn decompress<'a>(mut reader: impl Read + 'a) -> Result<Box<dyn Read + 'a>, TarError> {
    let mut start = Vec::new();
    let magic = ZIP.len() as u64;
    let read = (&mut reader).take(magic).read_to_end(&mut start);
    read.map_err(TarError::Read)?;
    if start == ZIP {
        return Err(TarError::Format("zip"));
    }
    let plain = layer::decompressed(io::Cursor::new(start).chain(reader));
    Ok(Box::new(io::BufReader::new(plain.map_err(TarError::Read)?)))
}

/// A reader that gives no more than its current allowance.
struct Metered<R> {
    inner: R,
    allowance: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let left = self.allowance.get().checked_sub(read as u64);
        self.allowance.set(left.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "an entry has a header of more than 1 MiB",
            )
        })?);
        Ok(read)
    }
}

/// Mode and time of an entry.
#[derive(Clone, Copy)]
struct Attributes {
    mode: Mode,
    modified: Timespec,
}

struct Extraction<'a> {
    root: OwnedFd,
    limits: &'a Limits,
    done: Extracted,
    /// Set at the end: what is written into a directory changes its time, and a mode may
    /// forbid writing.
    directories: Vec<(PathBuf, Attributes)>,
}

impl<'a> Extraction<'a> {
    fn new(root: OwnedFd, limits: &'a Limits) -> Self {
        Self {
            root,
            limits,
            done: Extracted::default(),
            directories: Vec::new(),
        }
    }

    fn count(&mut self) -> Result<(), TarError> {
        self.done.entries += 1;
        match self.done.entries > self.limits.entries {
            true => Err(TarError::TooLarge {
                what: "entries",
                limit: self.limits.entries,
            }),
            false => Ok(()),
        }
    }

    fn add<R: Read>(&mut self, mut entry: Entry<'_, R>) -> Result<(), TarError> {
        self.count()?;
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let name = relative(&entry.path_bytes())?;
        let attributes = attributes(&mut entry)?;
        if name.as_os_str().is_empty() {
            return Ok(());
        }
        match kind {
            EntryType::Directory => self.directory(name, attributes),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(&name, entry, attributes)
            }
            EntryType::Symlink => {
                let target = link_target(&entry, &name)?;
                self.symlink(&name, &target, attributes)
            }
            EntryType::Link => {
                let target = link_target(&entry, &name)?;
                self.hard_link(&name, &relative(target.as_os_str().as_bytes())?)
            }
            other => Err(TarError::Kind {
                name,
                kind: kind_name(other),
            }),
        }
    }

    fn directory(&mut self, name: PathBuf, attributes: Attributes) -> Result<(), TarError> {
        let (parent, last) = self.parent_of(&name)?;
        if type_of(&parent, last).map_err(write_error(&name))? != Some(FileType::Directory) {
            remove(&parent, last).map_err(write_error(&name))?;
            fs::mkdirat(&parent, last, Mode::RWXU).map_err(write_error(&name))?;
        }
        self.directories.push((name, attributes));
        Ok(())
    }

    fn file(
        &mut self,
        name: &Path,
        content: impl Read,
        attributes: Attributes,
    ) -> Result<(), TarError> {
        let (parent, last) = self.parent_of(name)?;
        remove(&parent, last).map_err(write_error(name))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = fs::openat(
            &parent,
            last,
            flags | OFlags::CLOEXEC,
            Mode::RUSR | Mode::WUSR,
        )
        .map_err(write_error(name))?;
        let mut file = File::from(file);
        let left = self.limits.bytes - self.done.bytes;
        // One byte more than allowed tells a full file from a cut one.
        let copied =
            io::copy(&mut content.take(left.saturating_add(1)), &mut file).map_err(|source| {
                TarError::Write {
                    name: name.to_owned(),
                    source,
                }
            })?;
        if copied > left {
            return Err(TarError::TooLarge {
                what: "bytes",
                limit: self.limits.bytes,
            });
        }
        self.done.bytes += copied;
        fs::fchmod(&file, attributes.mode).map_err(write_error(name))?;
        fs::futimens(&file, &times(attributes)).map_err(write_error(name))
    }

    fn symlink(&self, name: &Path, target: &Path, attributes: Attributes) -> Result<(), TarError> {
        let (parent, last) = self.parent_of(name)?;
        remove(&parent, last).map_err(write_error(name))?;
        fs::symlinkat(target, &parent, last).map_err(write_error(name))?;
        let times = times(attributes);
        fs::utimensat(&parent, last, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(write_error(name))
    }

    fn hard_link(&self, name: &Path, target: &Path) -> Result<(), TarError> {
        if name == target {
            return Ok(());
        }
        if target.as_os_str().is_empty() {
            return Err(TarError::Name {
                name: name.to_owned(),
                reason: "is a link to the whole context",
            });
        }
        let (target_parent, target_last) = self.parent_of(target)?;
        let (parent, last) = self.parent_of(name)?;
        remove(&parent, last).map_err(write_error(name))?;
        // Without flags a link at the end is not followed.
        fs::linkat(&target_parent, target_last, &parent, last, AtFlags::empty())
            .map_err(write_error(name))
    }

    /// Opens the directory that holds `name`, made where it is missing, and gives the last part of the name.
    fn parent_of<'n>(&self, name: &'n Path) -> Result<(OwnedFd, &'n OsStr), TarError> {
        let mut directory = self.root.try_clone().map_err(|source| TarError::Write {
            name: name.to_owned(),
            source,
        })?;
        let mut parts: Vec<&OsStr> = name.iter().collect();
        let last = parts.pop().unwrap_or_default();
        for part in parts {
            match fs::mkdirat(&directory, part, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(write_error(name)(error)),
            }
            directory = open_directory(&directory, part).map_err(|error| match error {
                Errno::NOTDIR | Errno::LOOP => TarError::Name {
                    name: name.to_owned(),
                    reason: "leads through something that is not a directory",
                },
                error => write_error(name)(error),
            })?;
        }
        Ok((directory, last))
    }

    /// Sets modes and times of directories, inner ones first.
    fn finish(mut self) -> Result<Extracted, TarError> {
        // Of two entries for one directory the later counts; the sort keeps their order.
        self.directories
            .sort_by_key(|(name, _)| std::cmp::Reverse(name.components().count()));
        for (name, attributes) in std::mem::take(&mut self.directories) {
            let (parent, last) = self.parent_of(&name)?;
            // A later entry may have put something else in its place.
            if type_of(&parent, last).map_err(write_error(&name))? != Some(FileType::Directory) {
                continue;
            }
            let directory = open_directory(&parent, last).map_err(write_error(&name))?;
            fs::fchmod(&directory, attributes.mode | Mode::RWXU).map_err(write_error(&name))?;
            fs::futimens(&directory, &times(attributes)).map_err(write_error(&name))?;
        }
        Ok(self.done)
    }
}

fn write_error(name: &Path) -> impl FnOnce(Errno) -> TarError {
    let name = name.to_owned();
    move |errno| TarError::Write {
        name,
        source: errno.into(),
    }
}

fn open_directory(parent: impl std::os::fd::AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(parent, name, flags, Mode::empty())
}

fn type_of(parent: &OwnedFd, name: &OsStr) -> Result<Option<FileType>, Errno> {
    match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes room for an entry; a directory is not removed.
fn remove(parent: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

/// Gives a name without `.` and repeated slashes, and refuses those that lead elsewhere.
fn relative(name: &[u8]) -> Result<PathBuf, TarError> {
    let path = Path::new(OsStr::from_bytes(name));
    let refuse = |reason| TarError::Name {
        name: path.to_owned(),
        reason,
    };
    if name.len() > MAX_PATH_BYTES {
        return Err(refuse("has a name that is too long"));
    }
    if name.contains(&0) {
        return Err(refuse("has a zero byte in its name"));
    }
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            Component::ParentDir => return Err(refuse("leads out of the context")),
            Component::RootDir | Component::Prefix(_) => {
                return Err(refuse("has an absolute name"));
            }
        }
    }
    Ok(clean)
}

fn link_target<R: Read>(entry: &Entry<'_, R>, name: &Path) -> Result<PathBuf, TarError> {
    let target = entry.link_name_bytes().unwrap_or_default();
    if target.is_empty() || target.contains(&0) || target.len() > MAX_PATH_BYTES {
        return Err(TarError::Name {
            name: name.to_owned(),
            reason: "is a link without a valid target",
        });
    }
    Ok(PathBuf::from(OsStr::from_bytes(&target)))
}

fn attributes<R: Read>(entry: &mut Entry<'_, R>) -> Result<Attributes, TarError> {
    let mode = entry.header().mode().map_err(TarError::Read)?;
    let seconds = entry.header().mtime().map_err(TarError::Read)?;
    let mut modified = Timespec {
        tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX),
        tv_nsec: 0,
    };
    if let Some(extensions) = entry.pax_extensions().map_err(TarError::Read)? {
        let times = extensions
            .filter_map(Result::ok)
            .filter(|extension| extension.key_bytes() == b"mtime");
        if let Some(time) = times
            .last()
            .and_then(|time| time.value().ok().and_then(pax_time))
        {
            modified = time;
        }
    }
    Ok(Attributes {
        mode: Mode::from_raw_mode(mode & 0o7777),
        modified,
    })
}

/// Reads `seconds[.fraction]`; times before 1970 are left to the header.
fn pax_time(text: &str) -> Option<Timespec> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    Some(Timespec {
        tv_sec: seconds.parse::<u64>().ok()?.try_into().ok()?,
        tv_nsec: nanoseconds.parse().ok()?,
    })
}

fn times(attributes: Attributes) -> Timestamps {
    Timestamps {
        last_access: attributes.modified,
        last_modification: attributes.modified,
    }
}

fn kind_name(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Char => "character device",
        EntryType::Block => "block device",
        EntryType::Fifo => "named pipe",
        _ => "special file",
    }
}

#[cfg(test)]
mod tests;
