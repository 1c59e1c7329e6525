//! The bytes of a tar out of those of a blob: decompressed, hashed, counted, limited.

use std::cell::Cell;
use std::io::{self, BufReader, Cursor, Read};
use std::rc::Rc;

use ocibuild_registry::{Digest, Hasher};

use super::read::Encoding;
use super::{Error, Limits};

pub(super) const BUFFER: usize = 128 << 10;

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

/// The uncompressed bytes of a blob, every one of them hashed on its way.
pub(super) struct Decompressed<'r> {
    decoder: Box<dyn Read + 'r>,
    compressed: Rc<Cell<u64>>,
    hasher: Hasher,
    limits: Limits,
    total: u64,
}

impl<'r> Decompressed<'r> {
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
            total: 0,
        })
    }

    /// Reads what the decoder gives at once; 0 is the end.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let count = loop {
            match self.decoder.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result.map_err(Error::Read)?,
            }
        };
        self.hasher.update(&buffer[..count]);
        self.total += count as u64;
        self.check_limits()?;
        Ok(count)
    }

    /// Gives the digest of all that was read.
    pub(super) fn digest(self) -> Digest {
        self.hasher.finish()
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
