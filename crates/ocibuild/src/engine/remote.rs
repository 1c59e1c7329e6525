//! What comes from a server, each in a step of its own before the one that needs it: a
//! file over HTTP, a repository.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::Shared;
use super::auth;
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
use crate::secret::Secret;
use crate::snapshot::RootView;
use url::Url;

/// The mode of a downloaded file, as the reference builder has it.
const FILE_MODE: u32 = 0o600;

/// With what servers are asked, by ADD and for contexts.
#[derive(Clone)]
pub(crate) struct Remote {
    pub(super) store: ContentStore,
    /// Which servers may be asked, and how much may come.
    pub(super) policy: Policy,
    pub(super) cancel: Cancel,
    /// The secrets of the build; those with the names of servers are logins.
    pub(super) secrets: BTreeMap<String, Secret>,
}

impl Remote {
    /// Brings a file into the store. Blocks.
    pub(super) fn download(
        &self,
        meter: &Meter,
        url: &Url,
        checksum: Option<Digest>,
    ) -> Result<Download, Error> {
        let downloader = Downloader {
            store: &self.store,
            policy: &self.policy,
            cancel: &self.cancel,
            authorization: auth::of_file(&self.secrets, url)?,
            progress: &|current, total| meter.moved("download", current, total.unwrap_or_default()),
        };
        Ok(downloader.fetch(url, checksum)?)
    }

    /// Fetches a commit into a folder of the store, which goes when it is dropped. Blocks.
    pub(super) fn check_out(
        &self,
        meter: &Meter,
        mut source: GitSource,
    ) -> Result<(Checkout, TempDir), Error> {
        if source.token.is_none() {
            source.token = auth::of_repository(&self.secrets, &source.url)?;
        }
        let folder = self.store.scratch()?;
        let dest = folder.path().join("tree");
        let tell = |progress: git::Progress| {
            let total = progress.total.unwrap_or_default();
            meter.moved(&progress.task, progress.current, total);
        };
        let client = git::Client::new(self.policy.clone()).mirrors(self.store.clone());
        let checkout = client.checkout(&source, &dest, &self.cancel, &tell)?;
        Ok((checkout, folder))
    }
}

/// Copies a downloaded file to where it can be walked, as a directory would hold it.
pub(super) fn copy_out(blob: &Path, dest: &Path, modified: i64) -> io::Result<()> {
    let (mut from, mut to) = (File::open(blob)?, File::create_new(dest)?);
    io::copy(&mut from, &mut to)?;
    to.set_permissions(Permissions::from_mode(FILE_MODE))?;
    let since = Duration::from_secs(u64::try_from(modified).unwrap_or_default());
    to.set_modified(SystemTime::UNIX_EPOCH + since)
}

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
    let (meter, remote) = (session.steps.meter(step.id), session.remote.clone());
    let downloaded = session.block(move || remote.download(&meter, &url, checksum));
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
    let (meter, remote) = (session.steps.meter(running.id), session.remote.clone());
    let keeps_git_dir = source.keep_git_dir;
    let checked_out = session.block(move || {
        let (checkout, folder) = remote.check_out(&meter, source.clone())?;
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
