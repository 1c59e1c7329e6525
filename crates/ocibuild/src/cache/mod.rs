//! Which step gave which layer. A record is content-addressed by the step's key and
//! is as good as the layer that it names: the caller checks that the layer can still
//! be had.
//!
//! [`shared`] is where records and layers go so that other machines find them,
//! `document` how they are written there; [`why`] tells what a miss missed by.

pub(crate) mod document;
pub(crate) mod local;
pub mod shared;
pub mod why;

use serde::{Deserialize, Serialize};

use crate::content::{self, ContentStore, Layer, Origin};
use crate::event::LayerSummary;
use crate::graph::key::StepKey;
use crate::layer::DiffId;
use crate::registry::{Descriptor, Digest};

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
    /// Where the blob can be had. Records of a store are of layers in it.
    #[serde(skip)]
    pub origin: Origin,
}

impl StepResult {
    /// Gives the layer.
    pub(crate) fn into_layer(self) -> Layer {
        Layer {
            diff_id: self.diff_id,
            blob: self.blob,
            origin: self.origin,
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
    (store.has_blob(&result.blob) && store.has_toc(result.diff_id)).then_some(result)
}

/// Remembers what a step gave.
pub fn remember(
    store: &ContentStore,
    key: &StepKey,
    result: &StepResult,
) -> Result<(), content::Error> {
    store.put_step(&key.0, result)
}

/// The folder of layers by what is in them.
const PACKED: &str = "packed";

/// A layer that was packed.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Packed {
    diff_id: DiffId,
    blob: Descriptor,
}

/// Finds the layer of a name that was packed before, if all of it is still there. `created`
/// says when the step was done that needs it now.
pub(crate) fn packed(store: &ContentStore, name: &Digest, created: &str) -> Option<StepResult> {
    let Packed { diff_id, blob } = store.used_record(PACKED, name)?;
    (store.has_blob(&blob) && store.has_toc(diff_id)).then(|| StepResult {
        diff_id,
        blob,
        single_id: false,
        created: created.to_owned(),
        origin: Origin::Store,
    })
}

/// Remembers a layer that was packed.
pub(crate) fn remember_packed(
    store: &ContentStore,
    name: &Digest,
    layer: &StepResult,
) -> Result<(), content::Error> {
    let (diff_id, blob) = (layer.diff_id, layer.blob.clone());
    store.put_record(PACKED, name, &Packed { diff_id, blob })
}

/// The folder of keys that are known by another name.
const SAME: &str = "same";

/// Another name of a step: what it copies from is named by the layers that it is in, so
/// that these need not be looked into.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Same {
    key: Digest,
}

/// Gives the key of the step that has another name too.
pub(crate) fn same_as(store: &ContentStore, name: &StepKey) -> Option<StepKey> {
    let same: Same = store.used_record(SAME, &name.0)?;
    Some(StepKey(same.key))
}

/// Remembers another name of a step.
pub(crate) fn remember_same(
    store: &ContentStore,
    name: &StepKey,
    key: &StepKey,
) -> Result<(), content::Error> {
    store.put_record(SAME, &name.0, &Same { key: key.0 })
}
