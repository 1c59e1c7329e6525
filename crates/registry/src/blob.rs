//! Pulling blobs (distribution-spec, "Pulling blobs"): a [`Descriptor`] enters,
//! bytes leave that have its size and digest. A connection that breaks is taken up
//! again where it broke, by a `Range` request.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use reqwest::Method;
use reqwest::header::{HeaderValue, RANGE};
use tempfile::NamedTempFile;

use crate::action::{Action, Phase};
use crate::auth::Access;
use crate::progress::{Progress, Transfer, TransferState};
use crate::retry::Backoff;
use crate::stream::{Sink, Written};
use crate::transport::{Request, Response, Transport};
use crate::{Client, Descriptor, Error, Hasher, Repository};

impl Client {
    /// Opens a blob for reading. The reader fails at its end when what it read is not
    /// what the descriptor says, so nothing may be believed before that.
    pub async fn blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
    ) -> Result<Blob, Error> {
        let hasher = Hasher::new(descriptor.digest.algorithm());
        let mut source = Source::new(self, repository, descriptor)?;
        source.open().await?;
        Ok(Blob {
            source,
            hasher: Some(hasher),
        })
    }

    /// Reads a small blob, such as an image configuration, into memory.
    pub async fn blob_bytes(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        limit: u64,
    ) -> Result<Bytes, Error> {
        if descriptor.size > limit {
            let action = action(repository, descriptor);
            return Err(Error::TooLarge { action, limit });
        }
        let mut blob = self.blob(repository, descriptor).await?;
        let mut bytes = BytesMut::new();
        while let Some(piece) = blob.next_piece().await? {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
    }

    /// Loads a blob into the file `dest`, which appears, or is replaced, all at once
    /// when its digest has been verified. After a failure nothing is left behind.
    pub async fn download_blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        dest: &Path,
        progress: &Progress,
    ) -> Result<(), Error> {
        let mut source = Source::new(self, repository, descriptor)?;
        let action = source.request.action.clone();
        let at_dest = |source| Error::File {
            action: action.clone(),
            path: dest.to_owned(),
            source,
        };
        let (temporary, file) = create_beside(dest).map_err(at_dest)?;
        let hasher = Hasher::new(descriptor.digest.algorithm());
        let sink = Sink::start(Written {
            file,
            hasher,
            length: 0,
        });
        let received = source.pour(&sink, progress).await;
        // The sink's own error, such as a full disk, is the cause of a refused piece.
        let written = sink.finish().await.map_err(at_dest)?;
        received?;
        source.verify(written.hasher)?;
        temporary
            .persist(dest)
            .map_err(|error| at_dest(error.error))?;
        progress.report(source.transfer(TransferState::Done));
        Ok(())
    }
}

/// Makes an empty file in the folder of `dest`, so that it can be renamed to it.
fn create_beside(dest: &Path) -> std::io::Result<(NamedTempFile, std::fs::File)> {
    let folder = match dest.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let temporary = tempfile::Builder::new()
        .prefix(".download-")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(folder)?;
    let file = temporary.as_file().try_clone()?;
    Ok((temporary, file))
}

fn action(repository: &Repository, descriptor: &Descriptor) -> Action {
    let digest = descriptor.digest;
    let text = format!("pull blob {digest} from {repository}");
    Action::new(Phase::PullBlob(digest), repository, text)
}

/// A blob that is being read and verified.
pub struct Blob {
    source: Source,
    /// Taken when the end has been verified.
    hasher: Option<Hasher>,
}

impl Blob {
    /// Gives the next piece; none at the end, once size and digest are verified.
    pub async fn next_piece(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(hasher) = &mut self.hasher else {
            return Ok(None);
        };
        if let Some(piece) = self.source.next_piece().await? {
            hasher.update(&piece);
            return Ok(Some(piece));
        }
        match self.hasher.take() {
            Some(hasher) => self.source.verify(hasher).map(|()| None),
            None => Ok(None),
        }
    }

    /// Turns the reader into a stream; an error ends it.
    pub fn into_stream(self) -> BoxStream<'static, Result<Bytes, Error>> {
        stream::try_unfold(self, |mut blob| async move {
            let piece = blob.next_piece().await?;
            Ok(piece.map(|piece| (piece, blob)))
        })
        .into_stream()
        .boxed()
    }
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blob({})", self.source.descriptor.digest)
    }
}

/// The bytes of a blob, from as many answers as it takes.
struct Source {
    transport: Arc<Transport>,
    request: Request<'static>,
    descriptor: Descriptor,
    backoff: Backoff,
    /// Bytes that have been given out.
    offset: u64,
    response: Option<Response>,
    /// Bytes of the current answer that were given out before.
    skip: u64,
}

impl Source {
    fn new(
        client: &Client,
        repository: &Repository,
        descriptor: &Descriptor,
    ) -> Result<Self, Error> {
        let action = action(repository, descriptor);
        let path = format!("blobs/{}", descriptor.digest);
        let url = client.transport.url(repository, &path, &action)?;
        let access = Access::pull(repository);
        Ok(Self {
            transport: Arc::clone(&client.transport),
            request: Request::new(action, Method::GET, url, access),
            descriptor: descriptor.clone(),
            backoff: client.transport.backoff(),
            offset: 0,
            response: None,
            skip: 0,
        })
    }

    /// Gives the next piece; none when as many bytes have come as there should be.
    async fn next_piece(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            self.open().await?;
            match self.read().await {
                Ok(piece) => return Ok(piece),
                Err(error) => {
                    self.response = None;
                    self.backoff.pause(error).await?;
                }
            }
        }
    }

    /// Makes sure that there is an answer to read from.
    async fn open(&mut self) -> Result<(), Error> {
        while self.response.is_none() {
            match self.request_rest().await {
                Ok(response) => self.response = Some(response),
                Err(error) => self.backoff.pause(error).await?,
            }
        }
        Ok(())
    }

    async fn request_rest(&mut self) -> Result<Response, Error> {
        self.request.headers.remove(RANGE);
        // A range that begins at the end cannot be asked for; the whole is asked for
        // again and skipped, which only happens when the very last read broke.
        let resumes = self.offset > 0 && self.offset < self.descriptor.size;
        if resumes {
            let range = format!("bytes={}-", self.offset);
            if let Ok(range) = HeaderValue::try_from(range) {
                self.request.headers.insert(RANGE, range);
            }
        }
        let response = self.transport.send_once(&self.request).await?;
        self.skip = match response.status() {
            206 if resumes => {
                self.check_range(&response)?;
                0
            }
            200 => self.offset,
            _ => return Err(self.protocol("it answers a request for a blob with an odd status")),
        };
        Ok(response)
    }

    fn check_range(&self, response: &Response) -> Result<(), Error> {
        let begins = response
            .header("content-range")
            .and_then(|text| text.strip_prefix("bytes ")?.split_once('-'))
            .and_then(|(begin, _)| begin.parse::<u64>().ok());
        match begins {
            Some(begin) if begin == self.offset => Ok(()),
            _ => Err(self.protocol("it sends another range than it was asked for")),
        }
    }

    async fn read(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(response) = &mut self.response else {
            return Ok(None);
        };
        while let Some(mut piece) = response.chunk().await? {
            let known = self.skip.min(piece.len() as u64);
            self.skip -= known;
            // Lossless: `known` is at most the piece's length.
            let piece = piece.split_off(known as usize);
            if piece.is_empty() {
                continue;
            }
            self.offset += piece.len() as u64;
            self.backoff.moved();
            if self.offset > self.descriptor.size {
                return Err(self.size_mismatch());
            }
            return Ok(Some(piece));
        }
        if self.offset < self.descriptor.size {
            return Err(self.size_mismatch());
        }
        Ok(None)
    }

    /// Writes everything to a sink; ends early when the sink takes no more.
    async fn pour(&mut self, sink: &Sink, progress: &Progress) -> Result<(), Error> {
        while let Some(piece) = self.next_piece().await? {
            if !sink.write(piece).await {
                break;
            }
            progress.report(self.transfer(TransferState::Moving));
        }
        Ok(())
    }

    fn verify(&self, hasher: Hasher) -> Result<(), Error> {
        let actual = hasher.finish();
        if actual == self.descriptor.digest {
            return Ok(());
        }
        let expected = self.descriptor.digest;
        Err(Error::digest_mismatch(
            &self.request.action,
            expected,
            actual,
        ))
    }

    fn transfer(&self, state: TransferState) -> Transfer {
        Transfer {
            digest: self.descriptor.digest,
            current: self.offset,
            total: self.descriptor.size,
            state,
        }
    }

    fn size_mismatch(&self) -> Error {
        Error::SizeMismatch {
            action: self.request.action.clone(),
            expected: self.descriptor.size,
            actual: self.offset,
        }
    }

    fn protocol(&self, problem: &'static str) -> Error {
        Error::Protocol {
            action: self.request.action.clone(),
            problem,
        }
    }
}
