//! Large layers that are unpacked while they arrive. Their bytes are read as far as all that
//! is before them has come; the end is told when the digest of the blob is known to be right,
//! so a tree is never whole before.

use std::sync::Arc;

use futures::future::join;

use super::Shared;
use super::folder::StepFolder;
use super::layers::fetch_arriving;
use super::trees::fill_with;
use crate::causes::one_line;
use crate::content::{Layer, Origin};
use crate::error::Error;
use crate::executor::{Identity, Sandbox};
use crate::registry::arriving;

/// What arrives in less time than it is worth to read it meanwhile.
const SMALL: u64 = 16 << 20;

/// Tells whether a layer can be unpacked while it arrives: it has to be fetched, and its files
/// get their owners by this process itself.
pub(super) fn can_be_read(session: &Shared, sandbox: &dyn Sandbox, layer: &Layer) -> bool {
    layer.blob.size >= SMALL
        && matches!(layer.origin, Origin::Registry(_))
        && *sandbox.identity() == Identity::Real
        && !session.store.has_blob(&layer.blob)
}

/// Fetches a layer and unpacks it meanwhile. None where that cannot be, and where it has come
/// in another way than it was read: then the blob is to be unpacked from the store, which also
/// tells what is wrong with a bad one.
pub(super) async fn fill(
    session: &Shared,
    sandbox: &Arc<dyn Sandbox>,
    layer: &Layer,
) -> Result<Option<Arc<StepFolder>>, Error> {
    let Some(_stream) = session.cores.stream() else {
        return Ok(None);
    };
    let (arriving, arrived) = arriving();
    let filled = fill_with(session, sandbox.clone(), layer, move |_, request| {
        let filled = request.fill_from(arrived);
        filled.map(drop).map_err(|error| Error::Job {
            name: super::jobs::UNPACK,
            reason: one_line(&error),
        })
    });
    let fetched = fetch_arriving(session, layer, Some(Arc::new(arriving)));
    let (fetched, filled) = join(fetched, filled).await;
    fetched?;
    match filled {
        Ok(folder) => Ok(Some(folder)),
        Err(error) => {
            tracing::debug!(layer = %layer.blob.digest, %error, "not unpacked while it arrived");
            Ok(None)
        }
    }
}
