//! A folder for work with the ids of RUN steps. What a command or a layer leaves in it can
//! belong to ids that only the sandbox may touch, so it is the sandbox that removes it then.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use crate::Cancel;
use crate::content::{At, ContentStore};
use crate::error::Error;
use crate::executor::{Identity, REMOVE_TREE, Sandbox};

/// A folder for files with the ids of a sandbox.
pub(crate) struct StepFolder {
    folder: Option<TempDir>,
    sandbox: Arc<dyn Sandbox>,
}

impl StepFolder {
    pub(crate) fn new(store: &ContentStore, sandbox: Arc<dyn Sandbox>) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self {
            folder: Some(store.scratch()?),
            sandbox,
        }))
    }

    pub(crate) fn sandbox(&self) -> &Arc<dyn Sandbox> {
        &self.sandbox
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.as_ref().map_or(Path::new(""), TempDir::path)
    }

    pub(crate) fn child(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.path().join(name);
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.at("create", &path)?,
        }
        Ok(path)
    }
}

impl Drop for StepFolder {
    fn drop(&mut self) {
        let Some(folder) = self.folder.take() else {
            return;
        };
        if *self.sandbox.identity() == Identity::Real {
            return;
        }
        let folder = folder.keep();
        let path = folder.as_os_str().as_encoded_bytes();
        // The build may have been cancelled; what it left must go all the same.
        let removed = self.sandbox.call(REMOVE_TREE, path, &Cancel::new());
        if let Err(error) = removed {
            tracing::warn!(folder = %folder.display(), %error, "the folder of a step stays");
        }
    }
}
