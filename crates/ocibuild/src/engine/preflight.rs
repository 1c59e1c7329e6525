//! Before anything runs: every registry that the image goes to is asked whether it takes
//! it, so that a build of an hour does not end at a wrong password.

use futures::future::try_join_all;

use crate::error::Error;
use crate::output::{self, Wanted};
use crate::registry::Reference;

use super::session::Session;

/// Asks all registries at once; takes a few seconds at most.
pub(crate) async fn registries(session: &Session) -> Result<(), Error> {
    let references = session.outputs.iter().filter_map(Wanted::pushed_as);
    try_join_all(references.map(|reference| ask(session, reference))).await?;
    Ok(())
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
