//! Where the server of large files is: where the repository says, else where its own server
//! says over ssh (git-lfs, "Server Discovery"), else beside the repository.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use url::Url;

use super::super::address;
use super::super::error::{GitError, host_and_port, public_url};
use super::super::policy::is_loopback;
use super::super::remote::{Access, Endpoint};

const CONFIG: &str = ".lfsconfig";
const LARGEST_CONFIG: u64 = 64 * 1024;
const AUTHENTICATE: &str = "git-lfs-authenticate";
const LARGEST_ANSWER: u64 = 64 * 1024;

/// A server of large files.
pub(super) struct Server {
    pub(super) url: Url,
    /// What it wants to see; secret.
    pub(super) headers: BTreeMap<String, String>,
}

/// What a server of ssh says.
#[derive(Deserialize)]
struct LetIn {
    href: Option<String>,
    #[serde(default)]
    header: BTreeMap<String, String>,
}

impl Server {
    /// Finds the server of a repository that is checked out at `root`.
    pub(super) fn of(endpoint: &Endpoint, root: &Path) -> Result<Self, GitError> {
        if let Some(text) = configured(root)? {
            return named(&text);
        }
        let beside = beside(&endpoint.url)?;
        let Access::Ssh(way) = &endpoint.access else {
            return Ok(beside);
        };
        let said = way.ask(endpoint, AUTHENTICATE, "download", LARGEST_ANSWER)?;
        let Ok(let_in) = serde_json::from_slice::<LetIn>(&said) else {
            return Ok(beside);
        };
        let server = Self {
            headers: let_in.header,
            ..let_in.href.map_or(Ok(beside), |href| named(&href))?
        };
        let is_safe = server.url.scheme() == "https" || is_loopback(&server.url);
        match is_safe || server.headers.is_empty() {
            true => Ok(server),
            false => Err(GitError::InsecureToken {
                host: host_and_port(&server.url),
            }),
        }
    }
}

/// Reads the URL of a server that a repository or another server names.
fn named(text: &str) -> Result<Server, GitError> {
    let url = address::parse_http(text)?;
    let shown = public_url(&url);
    match shown == url.as_str() {
        true => Ok(Server {
            url,
            headers: BTreeMap::new(),
        }),
        false => Err(GitError::InvalidUrl {
            url: shown,
            reason: "it is not the address of a Git LFS server".to_owned(),
        }),
    }
}

/// Gives the server that belongs to a repository where nothing else is said.
fn beside(repository: &Url) -> Result<Server, GitError> {
    let path = repository.path().trim_end_matches('/');
    let git = match path.ends_with(".git") {
        true => "",
        false => ".git",
    };
    let (scheme, host) = match repository.scheme() {
        "ssh" => (
            "https",
            repository.host_str().unwrap_or_default().to_owned(),
        ),
        scheme => (scheme, host_and_port(repository)),
    };
    named(&format!("{scheme}://{host}{path}{git}/info/lfs"))
}

/// Reads `lfs.url` of `.lfsconfig`, which has the form of Git's configuration.
fn configured(root: &Path) -> Result<Option<String>, GitError> {
    let path = root.join(CONFIG);
    let is_file = path
        .symlink_metadata()
        .is_ok_and(|m| m.is_file() && m.len() < LARGEST_CONFIG);
    if !is_file {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).map_err(GitError::io(&path))?;
    let mut in_section = false;
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            in_section = section
                .trim_end_matches(']')
                .trim()
                .eq_ignore_ascii_case("lfs");
        } else if let (true, Some((name, value))) = (in_section, line.split_once('='))
            && name.trim().eq_ignore_ascii_case("url")
        {
            return Ok(Some(value.trim().trim_matches('"').to_owned()));
        }
    }
    Ok(None)
}
