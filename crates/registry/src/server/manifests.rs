//! Manifests and indexes: reading, storing with a look at what they name, deleting,
//! and who refers to whom (distribution-spec, "Pushing Manifests", "Listing
//! Referrers").

use std::collections::BTreeMap;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::blobs::CONTENT_DIGEST;
use super::failure::Failure;
use super::quota::Allowance;
use super::route::{Key, Name};
use super::store::{Store, StoreError, StoredManifest};
use super::{Call, blocking, header};
use crate::{Descriptor, Digest, Hasher, media_type};

const MAX_MANIFEST: usize = 4 * 1024 * 1024;

/// `GET` and `HEAD`.
pub(super) async fn get(call: Call, name: Name, key: Key) -> Result<Response, Failure> {
    let manifest = blocking(move || call.store.manifest(&name, &key)).await?;
    let manifest = manifest.ok_or_else(Failure::manifest_unknown)?;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, header(manifest.media_type));
    headers.insert(CONTENT_LENGTH, manifest.bytes.len().into());
    headers.insert(CONTENT_DIGEST, header(manifest.digest.to_string()));
    headers.insert(ETAG, header(format!("\"{}\"", manifest.digest)));
    let body = match call.method == Method::HEAD {
        true => Body::empty(),
        false => Body::from(manifest.bytes),
    };
    Ok((headers, body).into_response())
}

/// `PUT`.
pub(super) async fn put(call: Call, body: Body, name: Name, key: Key) -> Result<Response, Failure> {
    let bytes = axum::body::to_bytes(body, MAX_MANIFEST)
        .await
        .map_err(|_| Failure::manifest_too_large())?;
    let document = Document::parse(&bytes)?;
    let media_type = document.decide_type(&call.headers)?;
    let (digest, tag) = identify(&bytes, key)?;
    let manifest = StoredManifest {
        digest,
        media_type,
        bytes: bytes.into(),
    };
    let subject = document.subject.as_ref().map(|subject| subject.digest);
    let referrer = document.referrer(&manifest);
    let call_store = call.store.clone();
    let (store, to) = (call.store, name.clone());
    let size = manifest.bytes.len() as u64;
    let (of, counted) = (call_store.clone(), name.clone());
    let allowance = blocking(move || of.allowance(&counted)).await?;
    Allowance::check(allowance, size)?;
    let missing = blocking(move || {
        if let Some(missing) = document.missing(&store, &to)? {
            return Ok(Some(missing));
        }
        let referrer = subject.as_ref().map(|subject| (subject, &referrer));
        store.put_manifest(&to, &manifest, tag.as_deref(), referrer)?;
        Ok(None)
    })
    .await?;
    if let Some(missing) = missing {
        return Err(Failure::reference_missing(format!(
            "the repository does not have {missing}"
        )));
    }
    let mut headers = HeaderMap::new();
    let location = format!("/v2/{name}/manifests/{digest}");
    headers.insert("location", header(location));
    headers.insert(CONTENT_DIGEST, header(digest.to_string()));
    if let Some(subject) = subject {
        // Tells the client that it need not keep a list of its own.
        headers.insert("oci-subject", header(subject.to_string()));
    }
    Ok((StatusCode::CREATED, headers).into_response())
}

/// `DELETE` by digest or by tag.
pub(super) async fn delete(call: Call, name: Name, key: Key) -> Result<Response, Failure> {
    let deleted = blocking(move || match &key {
        Key::Tag(tag) => call.store.delete_tag(&name, tag),
        Key::Invalid => Ok(false),
        Key::Digest(digest) => {
            let manifest = call.store.manifest(&name, &key)?;
            let document = manifest.and_then(|m| Document::parse(&m.bytes).ok());
            let subject = document.and_then(|document| document.subject);
            let subject = subject.map(|subject| subject.digest);
            call.store.delete_manifest(&name, digest, subject.as_ref())
        }
    })
    .await?;
    match deleted {
        true => Ok(StatusCode::ACCEPTED.into_response()),
        false => Err(Failure::manifest_unknown()),
    }
}

/// `GET /v2/<name>/referrers/<digest>`.
pub(super) async fn referrers(
    call: Call,
    name: Name,
    subject: Digest,
) -> Result<Response, Failure> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        schema_version: u32,
        media_type: &'static str,
        manifests: Vec<Descriptor>,
    }
    let wanted = call.parameter("artifactType").map(str::to_owned);
    let mut manifests = blocking(move || call.store.referrers(&name, &subject)).await?;
    let mut headers = HeaderMap::new();
    if let Some(wanted) = wanted {
        manifests.retain(|found| found.artifact_type.as_deref() == Some(&wanted));
        headers.insert("oci-filters-applied", header("artifactType"));
    }
    manifests.sort_by_key(|found| found.digest);
    headers.insert(CONTENT_TYPE, header(media_type::INDEX));
    let answer = Answer {
        schema_version: 2,
        media_type: media_type::INDEX,
        manifests,
    };
    let mut response = Json(answer).into_response();
    response.headers_mut().extend(headers);
    Ok(response)
}

/// Computes the digest of a manifest and the tag to put on it.
fn identify(bytes: &Bytes, key: Key) -> Result<(Digest, Option<String>), Failure> {
    match key {
        Key::Tag(tag) => Ok((Digest::sha256(bytes), Some(tag))),
        Key::Invalid => Err(Failure::manifest_invalid("the tag is not valid")),
        Key::Digest(expected) => {
            let mut hasher = Hasher::new(expected.algorithm());
            hasher.update(bytes);
            let actual = hasher.finish();
            match actual == expected {
                true => Ok((actual, None)),
                false => Err(Failure::digest_invalid(format!(
                    "the manifest has the digest {actual}"
                ))),
            }
        }
    }
}

/// What the registry looks at in a manifest or index.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Layer>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// A layer may be elsewhere: then it names where, and the registry need not have it.
#[derive(Deserialize)]
struct Layer {
    digest: Digest,
    urls: Option<Vec<Value>>,
}

impl Document {
    fn parse(bytes: &[u8]) -> Result<Self, Failure> {
        let document: Self = serde_json::from_slice(bytes)
            .map_err(|error| Failure::manifest_invalid(error.to_string()))?;
        match (&document.manifests, &document.config, &document.layers) {
            (Some(_), None, None) | (None, Some(_), Some(_)) => Ok(document),
            (Some(_), _, _) => Err(Failure::manifest_invalid(
                "the document is an image and an index at once",
            )),
            _ => Err(Failure::manifest_invalid(
                "the document is neither an image nor an index",
            )),
        }
    }

    /// Decides the media type: the header's and the document's own have to agree.
    fn decide_type(&self, headers: &HeaderMap) -> Result<String, Failure> {
        let header = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let header = header.map(|text| text.split(';').next().unwrap_or(text).trim());
        let decided = match (header, self.media_type.as_deref()) {
            (Some(header), Some(own)) if header != own => {
                let text = "the document has another media type than the Content-Type header";
                return Err(Failure::manifest_invalid(text));
            }
            (Some(known), _) | (None, Some(known)) => known,
            (None, None) => {
                let text = "neither a header nor the document tells the media type";
                return Err(Failure::manifest_invalid(text));
            }
        };
        let fits = match self.manifests.is_some() {
            true => media_type::is_index(decided),
            false => media_type::is_manifest(decided),
        };
        match fits {
            true => Ok(decided.to_owned()),
            false => Err(Failure::manifest_invalid(
                "the media type is not one of an image manifest or index",
            )),
        }
    }

    /// Names the first thing that the repository would have to have and has not.
    /// A subject may come later than what refers to it.
    fn missing(&self, store: &Store, name: &Name) -> Result<Option<Digest>, StoreError> {
        for manifest in self.manifests.iter().flatten() {
            if !store.has_manifest(name, &manifest.digest)? {
                return Ok(Some(manifest.digest));
            }
        }
        let config = self.config.iter().map(|config| config.digest);
        let here = |layer: &&Layer| layer.urls.as_ref().is_none_or(Vec::is_empty);
        let layers = self.layers.iter().flatten().filter(here);
        for digest in config.chain(layers.map(|layer| layer.digest)) {
            if !store.has_blob(name, &digest)? {
                return Ok(Some(digest));
            }
        }
        Ok(None)
    }

    /// Describes this manifest in the list of its subject.
    fn referrer(&self, manifest: &StoredManifest) -> Descriptor {
        let size = manifest.bytes.len() as u64;
        let config_type = || self.config.as_ref().map(|config| config.media_type.clone());
        let own_type = self.artifact_type.clone().filter(|text| !text.is_empty());
        Descriptor {
            annotations: self.annotations.clone(),
            artifact_type: own_type.or_else(config_type),
            ..Descriptor::new(manifest.media_type.clone(), manifest.digest, size)
        }
    }
}
