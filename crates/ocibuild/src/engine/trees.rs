//! Layers as the trees that commands run over. The layers of a stack are fetched, checked,
//! decompressed and written side by side, and each is read once: whoever needs its table
//! of contents meanwhile waits for the one that comes with the tree.
//!
//! As soon as it is known that a step has to be made, the trees of what a later command
//! runs over are begun ([`foresee`]), beside the steps before it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use futures::future::{join, try_join, try_join_all};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::OnceCell;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::folder::StepFolder;
use super::layers::{fetch, identity_name, toc, toc_lock};
use super::{Shared, arrivals, jobs};
use crate::content::{Layer, Lock};
use crate::error::Error;
use crate::executor::Sandbox;
use crate::layer::{DiffId, Encoding};
use crate::mutex::lock;
use crate::snapshot::unpack;

/// How much larger a tree usually is than its blob; room is made for so much.
const USUAL_RATIO: u64 = 3;

/// The trees that one build is making.
#[derive(Default)]
pub(crate) struct Unpackings(Mutex<BTreeMap<DiffId, Arc<Unpacking>>>);

/// A tree on its way. Whoever needs it goes on with it where others have left it.
#[derive(Default)]
pub(super) struct Unpacking {
    filled: OnceCell<Result<Filled, Arc<Error>>>,
    whole: OnceCell<Result<PathBuf, Arc<Error>>>,
}

/// What has become of the files of a tree.
enum Filled {
    /// The tree is there, whole.
    There,
    /// Another build is making it.
    Elsewhere,
    /// All but what depends on the layers below.
    Here(Mutex<Option<Half>>),
}

/// A tree that has its files.
struct Half {
    folder: Arc<StepFolder>,
    lock: Lock,
}

impl Unpackings {
    /// Gives the tree of a layer, which is begun when somebody waits for it.
    fn begin(&self, layer: &Layer) -> Arc<Unpacking> {
        lock(&self.0).entry(layer.diff_id).or_default().clone()
    }

    /// Gives the tree of a layer, if it is on its way.
    fn of(&self, layer: &Layer) -> Option<Arc<Unpacking>> {
        lock(&self.0).get(&layer.diff_id).cloned()
    }

    fn end(&self, layer: &Layer) {
        lock(&self.0).remove(&layer.diff_id);
    }

    /// Forgets every tree.
    pub(super) fn clear(&self) {
        lock(&self.0).clear();
    }
}

/// What commands will run over, as steps before them say it.
pub(crate) type Foreseen = (Shared, Vec<Layer>);

/// Where that is heard.
pub(crate) type Foresight = UnboundedReceiver<Foreseen>;

/// Gives where that is said and where it is heard.
pub(crate) fn foresight() -> (UnboundedSender<Foreseen>, Foresight) {
    unbounded_channel()
}

/// Says that a command will run over layers, or over these and others.
pub(super) fn foresee(session: &Shared, layers: &[Layer]) {
    for layer in layers {
        session.unpackings.begin(layer);
    }
    // Nobody listens when the build has ended.
    let _ = session.foreseen.send((session.clone(), layers.to_vec()));
}

/// Makes the trees that are foreseen, until it is dropped. What fails here fails the
/// command that needs it.
pub(crate) async fn beside(foreseen: &mut Foresight) -> Infallible {
    let mut unpacked = FuturesUnordered::new();
    loop {
        tokio::select! {
            next = foreseen.recv() => match next {
                Some((session, layers)) => unpacked.push(async move {
                    if let Ok(sandbox) = session.sandbox().await {
                        let _ = trees(&session, &sandbox, &layers).await;
                    }
                }),
                None => std::future::pending().await,
            },
            Some(()) = unpacked.next() => {}
        }
    }
}

/// Gives the trees of a stack of layers, lowest first, unpacked for the sandbox.
pub(crate) async fn trees(
    session: &Shared,
    sandbox: &Arc<dyn Sandbox>,
    layers: &[Layer],
) -> Result<Vec<PathBuf>, Error> {
    let trees = layers.iter().enumerate();
    let trees = trees.map(|(index, layer)| tree(session, sandbox, &layers[..index], layer));
    try_join_all(trees).await
}

async fn tree(
    session: &Shared,
    sandbox: &Arc<dyn Sandbox>,
    below: &[Layer],
    layer: &Layer,
) -> Result<PathBuf, Error> {
    let path = tree_path(session, sandbox, layer);
    if session.store.use_tree(&path) {
        // What is read from a tree is compared with the tables of those below.
        if !session.store.has_toc(layer.diff_id) {
            toc(session, layer).await?;
        }
        session.unpackings.end(layer);
        return Ok(path);
    }
    let unpacking = session.unpackings.begin(layer);
    let whole = unpacking.whole.get_or_init(|| async {
        let whole = unpacking.complete(session, sandbox, below, layer).await;
        if whole.is_err() {
            session.imports.doubt(layer);
        }
        whole.map_err(Arc::new)
    });
    let whole = whole.await.clone().map_err(Error::Shared)?;
    session.unpackings.end(layer);
    Ok(whole)
}

/// Waits until the table of a layer is there whose tree is on its way. Where nobody
/// needs the tree, or it cannot be had, the table has to be had without it.
pub(super) async fn await_toc(session: &Shared, layer: &Layer) {
    if let Some(unpacking) = session.unpackings.of(layer) {
        // What fails is told to those that need the tree.
        let _ = unpacking.filled(session, layer).await;
    }
}

impl Unpacking {
    /// Fetches the layer and writes its files, unless another build does that.
    async fn filled(&self, session: &Shared, layer: &Layer) -> Result<&Filled, Error> {
        let filled = self.filled.get_or_init(|| async {
            let filled = begin(session, layer).await;
            filled.map_err(Arc::new)
        });
        filled
            .await
            .as_ref()
            .map_err(|error| Error::Shared(error.clone()))
    }

    async fn complete(
        &self,
        session: &Shared,
        sandbox: &Arc<dyn Sandbox>,
        below: &[Layer],
        layer: &Layer,
    ) -> Result<PathBuf, Error> {
        // Who holds a tree waits for no other tree, but for tables, and whoever reads a table
        // waits for nothing: builds that need the same layers in another order go on.
        let tables = try_join_all(below.iter().map(|layer| toc(session, layer)));
        let (filled, tables) = join(self.filled(session, layer), tables).await;
        let filled = filled?;
        tables?;
        let path = tree_path(session, sandbox, layer);
        let half = match filled {
            Filled::There => return Ok(path),
            Filled::Elsewhere => None,
            Filled::Here(half) => lock(half).take(),
        };
        let half = match half {
            Some(half) => half,
            None => match awaited(session, sandbox, layer).await? {
                Some(half) => half,
                None => return Ok(path),
            },
        };
        half.complete(session, below, layer, path).await
    }
}

async fn begin(session: &Shared, layer: &Layer) -> Result<Filled, Error> {
    let settled = session.coming.settled(layer);
    let (layer, sandbox) = try_join(settled, session.sandbox()).await?;
    let (layer, path) = (&layer, tree_path(session, &sandbox, &layer));
    let streams = arrivals::can_be_read(session, sandbox.as_ref(), layer);
    if !streams {
        fetch(session, layer).await?;
    }
    if session.store.use_tree(&path) {
        return Ok(Filled::There);
    }
    // Who fetches a layer holds no lock that is waited for here, so nobody waits in a circle.
    let name = lock_name(sandbox.as_ref(), layer);
    let Some(lock) = session.store.try_lock(&name, false)? else {
        fetch(session, layer).await?;
        return Ok(Filled::Elsewhere);
    };
    if session.store.use_tree(&path) {
        return Ok(Filled::There);
    }
    let arrived = match streams {
        true => arrivals::fill(session, &sandbox, layer).await?,
        false => None,
    };
    let half = match arrived {
        Some(folder) => Half { folder, lock },
        None => {
            fetch(session, layer).await?;
            fill(session, sandbox, layer, lock).await?
        }
    };
    Ok(Filled::Here(Mutex::new(Some(half))))
}

/// Waits for another build; where it did not make the tree, this one does.
async fn awaited(
    session: &Shared,
    sandbox: &Arc<dyn Sandbox>,
    layer: &Layer,
) -> Result<Option<Half>, Error> {
    let (store, name) = (session.store.clone(), lock_name(sandbox.as_ref(), layer));
    let lock = session.block(move || Ok(store.lock(&name)?)).await?;
    if session.store.use_tree(&tree_path(session, sandbox, layer)) {
        return Ok(None);
    }
    let layer = fetch(session, layer).await?;
    fill(session, sandbox.clone(), &layer, lock).await.map(Some)
}

async fn fill(
    session: &Shared,
    sandbox: Arc<dyn Sandbox>,
    layer: &Layer,
    lock: Lock,
) -> Result<Half, Error> {
    let _core = session.cores.one().await;
    let cancel = session.cancel.clone();
    let folder = fill_with(session, sandbox, layer, move |sandbox, request| {
        let _: unpack::Response = jobs::call(sandbox, jobs::UNPACK, request, &cancel)?;
        Ok(())
    });
    let folder = folder.await?;
    Ok(Half { folder, lock })
}

/// Has a layer unpacked into a new folder of work in progress, which goes where that fails.
pub(super) async fn fill_with(
    session: &Shared,
    sandbox: Arc<dyn Sandbox>,
    layer: &Layer,
    unpack: impl FnOnce(&dyn Sandbox, &unpack::Request) -> Result<(), Error> + Send + 'static,
) -> Result<Arc<StepFolder>, Error> {
    let (layer, store) = (layer.clone(), session.store.clone());
    session
        .block(move || {
            // Who needs the table alone waits, and does not read the layer too.
            let _reading = store.lock(&toc_lock(&layer))?;
            let _room = store.reserve(layer.blob.size.saturating_mul(USUAL_RATIO))?;
            let folder = StepFolder::new(&store, sandbox)?;
            let sandbox = folder.sandbox().as_ref();
            let request = unpack::Request {
                blob: store.blob_path(&layer.blob.digest),
                encoding: Encoding::of_media_type(&layer.blob.media_type),
                tree: folder.child("tree")?,
                identity: sandbox.identity().clone(),
                notes: sandbox.notes(),
                expected: Some(layer.diff_id),
                toc: store.toc_path(layer.diff_id),
            };
            unpack(sandbox, &request)?;
            Ok(folder)
        })
        .await
}

impl Half {
    async fn complete(
        self,
        session: &Shared,
        below: &[Layer],
        layer: &Layer,
        path: PathBuf,
    ) -> Result<PathBuf, Error> {
        let toc_path = |layer: &Layer| session.store.toc_path(layer.diff_id);
        let sandbox = self.folder.sandbox();
        let request = unpack::Completion {
            tree: self.folder.child("tree")?,
            dest: path.clone(),
            identity: sandbox.identity().clone(),
            notes: sandbox.notes(),
            toc: toc_path(layer),
            lowers: below.iter().map(toc_path).collect(),
        };
        let (store, cancel) = (session.store.clone(), session.cancel.clone());
        session
            .block(move || {
                let Self { folder, lock } = self;
                store.prepare_tree(&path)?;
                let sandbox = folder.sandbox().as_ref();
                let _: () = jobs::call(sandbox, jobs::COMPLETE, &request, &cancel)?;
                store.use_tree(&path);
                drop(lock);
                Ok(path)
            })
            .await
    }
}

fn tree_path(session: &Shared, sandbox: &Arc<dyn Sandbox>, layer: &Layer) -> PathBuf {
    let identity = identity_name(sandbox.as_ref());
    session.store.tree_path(&identity, layer.diff_id)
}

fn lock_name(sandbox: &dyn Sandbox, layer: &Layer) -> String {
    format!("tree-{}-{}", identity_name(sandbox), layer.diff_id.0.hex())
}
