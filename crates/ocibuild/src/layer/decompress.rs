//! A blob becomes the stream of its tar: decompressed, hashed, counted, limited.

use std::cell::Cell;
use std::io::{self, BufReader, Cursor, Read};
use std::rc::Rc;

use ocibuild_registry::{Digest, Hasher};

use super::read::Encoding;
use super::{Error, Limits};

const BUFFER: usize = 128 << 10;

/// Largest window that a zstd frame may ask for, as a power of two: 128 MiB.
const ZSTD_WINDOW_LOG: u32 = 27;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const BZIP2_MAGIC: [u8; 3] = *b"BZh";
const XZ_MAGIC: [u8; 6] = *b"\xfd7zXZ\0";
/// How many bytes tell the format.
const MAGIC: u64 = 6;

/// What an xz stream may take, in KiB: four times what `xz -9` asks for.
const XZ_MEMORY: u32 = 256 << 10;

/// The uncompressed bytes of a layer, every one of them hashed on its way.
pub(super) struct Stream<'r> {
    decoder: Box<dyn Read + 'r>,
    compressed: Rc<Cell<u64>>,
    hasher: Hasher,
    limits: Limits,
    buffer: Vec<u8>,
    consumed: usize,
    filled: usize,
    /// Bytes that have left the decoder.
    total: u64,
    failed: bool,
}

impl<'r> Stream<'r> {
    pub(super) fn open(
        reader: impl Read + 'r,
        encoding: Encoding,
        limits: &Limits,
    ) -> Result<Self, Error> {
        let compressed = Rc::new(Cell::new(0));
        let counted = Counted {
            from: reader,
            count: Rc::clone(&compressed),
        };
        Ok(Self {
            decoder: decoder(counted, encoding).map_err(Error::Read)?,
            compressed,
            hasher: Hasher::sha256(),
            limits: limits.clone(),
            buffer: vec![0; BUFFER],
            consumed: 0,
            filled: 0,
            total: 0,
            failed: false,
        })
    }

    /// Gives the position of the next byte.
    pub(super) fn position(&self) -> u64 {
        self.total - (self.filled - self.consumed) as u64
    }

    /// Fills `target`, or as much of it as there is.
    pub(super) fn read_full(&mut self, target: &mut [u8]) -> Result<usize, Error> {
        let mut done = 0;
        while done < target.len() {
            match self.read_some(&mut target[done..])? {
                0 => break,
                count => done += count,
            }
        }
        Ok(done)
    }

    /// Reads what is at hand; 0 is the end.
    pub(super) fn read_some(&mut self, target: &mut [u8]) -> Result<usize, Error> {
        let ready = self.ready()?;
        let count = ready.len().min(target.len());
        target[..count].copy_from_slice(&ready[..count]);
        self.consumed += count;
        Ok(count)
    }

    /// Passes over `count` bytes; tells how many there were.
    pub(super) fn skip(&mut self, count: u64) -> Result<u64, Error> {
        let mut left = count;
        while left > 0 {
            let ready = self.ready()?.len();
            if ready == 0 {
                break;
            }
            let step = usize::try_from(left).map_or(ready, |left| left.min(ready));
            self.consumed += step;
            left -= step as u64;
        }
        Ok(count - left)
    }

    /// Reads to the end and gives digest and size of the whole stream.
    pub(super) fn finish(mut self) -> Result<(Digest, u64), Error> {
        self.skip(u64::MAX)?;
        Ok((self.hasher.finish(), self.total))
    }

    fn ready(&mut self) -> Result<&[u8], Error> {
        if self.consumed == self.filled {
            if self.failed {
                return Err(Error::Read(io::Error::other("an earlier read failed")));
            }
            let filled = self.fill();
            self.failed = filled.is_err();
            filled?;
        }
        Ok(&self.buffer[self.consumed..self.filled])
    }

    fn fill(&mut self) -> Result<(), Error> {
        self.consumed = 0;
        self.filled = 0;
        let count = loop {
            match self.decoder.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result.map_err(Error::Read)?,
            }
        };
        self.hasher.update(&self.buffer[..count]);
        self.filled = count;
        self.total += count as u64;
        self.check_limits()
    }

    fn check_limits(&self) -> Result<(), Error> {
        if self.total > self.limits.size {
            return Err(Error::Limit {
                what: "uncompressed bytes",
                limit: self.limits.size,
            });
        }
        let fair = self.limits.ratio.saturating_mul(self.compressed.get());
        if self.total > Limits::RATIO_FROM && self.total > fair {
            return Err(Error::Limit {
                what: "uncompressed bytes per compressed byte",
                limit: self.limits.ratio,
            });
        }
        Ok(())
    }
}

/// What a stream turns out to be.
enum Format {
    Plain,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

/// Gives what an archive that somebody hands over has in it, compressed or not: its
/// first bytes say how.
pub(crate) fn decompressed<'r>(reader: impl Read + 'r) -> io::Result<Box<dyn Read + 'r>> {
    decoder(reader, Encoding::Archive)
}

fn decoder<'r>(mut reader: impl Read + 'r, encoding: Encoding) -> io::Result<Box<dyn Read + 'r>> {
    let mut magic = Vec::new();
    let mut detect = |detect: fn(&[u8]) -> Format| {
        let read = reader.by_ref().take(MAGIC).read_to_end(&mut magic);
        read.map(|_| detect(&magic))
    };
    let format = match encoding {
        Encoding::Detect => detect(layer_format)?,
        Encoding::Archive => detect(archive_format)?,
        Encoding::Plain => Format::Plain,
        Encoding::Gzip => Format::Gzip,
        Encoding::Zstd => Format::Zstd,
    };
    let reader = Cursor::new(magic).chain(reader);
    Ok(match format {
        Format::Plain => Box::new(reader),
        Format::Gzip => {
            let reader = BufReader::with_capacity(BUFFER, reader);
            Box::new(flate2::bufread::MultiGzDecoder::new(reader))
        }
        Format::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(reader)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Format::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(reader)),
        Format::Xz => {
            let reader = BufReader::with_capacity(BUFFER, reader);
            Box::new(lzma_rust2::XzReader::new_mem_limit(reader, true, XZ_MEMORY))
        }
    })
}

fn layer_format(magic: &[u8]) -> Format {
    // A skippable frame may stand first (RFC 8878, 3.1.2).
    let skippable = |m: &[u8]| matches!(m, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]);
    if magic.starts_with(&GZIP_MAGIC) {
        Format::Gzip
    } else if magic.starts_with(&ZSTD_MAGIC) || skippable(magic) {
        Format::Zstd
    } else {
        Format::Plain
    }
}

fn archive_format(magic: &[u8]) -> Format {
    if magic.starts_with(&BZIP2_MAGIC) {
        Format::Bzip2
    } else if magic.starts_with(&XZ_MAGIC) {
        Format::Xz
    } else {
        layer_format(magic)
    }
}

struct Counted<R> {
    from: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.count.set(self.count.get() + count as u64);
        Ok(count)
    }
}
