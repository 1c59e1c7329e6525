//! Pulling manifests: a [`Reference`] enters, a verified document leaves
//! (distribution-spec, "Pulling manifests"). Blobs are in `blob`.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ACCEPT, HeaderValue};
use serde::Deserialize;

use crate::action::{Action, Phase};
use crate::auth::Access;
use crate::error::clean;
use crate::transport::{Request, Response};
use crate::{
    Client, Descriptor, Digest, Error, Hasher, Index, Manifest, Platform, Reference, Retry,
};
use crate::{digest::Algorithm, media_type};

/// Largest manifest that is read; the specification asks registries for this much.
pub const MAX_MANIFEST: u64 = 4 * 1024 * 1024;
/// How long a mirror is waited for before the next place is asked.
const MIRROR_TIME: Duration = Duration::from_secs(10);
/// Indexes may name indexes; more than this many levels are nonsense.
const MAX_INDEX_DEPTH: usize = 4;
/// What BuildKit writes on index entries that describe an image instead of being one.
const ATTESTATION_ANNOTATION: &str = "vnd.docker.reference.type";
const UNKNOWN: &str = "unknown";

const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// An image for one platform, as its registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The image's manifest.
    pub descriptor: Descriptor,
    /// The bytes of the manifest, which its digest is computed from.
    pub bytes: Bytes,
    /// The manifest.
    pub manifest: Manifest,
    /// What the reference names, where that is an index.
    pub index: Option<Descriptor>,
    /// The bytes of the indexes that led to it, in their order.
    pub indexes: Vec<Bytes>,
}

/// Documents that are at hand by their digest. What is given has that digest.
pub type Known<'a> = &'a (dyn Fn(&Digest) -> Option<Bytes> + Sync);

impl Client {
    /// Finds what a reference names in its registry itself, without its bytes; none where
    /// there is nothing. Mirrors are not asked: they may be behind.
    pub async fn head(&self, reference: &Reference) -> Result<Option<Descriptor>, Error> {
        match self.resolve_here(reference).await {
            Ok(descriptor) => Ok(Some(descriptor)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Finds what a reference names, without its bytes where the registry allows it.
    pub async fn resolve(&self, reference: &Reference) -> Result<Descriptor, Error> {
        let mirrored = self.mirrored(reference, |client, reference| async move {
            client.resolve_here(&reference).await
        });
        match mirrored.await {
            Some(found) => Ok(found),
            None => self.resolve_here(reference).await,
        }
    }

    pub(crate) async fn resolve_here(&self, reference: &Reference) -> Result<Descriptor, Error> {
        let action = action(Phase::Resolve, "resolve", reference);
        let response = self
            .transport
            .send(&self.manifest_request(Method::HEAD, reference, &action)?)
            .await?;
        // The specification does not oblige registries to send these headers.
        let digest = content_digest(&response, &action)?;
        let size = response
            .header("content-length")
            .and_then(|s| s.parse().ok());
        let media_type = content_type(&response);
        let (Some(digest), Some(size), Some(media_type)) = (digest, size, media_type) else {
            return Ok(self.manifest_here(reference).await?.0);
        };
        check_digest(reference.digest(), digest, &action)?;
        Ok(Descriptor::new(media_type, digest, size))
    }

    /// Reads a manifest or index and verifies its digest.
    pub async fn manifest(&self, reference: &Reference) -> Result<(Descriptor, Bytes), Error> {
        let mirrored = self.mirrored(reference, |client, reference| async move {
            client.manifest_here(&reference).await
        });
        match mirrored.await {
            Some(found) => Ok(found),
            None => self.manifest_here(reference).await,
        }
    }

    /// Asks one mirror after the other, each for a short time; none where no mirror has it
    /// or gives it.
    async fn mirrored<T, F>(
        &self,
        reference: &Reference,
        ask: impl Fn(Self, Reference) -> F,
    ) -> Option<T>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mirrors = self.transport.connector().mirrors(reference.repository());
        if mirrors.is_empty() {
            return None;
        }
        let hasty = self.with_retry(Retry {
            attempts: 1,
            ..Retry::short(MIRROR_TIME)
        });
        for mirror in mirrors {
            let asked = ask(hasty.clone(), reference.at(&mirror));
            match tokio::time::timeout(MIRROR_TIME, asked).await {
                Ok(Ok(found)) => return Some(found),
                Ok(Err(error)) if error.is_not_found() => {
                    tracing::debug!(%mirror, "a mirror does not have an image");
                }
                Ok(Err(error)) => {
                    let reason = error.reason();
                    tracing::warn!(%mirror, reason, "a mirror fails, the next place is asked");
                }
                Err(_) => tracing::warn!(%mirror, "a mirror is too slow, the next place is asked"),
            }
        }
        None
    }

    pub(crate) async fn manifest_here(
        &self,
        reference: &Reference,
    ) -> Result<(Descriptor, Bytes), Error> {
        let action = action(Phase::PullManifest, "pull manifest", reference);
        let request = self.manifest_request(Method::GET, reference, &action)?;
        let mut backoff = self.transport.backoff();
        loop {
            match self.read_manifest(&request, reference).await {
                Ok(found) => return Ok(found),
                Err(error) => backoff.pause(error).await?,
            }
        }
    }

    /// Reads the manifest of an image for a platform, through indexes if need be.
    pub async fn image(&self, reference: &Reference, wanted: &Platform) -> Result<Image, Error> {
        self.image_unless_known(reference, wanted, &|_| None).await
    }

    /// The same, where no registry is asked for a document that is at hand: an image that is
    /// named by its digest costs no request then.
    pub async fn image_unless_known(
        &self,
        reference: &Reference,
        wanted: &Platform,
        known: Known<'_>,
    ) -> Result<Image, Error> {
        let action = action(Phase::PullManifest, "find an image in", reference);
        let mut name = reference.clone();
        let mut index = None;
        let mut indexes = Vec::new();
        for _ in 0..MAX_INDEX_DEPTH {
            let at_hand = name.digest().and_then(|digest| {
                let bytes = known(digest)?;
                // What cannot be read is asked for: the registry's answer says why.
                let kind = manifest_type(&bytes, None, &action).ok()?;
                let size = bytes.len() as u64;
                Some((Descriptor::new(kind, *digest, size), bytes))
            });
            let (descriptor, bytes) = match at_hand {
                Some(found) => found,
                None => self.manifest(&name).await?,
            };
            if media_type::is_manifest(&descriptor.media_type) {
                let manifest = document(&bytes, &action)?;
                return Ok(Image {
                    descriptor,
                    bytes,
                    manifest,
                    index,
                    indexes,
                });
            }
            if !media_type::is_index(&descriptor.media_type) {
                return Err(Error::NotAnImage {
                    action,
                    media_type: clean(&descriptor.media_type, 100),
                });
            }
            let document: Index = document(&bytes, &action)?;
            let chosen = choose(&document, wanted, &action)?;
            name = reference.repository().with_digest(chosen.digest);
            index.get_or_insert(descriptor);
            indexes.push(bytes);
        }
        Err(Error::Protocol {
            action,
            problem: "an index names an index, which names another, and so on",
        })
    }

    async fn read_manifest(
        &self,
        request: &Request<'_>,
        reference: &Reference,
    ) -> Result<(Descriptor, Bytes), Error> {
        let action = &request.action;
        let mut response = self.transport.send_once(request).await?;
        let bytes = response.bytes(MAX_MANIFEST).await?;
        let claimed = content_digest(&response, action)?;
        // A digest in the name is the one to believe; a header only has to agree.
        let algorithm = reference
            .digest()
            .or(claimed.as_ref())
            .map_or(Algorithm::Sha256, Digest::algorithm);
        let mut hasher = Hasher::new(algorithm);
        hasher.update(&bytes);
        let digest = hasher.finish();
        check_digest(reference.digest(), digest, action)?;
        if claimed.is_some_and(|claimed| claimed.algorithm() == algorithm) {
            check_digest(claimed.as_ref(), digest, action)?;
        }
        let media_type = manifest_type(&bytes, content_type(&response), action)?;
        let size = bytes.len() as u64;
        Ok((Descriptor::new(media_type, digest, size), bytes))
    }

    fn manifest_request(
        &self,
        method: Method,
        reference: &Reference,
        action: &Action,
    ) -> Result<Request<'static>, Error> {
        let repository = reference.repository();
        let path = format!("manifests/{}", reference.manifest_name());
        let url = self.transport.url(repository, &path, action)?;
        let access = Access::pull(repository);
        let request = Request::new(action.clone(), method, url, access);
        Ok(request.header(ACCEPT, HeaderValue::from_static(ACCEPTED)))
    }
}

fn action(phase: Phase, verb: &str, reference: &Reference) -> Action {
    Action::new(phase, reference.repository(), format!("{verb} {reference}"))
}

fn check_digest(expected: Option<&Digest>, actual: Digest, action: &Action) -> Result<(), Error> {
    match expected {
        Some(expected) if *expected != actual => {
            Err(Error::digest_mismatch(action, *expected, actual))
        }
        _ => Ok(()),
    }
}

/// Reads the `Docker-Content-Digest` header.
pub(crate) fn content_digest(
    response: &Response,
    action: &Action,
) -> Result<Option<Digest>, Error> {
    let Some(text) = response.header("docker-content-digest") else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| Error::Protocol {
        action: action.clone(),
        problem: "its Docker-Content-Digest header is not a digest",
    })
}

fn content_type(response: &Response) -> Option<String> {
    let header = response.header("content-type")?;
    let media_type = header.split(';').next().unwrap_or_default().trim();
    (!media_type.is_empty()).then(|| media_type.to_ascii_lowercase())
}

/// What of a document tells its kind.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
}

/// Decides what a document is. One that can be read as an image and as an index, or
/// that calls itself something other than the registry does, is refused: two readers
/// could take it for two different images (GHSA-mc8v-mgrf-8f4m).
fn manifest_type(bytes: &[u8], header: Option<String>, action: &Action) -> Result<String, Error> {
    let protocol = |problem| Error::Protocol {
        action: action.clone(),
        problem,
    };
    let kind: Kind = document(bytes, action)?;
    if kind.manifests.is_some() && kind.layers.is_some() {
        return Err(protocol("its manifest is an image and an index at once"));
    }
    let known = |t: &String| media_type::is_index(t) || media_type::is_manifest(t);
    match (kind.media_type, header.filter(known)) {
        (Some(own), Some(header)) if own != header => Err(protocol(
            "its manifest has another media type than its Content-Type header",
        )),
        (Some(own), _) => Ok(own),
        (None, Some(header)) => Ok(header),
        (None, None) if kind.manifests.is_some() => Ok(media_type::INDEX.to_owned()),
        (None, None) if kind.layers.is_some() => Ok(media_type::MANIFEST.to_owned()),
        (None, None) => Err(protocol("its manifest has no media type")),
    }
}

fn document<'a, T: Deserialize<'a>>(bytes: &'a [u8], action: &Action) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|source| Error::Document {
        action: action.clone(),
        source,
    })
}

/// Chooses the entry for a platform: the first that names the very same one, else the
/// first that matches it, else a nested index.
fn choose<'a>(
    index: &'a Index,
    wanted: &Platform,
    action: &Action,
) -> Result<&'a Descriptor, Error> {
    let images: Vec<(&Descriptor, &Platform)> = index
        .manifests
        .iter()
        .filter(|entry| !is_attestation(entry))
        .filter_map(|entry| Some((entry, entry.platform.as_ref()?)))
        .collect();
    let same = images
        .iter()
        .find(|(_, p)| p.to_string() == wanted.to_string());
    let matching = || images.iter().find(|(_, p)| wanted.matches(p));
    if let Some((entry, _)) = same.or_else(matching) {
        return Ok(entry);
    }
    let nested =
        |entry: &&Descriptor| entry.platform.is_none() && media_type::is_index(&entry.media_type);
    index
        .manifests
        .iter()
        .find(nested)
        .ok_or_else(|| Error::NoSuchPlatform {
            action: action.clone(),
            wanted: Box::new(wanted.clone()),
            available: images.into_iter().map(|(_, p)| p.clone()).collect(),
        })
}

fn is_attestation(entry: &Descriptor) -> bool {
    let unknown = |p: &Platform| p.os == UNKNOWN || p.architecture == UNKNOWN;
    entry.annotations.contains_key(ATTESTATION_ANNOTATION)
        || entry.platform.as_ref().is_some_and(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action() -> Action {
        let repository = "localhost/app".parse().unwrap();
        Action::new(Phase::PullManifest, &repository, "test")
    }

    fn entry(platform: &str) -> Descriptor {
        let mut entry = Descriptor::of(media_type::MANIFEST, platform.as_bytes());
        entry.platform = Some(platform.parse().unwrap());
        entry
    }

    fn index(entries: &[&str]) -> Index {
        Index {
            schema_version: 2,
            media_type: None,
            manifests: entries.iter().map(|text| entry(text)).collect(),
            annotations: Default::default(),
        }
    }

    #[test]
    fn platforms_are_chosen_exactly_first() {
        let index = index(&[
            "unknown/unknown",
            "linux/arm/v5",
            "linux/arm/v7",
            "linux/amd64",
            "linux/arm64/v8",
        ]);
        for (wanted, want) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/arm64", "linux/arm64/v8"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/v5", "linux/arm/v5"),
        ] {
            let chosen = choose(&index, &wanted.parse().unwrap(), &action()).unwrap();
            assert_eq!(chosen.digest, entry(want).digest, "{wanted}");
        }
    }

    #[test]
    fn a_missing_platform_lists_those_that_there_are() {
        let index = index(&["linux/amd64", "unknown/unknown", "linux/s390x"]);
        let error = choose(&index, &"linux/arm64".parse().unwrap(), &action()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "test: there is no image for linux/arm64; there are: linux/amd64, linux/s390x"
        );
    }

    #[test]
    fn documents_that_mean_two_things_are_refused() {
        let of = |json: &str, header: Option<&str>| {
            manifest_type(json.as_bytes(), header.map(str::to_owned), &action())
        };
        assert!(of(r#"{"manifests":[],"layers":[]}"#, None).is_err());
        assert!(
            of(
                &format!(r#"{{"mediaType":"{}"}}"#, media_type::INDEX),
                Some(media_type::MANIFEST)
            )
            .is_err()
        );
        assert!(of("{}", Some("application/json")).is_err());
        assert!(of("[", Some(media_type::INDEX)).is_err());
        assert_eq!(of(r#"{"layers":[]}"#, None).unwrap(), media_type::MANIFEST);
        assert_eq!(
            of(r#"{"manifests":[]}"#, Some("text/plain")).unwrap(),
            media_type::INDEX
        );
    }
}
