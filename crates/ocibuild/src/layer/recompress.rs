//! A blob becomes another blob of the same tar. The tar is cut into the very blocks into
//! which a writer cuts it, so that what comes out is what would have been written at once.

use std::io::{Read, Write};

use ocibuild_registry::{Descriptor, Digest};

use super::pipeline::{Blob, Pipeline};
use super::stream::Stream;
use super::{DiffId, Encoding, Error, Limits, Options};

/// A blob that has been made of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recompressed {
    /// Digest of the tar, which both blobs have.
    pub diff_id: DiffId,
    /// The new blob.
    pub blob: Descriptor,
}

/// Writes the tar of `blob` to `out` as `options` say; of these the compression, its level
/// and the threads count. Another thread decompresses.
pub fn recompress<W: Write + Send + 'static>(
    blob: impl Read + Send,
    encoding: Encoding,
    limits: &Limits,
    options: &Options,
    out: W,
) -> Result<(Recompressed, W), Error> {
    let mut pipeline = Pipeline::new(options, out).map_err(Error::Write)?;
    let tar = std::thread::scope(|scope| {
        let stream = Stream::ahead(scope, blob, encoding, limits)?;
        cut(stream, options.compression.block_size(), |block| {
            pipeline.submit(block).map_err(Error::Write)
        })
    })?;
    let Blob { out, size, digest } = pipeline.finish().map_err(Error::Write)?;
    let media_type = options.compression.media_type();
    let blob = Descriptor::new(media_type, digest.unwrap_or(tar), size);
    let diff_id = DiffId(tar);
    Ok((Recompressed { diff_id, blob }, out))
}

/// Cuts a stream into blocks, of which the last may be shorter; gives the digest of it all.
fn cut(
    mut stream: Stream<'_>,
    size: usize,
    mut take: impl FnMut(Vec<u8>) -> Result<(), Error>,
) -> Result<Digest, Error> {
    loop {
        let mut block = vec![0; size];
        let filled = stream.read_full(&mut block)?;
        block.truncate(filled);
        if filled > 0 {
            take(block)?;
        }
        if filled < size {
            return Ok(stream.finish()?.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Compression, EntryMeta, Kind, LayerWriter, TreePath};

    fn options(compression: Compression, level: Option<i32>) -> Options {
        Options {
            compression,
            level,
            threads: 2,
            clamp_mtime: None,
        }
    }

    /// A layer of one file that is larger than a block.
    fn written(options: Options) -> (crate::layer::Finished, Vec<u8>) {
        let content: Vec<u8> = (0..560_000u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .collect();
        let mut writer = LayerWriter::new(options, Vec::new()).unwrap();
        let meta = EntryMeta {
            kind: Kind::File(content.len() as u64),
            ..EntryMeta::dir(TreePath::parse("f").unwrap())
        };
        writer.append(&meta, Some(&mut content.as_slice())).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn what_is_made_again_is_what_would_have_been_written() {
        let all = [
            (Compression::None, None),
            (Compression::Gzip, None),
            (Compression::Gzip, Some(1)),
            (Compression::Zstd, None),
            (Compression::Zstd, Some(9)),
        ];
        for (from, level) in all {
            let (first, blob) = written(options(from, level));
            for (to, level) in all {
                let encoding = Encoding::of_media_type(first.media_type);
                let to = options(to, level);
                let (expected, bytes) = written(to.clone());
                let limits = Limits::default();
                let (made, out) =
                    recompress(blob.as_slice(), encoding, &limits, &to, Vec::new()).unwrap();
                assert_eq!(made.diff_id, first.diff_id);
                assert_eq!(made.blob, expected.descriptor());
                assert!(out == bytes, "{from:?} {to:?}");
            }
        }
    }

    #[test]
    fn a_blob_that_is_cut_off_is_no_blob() {
        let (first, blob) = written(options(Compression::Gzip, None));
        let encoding = Encoding::of_media_type(first.media_type);
        let (half, limits) = (&blob[..blob.len() / 2], Limits::default());
        let to = options(Compression::Zstd, None);
        assert!(recompress(half, encoding, &limits, &to, Vec::new()).is_err());
    }
}
