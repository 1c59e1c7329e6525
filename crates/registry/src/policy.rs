//! What becomes of a tag that is there already when an image is pushed under it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use crate::action::{Action, Phase};
use crate::{Client, Digest, Error, Reference};

/// What becomes of a tag that is there already. It is decided by digests, never by what
/// a registry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TagPolicy {
    /// It names the new image from now on.
    #[default]
    Overwrite,
    /// It stays where it names the very same image, and the push is done; where it names
    /// another one, the push is refused.
    KeepIfSame,
    /// The push is refused, whatever it names.
    FailIfExists,
}

impl TagPolicy {
    const ALL: [(&str, Self); 3] = [
        ("overwrite", Self::Overwrite),
        ("keep-if-same", Self::KeepIfSame),
        ("fail-if-exists", Self::FailIfExists),
    ];
}

impl fmt::Display for TagPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Self::ALL.into_iter().find(|(_, policy)| policy == self);
        f.write_str(found.map_or("", |(name, _)| name))
    }
}

/// A text that names no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("want overwrite, keep-if-same or fail-if-exists, not {0:?}")]
pub struct UnknownTagPolicy(String);

impl FromStr for TagPolicy {
    type Err = UnknownTagPolicy;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|(name, _)| *name == text);
        found
            .map(|(_, policy)| policy)
            .ok_or_else(|| UnknownTagPolicy(text.to_owned()))
    }
}

/// The policy of each registry.
#[derive(Debug, Clone, Default)]
pub(crate) struct TagPolicies {
    pub(crate) usual: TagPolicy,
    pub(crate) own: BTreeMap<String, TagPolicy>,
}

impl TagPolicies {
    pub(crate) fn of(&self, reference: &Reference) -> TagPolicy {
        let own = self.own.get(reference.registry());
        *own.unwrap_or(&self.usual)
    }
}

impl Client {
    /// Tells whether a name stands for an image already; fails where it stands for
    /// another one and its policy keeps it.
    pub async fn has_already(&self, reference: &Reference, image: &Digest) -> Result<bool, Error> {
        let there = self.head(reference).await?.map(|there| there.digest);
        self.judge_tag(reference, there.as_ref(), image)
    }

    /// Judges what a tag names before a push of `wanted`; true where nothing is left to
    /// be done.
    pub(crate) fn judge_tag(
        &self,
        reference: &Reference,
        there: Option<&Digest>,
        wanted: &Digest,
    ) -> Result<bool, Error> {
        let Some(there) = there else {
            return Ok(false);
        };
        // What is named by its digest is the same wherever it is.
        let policy = match reference.tag() {
            None if reference.digest().is_some() => TagPolicy::Overwrite,
            _ => self.tags.of(reference),
        };
        match policy {
            TagPolicy::FailIfExists => Err(tag_exists(reference, there)),
            TagPolicy::KeepIfSame if there != wanted => Err(tag_exists(reference, there)),
            _ => Ok(there == wanted),
        }
    }
}

pub(crate) fn tag_exists(reference: &Reference, there: &Digest) -> Error {
    let text = format!("push manifest {reference}");
    Error::TagExists {
        action: Action::new(Phase::Resolve, reference.repository(), text),
        tag: reference.tag_or_latest().to_owned(),
        there: Box::new(*there),
    }
}
