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

/// Places of a block that are looked at for noise.
const SAMPLES: usize = 16;

/// Bytes of each of them.
const SAMPLE: usize = 4 << 10;

/// Bytes that are compressed to see whether they become smaller, more than the 32 KiB that
/// deflate looks back.
const PIECE: usize = 64 << 10;

/// The sum of the squares of the counts of all bytes, as noise has it within two per cent; text
/// has three times as much or more.
const SQUARES_OF_NOISE: u32 = (SAMPLE * SAMPLE / 256 + SAMPLE) as u32;

/// No name, no time, no statement about the system: nothing that could differ.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// An empty block of fixed codes that says that it is the last.
const LAST_BLOCK: [u8; 2] = [3, 0];

/// Turns blocks into deflate data.
pub(super) struct BlockEncoder {
    encoder: Encoder,
    /// For what does not become smaller.
    storing: Encoder,
    /// Where the data of a block grows, for one block after the other: what waits to be
    /// written takes no more room than it needs.
    output: Vec<u8>,
}

impl BlockEncoder {
    pub(super) fn new(level: Option<i32>) -> Self {
        let level = level.unwrap_or(DEFAULT_LEVEL).clamp(0, 9);
        Self {
            encoder: Encoder::new(Format::Deflate, Level::new(level as u8)),
            storing: Encoder::new(Format::Deflate, Level::new(0)),
            output: Vec::new(),
        }
    }

    pub(super) fn encode(&mut self, block: &[u8]) -> Encoded {
        let stays = self.stays(block);
        let Self {
            encoder,
            storing,
            output,
        } = self;
        let encoder = if stays { storing } else { encoder };
        let bytes = deflate(encoder, block, output).to_vec();
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(block);
        Encoded { bytes, checksum }
    }

    /// Tells whether a block is such that trying to make it smaller is a waste of time: what
    /// was compressed or encrypted before. Its bytes look like noise wherever one looks, and
    /// a piece of it does not become smaller. The answer depends on the block alone.
    fn stays(&mut self, block: &[u8]) -> bool {
        let middle = block.len() / 2;
        let Some(piece) = block.get(middle..middle + PIECE) else {
            return false;
        };
        let mut samples = block
            .chunks(block.len() / SAMPLES)
            .filter_map(|part| part.first_chunk::<SAMPLE>());
        if !samples.all(is_noise) {
            return false;
        }
        let smaller = deflate(&mut self.encoder, piece, &mut self.output).len();
        smaller + PIECE / 200 > PIECE
    }
}

/// Tells whether each byte is about as frequent as any other. In whole numbers, which are the
/// same on every machine.
fn is_noise(sample: &[u8; SAMPLE]) -> bool {
    let mut counts = [0_u32; 256];
    for &byte in sample {
        counts[usize::from(byte)] += 1;
    }
    let squares: u32 = counts.iter().map(|count| count * count).sum();
    squares < SQUARES_OF_NOISE + SQUARES_OF_NOISE / 12
}

/// Compresses bytes that refer to nothing before them, up to a byte border.
fn deflate<'o>(encoder: &mut Encoder, bytes: &[u8], output: &'o mut Vec<u8>) -> &'o [u8] {
    encoder.reset();
    let bound = compress_bound(Format::Deflate, bytes.len()) + FLUSH_SIZE;
    if output.len() < bound {
        *output = vec![0; bound];
    }
    let mut filled = 0;
    loop {
        let progress = encoder.compress(bytes, &mut output[filled..], Flush::Sync);
        filled += progress.output.len();
        if !progress.full {
            break;
        }
        output.resize(output.len() + output.len() / 8 + FLUSH_SIZE, 0);
    }
    &output[..filled]
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

#[cfg(test)]
mod tests {
    use ocibuild_registry::testing::noise;

    use std::io::Read;

    use super::*;

    fn text(length: usize) -> Vec<u8> {
        let lines = (0..).flat_map(|line| format!("line {line} of a text\n").into_bytes());
        lines.take(length).collect()
    }

    /// Encodes a block, reads it again, and gives how many bytes it took.
    fn encoded(level: Option<i32>, block: &[u8]) -> usize {
        let encoded = BlockEncoder::new(level).encode(block);
        let mut frame = Frame::default();
        frame.add(&encoded, block.len());
        let member = [frame.begin(), &encoded.bytes, &frame.end()].concat();
        let mut read = Vec::new();
        let mut decoder = flate2::read::GzDecoder::new(&member[..]);
        decoder.read_to_end(&mut read).unwrap();
        assert!(read == block);
        encoded.bytes.len()
    }

    #[test]
    fn noise_stays_as_it_is_and_nothing_else_does() {
        const SIZE: usize = 1 << 20;
        let noise = noise(1, SIZE);
        let mut encoder = BlockEncoder::new(None);
        assert!(encoder.stays(&noise));
        let mut half = noise.clone();
        half[SIZE / 4..SIZE / 2].copy_from_slice(&text(SIZE / 4));
        let again: Vec<u8> = noise[..20_000].iter().copied().cycle().take(SIZE).collect();
        for (name, block) in [
            ("text", &text(SIZE)[..]),
            ("zeros", &vec![0; SIZE]),
            ("partly text", &half),
            ("noise again and again", &again),
            ("a little", &noise[..1000]),
            ("nothing", &[]),
        ] {
            assert!(!encoder.stays(block), "{name}");
            encoded(None, block);
        }
        for level in [Some(0), Some(1), None, Some(9)] {
            let size = encoded(level, &noise);
            assert!(size < SIZE + SIZE / 1000, "{level:?}: {size}");
        }
    }
}
