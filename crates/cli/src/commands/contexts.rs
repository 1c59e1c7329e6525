//! What a text names whose files a build uses: a directory, a repository, a file behind a
//! URL, an image, an artifact. The context of a build and `--build-context` take the same.

use std::path::{Path, PathBuf};

use ocibuild::git::GitSource;
use ocibuild::registry::Reference;
use ocibuild::{ContextSource, NamedContext};

use super::surroundings::reference;
use crate::error::Error;

/// What is understood, for errors.
const FORMS: &str =
    "a directory, a Git or HTTP URL, oci://REF, docker-image://REF or oci-layout://DIR[:TAG]";

/// What a text names.
enum Named {
    Directory(PathBuf),
    Git(GitSource),
    Http(String),
    Image(Reference),
    OciLayout(PathBuf, Option<String>),
    OciArtifact(Reference),
}

/// Reads the context of a build.
pub(crate) fn main(text: &str) -> Result<ContextSource, Error> {
    Ok(match read(text)? {
        Named::Directory(path) if !path.is_dir() => {
            return Err(Error::Usage(format!(
                "the context {text:?} is not a directory"
            )));
        }
        Named::Directory(path) => ContextSource::Directory(path),
        Named::Git(source) => ContextSource::Git(source),
        Named::Http(url) => ContextSource::Http(url),
        Named::Image(reference) => ContextSource::Image(reference),
        Named::OciLayout(path, name) => ContextSource::OciLayout { path, name },
        Named::OciArtifact(reference) => ContextSource::OciArtifact(reference),
    })
}

/// Reads the value of `--build-context`.
pub(crate) fn named(text: &str) -> Result<NamedContext, Error> {
    Ok(match read(text)? {
        Named::Directory(path) => NamedContext::Directory(path),
        Named::Git(source) => NamedContext::Git(source),
        Named::Http(url) => NamedContext::Http(url),
        Named::Image(reference) => NamedContext::Image(reference),
        Named::OciLayout(path, name) => NamedContext::OciLayout { path, name },
        Named::OciArtifact(reference) => NamedContext::OciArtifact(reference),
    })
}

/// Tells whether a text is the URL of a file.
pub(crate) fn is_http(text: &str) -> bool {
    text.starts_with("https://") || text.starts_with("http://")
}

/// Tells whether a text names a repository of ssh.
pub(crate) fn is_ssh(text: &str) -> bool {
    matches!(read(text), Ok(Named::Git(source)) if source.is_ssh())
}

fn read(text: &str) -> Result<Named, Error> {
    if let Some(image) = text.strip_prefix("docker-image://") {
        return Ok(Named::Image(reference(image)?));
    }
    if let Some(artifact) = text.strip_prefix("oci://") {
        return Ok(Named::OciArtifact(reference(artifact)?));
    }
    if let Some(layout) = text.strip_prefix("oci-layout://") {
        return Ok(layout_of(layout));
    }
    if GitSource::is_git_url(text) && !Path::new(text).is_dir() {
        let source = GitSource::parse(text).map_err(|error| Error::Usage(error.to_string()))?;
        return Ok(Named::Git(source));
    }
    if is_http(text) {
        return Ok(Named::Http(text.to_owned()));
    }
    match text.split_once("://") {
        Some((scheme, _)) => Err(Error::Usage(format!(
            "a context cannot be of the kind {scheme}://: want {FORMS}"
        ))),
        None => Ok(Named::Directory(text.into())),
    }
}

fn layout_of(layout: &str) -> Named {
    let (path, name) = match layout.rsplit_once(['@', ':']) {
        Some((path, name)) if !name.contains('/') => (path, Some(name)),
        _ => (layout, None),
    };
    // `@sha256:…` was cut at its last colon.
    match path.strip_suffix("@sha256") {
        Some(path) => Named::OciLayout(path.into(), name.map(|hex| format!("sha256:{hex}"))),
        None => Named::OciLayout(path.into(), name.map(str::to_owned)),
    }
}
