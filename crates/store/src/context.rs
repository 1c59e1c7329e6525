//! Uploaded contexts: a tar each, kept in the table so that every replica can build it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of an uploaded context: `ctx-` and 32 lowercase hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContextId(String);

impl ContextId {
    /// Makes a new random name.
    pub fn random() -> Self {
        Self(format!("ctx-{}", uuid::Uuid::new_v4().simple()))
    }

    /// Gives the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text is not the id of a context.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the id of a context is `ctx-` and 32 lowercase hexadecimal digits")]
pub struct InvalidContextId;

impl FromStr for ContextId {
    type Err = InvalidContextId;

    fn from_str(text: &str) -> Result<Self, InvalidContextId> {
        let digits = text.strip_prefix("ctx-").ok_or(InvalidContextId)?;
        let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let valid = digits.len() == 32 && digits.bytes().all(hex);
        valid.then(|| Self(text.to_owned())).ok_or(InvalidContextId)
    }
}

impl TryFrom<String> for ContextId {
    type Error = InvalidContextId;

    fn try_from(text: String) -> Result<Self, InvalidContextId> {
        text.parse()
    }
}

impl From<ContextId> for String {
    fn from(id: ContextId) -> Self {
        id.0
    }
}

impl fmt::Display for ContextId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An uploaded context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Its name.
    pub id: ContextId,
    /// Who uploaded it, where the service knows several tenants.
    pub tenant: Option<String>,
    /// How much of it there is, in bytes.
    pub size: u64,
    /// It is whole, and a build can use it.
    pub complete: bool,
}
