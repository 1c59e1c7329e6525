//! The cache key of a step: a digest over length-framed parts, so that no two lists
//! of parts run together to the same bytes.

use super::parts::{KeyPart, PartValue};
use crate::registry::{Digest, Hasher};

/// The version of the key's own make-up; a change of what a step does with the same
/// parts raises it.
const VERSION: &str = "ocibuild-step-1";

/// Names what a step would give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StepKey(pub Digest);

/// Collects the parts of a key, and keeps them where somebody wants to see them.
#[derive(Debug)]
pub struct KeyBuilder {
    hasher: Hasher,
    kept: Option<Vec<KeyPart>>,
}

/// What is kept of a list of parts.
enum Shape {
    Plain,
    Variables,
    Files,
}

impl KeyBuilder {
    /// Begins the key of a kind of step.
    pub fn new(kind: &str) -> Self {
        Self::empty(None).begin(kind)
    }

    /// Begins the key of a kind of step; its parts are kept.
    pub fn keeping(kind: &str) -> Self {
        Self::empty(Some(Vec::new())).begin(kind)
    }

    /// Begins the key of a kind of step, whose parts are kept or not.
    pub(crate) fn of(kind: &str, keep: bool) -> Self {
        match keep {
            true => Self::keeping(kind),
            false => Self::new(kind),
        }
    }

    fn empty(kept: Option<Vec<KeyPart>>) -> Self {
        let hasher = Hasher::sha256();
        Self { hasher, kept }
    }

    fn begin(self, kind: &str) -> Self {
        self.part("version", VERSION).part("kind", kind)
    }

    /// Adds a named part.
    #[must_use]
    pub fn part(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.frame(name.as_bytes());
        self.frame(value.as_ref());
        self.keep(name, || PartValue::text(value.as_ref()));
        self
    }

    /// Adds a named list of parts.
    #[must_use]
    pub fn list<T: AsRef<[u8]>>(self, name: &str, values: impl IntoIterator<Item = T>) -> Self {
        self.many(name, values, Shape::Plain)
    }

    /// Adds a list of names and values in turns. The values may be secret, so digests of
    /// them are all that is kept.
    #[must_use]
    pub fn variables<T: AsRef<[u8]>>(
        self,
        name: &str,
        values: impl IntoIterator<Item = T>,
    ) -> Self {
        self.many(name, values, Shape::Variables)
    }

    /// Adds a list of files: a path, a zero byte, and all that the file is.
    #[must_use]
    pub fn files<T: AsRef<[u8]>>(self, name: &str, values: impl IntoIterator<Item = T>) -> Self {
        self.many(name, values, Shape::Files)
    }

    fn many<T: AsRef<[u8]>>(
        mut self,
        name: &str,
        values: impl IntoIterator<Item = T>,
        shape: Shape,
    ) -> Self {
        let mut inner = Self::empty(None);
        let mut seen = Vec::new();
        for value in values {
            inner.frame(value.as_ref());
            if self.kept.is_some() {
                seen.push(value);
            }
        }
        self.frame(name.as_bytes());
        self.frame(inner.hasher.finish().as_bytes());
        self.keep(name, || {
            let texts = seen.iter().map(AsRef::as_ref);
            match shape {
                Shape::Plain => PartValue::list(texts),
                Shape::Variables => PartValue::variables(texts),
                Shape::Files => PartValue::files(texts),
            }
        });
        self
    }

    fn keep(&mut self, name: &str, value: impl FnOnce() -> PartValue) {
        if let Some(kept) = &mut self.kept {
            let (name, value) = (name.to_owned(), value());
            kept.push(KeyPart { name, value });
        }
    }

    /// Gives the key.
    pub fn finish(self) -> StepKey {
        StepKey(self.hasher.finish())
    }

    /// Gives the parts that were kept.
    pub fn into_parts(self) -> Vec<KeyPart> {
        self.kept.unwrap_or_default()
    }

    fn frame(&mut self, bytes: &[u8]) {
        self.hasher.update(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
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

    #[test]
    fn keeping_parts_changes_no_key() {
        let fill = |key: KeyBuilder| {
            key.part("a", "b")
                .list("l", ["x", "y"])
                .variables("env", ["A", "1"])
                .files("inputs", ["f\0 644 0 0 c"])
        };
        let (plain, kept) = (
            fill(KeyBuilder::new("run")),
            fill(KeyBuilder::keeping("run")),
        );
        let parts = fill(KeyBuilder::keeping("run")).into_parts();
        assert_eq!(plain.finish(), kept.finish());
        let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names, ["version", "kind", "a", "l", "env", "inputs"]);
    }
}
