//! How the body of a request flows. A request that may be refused for its size sends its
//! beginning and then waits for as long as a refusal takes to come; no body goes on once
//! its request has been answered, since HTTP/1.1 would send all of it in vain.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tokio::sync::watch;

/// Bytes of a held body that go out at once.
const BEGINNING: usize = 64 << 10;
/// A refusal comes about as fast as the answer to the request before, and this much later
/// on a busy machine.
const LATENESS: Duration = Duration::from_millis(20);
/// A body is not held for longer, however slow a registry is.
const LONGEST_HOLD: Duration = Duration::from_millis(250);

/// Gives how long a body is held for a refusal, by the time that the answer to the request
/// before it has taken.
pub(super) fn hold(answered_in: Duration) -> Duration {
    (answered_in + LATENESS).min(LONGEST_HOLD)
}

/// What a body learns of its request; when it is gone, the body ends.
pub(crate) struct Brake(watch::Sender<bool>);

impl Brake {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Stops the body, so that the answer can be read in peace: a body that ends early
    /// ends its connection.
    pub(crate) fn stop(&self) {
        self.0.send_replace(true);
    }

    /// Gives a body of `length` bytes that can be stopped, and that is held behind its
    /// beginning for the time `hold`.
    pub(super) fn body(
        &self,
        pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        length: u64,
        hold: Option<Duration>,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let body = Braked {
            pieces: Box::pin(pieces),
            kept_back: None,
            sent: 0,
            length,
            hold,
            stopped: self.0.subscribe(),
        };
        stream::try_unfold(body, |mut body| async move {
            let piece = body.next().await?;
            Ok(piece.map(|piece| (piece, body)))
        })
    }
}

struct Braked {
    pieces: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
    /// What of the first piece has not gone out with it.
    kept_back: Option<Bytes>,
    sent: u64,
    length: u64,
    hold: Option<Duration>,
    stopped: watch::Receiver<bool>,
}

impl Braked {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.sent > 0 && self.sent < self.length {
            self.wait().await?;
        }
        let piece = match self.kept_back.take() {
            Some(piece) => Some(piece),
            None => self.pieces.next().await.transpose()?,
        };
        Ok(piece.map(|mut piece| {
            if self.hold.is_some() && piece.len() > BEGINNING {
                self.kept_back = Some(piece.split_off(BEGINNING));
            }
            self.sent += piece.len() as u64;
            piece
        }))
    }

    /// Waits while the body is held, and while it is stopped.
    async fn wait(&mut self) -> io::Result<()> {
        if let Some(time) = self.hold.take() {
            // Either way it is looked at below.
            let _ = tokio::time::timeout(time, self.stopped.changed()).await;
        }
        while self.stopped.has_changed().is_err() || *self.stopped.borrow_and_update() {
            let gone = |_| io::Error::other("the request was answered before its end");
            self.stopped.changed().await.map_err(gone)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use futures::FutureExt;

    use super::*;

    const PIECE: usize = 256 << 10;
    const PIECES: usize = 4;
    /// Longer than any test.
    const FOR_EVER: Duration = Duration::from_secs(3600);

    fn body(
        brake: &Brake,
        hold: Option<Duration>,
    ) -> Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>> {
        let pieces = stream::iter((0..PIECES).map(|_| Ok(Bytes::from(vec![0; PIECE]))));
        Box::pin(brake.body(pieces, (PIECES * PIECE) as u64, hold))
    }

    async fn length_of_next(body: &mut (impl Stream<Item = io::Result<Bytes>> + Unpin)) -> usize {
        body.next().await.unwrap().unwrap().len()
    }

    #[test]
    fn a_body_is_held_for_about_as_long_as_an_answer_takes() {
        let millis = Duration::from_millis;
        assert_eq!(hold(millis(1)), millis(21));
        assert_eq!(hold(millis(80)), millis(100));
        assert_eq!(hold(millis(9000)), LONGEST_HOLD);
    }

    #[tokio::test]
    async fn what_nobody_refuses_goes_out_whole_after_the_hold() {
        let (brake, begin) = (Brake::new(), Instant::now());
        let mut body = body(&brake, Some(LATENESS));
        let mut lengths = vec![length_of_next(&mut body).await];
        while let Some(piece) = body.next().await {
            assert!(begin.elapsed() >= LATENESS);
            lengths.push(piece.unwrap().len());
        }
        let rest = PIECE - BEGINNING;
        assert_eq!(lengths, [BEGINNING, rest, PIECE, PIECE, PIECE]);
    }

    #[tokio::test]
    async fn a_refusal_during_the_hold_costs_the_beginning() {
        let brake = Brake::new();
        let mut body = body(&brake, Some(FOR_EVER));
        assert_eq!(length_of_next(&mut body).await, BEGINNING);
        assert!(body.next().now_or_never().is_none(), "it is held");
        brake.stop();
        // The answer is being read: nothing goes on, and nothing ends.
        assert!(body.next().now_or_never().is_none(), "it is stopped");
        drop(brake);
        assert!(body.next().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn an_answer_in_the_middle_ends_a_body_and_one_at_its_end_does_not() {
        for (before, is_end) in [(1, false), (PIECES - 1, false), (PIECES, true)] {
            let brake = Brake::new();
            let mut body = body(&brake, None);
            for _ in 0..before {
                assert_eq!(length_of_next(&mut body).await, PIECE);
            }
            drop(brake);
            let next = body.next().await;
            assert_eq!(next.is_none(), is_end, "{before}");
            assert!(next.is_none_or(|piece| piece.is_err()), "{before}");
        }
    }
}
