//! Contexts that are OCI artifacts of a registry: their layers go through the store, so
//! that what is there is not loaded again, and are unpacked as any archive of a context is.

use tokio::runtime::Handle;

use super::contexts::{Loader, Opened};
use super::layers::blob_lock;
use super::meter::Meter;
use crate::context::artifact::{self, Form};
use crate::context::{self, tar};
use crate::error::Error;
use crate::layer::is_archive;
use crate::registry::{Descriptor, Manifest, Platform, Progress, Reference, Transfer};
use crate::source;

impl Loader {
    /// Loads an artifact and unpacks it. Blocks.
    pub(super) fn artifact(&self, prefix: &str, reference: &Reference) -> Result<Opened, Error> {
        let step = self.steps.begin(format!("{prefix} load oci://{reference}"));
        let meter = self.steps.meter(step.id);
        let opened = self.load_artifact(reference, meter);
        let ended = step.end(opened, |(cached, _)| (*cached, None));
        ended.map(|(_, opened)| opened)
    }

    fn load_artifact(&self, reference: &Reference, meter: Meter) -> Result<(bool, Opened), Error> {
        let limits = tar::Limits::default();
        let manifest = self.wait(self.manifest(reference))?;
        let refused = |source| Error::Artifact {
            reference: reference.to_string(),
            source,
        };
        let layers = artifact::layers(&manifest, limits.bytes).map_err(refused)?;
        let blobs = layers.iter().map(|(layer, _)| *layer);
        let cached = self.wait(self.fetch_all(reference, blobs, meter))?;
        let mut opened = self.unpack_layers(&layers, limits)?;
        opened.time = artifact::time(&manifest);
        Ok((cached, opened))
    }

    /// Waits on a thread that may block, until the build ends early.
    fn wait<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        Handle::current().block_on(async {
            tokio::select! {
                done = work => done,
                () = self.cancel.cancelled() => Err(Error::Cancelled),
            }
        })
    }

    async fn manifest(&self, reference: &Reference) -> Result<Manifest, Error> {
        let (store, client) = (&self.store, &self.client);
        let platform = Platform::host();
        let found = source::documents(store, client, reference, &platform).await;
        Ok(found
            .map_err(|error| error.of_artifact(reference))?
            .manifest)
    }

    /// Brings layers into the store; tells whether all of them were there.
    async fn fetch_all(
        &self,
        reference: &Reference,
        layers: impl Iterator<Item = &Descriptor>,
        meter: Meter,
    ) -> Result<bool, Error> {
        let progress = Progress::new(move |now: Transfer| {
            meter.moved(&now.digest.to_string(), now.current, now.total);
        });
        let mut cached = true;
        for layer in layers {
            // On this thread, which may block.
            let _lock = self.store.lock(&blob_lock(layer))?;
            if self.store.has_blob(layer) {
                continue;
            }
            let _room = self.store.reserve(layer.size)?;
            cached = false;
            let repository = reference.repository();
            let fetched = source::fetch_blob(
                &self.store,
                &self.client,
                repository,
                layer,
                &progress,
                None,
            );
            fetched
                .await
                .map_err(|error| error.of_artifact(reference))?;
        }
        Ok(cached)
    }

    fn unpack_layers(
        &self,
        layers: &[(&Descriptor, Form)],
        mut left: tar::Limits,
    ) -> Result<Opened, Error> {
        let opened = Opened::in_folder(self.store.scratch()?);
        for (layer, form) in layers {
            let open = || self.store.open_blob(&layer.digest);
            let name = match form {
                Form::Tar => None,
                Form::TarOrFile(_) if is_archive(open()?) => None,
                Form::File(name) | Form::TarOrFile(name) => Some(name),
            };
            let done = match name {
                None => tar::extract(open()?, &opened.root, &left),
                Some(name) => tar::place(open()?, name, &opened.root, &left),
            };
            left = left.without(done.map_err(context::Error::from)?);
        }
        Ok(opened)
    }
}
