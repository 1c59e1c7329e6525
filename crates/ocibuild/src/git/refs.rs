//! From the name that a user wrote to the one reference of the repository that is meant.

use gix::bstr::{BString, ByteSlice as _};
use gix::progress::Discard;
use gix::protocol::handshake::Ref;
use gix::protocol::ls_refs::RefPrefixes;
use gix::protocol::transport::client::blocking_io::Transport;
use gix::protocol::{LsRefsCommand, transport};

use super::error::{GitError, public_url};
use super::remote::Endpoint;

/// How many similar names an error shows.
const MAX_NEAR: usize = 5;

/// What to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The commit that the server's `HEAD` names.
    Default,
    /// A branch, tag or other reference by its full name.
    Reference(String),
    /// A commit by its full id.
    Commit(gix::ObjectId),
}

impl Wanted {
    /// Gives the text that asks a server for exactly this.
    pub(super) fn revision(&self) -> String {
        match self {
            Self::Default => "HEAD".to_owned(),
            Self::Reference(name) => name.clone(),
            Self::Commit(id) => id.to_string(),
        }
    }
}

/// Finds what `name` means in the repository: a full commit id as it is, else the first
/// that exists of the full name, a branch, a tag, and anything else below `refs/`.
pub(super) fn resolve(endpoint: &Endpoint, name: Option<&str>) -> Result<Wanted, GitError> {
    let Some(name) = name.filter(|name| *name != "HEAD") else {
        return match list(endpoint, &["HEAD".to_owned()])?
            .iter()
            .any(|n| n == "HEAD")
        {
            true => Ok(Wanted::Default),
            false => Err(GitError::NoCommits {
                url: public_url(&endpoint.url),
            }),
        };
    };
    if let Ok(id) = gix::ObjectId::from_hex(name.as_bytes()) {
        return Ok(Wanted::Commit(id));
    }
    let candidates = candidates(name);
    let names = list(endpoint, &candidates)?;
    if let Some(found) = candidates
        .iter()
        .find(|candidate| names.contains(candidate))
    {
        return Ok(Wanted::Reference(found.clone()));
    }
    let all = list(
        endpoint,
        &["refs/heads/".to_owned(), "refs/tags/".to_owned()],
    )?;
    Err(GitError::ReferenceNotFound {
        url: public_url(&endpoint.url),
        reference: name.to_owned(),
        near: near(name, &all),
    })
}

fn candidates(name: &str) -> Vec<String> {
    match name.starts_with("refs/") {
        true => vec![name.to_owned()],
        false => ["refs/heads/", "refs/tags/", "refs/"]
            .iter()
            .map(|folder| format!("{folder}{name}"))
            .collect(),
    }
}

/// Lists the full names of the references that point to something; the server may send
/// more than those that begin with one of `prefixes`.
fn list(endpoint: &Endpoint, prefixes: &[String]) -> Result<Vec<String>, GitError> {
    let refs = ask(endpoint, prefixes).map_err(|source| GitError::ListReferences {
        url: public_url(&endpoint.url),
        source: Box::new(source),
    })?;
    Ok(refs.iter().filter_map(full_name).collect())
}

fn ask(endpoint: &Endpoint, prefixes: &[String]) -> gix::Result<Vec<Ref>> {
    let mut transport = super::transport::connect(endpoint)?;
    let handshake = gix::protocol::handshake(
        &mut transport,
        transport::Service::UploadPack,
        |_| Ok(None),
        Vec::new(),
        &mut Discard,
    )?;
    // Protocol 0 and 1 list everything in the handshake.
    if let Some(refs) = handshake.refs {
        return Ok(refs);
    }
    let mut wanted = RefPrefixes::new();
    wanted.extend(prefixes.iter().map(|prefix| BString::from(prefix.as_str())));
    let agent = (
        "agent",
        Some(concat!("ocibuild/", env!("CARGO_PKG_VERSION")).into()),
    );
    LsRefsCommand::new(Some(wanted), &handshake.capabilities, agent).invoke_blocking(
        &mut transport as &mut dyn Transport,
        &mut Discard,
        false,
    )
}

fn full_name(reference: &Ref) -> Option<String> {
    match reference {
        Ref::Peeled { full_ref_name, .. }
        | Ref::Direct { full_ref_name, .. }
        | Ref::Symbolic { full_ref_name, .. } => full_ref_name.to_str().ok().map(str::to_owned),
        Ref::Unborn { .. } => None,
    }
}

/// Picks the names that a mistyped one may have meant, best first; where nothing is
/// similar, the first few, so that the user sees what there is.
fn near(wanted: &str, names: &[String]) -> Vec<String> {
    let short = |name: &String| {
        name.strip_prefix("refs/heads/")
            .or_else(|| name.strip_prefix("refs/tags/"))
            .map(str::to_owned)
    };
    let mut scored: Vec<(f64, String)> = names
        .iter()
        .filter_map(short)
        .map(|name| (strsim::jaro_winkler(wanted, &name), name))
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    let similar = scored.iter().filter(|(score, _)| *score > 0.8).count();
    let shown = if similar == 0 {
        MAX_NEAR
    } else {
        similar.min(MAX_NEAR)
    };
    scored
        .into_iter()
        .take(shown)
        .map(|(_, name)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_the_similar_ones() {
        let names: Vec<String> = ["refs/heads/main", "refs/heads/develop", "refs/tags/v1.2.0"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(near("mian", &names), ["main"]);
        assert_eq!(near("v1.2", &names), ["v1.2.0"]);
        assert_eq!(
            near("zzz", &names).len(),
            3,
            "nothing is similar, so all are shown"
        );
    }

    #[test]
    fn short_names_prefer_branches() {
        assert_eq!(candidates("x"), ["refs/heads/x", "refs/tags/x", "refs/x"]);
        assert_eq!(candidates("refs/pull/1/head"), ["refs/pull/1/head"]);
    }
}
