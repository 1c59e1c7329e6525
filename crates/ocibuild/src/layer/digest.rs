//! The two identities of layers inside an image: a [`DiffId`] names one
//! uncompressed tar, a [`ChainId`] names a whole stack of them
//! (OCI image-spec, config.md, "Layer DiffID" and "Layer ChainID").

use std::fmt;

use ocibuild_registry::Digest;
use serde::{Deserialize, Serialize};

/// The digest of a layer's uncompressed tar; never the digest of its blob.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(pub Digest);

/// The identity of a layer together with everything below it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainId(pub Digest);

impl ChainId {
    /// Computes the identity of a stack, lowest layer first; `None` for no layers.
    pub fn of(layers: impl IntoIterator<Item = DiffId>) -> Option<Self> {
        layers.into_iter().fold(None, |below, layer| {
            Some(match below {
                None => Self(layer.0),
                Some(below) => below.with(layer),
            })
        })
    }

    /// Computes the identity of this stack with one more layer on top.
    pub fn with(self, layer: DiffId) -> Self {
        Self(Digest::sha256(format!("{} {}", self.0, layer.0).as_bytes()))
    }
}

macro_rules! shown_as_digest {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    )*};
}
shown_as_digest!(DiffId ChainId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_of_layers() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|text| DiffId(Digest::sha256(text)));
        assert_eq!(ChainId::of([]), None);
        assert_eq!(ChainId::of([a]), Some(ChainId(a.0)));
        let ab = Digest::sha256(format!("{a} {b}").as_bytes());
        assert_eq!(ChainId::of([a, b]), Some(ChainId(ab)));
        let abc = Digest::sha256(format!("{ab} {c}").as_bytes());
        assert_eq!(ChainId::of([a, b, c]), Some(ChainId(abc)));
        assert_ne!(ChainId::of([a, b, c]), ChainId::of([a, c, b]));
    }
}
