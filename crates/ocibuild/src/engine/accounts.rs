//! The accounts of a stage: what its `/etc/passwd` and `/etc/group` say, wherever links
//! lead from there.

use std::io::Read;
use std::sync::Arc;

use super::layer_files::LayerFiles;
use super::{Shared, layers};
use crate::content::Layer;
use crate::error::Error;
use crate::layer::{self, toc::AccountFiles};
use crate::snapshot::{Accounts, RootView};

/// Reads the users and groups of a stage; empty where the files are not there or longer
/// than [`AccountFiles::MAX_SIZE`].
pub(crate) async fn accounts(
    session: &Shared,
    layers: &[Layer],
    view: &Arc<RootView>,
) -> Result<Accounts, Error> {
    let passwd = text(session, layers, view, "etc/passwd").await?;
    let group = text(session, layers, view, "etc/group").await?;
    Ok(Accounts::parse(&passwd, &group))
}

/// Gives the text that is kept beside the table of contents. Only files of these two names
/// are: one that a link leads to is read in its layer.
async fn text(
    session: &Shared,
    layers: &[Layer],
    view: &Arc<RootView>,
    path: &str,
) -> Result<Vec<u8>, Error> {
    let resolved = view.resolve(path, true).ok();
    let place = resolved.and_then(|resolved| view.content_of(&resolved.path));
    let Some(place) = place.filter(|place| place.content.size <= AccountFiles::MAX_SIZE) else {
        return Ok(Vec::new());
    };
    if let Some(kept) = view.account_file(&place) {
        return Ok(kept.to_vec());
    }
    let Some(layer) = layers.get(place.layer).cloned() else {
        return Ok(Vec::new());
    };
    let layer = layers::fetch(session, &layer).await?;
    let store = session.store.clone();
    let read = session.block(move || {
        let scratch = store.scratch()?;
        let wanted = vec![place.path.clone()];
        let files = LayerFiles::open(&store, &layer, wanted, scratch.path())?;
        let mut text = Vec::new();
        files
            .file(&place.path)?
            .take(AccountFiles::MAX_SIZE)
            .read_to_end(&mut text)
            .map_err(|source| layer::Error::Content {
                path: place.path,
                source,
            })?;
        Ok(text)
    });
    read.await
}
