//! Before a build: may we push there at all? A [`Reference`] enters; what leaves is the
//! registry's own refusal, within seconds, or nothing.
//!
//! Whether one may push is not told by any request but a push. So an upload is begun and
//! given back, which leaves nothing behind.

use std::time::Duration;

use crate::action::{Action, Phase};
use crate::policy::{TagPolicy, tag_exists};
use crate::{Client, Digest, Error, Reference, Retry};

/// How long somebody waits for it.
const TIME: Duration = Duration::from_secs(5);

impl Client {
    /// Finds out whether an image can be pushed under a name: the registry is reachable,
    /// the login holds, the repository is there or can be made, writing is allowed, and
    /// the tag may be set. Takes five seconds at most.
    pub async fn preflight(&self, reference: &Reference) -> Result<(), Error> {
        let hasty = self.with_retry(Retry::short(TIME));
        match tokio::time::timeout(TIME, hasty.try_push(reference)).await {
            Ok(result) => result,
            Err(_) => Err(Error::Stalled {
                action: action(reference),
                peer: reference.registry().to_owned(),
                idle: TIME,
            }),
        }
    }

    async fn try_push(&self, reference: &Reference) -> Result<(), Error> {
        if self.tags.of(reference) == TagPolicy::FailIfExists
            && let Some(there) = self.head(reference).await?
        {
            return Err(tag_exists(reference, &there.digest));
        }
        // A digest that no blob has: the upload is never ended.
        let nothing = Digest::sha256(b"preflight");
        let mut backoff = self.transport.backoff();
        loop {
            match self.begin(reference.repository(), &nothing).await {
                Ok(session) => {
                    self.cancel(reference.repository(), Phase::Mount(nothing), session)
                        .await;
                    return Ok(());
                }
                Err(error) => backoff.pause(error).await?,
            }
        }
    }
}

fn action(reference: &Reference) -> Action {
    let text = format!("find out whether {reference} can be pushed");
    Action::new(Phase::Resolve, reference.repository(), text)
}
