//! The begin of a build: the store, the context, the Dockerfile and the plan. Whatever
//! is wrong with them is found here, before anything runs.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::task::TaskTracker;

use super::Shared;
use super::check;
#[cfg(feature = "git")]
use super::meter::Meter;
#[cfg(feature = "git")]
use super::remote;
use super::session::Session;
use super::steps::Steps;
use crate::Cancel;
use crate::build::{Build, ContextSource, DockerfileSource, NamedContext};
use crate::content::ContentStore;
use crate::context::ignore::IgnoreMatcher;
use crate::context::{self, Context};
use crate::dockerfile::lint::Settings;
use crate::dockerfile::{self, Dockerfile};
use crate::error::{Error, Location};
use crate::event::Event;
#[cfg(feature = "git")]
use crate::git::{self, GitSource};
use crate::graph::epoch::Epoch;
use crate::graph::{self, Plan};
use crate::registry::{Client, Digest, Platform};

/// The Dockerfile of a context where none is named.
const DEFAULT_NAME: &str = "Dockerfile";

/// Longer files are no Dockerfiles.
const MAX_DOCKERFILE: u64 = 4 << 20;

/// The files of a build where they can be walked.
struct Opened {
    root: PathBuf,
    guard: Option<Arc<TempDir>>,
    commit: Option<String>,
    /// The time of the files as a whole, in seconds since 1970.
    time: Option<i64>,
    /// The tree lasts, so that digests of its files are worth remembering.
    lasts: bool,
}

impl Opened {
    /// Files of this build alone, which go with it.
    fn in_folder(folder: TempDir) -> Self {
        Self {
            root: folder.path().to_owned(),
            guard: Some(Arc::new(folder)),
            commit: None,
            time: None,
            lasts: false,
        }
    }
}

/// A Dockerfile before it is parsed.
struct Text {
    name: String,
    text: Vec<u8>,
    /// Its path, beside which its own ignore file may be.
    path: Option<PathBuf>,
}

/// What is found before anything runs.
struct Prepared {
    store: ContentStore,
    plan: Plan,
    epoch: Option<i64>,
    checks: Settings,
    context: Arc<Context>,
    ignored: Option<Arc<IgnoreMatcher>>,
    named_directories: BTreeMap<String, Arc<Context>>,
    commit: Option<String>,
}

/// Opens everything.
pub(crate) async fn session(build: Build, blocking: TaskTracker) -> Result<Shared, Error> {
    let steps = Arc::new(Steps::new(build.events));
    let sources = Sources {
        context: build.context,
        #[cfg(feature = "git")]
        git_policy: build.git_policy.clone(),
        root: build.root,
        dockerfile: build.dockerfile,
        named: build.contexts.clone(),
        args: build.args,
        target: build.target,
        platform: build.platform.clone(),
        epoch: build.epoch,
        cancel: build.cancel.clone(),
        steps: steps.clone(),
    };
    let prepared = blocking.spawn_blocking(move || prepare(sources)).await;
    let Prepared {
        store,
        plan,
        epoch,
        checks,
        context,
        ignored,
        named_directories,
        commit,
    } = prepared.map_err(|lost| Error::Lost(lost.to_string()))??;
    let client = match build.client {
        Some(client) => client,
        None => Client::builder().build().map_err(Error::Client)?,
    };
    Ok(Arc::new(Session {
        stages: plan.stages.iter().map(|_| OnceCell::new()).collect(),
        plan,
        store,
        client,
        context,
        ignored,
        checks,
        named: build.contexts,
        named_directories,
        secrets: build.secrets,
        agents: build.agents,
        cache_scope: build.cache_scope,
        #[cfg(feature = "git")]
        git_policy: build.git_policy,
        platform: build.platform,
        platform_given: build.platform_given,
        names: build.names,
        labels: build.labels,
        outputs: build.outputs,
        use_cache: build.use_cache,
        epoch,
        now: build.now,
        threads: build.threads,
        commit,
        cancel: build.cancel,
        bases: Mutex::default(),
        helper: build.helper,
        sandbox: OnceCell::new(),
        packing: Semaphore::new(1),
        steps,
        blocking,
    }))
}

/// What of a build decides over its plan.
struct Sources {
    context: ContextSource,
    #[cfg(feature = "git")]
    git_policy: git::Policy,
    root: PathBuf,
    dockerfile: DockerfileSource,
    named: BTreeMap<String, NamedContext>,
    args: BTreeMap<String, String>,
    target: Option<String>,
    platform: Platform,
    epoch: Option<i64>,
    cancel: Cancel,
    steps: Arc<Steps>,
}

fn prepare(sources: Sources) -> Result<Prepared, Error> {
    let store = ContentStore::open(&sources.root)?;
    let loader = Loader {
        store: &store,
        steps: &sources.steps,
        cancel: &sources.cancel,
        #[cfg(feature = "git")]
        policy: &sources.git_policy,
    };
    let opened = loader.open(sources.context)?;
    if let Some(id) = &opened.commit {
        sources.steps.events.emit(Event::Commit { id: id.clone() });
    }
    let text = read_dockerfile(&sources.dockerfile, &opened.root)?;
    sources.steps.events.emit(Event::Dockerfile {
        name: text.name.clone(),
        text: String::from_utf8_lossy(&text.text).into_owned(),
    });
    let request = graph::Request {
        file: text.name.clone(),
        args: sources.args,
        target: sources.target,
        platform: sources.platform,
        contexts: sources.named.keys().cloned().collect(),
    };
    let mut plan = make_plan(&text, request)?;
    let epoch = sources.epoch.or(epoch_of(&plan, opened.time)?);
    plan.set_epoch(epoch);
    let checks = check::settings(&plan)?;
    let commit = opened.commit.clone();
    let ignored = context::read_ignore(&opened.root, text.path.as_deref())?;
    let (context, named_directories) = scan_all(&store, opened, ignored.as_ref(), &sources.named)?;
    Ok(Prepared {
        store,
        plan,
        epoch,
        checks,
        context,
        ignored: ignored.map(Arc::new),
        named_directories,
        commit,
    })
}

fn epoch_of(plan: &Plan, of_context: Option<i64>) -> Result<Option<i64>, Error> {
    Ok(match plan.epoch()? {
        None => None,
        Some(Epoch::Seconds(seconds)) => Some(seconds),
        Some(Epoch::Context) => of_context,
    })
}

fn make_plan(text: &Text, request: graph::Request) -> Result<Plan, Error> {
    graph::plan(parse(text)?, request).map_err(|(location, error)| {
        let error = Error::from(error);
        match location {
            Some(location) => error.at(&location),
            None => error,
        }
    })
}

/// Brings the files of a context to where they can be walked.
#[cfg_attr(
    not(feature = "git"),
    expect(dead_code, reason = "unpacking cannot be cancelled")
)]
struct Loader<'a> {
    store: &'a ContentStore,
    steps: &'a Steps,
    cancel: &'a Cancel,
    #[cfg(feature = "git")]
    policy: &'a git::Policy,
}

impl Loader<'_> {
    fn open(&self, source: ContextSource) -> Result<Opened, Error> {
        match source {
            ContextSource::Empty => Ok(Opened::in_folder(self.store.scratch()?)),
            ContextSource::Directory(root) => Ok(Opened {
                root,
                guard: None,
                commit: None,
                time: None,
                lasts: true,
            }),
            ContextSource::Tar(reader) => {
                let step = self.steps.begin("[internal] load build context");
                step.end_plain(self.unpack(reader))
            }
            #[cfg(feature = "git")]
            ContextSource::Git(source) => {
                let step = format!("[internal] load git source {source}");
                let step = self.steps.begin(step);
                let meter = Meter::new(self.steps.events.clone(), step.id);
                step.end_plain(self.check_out(&source, &meter))
            }
        }
    }

    fn unpack(&self, tar: Box<dyn Read + Send>) -> Result<Opened, Error> {
        let opened = Opened::in_folder(self.store.scratch()?);
        let limits = context::tar::Limits::default();
        context::tar::extract(tar, &opened.root, &limits).map_err(context::Error::from)?;
        Ok(opened)
    }

    #[cfg(feature = "git")]
    fn check_out(&self, source: &GitSource, meter: &Meter) -> Result<Opened, Error> {
        let (checkout, folder) =
            remote::check_out(source, self.policy, self.store, self.cancel, meter)?;
        Ok(Opened {
            root: checkout.tree,
            commit: Some(checkout.commit),
            time: Some(checkout.time),
            ..Opened::in_folder(folder)
        })
    }
}

fn read_dockerfile(source: &DockerfileSource, root: &Path) -> Result<Text, Error> {
    match source {
        DockerfileSource::Text { name, text } => Ok(Text {
            name: name.clone(),
            text: text.clone().into_bytes(),
            path: None,
        }),
        DockerfileSource::File(path) => {
            read_file(&path.display().to_string(), path, fs::File::open(path))
        }
        DockerfileSource::InContext(name) => {
            let read = |name: &str| read_file(name, &root.join(name), context::open_in(root, name));
            match read(name) {
                // Docker has always taken the lower case for the name that nobody gave.
                Err(missing @ Error::NoDockerfile(_)) if name == DEFAULT_NAME => {
                    read(&DEFAULT_NAME.to_lowercase()).map_err(|error| match error {
                        Error::NoDockerfile(_) => missing,
                        error => error,
                    })
                }
                found => found,
            }
        }
    }
}

fn read_file(name: &str, path: &Path, opened: std::io::Result<fs::File>) -> Result<Text, Error> {
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => Error::NoDockerfile(name.to_owned()),
        _ => Error::ReadDockerfile {
            path: name.to_owned(),
            source,
        },
    };
    let mut text = Vec::new();
    let mut file = opened.map_err(failed)?.take(MAX_DOCKERFILE + 1);
    file.read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_DOCKERFILE {
        return Err(Error::invalid(format!(
            "the Dockerfile {name:?} is longer than {MAX_DOCKERFILE} bytes"
        )));
    }
    Ok(Text {
        name: name.to_owned(),
        text,
        path: Some(path.to_owned()),
    })
}

fn parse(text: &Text) -> Result<Dockerfile, Error> {
    dockerfile::parse_bytes(&text.text).map_err(|error| {
        let lines = error.lines();
        let number = |line: usize| u32::try_from(line).unwrap_or(u32::MAX);
        Error::Parse {
            location: Location {
                file: text.name.clone(),
                lines: number(*lines.start())..=number(*lines.end()),
                text: String::from_utf8_lossy(&text.text).into(),
            },
            message: error.to_string(),
            hint: error.hint().map(str::to_owned),
        }
    })
}

type Contexts = (Arc<Context>, BTreeMap<String, Arc<Context>>);

fn scan_all(
    store: &ContentStore,
    opened: Opened,
    ignore: Option<&IgnoreMatcher>,
    named: &BTreeMap<String, NamedContext>,
) -> Result<Contexts, Error> {
    let Opened {
        root, guard, lasts, ..
    } = opened;
    let memory = lasts.then(|| memory_file(store, &root));
    let main = Context::scan(&root, ignore, memory, guard)?;
    let mut directories = BTreeMap::new();
    for (name, context) in named {
        let NamedContext::Directory(root) = context else {
            continue;
        };
        let ignore = context::read_ignore(root, None)?;
        let memory = Some(memory_file(store, root));
        let scanned = Context::scan(root, ignore.as_ref(), memory, None)?;
        directories.insert(name.clone(), Arc::new(scanned));
    }
    Ok((Arc::new(main), directories))
}

/// Gives the file that remembers the digests of a directory's files.
fn memory_file(store: &ContentStore, root: &Path) -> PathBuf {
    let full = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let name = Digest::sha256(full.as_os_str().as_encoded_bytes()).hex();
    store.root().join("contexts").join(name)
}
