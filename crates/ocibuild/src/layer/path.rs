//! Names inside a tree: bytes, relative, without `.` or `..`, ordered as a walk
//! meets them. A value of [`TreePath`] cannot point outside the tree by itself;
//! symbolic links on its way are the business of `snapshot`.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A relative path as bytes, without slash at either end; the empty path is the root.
///
/// Its order is walk order: a directory comes directly before what is below it, as
/// if `/` sorted before every other byte.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TreePath(Arc<[u8]>);

/// A name that cannot be a place inside a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid path \"{}\": {reason}", .path.escape_ascii())]
pub struct InvalidPath {
    /// The name as it came.
    pub path: Vec<u8>,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl TreePath {
    /// Gives the root of a tree.
    pub fn root() -> Self {
        Self(Arc::from([]))
    }

    /// Takes a path as archives and Dockerfiles write it: slashes at the ends,
    /// doubled slashes and `.` are dropped, `..` and NUL are refused.
    pub fn parse(path: impl AsRef<[u8]>) -> Result<Self, InvalidPath> {
        let path = path.as_ref();
        let mut clean = Vec::with_capacity(path.len());
        for name in names(path) {
            check_name(name).map_err(|reason| InvalidPath {
                path: path.to_vec(),
                reason,
            })?;
            if !clean.is_empty() {
                clean.push(b'/');
            }
            clean.extend_from_slice(name);
        }
        Ok(Self(clean.into()))
    }

    /// Gives the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Gives the path for system calls; the root is `.`.
    pub fn as_path(&self) -> &Path {
        let bytes: &[u8] = if self.is_root() { b"." } else { &self.0 };
        Path::new(OsStr::from_bytes(bytes))
    }

    /// Tells whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives the directory that holds this path; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        Some(Self(self.0[..end].into()))
    }

    /// Gives the last component; empty for the root.
    pub fn file_name(&self) -> &[u8] {
        self.components().next_back().unwrap_or_default()
    }

    /// Adds one component.
    pub fn join(&self, name: &[u8]) -> Result<Self, InvalidPath> {
        let invalid = |reason| InvalidPath {
            path: name.to_vec(),
            reason,
        };
        check_name(name).map_err(invalid)?;
        if name.contains(&b'/') {
            return Err(invalid("one component may not hold a slash"));
        }
        if self.is_root() {
            return Ok(Self(name.into()));
        }
        Ok(Self([&self.0, &b"/"[..], name].concat().into()))
    }

    /// Gives what is left of this path below `above`; all of it where it does not lie there.
    pub fn below(&self, above: &Self) -> &[u8] {
        if above.is_root() || !self.starts_with(above) {
            return &self.0;
        }
        let rest = &self.0[above.0.len()..];
        rest.strip_prefix(b"/").unwrap_or(rest)
    }

    /// Gives where this path comes to lie when what lies below `above` is moved to `place`.
    pub fn moved(&self, above: &Self, place: &Self) -> Self {
        match (self.below(above), place.is_root()) {
            (below, true) => Self(below.into()),
            (b"", false) => place.clone(),
            (below, false) => Self([&place.0, &b"/"[..], below].concat().into()),
        }
    }

    /// Gives the components from the top.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        names(&self.0)
    }

    /// Gives the directories above this path, from the root down.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> {
        let slashes = self.0.iter().enumerate().filter(|&(_, &b)| b == b'/');
        let ends = slashes.map(|(end, _)| Self(self.0[..end].into()));
        (!self.is_root()).then(Self::root).into_iter().chain(ends)
    }

    /// Tells whether this path is `other` or lies below it.
    pub fn starts_with(&self, other: &Self) -> bool {
        other.is_root()
            || self
                .0
                .strip_prefix(&*other.0)
                .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }
}

/// Gives the components of any path, `..` among them; empty ones and `.` mean nothing.
pub(crate) fn names(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
}

fn check_name(name: &[u8]) -> Result<(), &'static str> {
    match name {
        b"" | b"." => Err("a component is empty"),
        b".." => Err("it leaves the tree with \"..\""),
        _ if name.contains(&0) => Err("it holds a NUL byte"),
        _ => Ok(()),
    }
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |byte: u8| if byte == b'/' { 0 } else { u16::from(byte) + 1 };
        let at = common(&self.0, &other.0);
        match (self.0.get(at), other.0.get(at)) {
            (Some(&a), Some(&b)) => rank(a).cmp(&rank(b)),
            _ => self.0.len().cmp(&other.0.len()),
        }
    }
}

/// Gives how many bytes two paths have in common at their begin.
fn common(one: &[u8], other: &[u8]) -> usize {
    const WORD: usize = 8;
    let length = one.len().min(other.len());
    let mut at = 0;
    while at + WORD <= length && one[at..at + WORD] == other[at..at + WORD] {
        at += WORD;
    }
    while at < length && one[at] == other[at] {
        at += 1;
    }
    at
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for TreePath {
    /// Shows the path with a leading slash; bytes that are not printable are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok(text) if !text.contains(char::is_control) => write!(f, "/{text}"),
            _ => write!(f, "/{}", self.0.escape_ascii()),
        }
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for TreePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for TreePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(PathVisitor)
    }
}

struct PathVisitor;

impl<'de> Visitor<'de> for PathVisitor {
    type Value = TreePath;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes of a relative path")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<TreePath, E> {
        let mut names = bytes.split(|&byte| byte == b'/');
        match bytes.is_empty() || names.all(|name| check_name(name).is_ok()) {
            true => Ok(TreePath(bytes.into())),
            false => Err(E::custom("not a path in its normal form")),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<TreePath, E> {
        self.visit_bytes(text.as_bytes())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<TreePath, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = seq.next_element()? {
            bytes.push(byte);
        }
        self.visit_bytes(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).expect("a valid path")
    }

    #[test]
    fn normal_forms() {
        for (text, want) in [
            ("", ""),
            ("/", ""),
            ("./", ""),
            (".", ""),
            ("a", "a"),
            ("/a//b/./c/", "a/b/c"),
            ("./.wh.x", ".wh.x"),
            ("a/...", "a/..."),
        ] {
            assert_eq!(path(text).as_bytes(), want.as_bytes(), "{text:?}");
        }
        for text in ["..", "a/../b", "/..", "a/..", "a\0b"] {
            assert!(TreePath::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn order_is_walk_order() {
        let want = [
            "", "a", "a/b", "a/b/c", "a/c", "a!", "a-b", "a.b", "a0", "b",
        ];
        let mut paths: Vec<TreePath> = want.iter().map(|text| path(text)).collect();
        paths.reverse();
        paths.sort();
        let got: Vec<String> = paths.iter().map(ToString::to_string).collect();
        assert_eq!(got, want.map(|text| format!("/{text}")));
    }

    #[test]
    fn relations() {
        let deep = path("a/b/c");
        assert_eq!(deep.parent(), Some(path("a/b")));
        assert_eq!(path("a").parent(), Some(TreePath::root()));
        assert_eq!(TreePath::root().parent(), None);
        assert_eq!(deep.file_name(), b"c");
        assert_eq!(path("a").join(b"b"), Ok(path("a/b")));
        for bad in [&b".."[..], b"", b".", b"x/y", b"\0"] {
            assert!(path("a").join(bad).is_err(), "{bad:?}");
        }
        assert!(deep.starts_with(&path("a/b")) && deep.starts_with(&TreePath::root()));
        assert!(deep.starts_with(&deep) && !path("ab").starts_with(&path("a")));
        assert_eq!(deep.below(&path("a")), b"b/c");
        assert_eq!(deep.below(&deep), b"");
        assert_eq!(deep.below(&TreePath::root()), b"a/b/c");
        assert_eq!(path("ab").below(&path("a")), b"ab");
        for (above, place, want) in [
            ("a", "x/y", "x/y/b/c"),
            ("a/b/c", "x", "x"),
            ("", "x", "x/a/b/c"),
            ("a", "", "b/c"),
            ("a/b/c", "", ""),
        ] {
            assert_eq!(
                deep.moved(&path(above), &path(place)),
                path(want),
                "{above}"
            );
        }
        let above: Vec<TreePath> = deep.ancestors().collect();
        assert_eq!(above, ["", "a", "a/b"].map(path));
        assert_eq!(TreePath::root().ancestors().count(), 0);
    }
}
