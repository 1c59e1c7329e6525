//! Archives that ADD extracts. One is read once: what it holds becomes a list, and the
//! contents of its files go one after the other into one file of the store's scratch
//! space, from where the layer takes them in its own order.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;

use tempfile::TempDir;

use crate::Cancel;
use crate::content::ContentStore;
use crate::copy::{Archive, Member};
use crate::error::Error;
use crate::layer::{self, Kind, Limits, read_archive};

const BUFFER: usize = 128 << 10;

/// An archive that was read.
#[derive(Debug)]
pub(crate) struct Extracted {
    pub(crate) archive: Archive,
    contents: File,
    /// The folder of `contents`.
    _folder: TempDir,
}

impl Extracted {
    /// Reads an archive; `index` is its number among those of the step, `name` is for errors.
    pub(crate) fn read(
        file: File,
        index: usize,
        name: &str,
        store: &ContentStore,
        cancel: &Cancel,
    ) -> Result<Self, Error> {
        let folder = store.scratch()?;
        let path = folder.path().join("contents");
        let mut contents = Contents {
            file: BufWriter::with_capacity(BUFFER, create(&path)?),
            size: 0,
            cancel,
        };
        let mut archive = Archive {
            index,
            ..Archive::default()
        };
        let read = read_archive(file, &Limits::default(), |meta, content| {
            let offset = contents.size;
            if let Kind::File(_) = meta.kind {
                contents.add(content)?;
            }
            archive.members.push(Member { meta, offset });
            Ok(())
        });
        read.and_then(|()| contents.file.flush().map_err(layer::Error::Write))
            .map_err(|source| match source {
                layer::Error::Write(_) => Error::Layer(source),
                source => Error::Archive {
                    name: name.to_owned(),
                    source,
                },
            })?;
        Ok(Self {
            archive,
            contents: File::open(&path).map_err(layer::Error::Write)?,
            _folder: folder,
        })
    }

    /// Gives the content of a member.
    pub(crate) fn content(&self, member: usize) -> Option<impl Read + '_> {
        let member = self.archive.members.get(member)?;
        let Kind::File(size) = member.meta.kind else {
            return None;
        };
        Some(Range {
            file: &self.contents,
            position: member.offset,
            left: size,
        })
    }
}

fn create(path: &std::path::Path) -> Result<File, Error> {
    Ok(File::create_new(path).map_err(layer::Error::Write)?)
}

/// The contents of files, one after the other.
struct Contents<'a> {
    file: BufWriter<File>,
    size: u64,
    cancel: &'a Cancel,
}

impl Contents<'_> {
    fn add(&mut self, content: &mut dyn Read) -> Result<(), layer::Error> {
        let mut buffer = vec![0; BUFFER];
        loop {
            if self.cancel.is_cancelled() {
                return Err(layer::Error::Read(io::ErrorKind::Interrupted.into()));
            }
            let count = match content.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) => return Err(layer::Error::from_content(error)),
            };
            self.file
                .write_all(&buffer[..count])
                .map_err(layer::Error::Write)?;
            self.size += count as u64;
        }
    }
}

/// A part of a file.
struct Range<'a> {
    file: &'a File,
    position: u64,
    left: u64,
}

impl Read for Range<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = self.file.read_at(&mut buffer[..wanted], self.position)?;
        self.position += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}
