//! Contexts with a name that are files, not images. A directory is looked at when the
//! build begins; what comes from a server is fetched when somebody first asks for it,
//! and once a build.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::OnceCell;
use tokio_util::task::TaskTracker;

use super::contexts::{Loader, Tree};
use crate::build::NamedContext;
use crate::error::Error;

/// See the head of this file.
pub(crate) struct NamedTrees {
    loader: Loader,
    blocking: TaskTracker,
    trees: BTreeMap<String, Named>,
}

struct Named {
    source: NamedContext,
    tree: OnceCell<Result<Tree, Arc<Error>>>,
}

impl NamedTrees {
    /// Scans the directories among the contexts. Blocks.
    pub(super) fn open(
        loader: Loader,
        blocking: TaskTracker,
        named: &BTreeMap<String, NamedContext>,
    ) -> Result<Self, Error> {
        let mut trees = BTreeMap::new();
        for (name, source) in named.iter().filter(|(_, source)| source.is_files()) {
            let tree = OnceCell::new();
            if let NamedContext::Directory(_) = source
                && let Some(scanned) = loader.tree(name, source)?
            {
                // The cell is new, so nothing is in it.
                let _ = tree.set(Ok(scanned));
            }
            let source = source.clone();
            trees.insert(name.clone(), Named { source, tree });
        }
        Ok(Self {
            loader,
            blocking,
            trees,
        })
    }

    /// Tells whether a name stands for files.
    pub(super) fn has(&self, name: &str) -> bool {
        self.trees.contains_key(name)
    }

    /// Gives the files of a name; nothing where it stands for none.
    pub(super) async fn get(&self, name: &str) -> Result<Option<Tree>, Error> {
        let Some(named) = self.trees.get(name) else {
            return Ok(None);
        };
        let tree = named.tree.get_or_init(|| self.load(name, named));
        tree.await.clone().map(Some).map_err(Error::Shared)
    }

    async fn load(&self, name: &str, named: &Named) -> Result<Tree, Arc<Error>> {
        let (loader, name, source) = (self.loader.clone(), name.to_owned(), named.source.clone());
        let loaded = self
            .blocking
            .spawn_blocking(move || {
                let tree = loader.tree(&name, &source)?;
                tree.ok_or_else(|| Error::invalid(format!("the name {name:?} is no directory")))
            })
            .await;
        let loaded = loaded.unwrap_or_else(|lost| Err(Error::Lost(lost.to_string())));
        loaded.map_err(Arc::new)
    }
}
