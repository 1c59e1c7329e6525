//! Which step gave which layer. A record is content-addressed by the step's key and
//! is as good as the layer that it names: the caller checks that the layer can still
//! be had.

use serde::{Deserialize, Serialize};

use crate::content::{self, ContentStore, Layer, Origin};
use crate::event::LayerSummary;
use crate::graph::key::StepKey;
use crate::layer::DiffId;
use crate::registry::Descriptor;

/// What a step gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepResult {
    /// The layer.
    pub diff_id: DiffId,
    /// Its blob.
    pub blob: Descriptor,
    /// It was made with one id, so owners may be missing in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub single_id: bool,
    /// RFC 3339 time at which it was made; it goes into the history again on a hit.
    pub created: String,
}

impl StepResult {
    /// Gives the layer, which is in the store.
    pub(crate) fn into_layer(self) -> Layer {
        Layer {
            diff_id: self.diff_id,
            blob: self.blob,
            origin: Origin::Store,
        }
    }

    /// Gives what an event says of the layer.
    pub(crate) fn summary(&self) -> LayerSummary {
        LayerSummary {
            digest: self.blob.digest,
            size: self.blob.size,
            diff_id: self.diff_id.0,
        }
    }
}

/// Finds what a step gave before, if all of it is still there.
pub fn lookup(store: &ContentStore, key: &StepKey) -> Option<StepResult> {
    let result: StepResult = store.step(&key.0)?;
    (store.has_blob(&result.blob) && store.toc_path(result.diff_id).exists()).then_some(result)
}

/// Remembers what a step gave.
pub fn remember(
    store: &ContentStore,
    key: &StepKey,
    result: &StepResult,
) -> Result<(), content::Error> {
    store.put_step(&key.0, result)
}
