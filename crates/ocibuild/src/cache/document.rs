//! A cache as others read it: an OCI image manifest whose layers are the layers of the
//! steps, and a configuration of our own type that says which step gave which.
//!
//! ```text
//! {"version": 1,
//!  "steps": [{"key": "sha256:…", "layer": "sha256:…", "diff_id": "sha256:…", "created": "…"}],
//!  "same":  [{"name": "sha256:…", "key": "sha256:…"}]}
//! ```
//!
//! An image that has its cache in it has the same document as an annotation of its
//! manifest. Whatever is read is a stranger's: what cannot be right is left out, and the
//! bytes of a layer are believed only when their digests are.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::StepResult;
use super::why::KeyRecord;
use crate::content::Origin;
use crate::graph::key::StepKey;
use crate::image::manifest::{Document, Documents};
use crate::layer::DiffId;
use crate::registry::{Descriptor, Digest, Manifest, media_type};

/// The media type of the configuration.
pub(crate) const CONFIG_TYPE: &str = "application/vnd.ocibuild.cache.config.v1+json";
/// The annotation of an image that has its cache in it.
pub(crate) const INLINE: &str = "dev.ocibuild.cache.v1";
/// The largest configuration that is read.
pub(crate) const MAX_CONFIG: u64 = 32 << 20;

const VERSION: u32 = 1;
/// The most steps that are believed.
const MAX_STEPS: usize = 20_000;
/// No layer is larger.
const MAX_LAYER: u64 = 1 << 40;

/// One step as it is exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CachedStep {
    pub(crate) key: StepKey,
    pub(crate) result: StepResult,
    /// What its key was made of, where that is known.
    pub(crate) made_of: Option<KeyRecord>,
}

/// What was read: steps by their keys, and other names of steps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Records {
    pub(crate) steps: HashMap<Digest, CachedStep>,
    pub(crate) same: HashMap<Digest, StepKey>,
    /// How many steps were left out because something about them cannot be.
    pub(crate) refused: usize,
}

#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    #[serde(default)]
    steps: Vec<WrittenStep>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    same: Vec<WrittenName>,
}

#[derive(Serialize, Deserialize)]
struct WrittenStep {
    key: Digest,
    layer: Digest,
    diff_id: DiffId,
    created: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    single_id: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made_of: Option<KeyRecord>,
}

#[derive(Serialize, Deserialize)]
struct WrittenName {
    name: Digest,
    key: Digest,
}

/// Writes steps and names; `with_parts` also says what the keys were made of.
pub(crate) fn text(
    steps: &[CachedStep],
    same: &BTreeMap<Digest, Digest>,
    with_parts: bool,
) -> String {
    let is_there = |key: &Digest| steps.iter().any(|step| step.key.0 == *key);
    let written = Written {
        version: VERSION,
        steps: steps.iter().map(|step| written(step, with_parts)).collect(),
        same: same
            .iter()
            .filter(|(_, key)| is_there(key))
            .map(|(name, key)| WrittenName {
                name: *name,
                key: *key,
            })
            .collect(),
    };
    serde_json::to_string(&written).expect("a cache has only string keys")
}

fn written(step: &CachedStep, with_parts: bool) -> WrittenStep {
    WrittenStep {
        key: step.key.0,
        layer: step.result.blob.digest,
        diff_id: step.result.diff_id,
        created: step.result.created.clone(),
        single_id: step.result.single_id,
        made_of: step.made_of.clone().filter(|_| with_parts),
    }
}

/// Makes manifest and configuration of a cache.
pub(crate) fn assemble(steps: &[CachedStep], same: &BTreeMap<Digest, Digest>) -> Documents {
    let config = Document::new(CONFIG_TYPE, text(steps, same, true).into_bytes());
    let mut layers: Vec<Descriptor> = Vec::new();
    for step in steps {
        let blob = &step.result.blob;
        if layers.iter().all(|layer| layer.digest != blob.digest) {
            layers.push(Descriptor::new(
                blob.media_type.clone(),
                blob.digest,
                blob.size,
            ));
        }
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::MANIFEST.to_owned()),
        config: config.descriptor.clone(),
        layers: layers.clone(),
        annotations: BTreeMap::default(),
    };
    let bytes = serde_json::to_vec(&manifest).expect("a manifest has only string keys");
    Documents {
        manifest: Document::new(media_type::MANIFEST, bytes),
        config,
        layers,
    }
}

/// Reads what a manifest and the text of its cache say; `origin` is where its layers are.
pub(crate) fn read(manifest: &Manifest, text: &[u8], origin: &Origin) -> Result<Records, String> {
    let written: Written = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if written.version != VERSION {
        return Err(format!("its version is {}, not {VERSION}", written.version));
    }
    if written.steps.len() > MAX_STEPS || written.same.len() > MAX_STEPS {
        return Err(format!("it names more than {MAX_STEPS} steps"));
    }
    let layers: HashMap<&Digest, &Descriptor> = manifest
        .layers
        .iter()
        .map(|layer| (&layer.digest, layer))
        .collect();
    let mut records = Records::default();
    for step in written.steps {
        match layers.get(&step.layer).filter(|layer| is_possible(layer)) {
            Some(layer) if is_time(&step.created) => {
                let step = cached(step, layer, origin);
                records.steps.insert(step.key.0, step);
            }
            _ => records.refused += 1,
        }
    }
    let same = written.same.into_iter();
    records.same = same.map(|same| (same.name, StepKey(same.key))).collect();
    Ok(records)
}

fn cached(step: WrittenStep, layer: &Descriptor, origin: &Origin) -> CachedStep {
    CachedStep {
        key: StepKey(step.key),
        result: StepResult {
            diff_id: step.diff_id,
            blob: Descriptor::new(layer.media_type.clone(), layer.digest, layer.size),
            single_id: step.single_id,
            created: step.created,
            origin: origin.clone(),
        },
        made_of: step.made_of,
    }
}

fn is_possible(layer: &Descriptor) -> bool {
    let is_layer = matches!(
        layer.media_type.as_str(),
        media_type::LAYER_GZIP
            | media_type::LAYER_TAR
            | media_type::LAYER_ZSTD
            | media_type::DOCKER_LAYER_GZIP
    );
    is_layer && (1..=MAX_LAYER).contains(&layer.size)
}

/// It goes into the history of images.
fn is_time(text: &str) -> bool {
    text.len() <= 40 && chrono::DateTime::parse_from_rfc3339(text).is_ok()
}
