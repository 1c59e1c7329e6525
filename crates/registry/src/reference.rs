//! Names of images: `[registry/]repository[:tag][@digest]`, with Docker's rules for
//! what may be left out (`alpine` is `docker.io/library/alpine`).
//!
//! A text enters; a [`Reference`] leaves, whose parts are safe to put into a URL
//! path or a file name below a registry's folder: lower-case components without
//! `..`, tags of at most 128 characters. The grammar is that of the distribution
//! specification ("Pulling manifests") and of Docker's `reference` package.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Digest;
use crate::digest::InvalidDigest;

/// Registry that a name without a registry means.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Host that answers the API for [`DEFAULT_REGISTRY`].
const DEFAULT_REGISTRY_API: &str = "registry-1.docker.io";
/// Folder of Docker Hub's own images, which names may leave out.
const DEFAULT_FOLDER: &str = "library/";
/// Tag that is meant where neither tag nor digest is given.
const DEFAULT_TAG: &str = "latest";
const MAX_TAG: usize = 128;
const MAX_NAME: usize = 255;

/// A repository of a registry: `localhost:5000/team/app`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    registry: String,
    path: String,
}

impl Repository {
    /// Joins a registry (`host` or `host:port`) and a repository path, both as they
    /// are: nothing is filled in.
    pub fn new(registry: &str, path: &str) -> Result<Self, InvalidReference> {
        let whole = format!("{registry}/{path}");
        let fail = |problem| InvalidReference::new(&whole, problem);
        if !is_registry(registry) {
            return Err(fail(Problem::Registry));
        }
        check_path(path).map_err(fail)?;
        if whole.len() > MAX_NAME {
            return Err(fail(Problem::TooLong));
        }
        Ok(Self {
            registry: canonical_registry(registry).to_owned(),
            path: path.to_owned(),
        })
    }

    /// Gives the registry as it is written in names: `docker.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Gives the path below the registry: `library/alpine`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Gives the host and port that answer the registry API.
    pub fn api_host(&self) -> &str {
        api_host(&self.registry)
    }

    /// Names what `tag` names in this repository.
    pub fn tagged(&self, tag: &str) -> Result<Reference, InvalidReference> {
        if !is_tag(tag) {
            let whole = format!("{self}:{tag}");
            return Err(InvalidReference::new(&whole, Problem::Tag));
        }
        Ok(Reference {
            repository: self.clone(),
            tag: Some(tag.to_owned()),
            digest: None,
        })
    }

    /// Names the manifest with this digest in this repository.
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference {
            repository: self.clone(),
            tag: None,
            digest: Some(digest),
        }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)
    }
}

impl FromStr for Repository {
    type Err = InvalidReference;

    /// Parses `[registry/]path`, with the same defaults as a [`Reference`].
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (registry, path) = split_registry(text);
        if path.is_empty() {
            return Err(InvalidReference::new(text, Problem::Empty));
        }
        let hub = canonical_registry(registry) == DEFAULT_REGISTRY;
        if hub && !path.contains('/') {
            return Self::new(registry, &format!("{DEFAULT_FOLDER}{path}"))
                .map_err(|error| InvalidReference::new(text, error.problem));
        }
        Self::new(registry, path).map_err(|error| InvalidReference::new(text, error.problem))
    }
}

/// The name of an image in a registry, by tag, by digest, or both.
///
/// ```
/// use ocibuild_registry::Reference;
///
/// let reference: Reference = "alpine:3.20".parse()?;
/// assert_eq!(reference.to_string(), "docker.io/library/alpine:3.20");
/// assert_eq!(reference.api_host(), "registry-1.docker.io");
/// # Ok::<(), ocibuild_registry::InvalidReference>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    repository: Repository,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Gives the repository that holds the image.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Gives the same name in another repository.
    #[must_use]
    pub fn at(&self, repository: &Repository) -> Self {
        Self {
            repository: repository.clone(),
            ..self.clone()
        }
    }

    /// Gives the registry as it is written in names: `docker.io`, `localhost:5000`.
    pub fn registry(&self) -> &str {
        self.repository.registry()
    }

    /// Gives the host and port that answer the registry API.
    pub fn api_host(&self) -> &str {
        self.repository.api_host()
    }

    /// Gives the tag, where one was written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Gives the digest, where one was written.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Gives what stands in a manifest URL: the digest, else the tag, else `latest`.
    pub fn manifest_name(&self) -> String {
        match &self.digest {
            Some(digest) => digest.to_string(),
            None => self.tag_or_latest().to_owned(),
        }
    }

    /// Gives the tag, or `latest` where none was written.
    pub fn tag_or_latest(&self) -> &str {
        self.tag().unwrap_or(DEFAULT_TAG)
    }
}

impl fmt::Display for Reference {
    /// Writes the full name; what was left out of the text is filled in, except `latest`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |problem| InvalidReference::new(text, problem);
        if text.is_empty() {
            return Err(fail(Problem::Empty));
        }
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => {
                let digest = digest.parse().map_err(|e| fail(Problem::Digest(e)))?;
                (named, Some(digest))
            }
            None => (text, None),
        };
        // A colon after the last slash begins the tag; one before it is a port.
        let name_starts = named.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match named[name_starts..].find(':') {
            Some(colon) => {
                let (name, tag) = named.split_at(name_starts + colon);
                (name, Some(&tag[1..]))
            }
            None => (named, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(fail(Problem::Tag));
        }
        let repository: Repository = name
            .parse()
            .map_err(|error: InvalidReference| fail(error.problem))?;
        Ok(Self {
            repository,
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Repository {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Repository {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A text that does not name an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid image reference {text:?}: {problem}")]
pub struct InvalidReference {
    text: String,
    problem: Problem,
}

impl InvalidReference {
    fn new(text: &str, problem: Problem) -> Self {
        // A hostile text may be long; its beginning is enough to find it again.
        let text = text.chars().take(2 * MAX_NAME).collect();
        Self { text, problem }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("the name is empty")]
    Empty,
    #[error("the registry must be a host name with an optional port")]
    Registry,
    #[error("the repository name must be lower case")]
    UpperCase,
    #[error(
        "each part of the repository name must be lower-case letters and digits, joined by '.', '_', '__' or '-'"
    )]
    Component,
    #[error("64 hexadecimal digits are an image id, which no registry knows")]
    ImageId,
    #[error("the name has more than {MAX_NAME} characters")]
    TooLong,
    #[error(
        "the tag must have 1 to {MAX_TAG} characters out of letters, digits, '_', '.', '-', and not begin with '.' or '-'"
    )]
    Tag,
    #[error("{0}")]
    Digest(InvalidDigest),
}

/// Tells whether a text is a tag of the distribution specification.
pub(crate) fn is_tag(text: &str) -> bool {
    let first_is_word = text
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    first_is_word
        && text.len() <= MAX_TAG
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// Tells whether a text is the path of a repository.
#[cfg(feature = "server")]
pub(crate) fn is_repository_path(text: &str) -> bool {
    text.len() <= MAX_NAME && text.split('/').all(is_component)
}

/// Gives the host and port that answer the API of a registry.
pub(crate) fn api_host(registry: &str) -> &str {
    match registry {
        DEFAULT_REGISTRY => DEFAULT_REGISTRY_API,
        other => other,
    }
}

/// Gives the one name of a registry that has several.
pub(crate) fn canonical_registry(registry: &str) -> &str {
    match registry {
        "index.docker.io" | DEFAULT_REGISTRY_API => DEFAULT_REGISTRY,
        other => other,
    }
}

/// Splits off the registry: the first component, where it looks like a host.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest)) if looks_like_host(first) => (first, rest),
        _ => (DEFAULT_REGISTRY, name),
    }
}

fn looks_like_host(component: &str) -> bool {
    component == "localhost"
        || component.contains(['.', ':'])
        || component.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<Ipv6Addr>().is_ok() => (None, port),
            _ => return false,
        },
        None => match text.find(':') {
            Some(colon) => (Some(&text[..colon]), &text[colon..]),
            None => (Some(text), ""),
        },
    };
    let host_is_valid = host.is_none_or(|host| host.split('.').all(is_host_label));
    let port_is_valid = match port.strip_prefix(':') {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok(),
        None => port.is_empty(),
    };
    host_is_valid && port_is_valid
}

fn is_host_label(label: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(inner)
}

fn check_path(path: &str) -> Result<(), Problem> {
    if path.is_empty() {
        return Err(Problem::Empty);
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(Problem::UpperCase);
    }
    if !path.split('/').all(is_component) {
        return Err(Problem::Component);
    }
    let name = path.strip_prefix(DEFAULT_FOLDER).unwrap_or(path);
    if name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Problem::ImageId);
    }
    Ok(())
}

/// Letters and digits, joined by one '.', one or two '_', or any number of '-'.
fn is_component(component: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_are_words =
        matches!((bytes.first(), bytes.last()), (Some(&a), Some(&z)) if word(a) && word(z));
    ends_are_words
        && bytes.split(|&b| word(b)).all(|joint| {
            matches!(joint, b"" | b"." | b"_" | b"__") || joint.iter().all(|&b| b == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn full_names() {
        let cases = [
            ("alpine", "docker.io/library/alpine"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("docker.io/alpine", "docker.io/library/alpine"),
            ("index.docker.io/team/app", "docker.io/team/app"),
            ("registry-1.docker.io/alpine", "docker.io/library/alpine"),
            ("team/app", "docker.io/team/app"),
            ("localhost/app", "localhost/app"),
            ("localhost:5000/app:v1", "localhost:5000/app:v1"),
            ("kind-registry:5000/a/b/c", "kind-registry:5000/a/b/c"),
            ("[::1]:5000/app", "[::1]:5000/app"),
            ("[fe80::1]/app:x", "[fe80::1]/app:x"),
            ("Host/app", "Host/app"),
            ("ghcr.io/a__b/c--d.e_f:_x", "ghcr.io/a__b/c--d.e_f:_x"),
        ];
        for (text, want) in cases {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), want, "{text}");
            assert_eq!(want.parse::<Reference>().unwrap(), reference, "{text}");
        }
    }

    #[test]
    fn digests_stand_after_the_tag() {
        let text = format!("localhost:5000/app:v1@{DIGEST}");
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.tag(), Some("v1"));
        assert_eq!(reference.manifest_name(), DIGEST);
        assert_eq!(reference.to_string(), text);
        let json = serde_json::to_string(&reference).unwrap();
        assert_eq!(serde_json::from_str::<Reference>(&json).unwrap(), reference);
    }

    #[test]
    fn what_is_no_reference_says_why() {
        let long = format!("a.b/{}", "x".repeat(300));
        let long_tag = format!("app:{}", "x".repeat(129));
        let image_id = "0123456789abcdef".repeat(4);
        let cases = [
            ("", "empty"),
            ("localhost:5000/", "empty"),
            ("App", "lower case"),
            ("ghcr.io/Team/app", "lower case"),
            ("app:", "tag"),
            ("app:.x", "tag"),
            ("app:a b", "tag"),
            (long_tag.as_str(), "tag"),
            ("app@sha256:00", "invalid digest"),
            ("a//b", "each part"),
            ("../../etc/passwd", "registry"),
            ("a/../b", "each part"),
            ("a/-b", "each part"),
            ("a/b_", "each part"),
            ("a/b___c", "each part"),
            ("a/b._c", "each part"),
            ("-host.com/app", "registry"),
            ("host:99999/app", "registry"),
            ("host:/app", "registry"),
            ("[::1/app", "registry"),
            ("user@host/app", "invalid digest"),
            ("https://host/app", "registry"),
            (image_id.as_str(), "image id"),
            (long.as_str(), "more than 255"),
            ("äpfel", "each part"),
        ];
        for (text, why) in cases {
            let message = text.parse::<Reference>().unwrap_err().to_string();
            assert!(message.contains(why), "{text:?}: {message}");
        }
    }

    #[test]
    fn docker_hub_is_asked_at_its_api_host() {
        let reference: Reference = "alpine".parse().unwrap();
        assert_eq!(reference.api_host(), "registry-1.docker.io");
        assert_eq!(reference.tag_or_latest(), "latest");
        let local: Reference = "localhost:5000/app".parse().unwrap();
        assert_eq!(local.api_host(), "localhost:5000");
    }
}
