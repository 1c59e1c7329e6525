//! The layers of an image in the form in which an output wants them. What is already so is
//! left alone; the rest is compressed anew, once for all outputs and all builds.

use super::stage::StageState;
use super::{Shared, layers};
use crate::content::{Layer, Origin};
use crate::error::Error;
use crate::output::Form;
use crate::output::form::{self, Recipe};

/// Gives the layers of a stage in a form.
pub(super) async fn layers(
    session: &Shared,
    target: &StageState,
    form: &Form,
) -> Result<Vec<Layer>, Error> {
    let mut formed = Vec::with_capacity(target.layers.len());
    for layer in &target.layers {
        let is_given = target.given.contains(&layer.diff_id);
        formed.push(match form.change(layer, is_given) {
            None => layer.clone(),
            Some(recipe) => changed(session, layer, recipe).await?,
        });
    }
    Ok(formed)
}

async fn changed(session: &Shared, layer: &Layer, recipe: Recipe) -> Result<Layer, Error> {
    let (store, diff_id) = (session.store.clone(), layer.diff_id);
    let Recipe { compression, level } = recipe;
    let known = session.block(move || Ok(store.variant(diff_id, compression, level)));
    let blob = match known.await? {
        Some(blob) => blob,
        None => {
            layers::fetch(session, layer).await?;
            let short = &layer.blob.digest.hex()[..12];
            let step = session.step(format!("[internal] compress layer {short} anew"));
            step.end_plain(compress(session, layer, recipe).await)?
        }
    };
    Ok(Layer {
        diff_id: layer.diff_id,
        blob,
        origin: Origin::Store,
    })
}

async fn compress(
    session: &Shared,
    layer: &Layer,
    recipe: Recipe,
) -> Result<crate::registry::Descriptor, Error> {
    let permit = session.cores.to_pack(layer.blob.size).await;
    let (store, wanted, threads) = (session.store.clone(), layer.clone(), session.threads);
    let made = session
        .block(move || Ok(form::compressed(&store, &wanted, recipe, threads)?))
        .await;
    drop(permit);
    if made.is_err() {
        session.imports.doubt(layer);
    }
    made
}
