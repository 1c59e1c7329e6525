//! The history of an image: one entry an instruction, with BuildKit's texts, so that
//! tools that read `docker history` see what they know.

use serde::{Deserialize, Serialize};

/// What the reference builder writes as the comment of its entries, and we of ours.
pub const COMMENT: &str = "buildkit.dockerfile.v0";

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// RFC 3339 time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Who, in images of older builders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// What made the entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// The instruction made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl History {
    /// Makes the entry of an instruction of this build; its time is set at the end.
    pub fn of(created_by: impl Into<String>, makes_layer: bool) -> Self {
        Self {
            created_by: Some(created_by.into()),
            comment: Some(COMMENT.to_owned()),
            empty_layer: !makes_layer,
            ..Self::default()
        }
    }
}

/// Gives every entry without a time that of the next layer's entry, else that of the
/// entry before it, else `created`; and gives the newest time for the image. So a build
/// that takes every layer from the cache is dated like the one that made them.
pub fn fill_times(history: &mut [History], created: &str) -> String {
    let known = history.iter().rev().find_map(|entry| entry.created.clone());
    let mut next = known.unwrap_or_else(|| created.to_owned());
    for entry in history.iter_mut().rev() {
        match &entry.created {
            Some(time) => next.clone_from(time),
            None => entry.created = Some(next.clone()),
        }
    }
    history
        .last()
        .and_then(|entry| entry.created.clone())
        .unwrap_or_else(|| created.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_takes_the_next_layers_time() {
        let mut history = vec![
            History::of("ENV A=1", false),
            History {
                created: Some("t1".into()),
                ..History::of("RUN x", true)
            },
            History::of("CMD x", false),
        ];
        assert_eq!(fill_times(&mut history, "now"), "t1");
        let times: Vec<_> = history
            .iter()
            .map(|entry| entry.created.as_deref().unwrap())
            .collect();
        assert_eq!(times, ["t1"; 3]);
    }
}
