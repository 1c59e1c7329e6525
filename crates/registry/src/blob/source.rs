//! The bytes of a blob one after the other, from as many answers as it takes.

use crate::progress::{Progress, Transfer, TransferState};
use crate::retry::Backoff;
use crate::stream::Sink;
use crate::transport::Response;
use crate::{Descriptor, Error, Hasher};

use super::place::{Place, Places, range_begin};

/// A blob that is read from its beginning to its end.
pub(super) struct Source {
    pub(super) places: Places,
    pub(super) descriptor: Descriptor,
    backoff: Backoff,
    /// Bytes that have been given out.
    offset: u64,
    response: Option<(Response, Place)>,
    /// Bytes of the current answer that were given out before.
    skip: u64,
}

impl Source {
    pub(super) fn new(places: Places, descriptor: &Descriptor) -> Self {
        Self {
            backoff: places.backoff(),
            places,
            descriptor: descriptor.clone(),
            offset: 0,
            response: None,
            skip: 0,
        }
    }

    /// Starts behind the first bytes.
    pub(super) fn starting_at(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// Starts with an answer that begins at the beginning.
    pub(super) fn begin_with(&mut self, answer: (Response, Place)) {
        self.response = Some(answer);
    }

    /// Gives the next piece; none when as many bytes have come as there should be.
    pub(super) async fn next_piece(&mut self) -> Result<Option<bytes::Bytes>, Error> {
        loop {
            self.open().await?;
            match self.read().await {
                Ok(piece) => return Ok(piece),
                Err(error) => {
                    let used = self.response.take();
                    if used.is_some_and(|(_, place)| self.places.leave(place, &error)) {
                        continue;
                    }
                    self.backoff.pause(error).await?;
                }
            }
        }
    }

    /// Makes sure that there is an answer to read from.
    pub(super) async fn open(&mut self) -> Result<(), Error> {
        while self.response.is_none() {
            match self.request_rest().await {
                Ok(response) => self.response = Some(response),
                Err(error) => self.backoff.pause(error).await?,
            }
        }
        Ok(())
    }

    async fn request_rest(&mut self) -> Result<(Response, Place), Error> {
        // A range that begins at the end cannot be asked for; the whole is asked for
        // again and skipped, which only happens when the very last read broke.
        let resumes = self.offset > 0 && self.offset < self.descriptor.size;
        let range = resumes.then(|| format!("bytes={}-", self.offset));
        let (response, place) = self.places.open(range.as_deref()).await?;
        self.skip = match response.status() {
            206 if resumes => match range_begin(&response) {
                Some(begin) if begin == self.offset => 0,
                _ => return Err(self.places.protocol(super::place::OTHER_RANGE)),
            },
            200 => self.offset,
            _ => return Err(self.places.protocol(super::place::ODD_STATUS)),
        };
        Ok((response, place))
    }

    async fn read(&mut self) -> Result<Option<bytes::Bytes>, Error> {
        let Some((response, _)) = &mut self.response else {
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
    pub(super) async fn pour(&mut self, sink: &Sink, progress: &Progress) -> Result<(), Error> {
        while let Some(piece) = self.next_piece().await? {
            if !sink.write(piece).await {
                break;
            }
            progress.report(self.transfer(TransferState::Moving, self.offset));
        }
        Ok(())
    }

    pub(super) fn verify(&self, hasher: Hasher) -> Result<(), Error> {
        let actual = hasher.finish();
        if actual == self.descriptor.digest {
            return Ok(());
        }
        let expected = self.descriptor.digest;
        Err(Error::digest_mismatch(
            &self.places.action(),
            expected,
            actual,
        ))
    }

    pub(super) fn transfer(&self, state: TransferState, current: u64) -> Transfer {
        Transfer {
            digest: self.descriptor.digest,
            current,
            total: self.descriptor.size,
            state,
        }
    }

    fn size_mismatch(&self) -> Error {
        Error::SizeMismatch {
            action: self.places.action(),
            expected: self.descriptor.size,
            actual: self.offset,
        }
    }
}
