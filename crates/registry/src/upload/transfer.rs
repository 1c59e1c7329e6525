//! How a blob gets into a repository although requests are refused for their size and
//! connections break.
//!
//! A blob is sent with one PUT as long as nothing is known against it. What fails is
//! judged here: too large or too slow makes requests smaller, a break makes us ask the
//! session (GET) what it has and go on behind it with chunks (PATCH), a lost session
//! is followed by another. What is learned stays with the registry (`pace`).

use reqwest::Method;

use super::part::{Part, Upload};
use super::session::{Session, upload_action};
use super::{BlobOutcome, Mount};
use crate::action::Phase;
use crate::retry::Backoff;
use crate::{Client, Error, Repository};

/// How many sessions may be refused in the middle before chunks count as not taken.
const MAX_REFUSALS: u32 = 2;

/// A blob, its repository, and how far things have come.
pub(super) struct Transfer<'a> {
    client: &'a Client,
    repository: &'a Repository,
    upload: Upload<'a>,
    /// Where mounting is still to be tried.
    mount_from: &'a [Repository],
    session: Option<Session>,
    /// The request for bytes that was sent last and has not been answered well.
    sending: Option<Sending>,
    /// Bytes that have passed since the last break.
    run: u64,
    /// A break that has not been judged: the bytes before it, and where it came.
    broken: Option<Break>,
    /// The most that any session has confirmed; only more than that is headway.
    best: u64,
    moved: bool,
    /// A request that ends a session has been sent.
    ended: bool,
    refusals: u32,
}

struct Sending {
    method: Method,
    offset: u64,
    length: u64,
}

struct Break {
    run: u64,
    position: u64,
}

impl<'a> Transfer<'a> {
    pub(super) fn new(
        client: &'a Client,
        repository: &'a Repository,
        upload: Upload<'a>,
        mount_from: &'a [Repository],
    ) -> Self {
        Self {
            client,
            repository,
            upload,
            mount_from,
            session: None,
            sending: None,
            run: 0,
            broken: None,
            best: 0,
            moved: false,
            ended: false,
            refusals: 0,
        }
    }

    /// Goes on with a session that has its beginning; requests for it have come as far as
    /// `reached`.
    pub(super) fn going_on(mut self, session: Session, reached: u64) -> Self {
        self.upload.note_reached(reached);
        self.session = Some(session);
        self
    }

    /// Brings the blob there or gives up.
    pub(super) async fn run(mut self) -> Result<BlobOutcome, Error> {
        let mut backoff = self.client.transport.backoff();
        loop {
            match self.attempt().await {
                Ok(outcome) => {
                    self.learn(|pace, run| pace.passed(run));
                    self.upload.report_outcome(&outcome);
                    return Ok(outcome);
                }
                Err(error) => self.recover(error, &mut backoff).await?,
            }
        }
    }

    /// Goes on until all is there or something fails.
    async fn attempt(&mut self) -> Result<BlobOutcome, Error> {
        // Asked anew after every failure: the request may have got through although its
        // answer did not.
        let digest = &self.upload.descriptor.digest;
        if self.client.exists(self.repository, digest).await? {
            if let Some(session) = self.session.take().filter(|_| !self.ended) {
                let phase = Phase::Upload(*digest);
                self.client.cancel(self.repository, phase, session).await;
            }
            // It is ours when all of it was sent and only the answer was lost.
            return Ok(match self.ended {
                true => BlobOutcome::Uploaded,
                false => BlobOutcome::Exists,
            });
        }
        let mut session = match self.open().await? {
            Mount::Done(from) => return Ok(BlobOutcome::Mounted(from)),
            Mount::Session(session) => session,
        };
        let sent = self.send_all(&mut session).await;
        session.in_doubt = true;
        self.session = Some(session);
        sent.map(|()| BlobOutcome::Uploaded)
    }

    /// Gives the session to go on with: the old one where it can be resumed.
    async fn open(&mut self) -> Result<Mount, Error> {
        if let Some(mut session) = self.session.take() {
            let asked = match session.in_doubt {
                true => self.ask(&mut session).await,
                false => Ok(true),
            };
            match asked {
                Ok(true) => return Ok(Mount::Session(session)),
                Ok(false) => {}
                Err(error) => {
                    self.session = Some(session);
                    return Err(error);
                }
            }
        }
        self.judge_break(0);
        let opened = self
            .client
            .open(
                self.repository,
                &self.upload.descriptor.digest,
                self.mount_from,
            )
            .await?;
        self.mount_from = &[];
        Ok(opened)
    }

    async fn ask(&mut self, session: &mut Session) -> Result<bool, Error> {
        let resumed = self.client.ask(self.repository, &self.upload, session);
        if !resumed.await? {
            return Ok(false);
        }
        self.judge_break(session.offset);
        // What is there can only be gone on with in chunks.
        let usable = session.offset == 0 || !self.pace().is_chunkless();
        if usable {
            self.confirmed(session.offset);
        }
        Ok(usable)
    }

    async fn send_all(&mut self, session: &mut Session) -> Result<(), Error> {
        loop {
            let (method, length) = self.next(session);
            let part = Part {
                upload: &self.upload,
                offset: session.offset,
                length,
                hold: self.pace().may_refuse(length).then_some(session.hold),
            };
            self.sending = Some(Sending {
                method: method.clone(),
                offset: part.offset,
                length,
            });
            let ends = method == Method::PUT;
            self.ended |= ends;
            match ends {
                true => self.client.finish(self.repository, part, session).await?,
                false => self.client.append(self.repository, part, session).await?,
            }
            self.sending = None;
            self.learn(|pace, _| pace.took(length));
            self.run += length;
            if ends {
                return Ok(());
            }
            self.confirmed(session.offset);
        }
    }

    /// Chooses the next request and the number of its bytes.
    fn next(&self, session: &Session) -> (Method, u64) {
        let (pace, size) = (self.pace(), self.upload.size());
        let left = size - session.offset;
        if left == 0 || (session.offset == 0 && pace.takes_whole(size, self.run)) {
            return (Method::PUT, left);
        }
        let chunk = pace.chunk(self.run).max(session.smallest);
        (Method::PATCH, chunk.min(left))
    }

    fn confirmed(&mut self, offset: u64) {
        if offset > self.best {
            self.best = offset;
            self.moved = true;
        }
    }

    /// Judges a failure: waits, changes what comes next, or gives the error back.
    async fn recover(&mut self, error: Error, backoff: &mut Backoff) -> Result<(), Error> {
        if std::mem::take(&mut self.moved) {
            backoff.moved();
        }
        let Some(sending) = self.sending.take() else {
            return backoff.pause(error).await;
        };
        match &error {
            Error::Network { .. } | Error::Stalled { .. } => {
                self.note_break(&sending);
                backoff.pause(error).await
            }
            Error::Refused { refusal, .. } => match refusal.status {
                413 => self.shrink(&sending, error),
                408 | 504 => {
                    self.learn(|pace, _| pace.too_slow(sending.length));
                    backoff.pause(error).await
                }
                status if self.is_about_session(status, &sending) => {
                    self.session_refused(&sending, status, error)
                }
                _ => backoff.pause(error).await,
            },
            _ => backoff.pause(error).await,
        }
    }

    fn note_break(&mut self, sending: &Sending) {
        let position = self.upload.position().max(sending.offset);
        self.broken = Some(Break {
            run: self.run + (position - sending.offset),
            position,
        });
        self.run = 0;
    }

    /// Weighs what a break has cost, once it is known that `kept` bytes are there.
    fn judge_break(&mut self, kept: u64) {
        if let Some(broken) = self.broken.take() {
            let lost = broken.position.saturating_sub(kept);
            self.learn(|pace, _| pace.broken(broken.run, lost));
        }
    }

    /// Takes smaller requests from now on; an error where there are none.
    fn shrink(&mut self, sending: &Sending, error: Error) -> Result<(), Error> {
        let at_floor = self.session.as_ref().is_some_and(|session| {
            sending.method == Method::PATCH && session.smallest >= sending.length
        });
        if at_floor || !self.learn(|pace, _| pace.too_large(sending.length)) {
            return Err(error);
        }
        if self.pace().is_chunkless() {
            return Err(self.no_chunks(error));
        }
        tracing::warn!(%error, "blobs are sent in smaller requests from now on");
        Ok(())
    }

    /// Tells whether a refusal means the session and not the blob.
    fn is_about_session(&self, status: u16, sending: &Sending) -> bool {
        let resumed = self.session.as_ref().is_some_and(|s| s.resumed);
        match status {
            404 | 410 | 416 => true,
            // A session that was resumed may hold something else than we think.
            400 | 409 => sending.method == Method::PATCH || resumed,
            405 | 411 | 501 => sending.method == Method::PATCH,
            _ => false,
        }
    }

    /// Starts another session, and where that does not help, without chunks.
    fn session_refused(
        &mut self,
        sending: &Sending,
        status: u16,
        error: Error,
    ) -> Result<(), Error> {
        tracing::debug!(%error, "an upload session is refused");
        self.refusals += 1;
        // Only out-of-order chunks leave a session that can be asked.
        if status != 416 {
            self.session = None;
        }
        let never = matches!(status, 405 | 411 | 501);
        if !never && self.refusals <= MAX_REFUSALS {
            return Ok(());
        }
        if sending.method != Method::PATCH || self.pace().is_chunkless() {
            return Err(error);
        }
        if self.is_bound() {
            return Err(self.no_chunks(error));
        }
        self.session = None;
        self.learn(|pace, _| pace.refuses_chunks());
        Ok(())
    }

    /// Tells whether the blob is too large for one request.
    fn is_bound(&self) -> bool {
        let bound = self.pace().bound();
        bound.is_some_and(|bound| bound < self.upload.size())
    }

    fn no_chunks(&self, error: Error) -> Error {
        Error::NoChunks {
            action: upload_action(self.repository, &self.upload),
            size: self.upload.size(),
            source: Box::new(error),
        }
    }

    fn pace(&self) -> super::pace::Pace {
        self.client.transport.paces.get(self.repository.registry())
    }

    fn learn<T>(&self, lesson: impl FnOnce(&mut super::pace::Pace, u64) -> T) -> T {
        let registry = self.repository.registry();
        let run = self.run;
        let paces = &self.client.transport.paces;
        paces.learn(registry, |pace| lesson(pace, run))
    }
}
