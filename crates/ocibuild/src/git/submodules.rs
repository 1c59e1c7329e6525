//! `.gitmodules` and the commits that a tree pins, to the repositories to fetch
//! (gitmodules(5); relative URLs as git-submodule(1) reads them).

use gix::bstr::{BStr, ByteSlice as _};
use gix::submodule::File;
use gix::submodule::config::Update;
use url::Url;

use super::address;
use super::error::GitError;

const MODULES: &str = ".gitmodules";
const MAX_DEPTH: usize = 8;
const MAX_PER_REPOSITORY: usize = 256;

/// One submodule of a checked-out repository.
pub(super) struct Submodule {
    /// Where it stands, relative to the repository.
    pub(super) path: String,
    pub(super) url: Url,
    pub(super) commit: gix::ObjectId,
}

/// Lists the submodules of a commit; `parents` are the URLs from the outermost repository
/// to this one.
pub(super) fn list(
    repository: &gix::Repository,
    commit: gix::ObjectId,
    parents: &[Url],
) -> Result<Vec<Submodule>, GitError> {
    let unreadable = |_| invalid(".gitmodules cannot be read");
    let commit = repository.find_commit(commit).map_err(unreadable)?;
    let tree = commit.tree().map_err(unreadable)?;
    let Some(text) = modules_file(&tree)? else {
        return Ok(Vec::new());
    };
    let modules = File::from_bytes(&text, None, &gix::config::File::default());
    let modules = modules.map_err(unreadable)?;
    let mut found = Vec::new();
    for name in modules.names() {
        let module = Module {
            modules: &modules,
            tree: &tree,
            name,
        };
        found.extend(module.read(parents)?);
        if found.len() > MAX_PER_REPOSITORY {
            return Err(invalid("the repository has too many submodules"));
        }
    }
    if !found.is_empty() && parents.len() > MAX_DEPTH {
        return Err(invalid("submodules are nested too deeply"));
    }
    Ok(found)
}

/// Gives what is in `.gitmodules`. Git does not follow a symbolic link in its place either.
fn modules_file(tree: &gix::Tree<'_>) -> Result<Option<Vec<u8>>, GitError> {
    let Some(entry) = tree.find_entry(MODULES) else {
        return Ok(None);
    };
    if !entry.mode().is_blob() {
        return Err(invalid(".gitmodules is not a regular file"));
    }
    let file = entry.object();
    let mut file = file.map_err(|_| invalid(".gitmodules cannot be read"))?;
    Ok(Some(std::mem::take(&mut file.data)))
}

/// One entry of `.gitmodules`.
struct Module<'a> {
    modules: &'a File,
    tree: &'a gix::Tree<'a>,
    name: &'a BStr,
}

impl Module<'_> {
    /// Reads the entry; those without a commit in the tree, and those that say
    /// `update = none`, are left alone as git does.
    fn read(&self, parents: &[Url]) -> Result<Option<Submodule>, GitError> {
        let (modules, name) = (self.modules, self.name);
        let path = modules
            .path(name)
            .map_err(|_| self.broken("no valid path"))?;
        let path = path.to_str();
        let path = path.map_err(|_| self.broken("a path that is not UTF-8"))?;
        let Some(commit) = self.commit(path)? else {
            return Ok(None);
        };
        let update = modules.update(name);
        let update = update.map_err(|_| self.broken("an invalid update rule"))?;
        if matches!(update, Some(Update::None)) {
            return Ok(None);
        }
        let url = modules.url(name).map_err(|_| self.broken("no valid URL"))?;
        let url = resolve_url(url.to_bstring().as_bstr(), parents);
        let url = url.map_err(|source| GitError::Submodule {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        Ok(Some(Submodule {
            path: path.to_owned(),
            url,
            commit,
        }))
    }

    /// Gives the commit that the tree pins.
    fn commit(&self, path: &str) -> Result<Option<gix::ObjectId>, GitError> {
        let entry = self.tree.lookup_entry_by_path(path);
        let entry = entry.map_err(|_| self.broken("no readable commit"))?;
        let pinned = entry.filter(|entry| entry.mode().is_commit());
        Ok(pinned.map(|entry| entry.object_id()))
    }

    fn broken(&self, what: &str) -> GitError {
        let name = self.name.to_str_lossy();
        invalid(&format!("submodule {name:?} has {what}"))
    }
}

/// Reads the URL of a submodule: `./` and `../` count from the URL of its repository.
fn resolve_url(url: &BStr, parents: &[Url]) -> Result<Url, GitError> {
    let text = url.to_str().map_err(|_| invalid("the URL is not UTF-8"))?;
    let is_relative = text.starts_with("./") || text.starts_with("../");
    if let Some(parent) = parents.last().filter(|_| is_relative) {
        return resolve_relative(parent, text);
    }
    let url = address::parse(text)?;
    let is_bare = url.scheme() == "ssh" || url.username().is_empty();
    match is_bare && url.password().is_none() && url.query().is_none() {
        true => Ok(address::bare(url, address::is_from_home(text))),
        false => Err(invalid("the URL has user information or a query")),
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
    // It may have become something that no user could write.
    address::parse(address::bare(url.clone(), false).as_str())?;
    Ok(url)
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
            ("git@h:lib", Some("ssh://git@h/lib#home")),
            ("ssh://git@h/lib", Some("ssh://git@h/lib")),
            ("git@-oProxyCommand=x:lib", None),
            ("ssh://a:b@x/lib", None),
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
