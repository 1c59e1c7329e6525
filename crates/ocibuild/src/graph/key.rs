//! The cache key of a step: a digest over length-framed parts, so that no two lists
//! of parts run together to the same bytes.

use crate::registry::{Digest, Hasher};

/// The version of the key's own make-up; a change of what a step does with the same
/// parts raises it.
const VERSION: &str = "ocibuild-step-1";

/// Names what a step would give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StepKey(pub Digest);

/// Collects the parts of a key.
#[derive(Debug)]
pub struct KeyBuilder(Hasher);

impl KeyBuilder {
    /// Begins the key of a kind of step.
    pub fn new(kind: &str) -> Self {
        Self(Hasher::sha256())
            .part("version", VERSION)
            .part("kind", kind)
    }

    /// Adds a named part.
    #[must_use]
    pub fn part(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.frame(name.as_bytes());
        self.frame(value.as_ref());
        self
    }

    /// Adds a named list of parts.
    #[must_use]
    pub fn list<T: AsRef<[u8]>>(mut self, name: &str, values: impl IntoIterator<Item = T>) -> Self {
        let mut inner = Self(Hasher::sha256());
        for value in values {
            inner.frame(value.as_ref());
        }
        self.frame(name.as_bytes());
        self.frame(inner.0.finish().as_bytes());
        self
    }

    /// Gives the key.
    pub fn finish(self) -> StepKey {
        StepKey(self.0.finish())
    }

    fn frame(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_together() {
        let keys = [
            KeyBuilder::new("run").part("a", "bc"),
            KeyBuilder::new("run").part("ab", "c"),
            KeyBuilder::new("run").part("a", "b").part("c", ""),
            KeyBuilder::new("copy").part("a", "bc"),
            KeyBuilder::new("run").list("a", ["b", "c"]),
            KeyBuilder::new("run").list("a", ["bc"]),
        ]
        .map(KeyBuilder::finish);
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(key), "key {at} is there twice");
        }
    }
}
