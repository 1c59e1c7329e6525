//! Every registry that the image goes to is asked whether it takes it, so that a build of
//! an hour does not end at a wrong password. Asked is when the first step has to be made,
//! and no command runs before the answer; a build of which all is known finds out by its push.

use std::convert::Infallible;

use futures::future::try_join_all;
use tokio::sync::watch::{Receiver, Sender, channel};

use crate::error::Error;
use crate::output::{self, Wanted};
use crate::registry::Reference;

use super::session::Session;

/// What is known of the registries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Nobody has asked.
    None,
    Awaited,
    /// They take the image.
    Yes,
}

/// What the steps of a build and their registries tell each other.
pub(crate) struct Preflight {
    answer: Sender<Answer>,
}

impl Preflight {
    pub(crate) fn new() -> Self {
        let (answer, _) = channel(Answer::None);
        Self { answer }
    }

    /// Asks, if nobody has.
    pub(super) fn ask(&self) {
        let is_new = |answer: &mut Answer| {
            let is_new = *answer == Answer::None;
            if is_new {
                *answer = Answer::Awaited;
            }
            is_new
        };
        self.answer.send_if_modified(is_new);
    }

    /// Waits until the image would be taken; where it would not, the build ends meanwhile.
    pub(super) async fn passed(&self) {
        self.ask();
        reach(&mut self.answer.subscribe(), Answer::Yes).await;
    }
}

async fn reach(answers: &mut Receiver<Answer>, wanted: Answer) {
    // The sender lives as long as the build.
    let _ = answers.wait_for(|answer| *answer == wanted).await;
}

/// Asks all registries at once when that is wanted, which takes a few seconds at most;
/// ends when one of them does not take the image.
pub(crate) async fn registries(session: &Session) -> Result<Infallible, Error> {
    let preflight = &session.preflight;
    reach(&mut preflight.answer.subscribe(), Answer::Awaited).await;
    let references = session.outputs.iter().filter_map(Wanted::pushed_as);
    let asked = try_join_all(references.map(|reference| ask(session, reference))).await;
    if let Err(error) = asked {
        session.cancel.cancel();
        return Err(error);
    }
    preflight.answer.send_replace(Answer::Yes);
    std::future::pending().await
}

async fn ask(session: &Session, reference: &Reference) -> Result<(), Error> {
    let asked = session.client.preflight(reference).await;
    asked.map_err(|source| {
        Error::from(output::Error::Push {
            reference: reference.to_string(),
            source,
        })
    })
}
