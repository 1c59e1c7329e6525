//! Large layers of commands are packed while the commands after them run: what these stand
//! on is named by the uncompressed layer, which is known much earlier than the blob. A stage
//! ends when all of its layers are packed, so nobody else sees one that is not.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch::{Receiver, Sender, channel};

use crate::cache::StepResult;
use crate::content::Layer;
use crate::error::Error;
use crate::layer::DiffId;
use crate::mutex::lock;
use crate::registry::Descriptor;

/// What a step has made: its layer, and the rest of the work where it is not packed. The
/// blob is that of the uncompressed layer then, which is kept nowhere.
pub(super) struct Made {
    pub(super) result: StepResult,
    pub(super) pack: Option<Pack>,
}

/// Packs the layer and gives it as it is in the store. It is never shared, only moved; the
/// lock says so to the compiler.
pub(super) struct Pack(Mutex<BoxFuture<'static, Result<StepResult, Error>>>);

impl Pack {
    pub(super) fn new(
        pack: impl Future<Output = Result<StepResult, Error>> + Send + 'static,
    ) -> Self {
        Self(Mutex::new(pack.boxed()))
    }

    pub(super) async fn run(self) -> Result<StepResult, Error> {
        let pack = self.0.into_inner();
        pack.unwrap_or_else(PoisonError::into_inner).await
    }
}

impl From<StepResult> for Made {
    fn from(result: StepResult) -> Self {
        let pack = None;
        Self { result, pack }
    }
}

/// The layers of a stage that are being packed.
#[derive(Default)]
pub(super) struct Packs<'a> {
    running: FuturesUnordered<BoxFuture<'a, Result<StepResult, Error>>>,
    done: Vec<StepResult>,
}

impl<'a> Packs<'a> {
    pub(super) fn extend(
        &mut self,
        packs: impl IntoIterator<Item = BoxFuture<'a, Result<StepResult, Error>>>,
    ) {
        self.running.extend(packs);
    }

    /// Goes on with packing while a step is done. Where the step fails, what was done before
    /// it is packed all the same, for the next attempt to find.
    pub(super) async fn beside<T>(
        &mut self,
        step: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let mut step = pin!(step);
        let result = loop {
            tokio::select! {
                biased;
                Some(packed) = self.running.next() => self.done.push(packed?),
                result = &mut step => break result,
            }
        };
        if result.is_err() {
            while self.running.next().await.is_some() {}
        }
        result
    }

    /// Waits for every layer, and gives each the blob that it has become.
    pub(super) async fn settle(mut self, layers: &mut [Layer]) -> Result<(), Error> {
        while let Some(packed) = self.running.next().await {
            self.done.push(packed?);
        }
        for packed in &self.done {
            let same = layers
                .iter_mut()
                .filter(|layer| layer.diff_id == packed.diff_id);
            same.for_each(|layer| layer.blob = packed.blob.clone());
        }
        Ok(())
    }
}

/// The layers of a build that are being packed, for steps of their own stage that have to
/// read them.
#[derive(Default)]
pub(crate) struct Coming(Mutex<BTreeMap<DiffId, Receiver<Option<Descriptor>>>>);

impl Coming {
    /// Says that the blob of a layer is coming; it is told to what this gives.
    pub(super) fn begin(&self, layer: DiffId) -> Sender<Option<Descriptor>> {
        let (sender, receiver) = channel(None);
        lock(&self.0).insert(layer, receiver);
        sender
    }

    /// Gives a layer with the blob that it has, or waits for that.
    pub(super) async fn settled(&self, layer: &Layer) -> Result<Layer, Error> {
        let coming = lock(&self.0).get(&layer.diff_id).cloned();
        let Some(mut coming) = coming else {
            return Ok(layer.clone());
        };
        let lost = |_| Error::Lost(format!("layer {} is not packed", layer.diff_id));
        let blob = coming
            .wait_for(Option::is_some)
            .await
            .map_err(lost)?
            .clone();
        Ok(Layer {
            blob: blob.unwrap_or_else(|| layer.blob.clone()),
            ..layer.clone()
        })
    }

    /// Forgets every layer.
    pub(super) fn clear(&self) {
        lock(&self.0).clear();
    }
}
