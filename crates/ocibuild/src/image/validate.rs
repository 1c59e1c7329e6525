//! Recomputes everything that an image claims: the digest and size of every blob,
//! every diff_id from the bytes of its layer, and that configuration, history and
//! manifest agree. The documents are read by `oci-spec` too, a reader that shares
//! nothing with our writer.

use std::io::{self, Read};

use crate::layer::{self, DiffId, Encoding, Limits};
use crate::registry::{Descriptor, Digest, Hasher, Manifest};

use super::ImageConfig;

/// What is wrong with an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A blob could not be opened or read.
    #[error("read blob {digest}")]
    Read {
        /// The blob.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
    /// A blob's bytes are not those that its descriptor names.
    #[error("blob {claimed} of {claimed_size} bytes holds {found} of {found_size} bytes")]
    Blob {
        /// Digest in the descriptor.
        claimed: Digest,
        /// Size in the descriptor.
        claimed_size: u64,
        /// Digest of the bytes.
        found: Digest,
        /// Their number.
        found_size: u64,
    },
    /// A document is not what the specification asks for.
    #[error("{document} {digest} is not valid: {reason}")]
    Document {
        /// Which document.
        document: &'static str,
        /// Its digest.
        digest: Digest,
        /// Why.
        reason: String,
    },
    /// A layer's tar cannot be read.
    #[error("layer {digest}")]
    Layer {
        /// The layer.
        digest: Digest,
        /// Why.
        source: layer::Error,
    },
    /// A layer's uncompressed bytes are not those that the configuration names.
    #[error("layer {digest} unpacks to {found}, the configuration says {claimed}")]
    DiffId {
        /// The layer.
        digest: Digest,
        /// In the configuration.
        claimed: DiffId,
        /// Of the bytes.
        found: DiffId,
    },
    /// Two lists that must be of one length are not.
    #[error(
        "the manifest has {layers} layers, the configuration {diff_ids}, the history {history}"
    )]
    Counts {
        /// Layers of the manifest.
        layers: usize,
        /// diff_ids of the configuration.
        diff_ids: usize,
        /// Entries of the history that made a layer.
        history: usize,
    },
}

/// Opens the blob with a digest.
pub type OpenBlob<'a> = dyn Fn(&Digest) -> io::Result<Box<dyn Read + Send>> + 'a;

/// Checks the whole image below `manifest` and gives its configuration.
pub fn validate(manifest: &Descriptor, open: &OpenBlob<'_>) -> Result<ImageConfig, Problem> {
    let bytes = read_document(manifest, open)?;
    let invalid = |document, digest| {
        move |cause: &dyn std::fmt::Display| Problem::Document {
            document,
            digest,
            reason: cause.to_string(),
        }
    };
    let bad_manifest = invalid("manifest", manifest.digest);
    oci_spec::image::ImageManifest::from_reader(bytes.as_slice())
        .map_err(|cause| bad_manifest(&cause))?;
    let parsed: Manifest = serde_json::from_slice(&bytes).map_err(|cause| bad_manifest(&cause))?;

    let bytes = read_document(&parsed.config, open)?;
    let bad_config = invalid("configuration", parsed.config.digest);
    oci_spec::image::ImageConfiguration::from_reader(bytes.as_slice())
        .map_err(|cause| bad_config(&cause))?;
    let config = ImageConfig::parse(&bytes).map_err(|cause| bad_config(&cause))?;

    check_counts(&parsed, &config)?;
    for (descriptor, claimed) in parsed.layers.iter().zip(&config.rootfs.diff_ids) {
        check_layer(descriptor, *claimed, open)?;
    }
    Ok(config)
}

fn check_counts(manifest: &Manifest, config: &ImageConfig) -> Result<(), Problem> {
    let layers = manifest.layers.len();
    let diff_ids = config.rootfs.diff_ids.len();
    let history = config.history.iter().filter(|e| !e.empty_layer).count();
    // A history is optional; where there is one, it must fit.
    if layers != diff_ids || (!config.history.is_empty() && history != layers) {
        return Err(Problem::Counts {
            layers,
            diff_ids,
            history,
        });
    }
    Ok(())
}

fn check_layer(
    descriptor: &Descriptor,
    claimed: DiffId,
    open: &OpenBlob<'_>,
) -> Result<(), Problem> {
    let digest = descriptor.digest;
    let blob = open(&digest).map_err(|source| Problem::Read { digest, source })?;
    let mut counted = Counted::new(blob);
    let encoding = Encoding::of_media_type(&descriptor.media_type);
    let read = layer::read_layer(&mut counted, encoding, &Limits::default(), &mut ());
    let found = read
        .map_err(|source| Problem::Layer { digest, source })?
        .diff_id;
    // What follows the compressed stream counts for the digest of the blob.
    io::copy(&mut counted, &mut io::sink()).map_err(|source| Problem::Read { digest, source })?;
    counted.check(descriptor)?;
    if found != claimed {
        return Err(Problem::DiffId {
            digest,
            claimed,
            found,
        });
    }
    Ok(())
}

fn read_document(descriptor: &Descriptor, open: &OpenBlob<'_>) -> Result<Vec<u8>, Problem> {
    let digest = descriptor.digest;
    let read = |source| Problem::Read { digest, source };
    let mut counted = Counted::new(open(&digest).map_err(read)?);
    let mut bytes = Vec::new();
    counted.read_to_end(&mut bytes).map_err(read)?;
    counted.check(descriptor)?;
    Ok(bytes)
}

/// Hashes and counts what is read through it.
struct Counted<R> {
    inner: R,
    hasher: Hasher,
    size: u64,
}

impl<R: Read> Counted<R> {
    fn new(inner: R) -> Self {
        Self {
            inner,
            hasher: Hasher::sha256(),
            size: 0,
        }
    }

    fn check(self, claimed: &Descriptor) -> Result<(), Problem> {
        let found = self.hasher.finish();
        if found == claimed.digest && self.size == claimed.size {
            return Ok(());
        }
        Err(Problem::Blob {
            claimed: claimed.digest,
            claimed_size: claimed.size,
            found,
            found_size: self.size,
        })
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }
}
