//! The limits of the store while a build goes on. Large writes reserve their room before
//! they begin; what a command writes is known only when it is there, so that is looked at
//! again and again.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use crate::Cancel;
use crate::content::OwnedRemover;
use crate::error::Error;
use crate::executor::{Helper, REMOVE_TREE, probe};

/// How often the limits are looked at.
const PAUSE: Duration = Duration::from_millis(200);

/// Gives what removes folders whose files belong to ids of the sandbox.
pub(crate) fn remover(helper: Helper, root: &Path) -> OwnedRemover {
    let work = root.join("tmp");
    Arc::new(move |path| {
        let sandbox = probe::select(&helper, &work)
            .map_err(|refusals| io::Error::other(refusals.to_string()))?;
        let path = path.as_os_str().as_encoded_bytes();
        let removed = sandbox.call(REMOVE_TREE, path, &Cancel::new());
        removed.map(drop).map_err(io::Error::other)
    })
}

/// Looks at the limits until they cannot be kept; then nothing of the build runs any more
/// soon, and the error says what it was doing.
pub(crate) async fn watch(session: &Shared) -> Result<Infallible, Error> {
    if session.limits.is_none() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(PAUSE).await;
        let store = session.store.clone();
        let kept = session.block(move || Ok(store.keep_limits()?)).await;
        if let Err(error) = kept {
            let during = session.steps.running().join(", ");
            session.cancel.cancel();
            return Err(Error::NoRoom {
                during,
                source: Box::new(error),
            });
        }
    }
}
