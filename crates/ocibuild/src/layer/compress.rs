//! How a blob is compressed, and the part that every compression shares: the tar is
//! cut into blocks of a fixed size, each becomes bytes of its own, whoever does it.
//! That is why the bytes do not depend on the number of threads.

use std::io;

use ocibuild_registry::media_type;
use serde::{Deserialize, Serialize};

use super::gzip;

/// The compression of a layer's blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// The tar itself.
    None,
    /// One gzip member, which every reader of images understands.
    #[default]
    Gzip,
    /// Zstandard frames.
    Zstd,
}

/// How a layer is written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// The compression.
    pub compression: Compression,
    /// Its level in the terms of `gzip` (0 to 9) or `zstd` (1 to 19); a level outside is
    /// taken as the nearest one, `None` is the default of the compression.
    pub level: Option<i32>,
    /// Threads that compress; 0 and 1 mean the caller's own. They change the speed and
    /// never the bytes.
    pub threads: usize,
    /// The latest modification time that an entry may have (`SOURCE_DATE_EPOCH`).
    pub clamp_mtime: Option<i64>,
}

impl Compression {
    /// Gives the media type of a layer with this compression.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::None => media_type::LAYER_TAR,
            Self::Gzip => media_type::LAYER_GZIP,
            Self::Zstd => media_type::LAYER_ZSTD,
        }
    }

    /// Gives the compression of a layer with this media type, if it says one.
    pub fn of_media_type(text: &str) -> Option<Self> {
        match text {
            media_type::LAYER_TAR | media_type::DOCKER_LAYER_TAR => Some(Self::None),
            media_type::LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => Some(Self::Gzip),
            media_type::LAYER_ZSTD => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Bytes of tar in one block. Zstandard looks back further than gzip's 32 KiB, so
    /// its blocks are larger.
    pub(super) fn block_size(self) -> usize {
        match self {
            Self::None | Self::Gzip => 1 << 20,
            Self::Zstd => 2 << 20,
        }
    }

    /// Makes what turns blocks into bytes; `None` where they stay as they are.
    pub(super) fn encoder(self, level: Option<i32>) -> io::Result<Option<BlockEncoder>> {
        Ok(match self {
            Self::None => None,
            Self::Gzip => Some(BlockEncoder::Gzip(Box::new(gzip::BlockEncoder::new(level)))),
            Self::Zstd => {
                let level = level
                    .unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL)
                    .clamp(1, 19);
                Some(BlockEncoder::Zstd(zstd::bulk::Compressor::new(level)?))
            }
        })
    }

    /// Makes what stands around the blocks.
    pub(super) fn frame(self) -> Option<gzip::Frame> {
        (self == Self::Gzip).then(gzip::Frame::default)
    }
}

/// Turns one block into bytes, whatever came before it.
pub(super) enum BlockEncoder {
    Gzip(Box<gzip::BlockEncoder>),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl BlockEncoder {
    pub(super) fn encode(&mut self, block: &[u8]) -> io::Result<Encoded> {
        match self {
            Self::Gzip(encoder) => Ok(encoder.encode(block)),
            Self::Zstd(encoder) => Ok(Encoded {
                bytes: encoder.compress(block)?,
                checksum: crc32fast::Hasher::new(),
            }),
        }
    }
}

/// The bytes of one block, and the checksum of what it was made from.
pub(super) struct Encoded {
    pub(super) bytes: Vec<u8>,
    pub(super) checksum: crc32fast::Hasher,
}
