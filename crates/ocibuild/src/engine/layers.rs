//! Layers made ready for a step: their table of contents and their bytes; `trees` has their
//! trees. Each is had at most once, over all builds that share a store, and only when asked for.

use std::sync::Arc;

use futures::future::try_join_all;

use super::{Shared, trees};
use crate::content::Layer;
use crate::error::Error;
use crate::executor::{Identity, Notes, Sandbox};
use crate::layer::{DiffId, Encoding, Limits, Toc, read_layer};
use crate::registry::{Arriving, Descriptor, Progress};
use crate::snapshot::RootView;
use crate::source;

/// Gives the merged view of a stack of layers.
pub(crate) async fn view(session: &Shared, layers: &[Layer]) -> Result<Arc<RootView>, Error> {
    let tocs = try_join_all(layers.iter().map(|layer| toc(session, layer))).await?;
    session
        .block(move || Ok(Arc::new(RootView::new(&tocs))))
        .await
}

/// Gives the table of contents of a layer; an unknown layer is fetched and read once.
pub(super) async fn toc(session: &Shared, layer: &Layer) -> Result<Arc<Toc>, Error> {
    let (store, diff_id) = (session.store.clone(), layer.diff_id);
    if let Some(toc) = session.block(move || Ok(store.toc(diff_id))).await? {
        return Ok(toc);
    }
    // The tree is begun before the blob has come: who fetches it first would hold that up.
    trees::await_toc(session, layer).await;
    let layer = &fetch(session, layer).await?;
    let (store, wanted) = (session.store.clone(), layer.clone());
    let read = session
        .block(move || {
            let layer = wanted;
            let _lock = store.lock(&toc_lock(&layer))?;
            if let Some(toc) = store.toc(layer.diff_id) {
                return Ok(toc);
            }
            let blob = store.open_blob(&layer.blob.digest)?;
            let encoding = Encoding::of_media_type(&layer.blob.media_type);
            let read = read_layer(blob, encoding, &Limits::default(), &mut ())?;
            check(&layer, read.diff_id)?;
            store.put_toc(layer.diff_id, &read.toc)?;
            Ok(read.toc)
        })
        .await;
    if read.is_err() {
        session.imports.doubt(layer);
    }
    read
}

/// Names the lock that is held while a layer is read.
pub(super) fn toc_lock(layer: &Layer) -> String {
    format!("toc-{}", layer.diff_id.0.hex())
}

/// Brings the blob of a layer into the store, and gives the layer as it is there.
pub(crate) async fn fetch(session: &Shared, layer: &Layer) -> Result<Layer, Error> {
    let layer = session.coming.settled(layer).await?;
    fetch_arriving(session, &layer, None).await?;
    Ok(layer)
}

/// Names the lock that is held while a blob is fetched.
pub(super) fn blob_lock(blob: &Descriptor) -> String {
    format!("blob-{}", blob.digest.hex())
}

/// The same, with somebody who perhaps reads the blob meanwhile.
pub(super) async fn fetch_arriving(
    session: &Shared,
    layer: &Layer,
    arriving: Option<Arc<Arriving>>,
) -> Result<(), Error> {
    if session.store.has_blob(&layer.blob) {
        return Ok(());
    }
    let lock = {
        let (store, name) = (session.store.clone(), blob_lock(&layer.blob));
        session.block(move || Ok(store.lock(&name)?)).await?
    };
    let short = &layer.blob.digest.hex()[..12];
    let step = (!session.store.has_blob(&layer.blob))
        .then(|| session.step(format!("[internal] fetch layer {short}")));
    let fetched = async {
        let (store, bytes) = (session.store.clone(), layer.blob.size);
        let _room = session.block(move || Ok(store.reserve(bytes)?)).await?;
        let (store, client, progress) = (&session.store, &session.client, Progress::none());
        Ok(source::fetch_arriving(store, client, layer, &progress, arriving).await?)
    };
    let fetched: Result<(), Error> = fetched.await;
    drop(lock);
    if let Err(Error::Source(_)) = &fetched {
        session.imports.doubt(layer);
    }
    match step {
        Some(step) => step.end_plain(fetched),
        None => fetched,
    }
}

/// The bytes of a layer must be those that the configuration of its image names.
fn check(layer: &Layer, found: DiffId) -> Result<(), Error> {
    if found == layer.diff_id {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "layer {} of the base image unpacks to {found}, its configuration says {}",
        layer.blob.digest, layer.diff_id
    )))
}

/// Gives the name of the folder of the trees that a sandbox can use.
pub(crate) fn identity_name(sandbox: &dyn Sandbox) -> String {
    trees_name(sandbox.identity(), sandbox.notes())
}

/// Gives the name of the folder of trees for an identity, with overlay notes of a kind.
pub(crate) fn trees_name(identity: &Identity, notes: Notes) -> String {
    let name = match identity {
        Identity::Real => "real".to_owned(),
        Identity::Range { uids, gids } => format!(
            "range-{}-{}-{}-{}",
            uids.first, uids.count, gids.first, gids.count
        ),
        Identity::Single => "single".to_owned(),
        Identity::Recorded => "recorded".to_owned(),
    };
    match notes {
        usual if usual == Notes::of(identity) => name,
        Notes::User => format!("{name}-user"),
        Notes::Trusted => format!("{name}-trusted"),
    }
}

/// Brings the blobs of a stack of layers into the store.
pub(crate) async fn fetch_all(session: &Shared, layers: &[Layer]) -> Result<(), Error> {
    try_join_all(layers.iter().map(|layer| fetch(session, layer))).await?;
    Ok(())
}
