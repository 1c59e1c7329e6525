//! A file with holes, read without reading the holes.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// Gives zeros for holes and asks the file only for data.
#[derive(Debug)]
pub(super) struct SparseFile {
    file: File,
    size: u64,
    position: u64,
    /// Begin and end of the data at or after the position.
    data: (u64, u64),
}

impl SparseFile {
    pub(super) fn new(file: File, size: u64) -> Self {
        Self {
            file,
            size,
            position: 0,
            data: (0, 0),
        }
    }

    fn find_data(&mut self) -> io::Result<()> {
        self.data = match seek(&self.file, SeekFrom::Data(self.position)) {
            Ok(begin) => (begin, seek(&self.file, SeekFrom::Hole(begin))?),
            // No data behind this place.
            Err(Errno::NXIO) => (self.size, self.size),
            // A file system that does not know holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => (self.position, u64::MAX),
            Err(error) => return Err(error.into()),
        };
        Ok(())
    }
}

impl Read for SparseFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.data.1 && self.position < self.size {
            self.find_data()?;
        }
        let (begin, end) = self.data;
        if self.position < begin {
            let hole = begin.min(self.size) - self.position;
            let count = usize::try_from(hole).map_or(buffer.len(), |n| n.min(buffer.len()));
            buffer[..count].fill(0);
            self.position += count as u64;
            return Ok(count);
        }
        // At the end this asks for what should not be there, so that growth is seen.
        let left = if self.position < self.size {
            end - self.position
        } else {
            u64::MAX
        };
        let count = usize::try_from(left).map_or(buffer.len(), |n| n.min(buffer.len()));
        let count = self.file.read_at(&mut buffer[..count], self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}
