//! The files of a context, wherever they come from, where they can be walked: a
//! directory, a tar, a repository, a file or archive of a server, an artifact.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

#[cfg(feature = "git")]
use super::remote::Remote;
use super::steps::Steps;
use crate::Cancel;
use crate::build::{ContextSource, NamedContext};
use crate::content::ContentStore;
use crate::context::{self, Context};
use crate::error::Error;
#[cfg(feature = "git")]
use crate::git::GitSource;
use crate::graph::CopySource;
#[cfg(feature = "git")]
use crate::layer::{is_archive, newest_file};
use crate::registry::{Client, Digest};

/// The name of a file that is a context by itself, as the reference builder has it.
#[cfg(feature = "git")]
const ONLY_FILE: &str = "context";

/// The files of a context where they can be walked.
pub(super) struct Opened {
    pub(super) root: PathBuf,
    pub(super) guard: Option<Arc<TempDir>>,
    pub(super) commit: Option<String>,
    /// The time of the files as a whole, in seconds since 1970.
    pub(super) time: Option<i64>,
    /// The tree lasts, so that digests of its files are worth remembering.
    lasts: bool,
    /// The Dockerfile, where the context is that one file.
    pub(super) dockerfile: Option<&'static str>,
    /// The image that the files are in; there are none here then.
    pub(super) image: Option<NamedContext>,
}

impl Opened {
    fn directory(root: PathBuf) -> Self {
        Self {
            root,
            guard: None,
            commit: None,
            time: None,
            lasts: true,
            dockerfile: None,
            image: None,
        }
    }

    /// Files of this build alone, which go with it.
    pub(super) fn in_folder(folder: TempDir) -> Self {
        Self {
            guard: Some(Arc::new(folder)),
            lasts: false,
            ..Self::directory(PathBuf::new())
        }
        .rooted()
    }

    fn rooted(mut self) -> Self {
        if let Some(folder) = &self.guard {
            self.root = folder.path().to_owned();
        }
        self
    }

    /// Gives the file that remembers the digests of the files.
    pub(super) fn memory(&self, store: &ContentStore) -> Option<PathBuf> {
        self.lasts.then(|| memory_file(store, &self.root))
    }
}

fn memory_file(store: &ContentStore, root: &Path) -> PathBuf {
    let full = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let name = Digest::sha256(full.as_os_str().as_encoded_bytes()).hex();
    store.root().join("contexts").join(name)
}

/// The files of a named context.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    pub(crate) context: Arc<Context>,
    /// The time of the files as a whole, in seconds since 1970.
    pub(crate) time: Option<i64>,
}

/// Brings the files of contexts to where they can be walked; everything it does blocks.
#[derive(Clone)]
pub(crate) struct Loader {
    pub(super) store: ContentStore,
    pub(super) steps: Arc<Steps>,
    /// With what artifacts are loaded.
    pub(super) client: Client,
    pub(super) cancel: Cancel,
    #[cfg(feature = "git")]
    pub(super) remote: Remote,
    /// A repository keeps its `.git`.
    #[cfg(feature = "git")]
    pub(super) keep_git_dir: bool,
}

impl Loader {
    /// Opens the context of a build.
    pub(super) fn open(&self, source: ContextSource) -> Result<Opened, Error> {
        match source {
            ContextSource::Empty => Ok(Opened::in_folder(self.store.scratch()?)),
            ContextSource::Directory(root) => Ok(Opened::directory(root)),
            ContextSource::Image(reference) => self.of_image(NamedContext::Image(reference)),
            ContextSource::OciLayout { path, name } => {
                self.of_image(NamedContext::OciLayout { path, name })
            }
            ContextSource::Tar(reader) => {
                let step = self.steps.begin("[internal] load build context");
                step.end_plain(self.unpack(reader))
            }
            ContextSource::OciArtifact(reference) => self.artifact("[internal]", &reference),
            #[cfg(feature = "git")]
            ContextSource::Git(source) => self.check_out("[internal]", source),
            #[cfg(feature = "git")]
            ContextSource::Http(url) => self.download("[internal]", &url),
        }
    }

    /// Opens what a name stands for and scans it; nothing where that is an image.
    pub(super) fn tree(&self, name: &str, source: &NamedContext) -> Result<Option<Tree>, Error> {
        let prefix = format!("[context {name}]");
        let opened = match source {
            NamedContext::Directory(root) => Opened::directory(root.clone()),
            NamedContext::OciArtifact(reference) => self.artifact(&prefix, reference)?,
            #[cfg(feature = "git")]
            NamedContext::Git(source) => self.check_out(&prefix, source.clone())?,
            #[cfg(feature = "git")]
            NamedContext::Http(url) => self.download(&prefix, url)?,
            NamedContext::OciLayout { .. } | NamedContext::Image(_) => return Ok(None),
        };
        let ignore = context::read_ignore(&opened.root, None)?;
        let (memory, time) = (opened.memory(&self.store), opened.time);
        let scanned = Context::scan(&opened.root, ignore.as_ref(), memory, opened.guard)?;
        Ok(Some(Tree {
            context: Arc::new(scanned),
            time,
        }))
    }

    fn of_image(&self, image: NamedContext) -> Result<Opened, Error> {
        Ok(Opened {
            image: Some(image),
            ..Opened::in_folder(self.store.scratch()?)
        })
    }

    fn unpack(&self, tar: impl Read) -> Result<Opened, Error> {
        let opened = Opened::in_folder(self.store.scratch()?);
        let limits = context::tar::Limits::default();
        context::tar::extract(tar, &opened.root, &limits).map_err(context::Error::from)?;
        Ok(opened)
    }
}

/// A file of a server, in the store.
#[cfg(feature = "git")]
pub(super) struct RemoteText {
    /// Its URL without what may be secret.
    pub(super) name: String,
    pub(super) blob: PathBuf,
}

#[cfg(not(feature = "git"))]
impl Loader {
    /// Gives the time of what a server has.
    pub(super) fn time_of(&self, _: &CopySource, _: Option<String>) -> Result<Option<i64>, Error> {
        Ok(None)
    }
}

#[cfg(feature = "git")]
impl Loader {
    /// Gives the time of what a server has, in seconds since 1970, where it has one.
    pub(super) fn time_of(
        &self,
        source: &CopySource,
        checksum: Option<String>,
    ) -> Result<Option<i64>, Error> {
        if let CopySource::Git(url) = source {
            let source = GitSource::parse(url)?;
            let source = GitSource {
                checksum: checksum.or(source.checksum.clone()),
                ..source
            };
            return Ok(self.check_out("[internal]", source)?.time);
        }
        let url = crate::download::parse_url(source.text())?;
        let shown = crate::git::public_url(&url);
        let step = self.steps.begin(format!("[internal] load {shown}"));
        let checksum = checksum.and_then(|checksum| checksum.parse().ok());
        let file = self
            .remote
            .download(&self.steps.meter(step.id), &url, checksum);
        let file = step.end(file, |file| (file.cached, None))?;
        match file.time() {
            Some(time) => Ok(Some(time)),
            None => self.newest(&file.content.digest),
        }
    }

    /// Gives the time of the newest file of an archive; a file that is none has none.
    fn newest(&self, blob: &Digest) -> Result<Option<i64>, Error> {
        match is_archive(self.store.open_blob(blob)?) {
            true => Ok(newest_file(self.store.open_blob(blob)?)?),
            false => Ok(None),
        }
    }

    /// Fetches a Dockerfile.
    pub(super) fn file(&self, url: &str) -> Result<RemoteText, Error> {
        let url = crate::download::parse_url(url)?;
        let name = crate::git::public_url(&url);
        let step = self.steps.begin(format!("[internal] load {name}"));
        let file = self.remote.download(&self.steps.meter(step.id), &url, None);
        let file = step.end(file, |file| (file.cached, None))?;
        let blob = self.store.blob_path(&file.content.digest);
        Ok(RemoteText { name, blob })
    }

    fn check_out(&self, prefix: &str, source: GitSource) -> Result<Opened, Error> {
        let source = GitSource {
            keep_git_dir: source.keep_git_dir || self.keep_git_dir,
            ..source
        };
        let step = self
            .steps
            .begin(format!("{prefix} load git source {source}"));
        let checked_out = self.remote.check_out(&self.steps.meter(step.id), source);
        let (checkout, folder) = step.end_plain(checked_out)?;
        Ok(Opened {
            commit: Some(checkout.commit),
            time: Some(checkout.time),
            root: checkout.tree,
            ..Opened::in_folder(folder)
        })
    }

    /// The content decides what a file of a server is: the archive of a context, or the
    /// one file of it, which then is the Dockerfile.
    fn download(&self, prefix: &str, url: &str) -> Result<Opened, Error> {
        let url = crate::download::parse_url(url)?;
        let shown = crate::git::public_url(&url);
        let step = self.steps.begin(format!("{prefix} load {shown}"));
        let meter = self.steps.meter(step.id);
        let opened = self.remote.download(&meter, &url, None).and_then(|file| {
            let blob = self.store.blob_path(&file.content.digest);
            let mut opened = match is_archive(self.store.open_blob(&file.content.digest)?) {
                true => self.unpack(self.store.open_blob(&file.content.digest)?)?,
                false => self.only_file(&blob, file.modified)?,
            };
            opened.time = match file.time() {
                Some(time) => Some(time),
                None => self.newest(&file.content.digest)?,
            };
            Ok((file.cached, opened))
        });
        let ended = step.end(opened, |(cached, _)| (*cached, None));
        ended.map(|(_, opened)| opened)
    }

    fn only_file(&self, blob: &Path, modified: i64) -> Result<Opened, Error> {
        let opened = Opened::in_folder(self.store.scratch()?);
        let dest = opened.root.join(ONLY_FILE);
        super::remote::copy_out(blob, &dest, modified).map_err(|source| context::Error::Io {
            doing: "write",
            path: ONLY_FILE.into(),
            source,
        })?;
        Ok(Opened {
            dockerfile: Some(ONLY_FILE),
            ..opened
        })
    }
}
