//! From the name that a user wrote to the one reference of the repository that is meant.

use gix::bstr::{BString, ByteSlice as _};
use gix::progress::Discard;
use gix::protocol::handshake::Ref;
use gix::protocol::ls_refs::RefPrefixes;
use gix::protocol::transport::client::blocking_io::Transport;
use gix::protocol::{Handshake, LsRefsCommand, transport};

use super::error::{GitError, public_url};
use super::remote::Endpoint;

/// How many similar names an error shows.
const MAX_NEAR: usize = 5;
/// Fewer hexadecimal digits are too often a word that names a branch.
const SHORTEST_COMMIT: usize = 7;

/// What to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The commit that the server's `HEAD` names.
    Default,
    /// A branch, tag or other reference by its full name.
    Reference(String),
    /// A commit by its full id.
    Commit(gix::ObjectId),
    /// A commit by the begin of its id.
    Abbreviated(String),
}

impl Wanted {
    /// Gives the text that asks a server for exactly this, where there is one.
    pub(super) fn revision(&self) -> Option<String> {
        match self {
            Self::Default => Some("HEAD".to_owned()),
            Self::Reference(name) => Some(name.clone()),
            Self::Commit(id) => Some(id.to_string()),
            Self::Abbreviated(_) => None,
        }
    }
}

/// What a name means in a repository now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) wanted: Wanted,
    /// The commit, or a tag of it, where that is known before anything is fetched.
    pub(super) id: Option<gix::ObjectId>,
}

impl From<gix::ObjectId> for Found {
    fn from(id: gix::ObjectId) -> Self {
        Self {
            wanted: Wanted::Commit(id),
            id: Some(id),
        }
    }
}

/// Gives the commit that a name of a user is the full id of.
pub(super) fn full_commit(name: &str) -> Option<gix::ObjectId> {
    gix::ObjectId::from_hex(name.as_bytes()).ok()
}

/// Finds what `name` means in the repository: a full commit id as it is, else the first
/// that exists of the full name, a branch, a tag, and anything else below `refs/`; what is
/// none of these may be the begin of a commit id.
pub(super) fn resolve(endpoint: &Endpoint, name: Option<&str>) -> Result<Found, GitError> {
    let Some(name) = name.filter(|name| *name != "HEAD") else {
        let head = list(endpoint, &["HEAD".to_owned()])?;
        let head = head.into_iter().find(|(name, _)| name == "HEAD");
        let (_, id) = head.ok_or_else(|| GitError::NoCommits {
            url: public_url(&endpoint.url),
        })?;
        return Ok(Found {
            wanted: Wanted::Default,
            id: Some(id),
        });
    };
    if let Some(id) = full_commit(name) {
        return Ok(id.into());
    }
    let candidates = candidates(name);
    let listed = list(endpoint, &candidates)?;
    let of_name = |candidate: &String| listed.iter().find(|(name, _)| name == candidate);
    if let Some((name, id)) = candidates.iter().find_map(of_name) {
        return Ok(Found {
            wanted: Wanted::Reference(name.clone()),
            id: Some(*id),
        });
    }
    if is_abbreviated(name) {
        return Ok(Found {
            wanted: Wanted::Abbreviated(name.to_ascii_lowercase()),
            id: None,
        });
    }
    let shown = ["refs/heads/".to_owned(), "refs/tags/".to_owned()];
    let all = list(endpoint, &shown)?.into_iter().map(|(name, _)| name);
    Err(GitError::ReferenceNotFound {
        url: public_url(&endpoint.url),
        reference: name.to_owned(),
        near: near(name, &all.collect::<Vec<_>>()),
    })
}

/// Makes sure that the server lets us in, where nothing else is asked of it.
pub(super) fn let_in(endpoint: &Endpoint) -> Result<(), GitError> {
    let greet = || -> gix::Result {
        let mut transport = super::transport::connect(endpoint)?;
        greet(&mut transport)?;
        Ok(gix::protocol::indicate_end_of_interaction(
            &mut transport,
            false,
        )?)
    };
    greet().map_err(|source| GitError::ListReferences {
        url: public_url(&endpoint.url),
        source: Box::new(source),
    })
}

/// Tells whether a text is the begin of a commit id, and long enough to be meant as one.
fn is_abbreviated(name: &str) -> bool {
    name.len() >= SHORTEST_COMMIT && super::is_commit(name)
}

/// Gives the commit that a reference of a repository on disk leads to.
pub(super) fn commit_of(repository: &gix::Repository, name: &str) -> gix::Result<gix::ObjectId> {
    let id = repository.find_reference(name)?.into_fully_peeled_id()?;
    Ok(id.object()?.peel_to_commit()?.id)
}

/// Gives the commits of a repository on disk whose ids begin with a text; other objects may
/// begin so too.
pub(super) fn commit_with_prefix(
    repository: &gix::Repository,
    prefix: &str,
) -> gix::Result<Vec<gix::ObjectId>> {
    let prefix = gix::hash::Prefix::from_hex(prefix).map_err(gix::Error::from_error)?;
    let mut candidates = std::collections::HashSet::default();
    // Whether there is one is seen by what is found.
    repository
        .objects
        .lookup_prefix(prefix, Some(&mut candidates))?;
    let mut commits = Vec::new();
    for id in candidates {
        if repository.find_header(id)?.kind() == gix::objs::Kind::Commit {
            commits.push(id);
        }
    }
    commits.sort_unstable();
    Ok(commits)
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

/// Lists the full names of the references that point to something, and what they point to;
/// the server may send more than those that begin with one of `prefixes`.
fn list(
    endpoint: &Endpoint,
    prefixes: &[String],
) -> Result<Vec<(String, gix::ObjectId)>, GitError> {
    let refs = ask(endpoint, prefixes).map_err(|source| GitError::ListReferences {
        url: public_url(&endpoint.url),
        source: Box::new(source),
    })?;
    Ok(refs.iter().filter_map(named).collect())
}

fn greet(transport: &mut Box<dyn Transport + Send>) -> gix::Result<Handshake> {
    gix::protocol::handshake(
        transport,
        transport::Service::UploadPack,
        |_| Ok(None),
        Vec::new(),
        &mut Discard,
    )
}

fn ask(endpoint: &Endpoint, prefixes: &[String]) -> gix::Result<Vec<Ref>> {
    let mut transport = super::transport::connect(endpoint)?;
    let handshake = greet(&mut transport)?;
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

/// Gives the full name of a reference, and the commit or other object at its end.
fn named(reference: &Ref) -> Option<(String, gix::ObjectId)> {
    let (name, id, peeled) = reference.unpack();
    Some((name.to_str().ok()?.to_owned(), peeled.or(id)?.to_owned()))
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
