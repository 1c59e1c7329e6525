//! Listing tags and deleting (distribution-spec, "Content Discovery" and "Content
//! Management").

use reqwest::Method;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use url::Url;

use crate::action::{Action, Phase};
use crate::auth::Access;
use crate::transport::{Request, Response};
use crate::{Client, Digest, Error, Index, Reference, Repository};

/// Tags that are asked for at a time.
const PAGE: usize = 1000;
const LARGEST_PAGE: u64 = 4 * 1024 * 1024;
/// Pages that are read; a registry must not be able to keep us busy for ever.
const MAX_PAGES: usize = 1000;
/// Manifests that are deleted with one that was named.
const MAX_DELETED: usize = 1000;

impl Client {
    /// Lists the tags of a repository, in the registry's order.
    pub async fn tags(&self, repository: &Repository) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Page {
            // A repository without tags may be answered with null.
            tags: Option<Vec<String>>,
        }
        let action = Action::new(
            Phase::ListTags,
            repository,
            format!("list the tags of {repository}"),
        );
        let mut url = self.transport.url(repository, "tags/list", &action)?;
        url.query_pairs_mut().append_pair("n", &PAGE.to_string());
        let home = url.origin();
        let mut tags = Vec::new();
        for _ in 0..MAX_PAGES {
            let access = Access::pull(repository);
            let request = Request::new(action.clone(), Method::GET, url, access);
            let mut response = self.transport.send(&request).await?;
            let body = response.bytes(LARGEST_PAGE).await?;
            let page: Page = serde_json::from_slice(&body).map_err(|source| Error::Document {
                action: action.clone(),
                source,
            })?;
            tags.extend(page.tags.into_iter().flatten());
            match next_page(&response) {
                Some(next) if next.origin() == home => url = next,
                _ => return Ok(tags),
            }
        }
        Err(Error::Protocol {
            action,
            problem: "its list of tags does not end",
        })
    }

    /// Deletes the manifest that a reference names, and with it every tag of it.
    pub async fn delete_manifest(&self, reference: &Reference) -> Result<(), Error> {
        let digest = match reference.digest() {
            Some(digest) => *digest,
            None => self.resolve_here(reference).await?.digest,
        };
        let text = format!("delete manifest {digest} of {reference}");
        let action = Action::new(Phase::Delete, reference.repository(), text);
        let path = format!("manifests/{digest}");
        self.delete(reference.repository(), &path, action).await
    }

    /// Deletes a manifest with all that refers to it, and of an index the images too that
    /// it names; gives the digests of what was deleted. Images that other indexes name as
    /// well are gone for these too.
    pub async fn delete_tree(&self, reference: &Reference) -> Result<Vec<Digest>, Error> {
        let repository = reference.repository();
        let (top, bytes) = self.manifest_here(reference).await?;
        let mut waiting = vec![(top.digest, bytes)];
        let mut deleted = Vec::new();
        while let Some((digest, bytes)) = waiting.pop() {
            if deleted.contains(&digest) || deleted.len() > MAX_DELETED {
                continue;
            }
            let index = serde_json::from_slice::<Index>(&bytes);
            let mut below = index.map(|index| index.manifests).unwrap_or_default();
            below.extend(self.referrers(repository, &digest).await?);
            // What names others goes first: a registry may keep what is still named.
            self.delete_manifest(&repository.with_digest(digest))
                .await?;
            self.unlist_referrer(repository, &digest, &bytes).await?;
            deleted.push(digest);
            for entry in below {
                let name = repository.with_digest(entry.digest);
                match self.manifest_here(&name).await {
                    Ok((found, bytes)) => waiting.push((found.digest, bytes)),
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(deleted)
    }

    /// Deletes a tag and leaves its manifest; many registries cannot.
    pub async fn delete_tag(&self, reference: &Reference) -> Result<(), Error> {
        let text = format!("delete the tag {reference}");
        let action = Action::new(Phase::Delete, reference.repository(), text);
        let path = format!("manifests/{}", reference.tag_or_latest());
        self.delete(reference.repository(), &path, action).await
    }

    /// Deletes a blob of a repository.
    pub async fn delete_blob(&self, repository: &Repository, digest: &Digest) -> Result<(), Error> {
        let text = format!("delete blob {digest} of {repository}");
        let action = Action::new(Phase::Delete, repository, text);
        self.delete(repository, &format!("blobs/{digest}"), action)
            .await
    }

    async fn delete(
        &self,
        repository: &Repository,
        path: &str,
        action: Action,
    ) -> Result<(), Error> {
        let url = self.transport.url(repository, path, &action)?;
        let access = Access::delete(repository);
        let request = Request::new(action, Method::DELETE, url, access);
        self.transport.send(&request).await.map(drop)
    }
}

/// Reads `Link: <url>; rel="next"` (RFC 8288).
pub(crate) fn next_page(response: &Response) -> Option<Url> {
    let link = response.header("link")?;
    let (target, parameters) = link.trim_start().strip_prefix('<')?.split_once('>')?;
    if !parameters.replace(['"', ' '], "").contains("rel=next") {
        return None;
    }
    let target = HeaderValue::try_from(target).ok()?;
    response.resolve(&target).ok()
}
