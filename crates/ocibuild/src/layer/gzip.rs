//! One gzip member made of independent blocks (RFC 1951, RFC 1952).
//!
//! Each block is deflate data that ends at a byte border (a sync flush) and refers
//! to nothing before it, so blocks are made in any order and on any thread, and
//! stand one after the other in the stream; an empty last block ends it. The
//! checksum of the whole is combined from those of the blocks.

use sirocco::Format;
use sirocco::deflate::{Encoder, Flush, Level, compress_bound};

use super::compress::Encoded;

/// Level whose output is smaller than that of `gzip -6`.
const DEFAULT_LEVEL: i32 = 6;

/// Room for what a sync flush adds to a block.
const FLUSH_SIZE: usize = 64;

/// No name, no time, no statement about the system: nothing that could differ.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// An empty block of fixed codes that says that it is the last.
const LAST_BLOCK: [u8; 2] = [3, 0];

/// Turns blocks into deflate data.
pub(super) struct BlockEncoder {
    encoder: Encoder,
    /// Where the data of a block grows, for one block after the other: what waits to be
    /// written takes no more room than it needs.
    output: Vec<u8>,
}

impl BlockEncoder {
    pub(super) fn new(level: Option<i32>) -> Self {
        let level = level.unwrap_or(DEFAULT_LEVEL).clamp(0, 9);
        Self {
            encoder: Encoder::new(Format::Deflate, Level::new(level as u8)),
            output: Vec::new(),
        }
    }

    pub(super) fn encode(&mut self, block: &[u8]) -> Encoded {
        let Self { encoder, output } = self;
        encoder.reset();
        let bound = compress_bound(Format::Deflate, block.len()) + FLUSH_SIZE;
        if output.len() < bound {
            *output = vec![0; bound];
        }
        let mut filled = 0;
        loop {
            let progress = encoder.compress(block, &mut output[filled..], Flush::Sync);
            filled += progress.output.len();
            if !progress.full {
                break;
            }
            output.resize(output.len() + output.len() / 8 + FLUSH_SIZE, 0);
        }
        let bytes = output[..filled].to_vec();
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(block);
        Encoded { bytes, checksum }
    }
}

/// What stands around the blocks of a member.
#[derive(Default)]
pub(super) struct Frame {
    checksum: crc32fast::Hasher,
    size: u64,
}

impl Frame {
    /// Gives what comes before the first block.
    pub(super) fn begin(&self) -> &'static [u8] {
        &HEADER
    }

    /// Takes note of the next block, made from `size` bytes.
    pub(super) fn add(&mut self, encoded: &Encoded, size: usize) {
        self.checksum.combine(&encoded.checksum);
        self.size += size as u64;
    }

    /// Gives what comes after the last block.
    pub(super) fn end(self) -> Vec<u8> {
        let mut bytes = LAST_BLOCK.to_vec();
        bytes.extend(self.checksum.finalize().to_le_bytes());
        // RFC 1952: the size modulo 2^32.
        bytes.extend((self.size as u32).to_le_bytes());
        bytes
    }
}
