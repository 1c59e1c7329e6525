//! Paths below `/v2/`. Repository names contain slashes, so a path is read from its
//! end.

use super::failure::Failure;
use crate::Digest;
use crate::reference::{is_repository_path, is_tag};

/// A repository name that has been checked: safe as a path of folders.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Name(String);

impl Name {
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        match is_repository_path(text) {
            true => Ok(Self(text.to_owned())),
            false => Err(Failure::name_invalid()),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a manifest is asked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Tag(String),
    Digest(Digest),
    /// Neither of them: there can be no such manifest, and none can be stored.
    Invalid,
}

impl Key {
    fn parse(text: &str) -> Self {
        match text.parse() {
            Ok(digest) => Self::Digest(digest),
            Err(_) if is_tag(text) => Self::Tag(text.to_owned()),
            Err(_) => Self::Invalid,
        }
    }
}

/// What a path means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    Catalog,
    Tags(Name),
    Uploads(Name),
    Upload(Name, String),
    Blob(Name, Digest),
    Manifest(Name, Key),
    Referrers(Name, Digest),
}

impl Route {
    pub(super) fn parse(path: &str) -> Result<Self, Failure> {
        if path == "_catalog" {
            return Ok(Self::Catalog);
        }
        if let Some(name) = path.strip_suffix("/tags/list") {
            return Ok(Self::Tags(Name::parse(name)?));
        }
        let bare = path.trim_end_matches('/');
        if let Some(name) = bare.strip_suffix("/blobs/uploads") {
            return Ok(Self::Uploads(Name::parse(name)?));
        }
        let (rest, last) = path.rsplit_once('/').ok_or_else(Failure::no_such_page)?;
        if let Some(name) = rest.strip_suffix("/blobs/uploads") {
            return Ok(Self::Upload(Name::parse(name)?, last.to_owned()));
        }
        let (name, kind) = rest.rsplit_once('/').ok_or_else(Failure::no_such_page)?;
        match kind {
            "blobs" => Ok(Self::Blob(Name::parse(name)?, digest(last)?)),
            "manifests" => Ok(Self::Manifest(Name::parse(name)?, Key::parse(last))),
            "referrers" => Ok(Self::Referrers(Name::parse(name)?, digest(last)?)),
            _ => Err(Failure::no_such_page()),
        }
    }
}

/// Reads a digest of a path or a query.
pub(super) fn digest(text: &str) -> Result<Digest, Failure> {
    text.parse()
        .map_err(|_| Failure::digest_invalid("this is not a sha256 or sha512 digest"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let name = |text: &str| Name::parse(text).unwrap();
        let digest = Digest::sha256(b"");
        for (path, want) in [
            ("_catalog".to_owned(), Route::Catalog),
            ("a/b/tags/list".to_owned(), Route::Tags(name("a/b"))),
            ("a/blobs/uploads/".to_owned(), Route::Uploads(name("a"))),
            ("a/blobs/uploads".to_owned(), Route::Uploads(name("a"))),
            (
                "a/blobs/uploads/x".to_owned(),
                Route::Upload(name("a"), "x".to_owned()),
            ),
            (
                format!("a/b/blobs/{digest}"),
                Route::Blob(name("a/b"), digest),
            ),
            (
                "blobs/manifests/tags".to_owned(),
                Route::Manifest(name("blobs"), Key::Tag("tags".to_owned())),
            ),
            (
                "a/manifests/.x".to_owned(),
                Route::Manifest(name("a"), Key::Invalid),
            ),
            (
                format!("a/referrers/{digest}"),
                Route::Referrers(name("a"), digest),
            ),
        ] {
            assert_eq!(Route::parse(&path).unwrap(), want, "{path}");
        }
    }

    #[test]
    fn what_is_no_path() {
        for path in [
            "",
            "a",
            "a/b",
            "A/tags/list",
            "../a/tags/list",
            "a/../b/manifests/x",
            "a/blobs/sha256:00",
            "_uploads/manifests/x",
            "/manifests/x",
        ] {
            assert!(Route::parse(path).is_err(), "{path:?}");
        }
    }
}
