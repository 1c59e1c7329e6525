//! Layers that are known before they are packed, because one with the same entries has been
//! packed before: above another base, in another stage or by another build. The entries are
//! known from metadata and digests, so no content is read again and none is fetched.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use crate::layer::{Entry, Kind, TreePath};
use crate::mutex::lock;
use crate::registry::Digest;

/// Digests of contents by their paths, for each of the files of a copy.
pub(super) type Contents = Vec<HashMap<TreePath, Digest>>;

/// Whose turn it is to pack a layer: stages that need the same one at the same time pack it
/// once.
#[derive(Default)]
pub(crate) struct Turns(Mutex<BTreeMap<Digest, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Gives where the turn for the layer of a name is waited for.
    pub(super) fn of(&self, name: Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = lock(&self.0);
        turns.entry(name).or_default().clone()
    }
}

/// Tells whether a layer has files: another one is packed as fast as it is looked for.
pub(super) fn holds_files(entries: &[Entry]) -> bool {
    entries
        .iter()
        .any(|entry| matches!(entry.kind, Kind::File(_)))
}
