//! Sources of ADD that come from a server, each in a step of its own before the ADD: a
//! file over HTTP.

use std::sync::Arc;

use super::Shared;
use super::files::Files;
use super::steps::Meter;
use crate::copy::Selected;
use crate::download::{self, Download, Downloader};
use crate::error::Error;
use crate::git::public_url;
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
