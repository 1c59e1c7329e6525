//! Layers that are known before they are packed, because one with the same entries has been
//! packed before: above another base, in another stage or by another build. The entries are
//! known from metadata and digests, so no content is read again and none is fetched.

use crate::layer::{ByPath, Entry, Kind};
use crate::registry::Digest;

/// Digests of contents by their paths, for each of the files of a copy.
pub(super) type Contents = Vec<ByPath<Digest>>;

/// Tells whether a layer has files: another one is packed as fast as it is looked for.
pub(super) fn holds_files(entries: &[Entry]) -> bool {
    entries
        .iter()
        .any(|entry| matches!(entry.kind, Kind::File(_)))
}
