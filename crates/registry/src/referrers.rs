//! What refers to a manifest: signatures, lists of parts, provenance (distribution-spec,
//! "Listing Referrers"). Registries without that API are served as the specification says:
//! with an index under a tag that is made of the digest.

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ACCEPT, HeaderValue};
use serde::Deserialize;
use std::collections::BTreeMap;

use crate::action::{Action, Phase};
use crate::auth::Access;
use crate::manage::next_page;
use crate::transport::Request;
use crate::{Client, Descriptor, Digest, Error, Index, Reference, Repository, media_type};

const LARGEST_PAGE: u64 = 4 * 1024 * 1024;
const MAX_PAGES: usize = 100;

/// What of a manifest says that it refers to another one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    subject: Option<Descriptor>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Client {
    /// Lists what refers to a manifest of a repository, in the registry's order.
    pub async fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
    ) -> Result<Vec<Descriptor>, Error> {
        match self.ask_for_referrers(repository, subject).await? {
            Some(found) => Ok(found),
            None => Ok(self.fallback_index(repository, subject).await?.manifests),
        }
    }

    /// Asks the API; none where the registry has none.
    async fn ask_for_referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
    ) -> Result<Option<Vec<Descriptor>>, Error> {
        let text = format!("list what refers to {subject} in {repository}");
        let action = Action::new(Phase::PullManifest, repository, text);
        let path = format!("referrers/{subject}");
        let mut url = self.transport.url(repository, &path, &action)?;
        let home = url.origin();
        let mut all = Vec::new();
        for _ in 0..MAX_PAGES {
            let access = Access::pull(repository);
            let request = Request::new(action.clone(), Method::GET, url, access)
                .header(ACCEPT, HeaderValue::from_static(media_type::INDEX));
            let mut response = match self.transport.send(&request).await {
                Ok(response) => response,
                Err(error) if matches!(error.status(), Some(404 | 405 | 400)) => return Ok(None),
                Err(error) => return Err(error),
            };
            // Others answer any path with a page of their own.
            let is_index = response.header("content-type");
            if is_index.is_none_or(|t| !t.starts_with(media_type::INDEX)) {
                return Ok(None);
            }
            let body = response.bytes(LARGEST_PAGE).await?;
            let page: Index = serde_json::from_slice(&body).map_err(|source| Error::Document {
                action: action.clone(),
                source,
            })?;
            all.extend(page.manifests);
            match next_page(&response) {
                Some(next) if next.origin() == home => url = next,
                _ => return Ok(Some(all)),
            }
        }
        Err(Error::Protocol {
            action,
            problem: "its list of referrers does not end",
        })
    }

    async fn fallback_index(
        &self,
        repository: &Repository,
        subject: &Digest,
    ) -> Result<Index, Error> {
        let tag = fallback_tag(repository, subject);
        let Some(tag) = tag else {
            return Ok(Index::of(Vec::new()));
        };
        match self.manifest_here(&tag).await {
            Ok((descriptor, bytes)) if media_type::is_index(&descriptor.media_type) => {
                Ok(serde_json::from_slice(&bytes).unwrap_or_else(|_| Index::of(Vec::new())))
            }
            Ok(_) => Ok(Index::of(Vec::new())),
            Err(error) if error.is_not_found() => Ok(Index::of(Vec::new())),
            Err(error) => Err(error),
        }
    }

    /// Keeps the list of a subject where its registry does not, after a manifest that
    /// refers to it was pushed.
    pub(crate) async fn list_referrer(
        &self,
        repository: &Repository,
        media_type: &str,
        digest: &Digest,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let Some((subject, entry)) = referrer(media_type, digest, bytes) else {
            return Ok(());
        };
        let mut index = self.fallback_index(repository, &subject).await?;
        if index.manifests.iter().any(|known| known.digest == *digest) {
            return Ok(());
        }
        index.manifests.push(entry);
        self.push_fallback(repository, &subject, &index).await
    }

    /// Takes a deleted manifest from the list of its subject, where a tag is that list.
    pub(crate) async fn unlist_referrer(
        &self,
        repository: &Repository,
        digest: &Digest,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let Some((subject, _)) = referrer("", digest, bytes) else {
            return Ok(());
        };
        let mut index = self.fallback_index(repository, &subject).await?;
        let before = index.manifests.len();
        index.manifests.retain(|known| known.digest != *digest);
        match before == index.manifests.len() {
            true => Ok(()),
            false => self.push_fallback(repository, &subject, &index).await,
        }
    }

    async fn push_fallback(
        &self,
        repository: &Repository,
        subject: &Digest,
        index: &Index,
    ) -> Result<(), Error> {
        let Some(tag) = fallback_tag(repository, subject) else {
            return Ok(());
        };
        let bytes = Bytes::from(serde_json::to_vec(index).unwrap_or_default());
        let put = self.put_manifest(&tag, media_type::INDEX, &bytes);
        put.await.map(drop)
    }
}

/// Gives the tag under which lists of referrers are kept: `sha256-abcd…`.
fn fallback_tag(repository: &Repository, subject: &Digest) -> Option<Reference> {
    let text = subject.to_string().replace(':', "-");
    repository.tagged(text.get(..128).unwrap_or(&text)).ok()
}

/// Gives the subject of a manifest, and how its list names the manifest.
fn referrer(media_type: &str, digest: &Digest, bytes: &[u8]) -> Option<(Digest, Descriptor)> {
    let document: Document = serde_json::from_slice(bytes).ok()?;
    let config = document.config.map(|config| config.media_type);
    let entry = Descriptor {
        artifact_type: document.artifact_type.filter(|t| !t.is_empty()).or(config),
        annotations: document.annotations,
        ..Descriptor::new(media_type, *digest, bytes.len() as u64)
    };
    Some((document.subject?.digest, entry))
}
