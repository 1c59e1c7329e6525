//! Caches that are left for others. Layers that are in no image go to registries while
//! the build goes on; the rest follows when the image is where it should be, so that it
//! waits for nothing, and finds there what the image brought along.

use std::collections::{BTreeMap, HashSet};

use tokio::sync::mpsc::UnboundedReceiver;

use super::Shared;
use super::stage::StageState;
use crate::cache::StepResult;
use crate::cache::document::{self, CachedStep};
use crate::cache::shared::{CacheMode, CachePlace, CacheTarget, Error};
use crate::causes::one_line;
use crate::content::{Layer, Origin};
use crate::error;
use crate::graph::Base;
use crate::image::manifest::Documents;
use crate::layer::DiffId;
use crate::output::{Content, Finished, Wanted, layout, push};
use crate::registry::{BlobSource, Progress, Reference};
use std::path::Path;
use std::sync::Arc;

/// Tells whether anything can be exported while the build goes on.
pub(crate) fn is_wanted_beside(targets: &[CacheTarget]) -> bool {
    targets.iter().any(|target| beside_to(target).is_some())
}

fn beside_to(target: &CacheTarget) -> Option<&Reference> {
    match (&target.place, target.mode) {
        (CachePlace::Registry(reference), CacheMode::Max) => Some(reference),
        _ => None,
    }
}

/// Tells whether the layers of a stage wait for the image: they are in it, and the
/// registry that gets it can take them over from there.
pub(crate) fn waits(session: &Shared, index: usize) -> bool {
    let goes_to = |reference: &Reference| {
        let mut pushed = session.outputs.iter().filter_map(Wanted::pushed_as);
        pushed.any(|image| image.registry() == reference.registry())
    };
    let mut caches = session.cache_to.iter().filter_map(beside_to);
    caches.all(goes_to) && is_in_target(session, index)
}

/// Tells whether the layers of a stage are in the image.
pub(super) fn is_in_target(session: &Shared, index: usize) -> bool {
    let mut at = session.plan.target;
    // A plan has no cycles; a bound all the same.
    for _ in 0..=session.plan.stages.len() {
        if at == index {
            return true;
        }
        match session.plan.stages.get(at) {
            Some(Ok(stage)) => match &stage.base {
                Base::Stage(below) => at = *below,
                _ => return false,
            },
            _ => return false,
        }
    }
    false
}

/// Sends layers to caches of registries as they come. What fails here is tried again, and
/// told, at the end.
pub(crate) async fn beside(session: &Shared, mut layers: UnboundedReceiver<StepResult>) {
    while let Some(result) = layers.recv().await {
        let path = session.store.blob_path(&result.blob.digest);
        if !session.store.has_blob(&result.blob) {
            continue;
        }
        for reference in session.cache_to.iter().filter_map(beside_to) {
            let (source, progress) = (BlobSource::File(path.clone()), Progress::none());
            let sent = session.client.push_blob(
                reference.repository(),
                &result.blob,
                &source,
                &[],
                &progress,
            );
            if let Err(error) = sent.await {
                tracing::debug!(cache = %reference, %error, "a layer waits for the end");
            }
        }
    }
}

/// Exports to every place but the image itself.
pub(crate) async fn all(
    sessions: &[Shared],
    targets: &[Arc<StageState>],
) -> Result<(), error::Error> {
    let Some(session) = sessions.first() else {
        return Ok(());
    };
    let in_image = diff_ids(targets);
    for target in &session.cache_to {
        if target.place == CachePlace::Inline {
            continue;
        }
        let step = session.step(format!("exporting cache to {}", target.place));
        let exported = export(session, target, &in_image).await;
        match exported {
            Err(error) if target.required => {
                return step.end_plain(Err(error::Error::Cache(error)));
            }
            Err(error) => session.warn(format!("the cache is not exported: {}", one_line(&error))),
            Ok(()) => {}
        }
        step.end_plain(Ok(()))?;
    }
    Ok(())
}

/// Gives the cache of an image with these layers, as its manifest holds it.
pub(crate) fn inline(session: &Shared, layers: &[Layer]) -> Option<String> {
    let mut targets = session.cache_to.iter();
    targets.find(|target| target.place == CachePlace::Inline)?;
    let (mut steps, same) = session.ledger.cached(&session.store);
    steps.retain_mut(|step| {
        let layer = layers
            .iter()
            .find(|layer| layer.diff_id == step.result.diff_id);
        // The image may have it in another form than the store.
        layer.is_some_and(|layer| {
            step.result.blob = layer.blob.clone();
            true
        })
    });
    Some(document::text(&steps, &same, false))
}

fn diff_ids(targets: &[Arc<StageState>]) -> HashSet<DiffId> {
    let layers = targets.iter().flat_map(|target| &target.layers);
    layers.map(|layer| layer.diff_id).collect()
}

fn is_in(layers: &HashSet<DiffId>, step: &CachedStep) -> bool {
    layers.contains(&step.result.diff_id)
}

async fn export(
    session: &Shared,
    target: &CacheTarget,
    in_image: &HashSet<DiffId>,
) -> Result<(), Error> {
    let store = session.store.clone();
    let ledger = session.common.clone();
    let read = session
        .block(move || Ok(ledger.ledger.cached(&store)))
        .await;
    let (mut steps, same) = read.map_err(|error| Error::Refused {
        place: target.place.to_string(),
        reason: one_line(&error),
    })?;
    if target.mode == CacheMode::Min {
        steps.retain(|step| is_in(in_image, step));
    }
    let documents = document::assemble(&steps, &same);
    let layers = layers(session, &steps, &documents, target);
    match &target.place {
        CachePlace::Inline => Ok(()),
        CachePlace::Registry(reference) => {
            let (store, client) = (&session.store, &session.client);
            let progress = Progress::none();
            let scope = &session.cache_scope;
            push::push(
                store, client, &documents, &layers, reference, scope, &progress,
            )
            .await?;
            Ok(())
        }
        CachePlace::Local { path, tag } => to_local(session, documents, &layers, path, tag).await,
    }
}

/// Gives where each layer of the manifest is; what the image brought to the registry is
/// taken over from there.
fn layers(
    session: &Shared,
    steps: &[CachedStep],
    documents: &Documents,
    target: &CacheTarget,
) -> Vec<Layer> {
    let pushed = session.outputs.iter().find_map(Wanted::pushed_as);
    let there = match (&target.place, pushed) {
        (CachePlace::Registry(cache), Some(image)) if cache.registry() == image.registry() => {
            Some(Origin::Registry(image.repository().clone()))
        }
        _ => None,
    };
    let layer = |digest| {
        let step = steps
            .iter()
            .find(|step| step.result.blob.digest == digest)?;
        let mut layer = step.result.clone().into_layer();
        if layer.origin == Origin::Store
            && let Some(there) = &there
        {
            layer.origin = there.clone();
        }
        Some(layer)
    };
    let wanted = documents.layers.iter().map(|blob| blob.digest);
    wanted.filter_map(layer).collect()
}

async fn to_local(
    session: &Shared,
    documents: Documents,
    layers: &[Layer],
    path: &Path,
    tag: &str,
) -> Result<(), Error> {
    for layer in layers {
        crate::source::fetch(&session.store, &session.client, layer, &Progress::none()).await?;
    }
    let finished = Finished {
        content: Content::Image(Box::new(documents)),
        names: vec![format!("cache:{tag}")],
        annotations: BTreeMap::new(),
        created: session.created(),
    };
    let (store, path) = (session.store.clone(), path.to_owned());
    let written = session.block(move || Ok(layout::write(&store, &finished, &path)));
    let written = written.await.map_err(|error| Error::Refused {
        place: "the directory".to_owned(),
        reason: one_line(&error),
    })?;
    Ok(written?)
}
