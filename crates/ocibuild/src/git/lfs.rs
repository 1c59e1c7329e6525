//! Files that a repository keeps with Git LFS: what Git has checked out of them is a
//! pointer of three lines, which is replaced by the content that it names. Contents come
//! from the server of the repository, or from where that server leads, and are believed by
//! their digest only.
//!
//! Rules: git-lfs, "Pointer file", "Batch API" and "Basic Transfer". A pointer that stays
//! would go into an image as if it were the file, so one whose content cannot be had is an
//! error.

mod pointer;
mod server;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use ocibuild_registry::Secret;
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use url::Url;

use super::error::{GitError, host_and_port, public_url};
use super::mirror::Mirror;
use super::remote::{Endpoint, configure};
use super::session::Session;
use crate::net::redirect_target;
use pointer::{Object, Pointer};
use server::Server;

const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.git-lfs+json");
/// Files that are asked for at once, and that are loaded at once.
const BATCH: usize = 100;
const AT_ONCE: usize = 4;
const LARGEST_ANSWER: u64 = 4 << 20;
const MAX_REDIRECTS: usize = 5;

#[derive(Serialize)]
struct Question<'a> {
    operation: &'a str,
    transfers: [&'a str; 1],
    hash_algo: &'a str,
    objects: Vec<&'a Object>,
}

#[derive(Deserialize)]
struct Answer {
    objects: Vec<Found>,
}

#[derive(Deserialize)]
struct Found {
    oid: String,
    #[serde(default)]
    actions: Actions,
    error: Option<Refused>,
}

#[derive(Deserialize, Default)]
struct Actions {
    download: Option<Action>,
}

#[derive(Deserialize, Clone)]
struct Action {
    href: String,
    #[serde(default)]
    header: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Refused {
    code: u16,
}

/// Replaces the pointers in a checked-out tree, and nothing in the trees of submodules,
/// which come later.
pub(super) fn replace_pointers(
    session: &Session<'_>,
    endpoint: &Endpoint,
    mirror: Option<&Mirror>,
    root: &Path,
) -> Result<(), GitError> {
    let mut pointers = Pointer::all_in(root)?;
    if let Some(mirror) = mirror {
        pointers = without_kept(pointers, mirror, session)?;
    }
    if pointers.is_empty() {
        return Ok(());
    }
    let find = || Server::of(endpoint, root);
    let server = session.retry(&endpoint.url, find)?;
    session.means.policy.check(&server.url)?;
    let client = Lfs {
        session,
        mirror,
        url: server.url,
        headers: server.headers,
    };
    for batch in pointers.chunks(BATCH) {
        session.retry(&client.url, || client.load(batch))?;
    }
    Ok(())
}

/// Replaces the pointers whose contents are in the mirror, and gives the others.
fn without_kept(
    pointers: Vec<Pointer>,
    mirror: &Mirror,
    session: &Session<'_>,
) -> Result<Vec<Pointer>, GitError> {
    let mut left = Vec::new();
    for pointer in pointers {
        let kept = mirror.large_file(&pointer.object.oid);
        match pointer.fill_from(&kept, session)? {
            true => {}
            false => left.push(pointer),
        }
    }
    Ok(left)
}

struct Lfs<'a> {
    session: &'a Session<'a>,
    mirror: Option<&'a Mirror>,
    url: Url,
    /// What the server is shown besides.
    headers: BTreeMap<String, String>,
}

impl Lfs<'_> {
    /// Loads the contents of some pointers, several at once. What an attempt before this one
    /// has replaced is not loaded again.
    fn load(&self, pointers: &[Pointer]) -> Result<(), GitError> {
        let left: Vec<&Pointer> = pointers.iter().filter(|pointer| pointer.stands()).collect();
        if left.is_empty() {
            return Ok(());
        }
        let actions = self.ask(&left)?;
        let next = AtomicUsize::new(0);
        let work = || -> Result<(), GitError> {
            while let Some(pointer) = left.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.session.watch.check()?;
                let action = actions.get(&pointer.object.oid);
                let action =
                    action.ok_or_else(|| pointer.missing("the server does not say where it is"))?;
                self.replace(pointer, action)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..AT_ONCE.min(left.len()))
                .map(|_| scope.spawn(work))
                .collect();
            let mut results = workers.into_iter().map(|worker| worker.join());
            results.try_for_each(|result| {
                result.unwrap_or_else(|_| Err(left[0].missing("loading it ended badly")))
            })
        })
    }

    /// Asks where contents are.
    fn ask(&self, pointers: &[&Pointer]) -> Result<BTreeMap<String, Action>, GitError> {
        let mut objects: Vec<&Object> = pointers.iter().map(|pointer| &pointer.object).collect();
        objects.sort();
        objects.dedup();
        let body = serde_json::to_vec(&Question {
            operation: "download",
            transfers: ["basic"],
            hash_algo: "sha256",
            objects,
        });
        let url = format!("{}/objects/batch", self.url);
        let request = self.client(&self.url)?.post(url);
        let request = self
            .authorized(request, &self.url)
            .header(ACCEPT, MEDIA_TYPE)
            .header(CONTENT_TYPE, MEDIA_TYPE);
        let response = send(request.body(body.unwrap_or_default()), &self.url)?;
        let status = response.status().as_u16();
        let shown = public_url(&self.url);
        match status {
            200 => {}
            401 | 403 => {
                return Err(GitError::AccessRefused {
                    token_sent: self.authorization(&self.url).is_some(),
                    url: shown,
                    status,
                });
            }
            404 | 410 | 501 => return Err(pointers[0].missing("its server has no Git LFS")),
            status => return Err(GitError::Status { url: shown, status }),
        }
        let mut bytes = Vec::new();
        let read = response.take(LARGEST_ANSWER).read_to_end(&mut bytes);
        read.map_err(|_| pointers[0].broken())?;
        let answer: Answer = serde_json::from_slice(&bytes)
            .map_err(|_| pointers[0].missing("the answer of its server is not one of Git LFS"))?;
        self.actions(answer, pointers)
    }

    fn actions(
        &self,
        answer: Answer,
        pointers: &[&Pointer],
    ) -> Result<BTreeMap<String, Action>, GitError> {
        let mut actions = BTreeMap::new();
        for found in answer.objects {
            let asked = pointers
                .iter()
                .find(|pointer| pointer.object.oid == found.oid);
            let Some(pointer) = asked else {
                continue;
            };
            match (found.error, found.actions.download) {
                (Some(Refused { code }), _) => {
                    return Err(match code {
                        404 | 410 => pointer.missing("its server does not have it"),
                        429 | 500.. => GitError::Status {
                            url: public_url(&self.url),
                            status: code,
                        },
                        _ => pointer.missing("its server refuses it"),
                    });
                }
                (None, Some(action)) => {
                    actions.insert(found.oid, action);
                }
                (None, None) => {}
            }
        }
        Ok(actions)
    }

    /// Puts the content into the place of a pointer, and keeps it in the mirror.
    fn replace(&self, pointer: &Pointer, action: &Action) -> Result<(), GitError> {
        let mut response = self.open(pointer, action)?;
        pointer.fill(&mut response, self.session)?;
        match self.mirror {
            Some(mirror) => mirror.keep_large_file(&pointer.object.oid, &pointer.file),
            None => Ok(()),
        }
    }

    /// Asks for a content, along redirects. The headers that the server wants to see are
    /// shown to the one that it named and to no other.
    fn open(&self, pointer: &Pointer, action: &Action) -> Result<Response, GitError> {
        let first = Url::parse(&action.href);
        let first = first.map_err(|_| pointer.missing("the server names no URL for it"))?;
        let mut url = first.clone();
        for _ in 0..=MAX_REDIRECTS {
            self.session.means.policy.check(&url)?;
            let mut request = self.client(&url)?.get(url.clone());
            if url.origin() == first.origin() {
                request = request.headers(headers(&action.header));
            }
            let names_login = |name: &String| name.eq_ignore_ascii_case("authorization");
            if !action.header.keys().any(names_login) {
                request = self.authorized(request, &url);
            }
            let response = send(request, &url)?;
            match response.status().as_u16() {
                200 => return Ok(response),
                301 | 302 | 303 | 307 | 308 => {
                    let target = redirect_target(response.headers(), &url);
                    url = target.map_err(|bad| GitError::Redirect {
                        url: public_url(&url),
                        target: bad.target.as_ref().map(public_url).unwrap_or_default(),
                        reason: bad.reason,
                    })?;
                }
                404 | 410 => return Err(pointer.missing("its server does not have it")),
                401 | 403 => return Err(pointer.missing("its server refuses access")),
                status => {
                    let url = public_url(&url);
                    return Err(GitError::Status { url, status });
                }
            }
        }
        Err(pointer.missing("its server redirects too often"))
    }

    fn client(&self, url: &Url) -> Result<Client, GitError> {
        let tls = self.session.means.tls.for_url(url).map_err(GitError::Tls)?;
        let addresses = self.session.means.policy.permitted_addresses();
        configure(
            Client::builder(),
            tls,
            addresses,
            &self.session.means.budget,
        )
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(GitError::Client)
    }

    fn authorization(&self, url: &Url) -> Option<&Secret> {
        self.session.means.authorization(url)
    }

    /// Shows a server what it lets us in with, if it is the one that this is for.
    fn authorized(&self, request: RequestBuilder, url: &Url) -> RequestBuilder {
        if !self.headers.is_empty() && url.origin() == self.url.origin() {
            return request.headers(headers(&self.headers));
        }
        match self.authorization(url) {
            Some(value) => request.header(AUTHORIZATION, value.expose()),
            None => request,
        }
    }
}

fn send(request: RequestBuilder, url: &Url) -> Result<Response, GitError> {
    request.send().map_err(|source| GitError::Unreachable {
        host: host_and_port(url),
        source: source.without_url(),
    })
}

/// Takes what can be a header, as secrets.
fn headers(named: &BTreeMap<String, String>) -> HeaderMap {
    let pair = |(name, value): (&String, &String)| {
        let mut value = HeaderValue::try_from(value).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::try_from(name).ok()?, value))
    };
    named.iter().filter_map(pair).collect()
}
