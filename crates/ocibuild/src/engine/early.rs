//! Layers of the image go to its registries while a command runs above them, and large ones
//! while they are packed. Only blobs go: what names them follows when the build has succeeded,
//! and finds them there.

use std::collections::HashSet;
use std::future::Future;
use std::path::Path;
use std::sync::Mutex;

use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Shared;
use super::exports::is_in_target;
use crate::content::{Layer, Origin};
use crate::mutex::lock;
use crate::output::Wanted;
use crate::registry::{
    BlobSource, Descriptor, Digest, Growing, Growth, Progress, Reference, growing,
};

/// How many layers are sent at once.
const CONCURRENCY: usize = 2;

/// What is to be sent early.
#[derive(Default)]
pub(crate) struct Early(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    seen: HashSet<Digest>,
    to: Option<UnboundedSender<Queued>>,
}

enum Queued {
    /// A layer of the store.
    Packed(Box<Layer>),
    /// One that is being packed.
    Growing(Growing),
}

impl Early {
    /// Takes layers over which a command of a stage is about to run.
    pub(super) fn below(&self, session: &Shared, index: usize, layers: &[Layer]) {
        let mut queue = lock(&self.0);
        let Some(to) = queue.to.clone() else { return };
        if !is_in_target(session, index) {
            return;
        }
        for layer in layers {
            if session.store.has_blob(&layer.blob) && queue.seen.insert(layer.blob.digest) {
                // Nobody takes it when the stages are built.
                let _ = to.send(Queued::Packed(Box::new(layer.clone())));
            }
        }
    }

    /// Tells whether layers of a stage may be sent while they are packed. One that comes out
    /// the same elsewhere may be in the registry already: where its times are given it is
    /// asked for when it is known.
    pub(super) fn goes_ahead(&self, session: &Shared, index: usize) -> bool {
        let is_open = lock(&self.0).to.is_some();
        is_open && session.epoch.is_none() && is_in_target(session, index)
    }

    /// Sends a layer while it is packed into a file.
    pub(super) fn growing(&self, file: &Path) -> Option<Growth> {
        let to = lock(&self.0).to.clone()?;
        let (growth, growing) = growing(file.to_owned());
        to.send(Queued::Growing(growing)).ok().map(|()| growth)
    }

    /// Says what has become of a layer that was packed; it is in the store.
    pub(super) fn grown(&self, session: &Shared, growth: Growth, blob: &Descriptor) {
        let path = session.store.blob_path(&blob.digest);
        if growth.end(blob.clone(), path) {
            lock(&self.0).seen.insert(blob.digest);
        }
    }

    fn open(&self) -> UnboundedReceiver<Queued> {
        let (to, queued) = unbounded_channel();
        lock(&self.0).to = Some(to);
        queued
    }

    fn close(&self) {
        *lock(&self.0) = Queue::default();
    }
}

/// Sends layers while something is done, then waits for those that are on their way. What
/// fails here is tried again, and told, when the image is pushed.
pub(crate) async fn beside<T, E>(
    session: &Shared,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    // In another form a layer may be another blob.
    let as_they_are = session
        .outputs
        .iter()
        .filter(|wanted| wanted.form.is_none());
    let references: Vec<&Reference> = as_they_are.filter_map(Wanted::pushed_as).collect();
    if references.is_empty() {
        return work.await;
    }
    let mut queued = session.early.open();
    let mut sent = FuturesUnordered::new();
    // As many as are packed, which is not many.
    let mut growing = FuturesUnordered::new();
    let mut work = std::pin::pin!(work);
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            Some(next) = queued.recv(), if sent.len() < CONCURRENCY => match next {
                Queued::Packed(layer) => sent.push(send(session, &references, *layer)),
                Queued::Growing(blob) => growing.push(send_growing(session, &references, blob)),
            },
            Some(()) = sent.next() => {}
            Some(()) = growing.next() => {}
        }
    };
    session.early.close();
    if done.is_ok() {
        while sent.next().await.is_some() {}
        while growing.next().await.is_some() {}
    }
    done
}

async fn send_growing(session: &Shared, references: &[&Reference], blob: Growing) {
    let progress = Progress::none();
    let sent = references.iter().map(|reference| {
        let repository = reference.repository();
        session.client.push_growing(repository, &blob, &progress)
    });
    for (reference, sent) in references.iter().zip(join_all(sent).await) {
        if let Err(error) = sent {
            tracing::debug!(image = %reference, %error, "a layer waits for the push");
        }
    }
}

async fn send(session: &Shared, references: &[&Reference], layer: Layer) {
    let source = BlobSource::File(session.store.blob_path(&layer.blob.digest));
    for reference in references {
        if matches!(&layer.origin, Origin::Registry(from) if from.registry() == reference.registry())
        {
            // The push has the registry take it over, for which nothing is sent.
            continue;
        }
        let (blob, progress) = (&layer.blob, Progress::none());
        let repository = reference.repository();
        let sent = session
            .client
            .push_blob(repository, blob, &source, &[], &progress);
        if let Err(error) = sent.await {
            tracing::debug!(image = %reference, %error, "a layer waits for the push");
        }
    }
}
