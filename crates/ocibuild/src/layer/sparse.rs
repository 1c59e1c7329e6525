//! Sparse files in the old GNU format: an entry of type `S` holds the parts of a
//! file that are not holes, its header says where they belong (GNU tar manual,
//! "Storing Sparse Files"). They are read as the plain files that they stand for.

use std::io::{self, Read};

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use super::entries::number;
use super::stream::Stream;
use super::{Error, tar::BLOCK};

/// Parts that one file may have.
const MAX_PARTS: usize = 1 << 16;

/// Where the parts of a file belong.
#[derive(Debug, Default)]
pub(super) struct SparseMap {
    /// Offset and length, ascending.
    parts: Vec<(u64, u64)>,
    /// The size of the file with its holes.
    pub(super) size: u64,
}

impl SparseMap {
    /// Reads the map from a header and the blocks of it that follow.
    pub(super) fn read(
        header: &Header,
        stored: u64,
        stream: &mut Stream<'_>,
    ) -> Result<Self, Error> {
        let offset = stream.position();
        let malformed = |reason| Error::Malformed { offset, reason };
        let gnu = header
            .as_gnu()
            .ok_or_else(|| malformed("a sparse file without a GNU header"))?;
        let mut map = Self {
            parts: Vec::new(),
            size: number(&gnu.realsize)
                .and_then(|size| u64::try_from(size).ok())
                .ok_or_else(|| malformed("the size of a sparse file is not a number"))?,
        };
        map.add(&gnu.sparse).map_err(malformed)?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = GnuExtSparseHeader::new();
            if stream.read_full(block.as_mut_bytes())? < BLOCK {
                return Err(malformed("the map of a sparse file is cut off"));
            }
            map.add(block.sparse()).map_err(malformed)?;
            more = block.is_extended();
        }
        map.check(stored).map_err(malformed)?;
        Ok(map)
    }

    fn add(&mut self, parts: &[GnuSparseHeader]) -> Result<(), &'static str> {
        for part in parts.iter().filter(|part| !part.is_empty()) {
            let value = |field| number(field).and_then(|n| u64::try_from(n).ok());
            match (value(&part.offset), value(&part.numbytes)) {
                (Some(offset), Some(length)) => self.parts.push((offset, length)),
                _ => return Err("the map of a sparse file holds no numbers"),
            }
            if self.parts.len() > MAX_PARTS {
                return Err("a sparse file has too many parts");
            }
        }
        Ok(())
    }

    fn check(&self, stored: u64) -> Result<(), &'static str> {
        let mut end = 0;
        let mut sum = 0u64;
        for &(offset, length) in &self.parts {
            if offset < end {
                return Err("the parts of a sparse file overlap");
            }
            end = offset
                .checked_add(length)
                .ok_or("a sparse file is too large")?;
            sum += length;
        }
        if end > self.size || sum != stored {
            return Err("the parts of a sparse file do not fit its size");
        }
        Ok(())
    }

    /// Gives the whole file, reading its parts from `from`.
    pub(super) fn expand<R: Read>(self, from: R) -> Expanded<R> {
        Expanded {
            parts: self.parts.into_iter(),
            part: (0, 0),
            position: 0,
            size: self.size,
            from,
        }
    }
}

/// A sparse file with zeros in its holes.
pub(super) struct Expanded<R> {
    parts: std::vec::IntoIter<(u64, u64)>,
    /// Begin and end of the part at or after the position.
    part: (u64, u64),
    position: u64,
    size: u64,
    from: R,
}

impl<R: Read> Read for Expanded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.part.1 <= self.position && self.position < self.size {
            self.part = match self.parts.next() {
                Some((offset, length)) => (offset, offset + length),
                None => (self.size, u64::MAX),
            };
        }
        let (begin, end) = self.part;
        let until = if self.position < begin { begin } else { end }.min(self.size);
        let left = until.saturating_sub(self.position);
        let count = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let target = &mut buffer[..count];
        let count = if self.position < begin {
            target.fill(0);
            count
        } else {
            self.from.read(target)?
        };
        self.position += count as u64;
        Ok(count)
    }
}
