//! Objects of a repository to files: the tree of one commit is written into an empty
//! directory as git's own checkout writes it (gitattributes(5): line ends, `ident`,
//! `working-tree-encoding`), and no filter of the machine is run.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use gix::progress::tree;
use gix::worktree::stack::state::attributes::Source;

use super::error::GitError;
use super::limits::Budget;
use super::watch::Watch;

/// What the files of a commit are written from.
pub(super) struct Files<'a> {
    pub(super) repository: &'a gix::Repository,
    pub(super) commit: gix::ObjectId,
    /// How errors name the repository.
    pub(super) url: &'a str,
}

impl Files<'_> {
    /// Writes the files into the empty directory `dest` and gives when the commit was made,
    /// in seconds since 1970. Where `dest` belongs to the repository, its index is written.
    pub(super) fn write(&self, dest: &Path, watch: &Watch<'_>) -> Result<i64, GitError> {
        let failed = |source| self.failed("the tree", Some(source));
        watch.during(|interrupt, progress| {
            let (tree, time) = self
                .head()
                .map_err(|source| self.failed("HEAD", Some(source)))?;
            measure(self.repository, tree, watch.budget).map_err(failed)?;
            self.write_tree(tree, dest, interrupt, progress)?;
            match interrupt.load(Ordering::Relaxed) {
                true => Err(GitError::Cancelled),
                false => Ok(time),
            }
        })
    }

    fn head(&self) -> gix::Result<(gix::ObjectId, i64)> {
        let commit = self.repository.find_object(self.commit)?.peel_to_commit()?;
        Ok((commit.tree_id()?.detach(), commit.time()?.seconds))
    }

    fn write_tree(
        &self,
        tree: gix::ObjectId,
        dest: &Path,
        interrupt: &AtomicBool,
        progress: &tree::Root,
    ) -> Result<(), GitError> {
        let failed = |source| self.failed("the tree", Some(source));
        let mut index = self.repository.index_from_tree(&tree).map_err(failed)?;
        let options = self.repository.checkout_options(Source::IdMapping);
        let mut options = options.map_err(failed)?;
        options.destination_is_initially_empty = true;
        let objects = self.repository.objects.clone().into_arc();
        let objects = objects.map_err(|error| failed(gix::Error::from_error(error)))?;
        let (files, bytes) = (
            progress.add_child("checkout"),
            progress.add_child("writing"),
        );
        files.init(Some(index.entries().len()), None);
        let outcome = gix::worktree::state::checkout(
            &mut index, dest, objects, &files, &bytes, interrupt, options,
        );
        let outcome = outcome.map_err(failed)?;
        if let Some(bad) = outcome.errors.into_iter().next() {
            return Err(self.failed(&bad.path.to_string(), Some(bad.error)));
        }
        if let Some(collision) = outcome.collisions.first() {
            return Err(self.failed(&collision.path.to_string(), None));
        }
        if self.repository.workdir() == Some(dest) {
            index
                .write(gix::index::write::Options::default())
                .map_err(failed)?;
        }
        Ok(())
    }

    fn failed(&self, what: &str, source: Option<gix::Error>) -> GitError {
        GitError::Checkout {
            url: self.url.to_owned(),
            what: what.to_owned(),
            source: source.map(Box::new),
        }
    }
}

/// Counts what a tree would put on disk, and finds every object that it needs. Trees may
/// name one another many times, so that a few objects stand for more files than any disk
/// holds.
fn measure(repository: &gix::Repository, tree: gix::ObjectId, budget: &Budget) -> gix::Result {
    let mut folders = vec![tree];
    while let Some(folder) = folders.pop() {
        let tree = repository.find_tree(folder)?;
        for entry in tree.iter() {
            let entry = entry?;
            let id = entry.object_id();
            let size = match entry.mode().is_blob_or_symlink() {
                true => repository.find_header(id)?.size(),
                false => 0,
            };
            budget.add_file(size).map_err(gix::Error::from_error)?;
            if entry.mode().is_tree() {
                folders.push(id);
            }
        }
    }
    Ok(())
}
