//! What comes from a server, each in a step of its own before the one that needs it: a
//! file over HTTP, a repository.

use std::sync::Arc;

use tempfile::TempDir;

use super::Shared;
use super::files::Files;
use super::meter::Meter;
use crate::Cancel;
use crate::content::ContentStore;
use crate::context::Context;
use crate::copy::Selected;
use crate::download::{self, Download, Downloader};
use crate::error::Error;
use crate::git::{self, Checkout, GitSource, Policy, public_url};
use crate::graph::CopyStep;
use crate::layer::{Entry, Kind, Toc, TreePath};
use crate::registry::Digest;
use crate::snapshot::RootView;

/// The mode of a downloaded file, as the reference builder has it.
const FILE_MODE: u32 = 0o600;

/// Downloads a file; `checksum` is one that it must have.
pub(super) async fn file(
    session: &Shared,
    url: &str,
    checksum: Option<&str>,
) -> Result<(Files, Selected), Error> {
    let url = download::parse_url(url)?;
    let name = download::file_name(&url);
    let checksum: Option<Digest> = checksum.and_then(|checksum| checksum.parse().ok());
    let step = session.step(format!("[internal] download {}", public_url(&url)));
    let meter = Meter::new(session.steps.events.clone(), step.id);
    let shared = session.clone();
    let downloaded = session.block(move || {
        let downloader = Downloader {
            store: &shared.store,
            policy: &shared.git_policy,
            cancel: &shared.cancel,
            progress: &|current, total| meter.moved("download", current, total.unwrap_or_default()),
        };
        Ok(downloader.fetch(&url, checksum)?)
    });
    let downloaded = step.end(downloaded.await, |file| (file.cached, None))?;
    let blob = session.store.blob_path(&downloaded.content.digest);
    let (view, root) = view_of(&name, &downloaded)?;
    let files = Files::Blob {
        view: Arc::new(view),
        path: blob,
    };
    Ok((files, Selected::whole(&name, root)))
}

/// Fetches the commit of a repository that ADD names. With `.git` the id of the commit
/// is given too, which then stands for the content: what else is in `.git` differs
/// between any two checkouts.
pub(super) async fn repository(
    session: &Shared,
    url: &str,
    step: &CopyStep,
) -> Result<(Files, Selected, Option<String>), Error> {
    let source = source(url, step)?;
    let selected = Selected::whole(b"", TreePath::root()).without(&step.choice.exclude)?;
    let running = session.step(format!("[internal] load git source {source}"));
    let meter = Meter::new(session.steps.events.clone(), running.id);
    let (shared, keeps_git_dir) = (session.clone(), source.keep_git_dir);
    let checked_out = session.block(move || {
        let (policy, store) = (&shared.git_policy, &shared.store);
        let (checkout, folder) = check_out(&source, policy, store, &shared.cancel, &meter)?;
        let context = Context::scan(&checkout.tree, None, None, Some(Arc::new(folder)))?;
        let from = format!("{} {:?}", checkout.commit, source.subdir);
        Ok((context, format!("{from} {}", source.submodules)))
    });
    let (context, commit) = running.end_plain(checked_out.await)?;
    let files = Files::Context(Arc::new(context));
    Ok((files, selected, keeps_git_dir.then_some(commit)))
}

/// The URL and the flags of ADD may say the same, but not the contrary.
fn source(url: &str, step: &CopyStep) -> Result<GitSource, Error> {
    let mut source = GitSource::parse(url)?;
    match step.keep_git_dir {
        Some(false) if source.keep_git_dir => {
            return Err(Error::invalid(
                "the URL says keep-git-dir and the flag --keep-git-dir=false",
            ));
        }
        keeps => source.keep_git_dir |= keeps.unwrap_or_default(),
    }
    match (&source.checksum, &step.checksum) {
        (Some(known), Some(given)) if !known.eq_ignore_ascii_case(given) => {
            return Err(Error::invalid(format!(
                "the URL names the commit {known} and --checksum {given}"
            )));
        }
        (_, given) => source.checksum = given.clone().or(source.checksum),
    }
    Ok(source)
}

/// Fetches a commit into a folder of the store, which goes when it is dropped. Blocks.
pub(super) fn check_out(
    source: &GitSource,
    policy: &Policy,
    store: &ContentStore,
    cancel: &Cancel,
    meter: &Meter,
) -> Result<(Checkout, TempDir), Error> {
    let folder = store.scratch()?;
    let dest = folder.path().join("tree");
    let tell = |progress: git::Progress| {
        let total = progress.total.unwrap_or_default();
        meter.moved(&progress.task, progress.current, total);
    };
    let checkout = git::checkout(source, policy, &dest, cancel, &tell)?;
    Ok((checkout, folder))
}

/// A directory that holds the file and nothing else.
fn view_of(name: &[u8], file: &Download) -> Result<(RootView, TreePath), Error> {
    let root = Entry::dir(TreePath::root());
    let path = root.path.join(name).map_err(crate::layer::Error::from)?;
    let entry = Entry {
        kind: Kind::File(file.content),
        mode: FILE_MODE,
        mtime: file.modified,
        ..Entry::dir(path.clone())
    };
    let toc = Toc::from_entries(vec![root, entry]);
    Ok((RootView::new(&[Arc::new(toc)]), path))
}
