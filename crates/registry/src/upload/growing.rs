//! A blob goes to a repository while it is written: in chunks, as soon as their bytes are in
//! the file (distribution-spec, "Pushing a blob in chunks"). What it is called is known at its
//! end, which is when the session ends; so nobody can ask before whether it is there.
//!
//! Whatever fails is left alone until the blob is whole. Then its upload goes on as any other
//! does (`transfer`), with the session that holds what has arrived.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::pace::Pace;
use super::part::Upload;
use super::session::Session;
use super::transfer::Transfer;
use super::{BlobOutcome, BlobSource};
use crate::action::Phase;
use crate::progress::Progress;
use crate::{Client, Descriptor, Error, Repository};

/// A blob of less is made so soon that it need not be sent before.
const WORTH: u64 = 16 << 20;
/// Most bytes of a chunk, all of which are in memory: enough that a round trip costs little.
const CHUNK: u64 = 8 << 20;
/// A registry that wants larger ones gets the blob when it is whole.
const LARGEST_CHUNK: u64 = 32 << 20;
/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A blob that is being written. Whoever sends it takes a clone.
#[derive(Debug, Clone)]
pub struct Growing {
    path: PathBuf,
    state: Arc<watch::Sender<State>>,
}

/// Kept by whoever writes the blob; dropped before [`Growth::end`], the blob is given up.
#[derive(Debug)]
pub struct Growth(Arc<watch::Sender<State>>);

#[derive(Debug, Default)]
struct State {
    /// Some of it has been sent.
    is_begun: bool,
    end: Option<End>,
}

#[derive(Debug, Clone)]
enum End {
    /// What has become of it, and where it is.
    Whole(Box<Descriptor>, PathBuf),
    Lost,
}

/// Gives the two ends of a blob that is written into a file from its beginning to its end.
/// The file need not exist yet.
pub fn growing(path: PathBuf) -> (Growth, Growing) {
    let state = Arc::new(watch::Sender::default());
    let growth = Growth(Arc::clone(&state));
    (growth, Growing { path, state })
}

impl Growth {
    /// Says what the blob has become and where it is now. Tells whether it is on its way to
    /// anybody; if it is not, nobody begins to send it any more.
    pub fn end(self, blob: Descriptor, path: PathBuf) -> bool {
        let mut is_begun = false;
        self.0.send_modify(|state| {
            is_begun = state.is_begun;
            state.end = Some(End::Whole(Box::new(blob), path));
        });
        is_begun
    }
}

impl Drop for Growth {
    fn drop(&mut self) {
        self.0.send_if_modified(|state| {
            let is_lost = state.end.is_none();
            state.end.get_or_insert(End::Lost);
            is_lost
        });
    }
}

impl Growing {
    /// Says that some of it is sent from now on, unless it is whole already.
    fn begin(&self) -> bool {
        self.state.send_if_modified(|state| {
            state.is_begun |= state.end.is_none();
            state.end.is_none()
        })
    }

    fn ended(&self) -> Option<End> {
        self.state.borrow().end.clone()
    }

    /// Waits until there may be more of it.
    async fn look(&self) {
        let mut changed = self.state.subscribe();
        let ended = changed.wait_for(|state| state.end.is_some());
        // Either way it is looked at again.
        let _ = tokio::time::timeout(LOOK, ended).await;
    }
}

impl Client {
    /// Brings a blob into a repository while it is written. None where nothing was sent: it
    /// was whole before it was worth the while, or it was given up.
    ///
    /// # Errors
    ///
    /// Those of [`Client::push_blob`], after the blob was whole.
    pub async fn push_growing(
        &self,
        repository: &Repository,
        growing: &Growing,
        progress: &Progress,
    ) -> Result<Option<BlobOutcome>, Error> {
        let mut ahead = Ahead {
            client: self,
            repository,
            growing,
            file: None,
            session: None,
            reached: 0,
        };
        let end = ahead.until_end().await;
        let Some(session) = ahead.session else {
            return Ok(None);
        };
        match end {
            End::Lost => {
                self.cancel(repository, Phase::UploadAhead, session).await;
                Ok(None)
            }
            End::Whole(blob, path) => {
                let source = BlobSource::File(path);
                let upload = Upload::new(&source, &blob, progress);
                let transfer = Transfer::new(self, repository, upload, &[]);
                transfer
                    .going_on(session, ahead.reached)
                    .run()
                    .await
                    .map(Some)
            }
        }
    }
}

/// A blob on its way before it is whole.
struct Ahead<'a> {
    client: &'a Client,
    repository: &'a Repository,
    growing: &'a Growing,
    file: Option<File>,
    session: Option<Session>,
    /// How far requests have come.
    reached: u64,
}

impl Ahead<'_> {
    /// Sends what is there until the blob is whole or given up.
    async fn until_end(&mut self) -> End {
        loop {
            if let Some(end) = self.growing.ended() {
                return end;
            }
            match self.step().await {
                Ok(true) => {}
                Ok(false) => self.growing.look().await,
                Err(error) => {
                    tracing::debug!(%error, "a blob is not sent before it is whole");
                    return self.end().await;
                }
            }
        }
    }

    /// What is known of the way to the registry.
    fn pace(&self) -> Pace {
        let paces = &self.client.transport.paces;
        paces.get(self.repository.registry())
    }

    async fn end(&self) -> End {
        let mut changed = self.growing.state.subscribe();
        let ended = changed.wait_for(|state| state.end.is_some()).await;
        let end = ended.ok().and_then(|state| state.end.clone());
        end.unwrap_or(End::Lost)
    }

    /// Sends a chunk; false where it is not there yet.
    async fn step(&mut self) -> Result<bool, Error> {
        let Some((file, size)) = self.file() else {
            return Ok(false);
        };
        let pace = self.pace();
        let Some(session) = &mut self.session else {
            let takes_chunks = !pace.is_chunkless();
            if size < WORTH || !takes_chunks || !self.growing.begin() {
                return Ok(false);
            }
            self.session = Some(self.client.begin_ahead(self.repository).await?);
            return Ok(true);
        };
        let length = pace.chunk(0).min(CHUNK).max(session.smallest);
        if length > LARGEST_CHUNK || size < session.offset + length {
            return Ok(false);
        }
        // It may be read after the machine has forgotten it.
        let offset = session.offset;
        let read = tokio::task::spawn_blocking(move || read_at(&file, offset, length)).await;
        let Ok(Ok(bytes)) = read else {
            return Ok(false);
        };
        // Until the answer has come nobody knows what is there.
        session.in_doubt = true;
        self.reached = offset + length;
        let appended = self.client.append_ahead(self.repository, bytes, session);
        appended.await?;
        session.in_doubt = false;
        Ok(true)
    }

    /// Gives the file, once it is there, and its size.
    fn file(&mut self) -> Option<(File, u64)> {
        if self.file.is_none() {
            self.file = File::open(&self.growing.path).ok();
        }
        let file = self.file.as_ref()?;
        Some((file.try_clone().ok()?, file.metadata().ok()?.len()))
    }
}

fn read_at(file: &File, offset: u64, length: u64) -> io::Result<Bytes> {
    let length = usize::try_from(length).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes.into())
}
