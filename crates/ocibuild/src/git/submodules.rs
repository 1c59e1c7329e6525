//! `.gitmodules` and the commits that a tree pins, to the repositories to fetch
//! (gitmodules(5); relative URLs as git-submodule(1) reads them).

use gix::bstr::{BStr, ByteSlice as _};
use gix::submodule::config::Update;
use url::Url;

use super::error::GitError;
use super::source::parse_http_url;

const MAX_DEPTH: usize = 8;
const MAX_PER_REPOSITORY: usize = 256;

/// One submodule of a checked-out repository.
pub(super) struct Submodule {
    /// Where it stands, relative to the repository.
    pub(super) path: String,
    pub(super) url: Url,
    pub(super) commit: gix::ObjectId,
}

/// Lists the submodules of a repository; `parents` are the URLs from the outermost
/// repository to this one.
pub(super) fn list(
    repository: &gix::Repository,
    parents: &[Url],
) -> Result<Vec<Submodule>, GitError> {
    if !has_modules_file(repository)? {
        return Ok(Vec::new());
    }
    let unreadable = |_| invalid(".gitmodules cannot be read");
    let Some(modules) = repository.submodules().map_err(unreadable)? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for module in modules {
        if let Some(submodule) = read(&module, parents)? {
            found.push(submodule);
        }
        if found.len() > MAX_PER_REPOSITORY {
            return Err(invalid("the repository has too many submodules"));
        }
    }
    if !found.is_empty() && parents.len() > MAX_DEPTH {
        return Err(invalid("submodules are nested too deeply"));
    }
    Ok(found)
}

/// A symbolic link in the place of `.gitmodules` could lead to any file of this machine.
fn has_modules_file(repository: &gix::Repository) -> Result<bool, GitError> {
    let Some(root) = repository.workdir() else {
        return Ok(false);
    };
    match root.join(".gitmodules").symlink_metadata() {
        Ok(metadata) if metadata.is_file() => Ok(true),
        Ok(_) => Err(invalid(".gitmodules is not a regular file")),
        Err(_) => Ok(false),
    }
}

/// Reads one entry; entries without a commit in the tree, and those that say
/// `update = none`, are left alone as git does.
fn read(module: &gix::Submodule<'_>, parents: &[Url]) -> Result<Option<Submodule>, GitError> {
    let name = module.name().to_str_lossy().into_owned();
    let broken = |what: &str| invalid(&format!("submodule {name:?} has {what}"));
    let path = module.path().map_err(|_| broken("no valid path"))?;
    let path = path
        .to_str()
        .map_err(|_| broken("a path that is not UTF-8"))?;
    let Some(commit) = module
        .index_id()
        .map_err(|_| broken("no readable commit"))?
    else {
        return Ok(None);
    };
    let update = module
        .update()
        .map_err(|_| broken("an invalid update rule"))?;
    if matches!(update, Some(Update::None)) {
        return Ok(None);
    }
    let url = module
        .url()
        .map_err(|_| broken("no valid URL"))?
        .to_bstring();
    let url = resolve_url(url.as_bstr(), parents).map_err(|source| GitError::Submodule {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    Ok(Some(Submodule {
        path: path.to_owned(),
        url,
        commit,
    }))
}

/// Reads the URL of a submodule: `./` and `../` count from the URL of its repository.
fn resolve_url(url: &BStr, parents: &[Url]) -> Result<Url, GitError> {
    let text = url.to_str().map_err(|_| invalid("the URL is not UTF-8"))?;
    let is_relative = text.starts_with("./") || text.starts_with("../");
    let url = match parents.last().filter(|_| is_relative) {
        Some(parent) => resolve_relative(parent, text)?,
        None => parse_http_url(text)?,
    };
    if url.username().is_empty() && url.password().is_none() && url.query().is_none() {
        Ok(url)
    } else {
        Err(invalid("the URL has user information or a query"))
    }
}

fn resolve_relative(parent: &Url, relative: &str) -> Result<Url, GitError> {
    let mut segments: Vec<&str> = parent.path().trim_matches('/').split('/').collect();
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." if segments.pop().is_none() => {
                return Err(invalid("the relative URL leads above the host"));
            }
            ".." => {}
            name => segments.push(name),
        }
    }
    let mut url = parent.clone();
    url.set_path(&segments.join("/"));
    parse_http_url(url.as_str())
}

fn invalid(reason: &str) -> GitError {
    GitError::InvalidSubmodule {
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_submodules() {
        let parents = [Url::parse("https://h:8443/group/app.git").unwrap()];
        for (text, want) in [
            ("../lib.git", Some("https://h:8443/group/lib.git")),
            ("../../other/lib", Some("https://h:8443/other/lib")),
            ("./nested", Some("https://h:8443/group/app.git/nested")),
            ("https://x/lib.git", Some("https://x/lib.git")),
            ("../../../lib", None),
            ("../..", None),
            ("git@h:lib", None),
            ("file:///etc", None),
            ("/etc", None),
            ("https://a:b@x/lib", None),
            ("-x", None),
            ("--upload-pack=touch /tmp/x", None),
            ("ext::sh -c touch", None),
            ("EXT::sh", None),
            ("fd::3", None),
            ("ssh://-oProxyCommand=x/lib", None),
            ("./../../../../etc", None),
            ("..", None),
            ("lib", None),
            ("", None),
        ] {
            let url = resolve_url(text.as_bytes().as_bstr(), &parents);
            assert_eq!(url.ok().as_ref().map(Url::as_str), want, "{text}");
        }
    }
}
