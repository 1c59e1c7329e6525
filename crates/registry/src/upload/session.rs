//! The requests of one upload session (distribution-spec, "Pushing blobs"): POST opens
//! it, PATCH appends a chunk, GET tells what is there, PUT ends it, DELETE drops it.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderValue};
use url::Url;

use super::flow::hold;
use super::part::{Part, Upload};
use crate::action::{Action, Phase};
use crate::auth::Access;
use crate::pull::content_digest;
use crate::transport::{Body, Request, Response};
use crate::{Client, Digest, Error, Repository};

const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// Fewest bytes of a chunk that is not the last, as an answer to a POST says.
const CHUNK_MIN_LENGTH: &str = "oci-chunk-min-length";

/// An upload that a registry has opened.
#[derive(Debug)]
pub(crate) struct Session {
    /// Where the next request goes; every answer may change it.
    pub(super) location: Url,
    /// Bytes that the registry has confirmed.
    pub(super) offset: u64,
    /// Fewest bytes of a chunk that is not the last.
    pub(super) smallest: u64,
    /// A request has failed since: how much is there has to be asked for.
    pub(super) in_doubt: bool,
    /// It was in doubt once, so what it holds may be wrong.
    pub(super) resumed: bool,
    /// How long a refusal of a request for its size is waited for.
    pub(super) hold: Duration,
}

impl Session {
    pub(super) fn new(answer: &Response) -> Result<Self, Error> {
        let smallest = answer.header(CHUNK_MIN_LENGTH);
        Ok(Self {
            location: answer.location()?,
            offset: 0,
            smallest: smallest.and_then(|text| text.parse().ok()).unwrap_or(0),
            in_doubt: false,
            resumed: false,
            hold: hold(answer.answered_in()),
        })
    }

    /// Follows an answer to where it leads; one that names no place means the same.
    fn follow(&mut self, answer: &Response) -> Result<(), Error> {
        if answer.header("location").is_some() {
            self.location = answer.location()?;
        }
        Ok(())
    }
}

impl Client {
    pub(crate) async fn begin(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Session, Error> {
        let text = format!("start the upload of blob {digest} to {repository}");
        let action = Action::new(Phase::StartUpload(*digest), repository, text);
        self.open_session(repository, action).await
    }

    /// Opens a session for a blob that is still being made.
    pub(super) async fn begin_ahead(&self, repository: &Repository) -> Result<Session, Error> {
        self.open_session(repository, ahead_action(repository))
            .await
    }

    async fn open_session(
        &self,
        repository: &Repository,
        action: Action,
    ) -> Result<Session, Error> {
        let url = self.transport.url(repository, "blobs/uploads/", &action)?;
        let access = Access::push(repository);
        let request = Request::new(action, Method::POST, url, access);
        match self.transport.send_once(&request).await {
            Err(error) if error.is_not_found() => {
                if !self.transport.create_repository(&request).await? {
                    return Err(error);
                }
                Session::new(&self.transport.send_once(&request).await?)
            }
            answer => Session::new(&answer?),
        }
    }

    /// Asks how much of a blob has arrived, and goes on behind it. False where the
    /// registry does not say, does not know the session, or claims what cannot be.
    pub(super) async fn ask(
        &self,
        repository: &Repository,
        upload: &Upload<'_>,
        session: &mut Session,
    ) -> Result<bool, Error> {
        let action = upload_action(repository, upload);
        let access = Access::push(repository);
        let request = Request::new(action, Method::GET, session.location.clone(), access);
        let answer = match self.transport.send_once(&request).await {
            Ok(answer) => answer,
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => {
                tracing::debug!(%error, "an upload cannot be resumed");
                return Ok(false);
            }
        };
        // Nothing has no form of its own: it is written like one byte.
        let there = match received(&answer) {
            Some(1) => 0,
            Some(there) => there,
            None => return Ok(false),
        };
        if there > upload.size() || there > upload.reached() {
            return Ok(false);
        }
        session.follow(&answer)?;
        session.offset = there;
        session.in_doubt = false;
        session.resumed = true;
        Ok(true)
    }

    /// Appends a chunk, which begins where the session stands.
    pub(super) async fn append(
        &self,
        repository: &Repository,
        part: Part<'_>,
        session: &mut Session,
    ) -> Result<(), Error> {
        let action = upload_action(repository, part.upload);
        let range = part.offset..part.offset + part.length;
        self.append_body(repository, action, range, Body::Part(part), session)
            .await
    }

    /// Appends a chunk of a blob that is still being made.
    pub(super) async fn append_ahead(
        &self,
        repository: &Repository,
        bytes: Bytes,
        session: &mut Session,
    ) -> Result<(), Error> {
        let action = ahead_action(repository);
        let range = session.offset..session.offset + bytes.len() as u64;
        self.append_body(repository, action, range, Body::Bytes(bytes), session)
            .await
    }

    async fn append_body(
        &self,
        repository: &Repository,
        action: Action,
        Range { start, end }: Range<u64>,
        body: Body<'_>,
        session: &mut Session,
    ) -> Result<(), Error> {
        let range = format!("{start}-{}", end.saturating_sub(1));
        let protocol = |problem| Error::Protocol {
            action: action.clone(),
            problem,
        };
        let range = HeaderValue::try_from(range).map_err(|_| protocol("it has no range"))?;
        let url = session.location.clone();
        let request = Request::new(action.clone(), Method::PATCH, url, Access::push(repository))
            .header(CONTENT_TYPE, OCTETS)
            .header(CONTENT_RANGE, range)
            .body(body);
        let answer = self.transport.send_once(&request).await?;
        session.follow(&answer)?;
        // An answer that does not say how much it took took it all.
        session.offset = match received(&answer).unwrap_or(end) {
            there if there <= start => {
                return Err(protocol("it accepts a chunk and keeps nothing of it"));
            }
            there if there > end => {
                return Err(protocol("it claims more bytes than were sent"));
            }
            there => there,
        };
        Ok(())
    }

    /// Ends a session with its last bytes, which may be none or all.
    pub(super) async fn finish(
        &self,
        repository: &Repository,
        part: Part<'_>,
        session: &Session,
    ) -> Result<(), Error> {
        let digest = part.upload.descriptor.digest;
        let action = upload_action(repository, part.upload);
        let mut url = session.location.clone();
        url.query_pairs_mut()
            .append_pair("digest", &digest.to_string());
        let access = Access::push(repository);
        let request = Request::new(action.clone(), Method::PUT, url, access)
            .header(CONTENT_TYPE, OCTETS)
            .body(Body::Part(part));
        let answer = self.transport.send_once(&request).await?;
        match content_digest(&answer, &action)? {
            Some(actual) if actual != digest => {
                Err(Error::digest_mismatch(&action, digest, actual))
            }
            _ => Ok(()),
        }
    }

    /// Gives a session back that is not needed. Registries drop it anyway some day,
    /// so a failure is no matter.
    pub(crate) async fn cancel(&self, repository: &Repository, phase: Phase, session: Session) {
        let text = format!("cancel an upload to {repository}");
        let action = Action::new(phase, repository, text);
        let access = Access::push(repository);
        let request = Request::new(action, Method::DELETE, session.location, access);
        if let Err(error) = self.transport.send_once(&request).await {
            tracing::debug!(%error, "an unused upload session stays");
        }
    }
}

pub(super) fn upload_action(repository: &Repository, upload: &Upload<'_>) -> Action {
    let digest = upload.descriptor.digest;
    let text = format!("push blob {digest} to {repository}");
    Action::new(Phase::Upload(digest), repository, text)
}

fn ahead_action(repository: &Repository) -> Action {
    let text = format!("push a blob that is being made to {repository}");
    Action::new(Phase::UploadAhead, repository, text)
}

/// Reads how many bytes a `Range` says are there: `0-99`, by some with a unit.
fn received(answer: &Response) -> Option<u64> {
    range_end(answer.header("range")?)
}

fn range_end(text: &str) -> Option<u64> {
    let text = text.trim();
    let text = text
        .strip_prefix("bytes=")
        .or_else(|| text.strip_prefix("bytes "))
        .unwrap_or(text);
    let last: u64 = text.strip_prefix("0-")?.parse().ok()?;
    last.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_uploads() {
        for (text, want) in [
            ("0-99", Some(100)),
            ("0-0", Some(1)),
            ("bytes=0-99", Some(100)),
            (" bytes 0-5", Some(6)),
            ("5-9", None),
            ("0--1", None),
            ("0-", None),
            ("", None),
            ("0-18446744073709551615", None),
        ] {
            assert_eq!(range_end(text), want, "{text:?}");
        }
    }
}
