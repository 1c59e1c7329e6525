//! Directories that outlive builds: `RUN --mount=type=cache`.
//!
//! ```text
//! cachemounts/<identity>/<scope, namespace and id>/<slot>/
//! ```
//!
//! Whoever uses a slot holds a lock on it, over all processes that share the store: many
//! may hold it together where they share the cache, one alone where not. Who shares, or
//! wants one for itself, takes the first slot that it can have; who wants to be the only
//! user of the only one waits for the first.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::folder::StepFolder;
use super::layers::identity_name;
use super::mounts::Prepared;
use super::{Shared, jobs};
use crate::content::{At, Lock};
use crate::dockerfile::Mount;
use crate::dockerfile::mount::{CacheMount, Sharing};
use crate::error::Error;
use crate::executor::Sandbox;
use crate::graph::key::KeyBuilder;
use crate::snapshot::fill;

/// The build argument that gives caches another namespace (BuildKit's reference).
const NAMESPACE: &str = "BUILDKIT_CACHE_MOUNT_NS";
/// The mode of a cache for which none is given.
const MODE: u32 = 0o755;
/// How often somebody who waits for a lock looks again. A wait in the kernel could not
/// be ended when the build is cancelled.
const PAUSE: Duration = Duration::from_millis(50);

/// A cache in use.
#[derive(Debug)]
pub(crate) struct Cache {
    pub(crate) path: PathBuf,
    _lock: Lock,
}

/// Takes every cache of a command, by the id of the mount. One that is mounted at two
/// places is taken once.
pub(crate) async fn take(
    session: &Shared,
    folder: &Arc<StepFolder>,
    mounts: &[Prepared],
) -> Result<BTreeMap<String, Cache>, Error> {
    // In the order of their ids, so that two commands do not wait for each other.
    let mut wanted: BTreeMap<&str, (Sharing, &Prepared, &CacheMount)> = BTreeMap::new();
    for prepared in mounts {
        if let Mount::Cache(mount) = &prepared.mount {
            let one = wanted.entry(&mount.id);
            let (sharing, ..) = one.or_insert((mount.sharing, prepared, mount));
            *sharing = stricter(*sharing, mount.sharing);
        }
    }
    let mut taken = BTreeMap::new();
    for (id, (sharing, prepared, mount)) in wanted {
        let place = Place::of(session, folder.sandbox().as_ref(), id);
        let (slot, lock) = place.lock(session, sharing).await?;
        let path = place.slot(slot);
        if !path.exists() {
            make(
                session,
                folder,
                &path,
                &place.lock_name(slot),
                prepared,
                mount,
            )
            .await?;
        }
        session.store.use_folder(&place.folder);
        taken.insert(id.to_owned(), Cache { path, _lock: lock });
    }
    Ok(taken)
}

fn stricter(one: Sharing, other: Sharing) -> Sharing {
    match (one, other) {
        (Sharing::Locked, _) | (_, Sharing::Locked) => Sharing::Locked,
        (Sharing::Private, _) | (_, Sharing::Private) => Sharing::Private,
        (Sharing::Shared, Sharing::Shared) => Sharing::Shared,
    }
}

/// Where the slots of one cache are.
struct Place {
    folder: PathBuf,
    name: String,
}

impl Place {
    fn of(session: &Shared, sandbox: &dyn Sandbox, id: &str) -> Self {
        let args = &session.plan.request.args;
        let key = KeyBuilder::new("cache mount")
            .part("scope", &session.cache_scope)
            .part("namespace", args.get(NAMESPACE).map_or("", String::as_str))
            .part("id", id)
            .finish();
        let (identity, hex) = (identity_name(sandbox), key.0.hex());
        Self {
            folder: session.store.cache_mounts(&identity).join(&hex),
            name: format!("cache-{identity}-{hex}"),
        }
    }

    fn slot(&self, slot: usize) -> PathBuf {
        self.folder.join(slot.to_string())
    }

    fn lock_name(&self, slot: usize) -> String {
        format!("{}-{slot}", self.name)
    }

    async fn lock(&self, session: &Shared, sharing: Sharing) -> Result<(usize, Lock), Error> {
        let shared = sharing == Sharing::Shared;
        let mut slot = 0;
        loop {
            if let Some(lock) = session.store.try_lock(&self.lock_name(slot), shared)? {
                return Ok((slot, lock));
            }
            match sharing {
                Sharing::Locked => tokio::time::sleep(PAUSE).await,
                Sharing::Shared | Sharing::Private => slot += 1,
            }
        }
    }
}

/// Makes a cache and fills it with what `from` names.
async fn make(
    session: &Shared,
    folder: &Arc<StepFolder>,
    path: &Path,
    lock_name: &str,
    prepared: &Prepared,
    mount: &CacheMount,
) -> Result<(), Error> {
    let (mut owner, mut mode) = ((0, 0), MODE);
    let mut tar = None;
    if let Some(source) = &prepared.source {
        if !source.is_folder() {
            let text = mount.source.as_deref().unwrap_or("/");
            return Err(Error::invalid(format!(
                "a cache can only be filled from a directory, and {text:?} is none"
            )));
        }
        let seed = folder.path().join(format!("{lock_name}.tar"));
        source.write_tar(session, seed.clone()).await?;
        (owner, mode) = source.attributes();
        tar = Some(seed);
    }
    let ids = folder.sandbox().identity().ids();
    let known = |id: u32| if id < ids { id } else { 0 };
    let request = fill::Request {
        dest: path.to_owned(),
        tar,
        identity: folder.sandbox().identity().clone(),
        notes: folder.sandbox().notes(),
        owner: (
            mount.file.uid.unwrap_or(known(owner.0)),
            mount.file.gid.unwrap_or(known(owner.1)),
        ),
        mode: mount.file.mode.unwrap_or(mode),
    };
    let (store, folder, cancel) = (
        session.store.clone(),
        folder.clone(),
        session.cancel.clone(),
    );
    let lock_name = format!("{lock_name}-make");
    session
        .block(move || {
            // Those who share it hold its own lock together.
            let _lock = store.lock(&lock_name)?;
            if request.dest.exists() {
                return Ok(());
            }
            let above = request.dest.parent().unwrap_or(Path::new("/"));
            fs::create_dir_all(above).at("create", above)?;
            jobs::call(folder.sandbox().as_ref(), jobs::FILL, &request, &cancel)
        })
        .await
}
