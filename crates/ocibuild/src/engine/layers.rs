//! Layers made ready for a step: their table of contents, their tree, their bytes.
//! Each is had at most once, over all builds that share a store, and only when asked for.

use std::path::PathBuf;
use std::sync::Arc;

use futures::future::try_join_all;

use super::{Shared, jobs};
use crate::content::Layer;
use crate::error::Error;
use crate::executor::{Identity, Notes, Sandbox};
use crate::layer::{DiffId, Encoding, Limits, Toc, read_layer};
use crate::registry::Progress;
use crate::snapshot::{RootView, unpack};
use crate::source;

/// How much larger a tree usually is than its blob; room is made for so much.
const USUAL_RATIO: u64 = 3;

/// Gives the merged view of a stack of layers.
pub(crate) async fn view(session: &Shared, layers: &[Layer]) -> Result<Arc<RootView>, Error> {
    let tocs = try_join_all(layers.iter().map(|layer| toc(session, layer))).await?;
    session
        .block(move || Ok(Arc::new(RootView::new(&tocs))))
        .await
}

/// Gives the table of contents of a layer; an unknown layer is fetched and read once.
async fn toc(session: &Shared, layer: &Layer) -> Result<Arc<Toc>, Error> {
    let (store, diff_id) = (session.store.clone(), layer.diff_id);
    if let Some(toc) = session.block(move || Ok(store.toc(diff_id))).await? {
        return Ok(toc);
    }
    fetch(session, layer).await?;
    let (store, wanted) = (session.store.clone(), layer.clone());
    let read = session
        .block(move || {
            let layer = wanted;
            let _lock = store.lock(&format!("toc-{}", layer.diff_id.0.hex()))?;
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

/// Brings the blob of a layer into the store.
pub(crate) async fn fetch(session: &Shared, layer: &Layer) -> Result<(), Error> {
    if session.store.has_blob(&layer.blob) {
        return Ok(());
    }
    let lock = {
        let (store, digest) = (session.store.clone(), layer.blob.digest);
        session
            .block(move || Ok(store.lock(&format!("blob-{}", digest.hex()))?))
            .await?
    };
    let short = &layer.blob.digest.hex()[..12];
    let step = (!session.store.has_blob(&layer.blob))
        .then(|| session.step(format!("[internal] fetch layer {short}")));
    let fetched = async {
        let (store, bytes) = (session.store.clone(), layer.blob.size);
        let _room = session.block(move || Ok(store.reserve(bytes)?)).await?;
        let (store, client) = (&session.store, &session.client);
        Ok(source::fetch(store, client, layer, &Progress::none()).await?)
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

/// Gives the trees of a stack of layers, lowest first, unpacked for the sandbox.
///
/// One after the other: what a layer only implies looks as it does in those below it.
pub(crate) async fn trees(
    session: &Shared,
    sandbox: &Arc<dyn Sandbox>,
    layers: &[Layer],
) -> Result<Vec<PathBuf>, Error> {
    let missing = |layer: &&Layer| !session.store.use_tree(&tree_path(session, sandbox, layer));
    let fetched = layers
        .iter()
        .filter(missing)
        .map(|layer| fetch(session, layer));
    try_join_all(fetched).await?;
    // What is read from a tree is compared with the tables of those below.
    for layer in layers.iter().filter(|layer| !missing(layer)) {
        if !session.store.has_toc(layer.diff_id) {
            toc(session, layer).await?;
        }
    }
    let mut trees = Vec::with_capacity(layers.len());
    for (index, layer) in layers.iter().enumerate() {
        trees.push(tree(session, sandbox, &layers[..index], layer).await?);
    }
    Ok(trees)
}

fn tree_path(session: &Shared, sandbox: &Arc<dyn Sandbox>, layer: &Layer) -> PathBuf {
    let identity = identity_name(sandbox.as_ref());
    session.store.tree_path(&identity, layer.diff_id)
}

async fn tree(
    session: &Shared,
    sandbox: &Arc<dyn Sandbox>,
    below: &[Layer],
    layer: &Layer,
) -> Result<PathBuf, Error> {
    let path = tree_path(session, sandbox, layer);
    if session.store.use_tree(&path) {
        return Ok(path);
    }
    let request = unpack::Request {
        blob: session.store.blob_path(&layer.blob.digest),
        encoding: Encoding::of_media_type(&layer.blob.media_type),
        dest: path.clone(),
        identity: sandbox.identity().clone(),
        notes: sandbox.notes(),
        expected: Some(layer.diff_id),
        lowers: below
            .iter()
            .map(|layer| session.store.toc_path(layer.diff_id))
            .collect(),
        toc: session.store.toc_path(layer.diff_id),
    };
    let lock = format!(
        "tree-{}-{}",
        identity_name(sandbox.as_ref()),
        layer.diff_id.0.hex()
    );
    let (store, sandbox, cancel) = (
        session.store.clone(),
        sandbox.clone(),
        session.cancel.clone(),
    );
    let unpacked = layer.blob.size.saturating_mul(USUAL_RATIO);
    let made = session
        .block(move || {
            let _lock = store.lock(&lock)?;
            if store.use_tree(&path) {
                return Ok(path);
            }
            let _room = store.reserve(unpacked)?;
            store.prepare_tree(&path)?;
            let _: unpack::Response =
                jobs::call(sandbox.as_ref(), jobs::UNPACK, &request, &cancel)?;
            store.use_tree(&path);
            Ok(path)
        })
        .await;
    if made.is_err() {
        session.imports.doubt(layer);
    }
    made
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
