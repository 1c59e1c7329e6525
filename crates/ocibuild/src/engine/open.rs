//! The begin of a build: the store, the context, the Dockerfile and the plan. Whatever
//! is wrong with them is found here, before anything runs.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::sync::OnceCell;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::task::TaskTracker;

use super::Shared;
use super::check;
use super::contexts::{Loader, Opened};
use super::cores::Cores;
use super::early::Early;
use super::flights::Flights;
use super::hostname;
use super::imports::Imports;
use super::late::Coming;
use super::ledger::Ledger;
use super::named::NamedTrees;
use super::preflight::Preflight;
#[cfg(feature = "git")]
use super::remote::Remote;
use super::room;
use super::session::{Common, Session};
use super::steps::Steps;
use super::trees::{self, Foreseen, Unpackings};
use crate::Cancel;
use crate::build::{Build, ContextSource, DockerfileSource, NamedContext};
use crate::cache::StepResult;
use crate::content::{ContentStore, OwnedRemover, StoreLimits};
use crate::context::ignore::IgnoreMatcher;
use crate::context::{self, Context};
use crate::dockerfile::lint::Settings;
use crate::dockerfile::{self, Dockerfile};
use crate::error::{Error, Location};
use crate::event::Event;
#[cfg(feature = "git")]
use crate::git::{Policy, Ssh};
use crate::graph::epoch::Epoch;
use crate::graph::{self, Plan};
use crate::output::{self, Form, Wanted};
use crate::registry::{Client, Platform};
#[cfg(feature = "git")]
use crate::secret::Secret;

/// The Dockerfile of a context where none is named.
const DEFAULT_NAME: &str = "Dockerfile";

/// Longer files are no Dockerfiles.
const MAX_DOCKERFILE: u64 = 4 << 20;

/// A Dockerfile before it is parsed.
struct Text {
    name: String,
    text: Vec<u8>,
    /// Its path, beside which its own ignore file may be.
    path: Option<PathBuf>,
}

/// What is found before anything runs, whatever the platform.
struct Prepared {
    store: ContentStore,
    loader: Loader,
    text: Text,
    context: Arc<Context>,
    context_image: Option<NamedContext>,
    ignored: Option<Arc<IgnoreMatcher>>,
    trees: NamedTrees,
    commit: Option<String>,
    /// The time of the context as a whole.
    time: Option<i64>,
}

/// What a build tells those that work beside it.
pub(crate) struct Queues {
    /// Each step whose layer others can have at once.
    pub(crate) made: Option<UnboundedSender<StepResult>>,
    /// What commands will run over.
    pub(crate) foreseen: UnboundedSender<Foreseen>,
}

/// Opens everything, and gives one session for each platform; at least one.
/// What goes on beside the steps is told through `queues`.
pub(crate) async fn sessions(
    mut build: Build,
    blocking: TaskTracker,
    queues: Queues,
) -> Result<Vec<Shared>, Error> {
    let several = several(&build)?;
    if let Some(pattern) = build.layer_policy.wrong_pattern() {
        let problem = format!("the pattern {pattern:?} of the layer policy is none");
        return Err(Error::invalid(problem));
    }
    hostname::check(&build.args)?;
    output::refuse_for_several(several, &build.outputs)?;
    for form in forms(&build.form, &build.outputs) {
        form.check(several)?;
    }
    let steps = Arc::new(Steps::new(build.events.clone()));
    let client = match build.client.take() {
        Some(client) => client,
        None => Client::builder().build().map_err(Error::Client)?,
    };
    let sources = Sources::take(&mut build, steps.clone(), blocking.clone(), client.clone())?;
    let prepared = blocking.spawn_blocking(move || prepare(sources)).await;
    let prepared = prepared.map_err(|lost| Error::Lost(lost.to_string()))??;
    let platform_given = !build.platforms.is_empty();
    let platforms = match platform_given {
        true => std::mem::take(&mut build.platforms),
        false => vec![Platform::host()],
    };
    let mut planned = Vec::new();
    for platform in &platforms {
        planned.push(plan(&build, &prepared, platform, &blocking).await?);
    }
    let began = crate::time::millis(build.now);
    let with_devices = planned.iter().any(|planned| planned.plan.makes_devices());
    let common = Arc::new(Common {
        #[cfg(feature = "git")]
        remote: prepared.loader.remote,
        store: prepared.store,
        client,
        context: prepared.context,
        context_image: prepared.context_image,
        ignored: prepared.ignored,
        named: build.contexts,
        trees: prepared.trees,
        secrets: build.secrets,
        agents: build.agents,
        cache_scope: build.cache_scope,
        platform_given,
        several,
        flights: Flights::default(),
        names: build.names,
        labels: build.labels,
        packed: packed(&build.form, &build.outputs),
        form: build.form,
        outputs: build.outputs,
        use_cache: build.use_cache,
        cache_to: build.cache_to,
        limits: build.limits,
        layer_policy: build.layer_policy,
        ledger: Ledger::new(began, build.explain, queues.made),
        now: build.now,
        threads: build.threads,
        commit: prepared.commit,
        cancel: build.cancel,
        bases: Mutex::default(),
        helper: build.helper,
        choice: build.sandbox.with_devices(with_devices),
        sandbox: OnceCell::new(),
        cores: Cores::new(build.threads),
        coming: Coming::default(),
        early: Early::default(),
        preflight: Preflight::new(),
        foreseen: queues.foreseen,
        steps,
        blocking,
    });
    let sessions = planned.into_iter().zip(platforms);
    Ok(sessions
        .map(|(planned, platform)| {
            let imports = Imports::new(build.cache_from.clone());
            session_of(&common, planned, platform, imports)
        })
        .collect())
}

/// Opens a build of which nothing is asked but what holds for any of its platforms.
pub(crate) async fn session(build: Build, blocking: TaskTracker) -> Result<Shared, Error> {
    let queues = Queues {
        made: None,
        foreseen: trees::foresight().0,
    };
    let first = sessions(build, blocking, queues).await?.into_iter().next();
    first.ok_or_else(|| Error::invalid("there is no platform to build for"))
}

/// What is decided for one platform.
struct Planned {
    plan: Plan,
    checks: Settings,
    epoch: Option<i64>,
}

fn session_of(
    common: &Arc<Common>,
    planned: Planned,
    platform: Platform,
    imports: Imports,
) -> Shared {
    let Planned {
        plan,
        checks,
        epoch,
    } = planned;
    Arc::new(Session {
        common: common.clone(),
        stages: Mutex::default(),
        imports,
        unpackings: Unpackings::default(),
        run_above: plan.run_above(),
        plan,
        platform,
        checks,
        epoch,
    })
}

/// Gives the forms in which the image is wanted: that of the build, then those of outputs.
fn forms<'a>(form: &'a Form, outputs: &'a [Wanted]) -> impl Iterator<Item = &'a Form> {
    let own = outputs.iter().filter_map(|wanted| wanted.form.as_ref());
    std::iter::once(form).chain(own)
}

/// Gives how layers are packed: as the first output wants them that wants anything.
fn packed(form: &Form, outputs: &[Wanted]) -> Option<output::form::Recipe> {
    forms(form, outputs).find_map(Form::wanted)
}

/// Tells whether the result is an index: for several platforms, or because it was asked for.
fn several(build: &Build) -> Result<bool, Error> {
    let is_asked = switch(&build.args, "BUILDKIT_MULTI_PLATFORM")?;
    match (is_asked, build.platforms.len() > 1) {
        (Some(false), true) => Err(Error::invalid(
            "BUILDKIT_MULTI_PLATFORM=0 does not go with several platforms",
        )),
        (is_asked, is_needed) => Ok(is_asked.unwrap_or(is_needed)),
    }
}

/// Reads a build argument that is true or false, as Go's `strconv.ParseBool` does.
fn switch(args: &BTreeMap<String, String>, name: &str) -> Result<Option<bool>, Error> {
    match args.get(name).map(String::as_str) {
        None | Some("") => Ok(None),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
        Some(other) => Err(Error::invalid(format!(
            "--build-arg {name}={other}: want true or false"
        ))),
    }
}

/// What of a build decides over its context and its Dockerfile.
struct Sources {
    context: ContextSource,
    root: PathBuf,
    limits: StoreLimits,
    remover: OwnedRemover,
    dockerfile: DockerfileSource,
    named: BTreeMap<String, NamedContext>,
    steps: Arc<Steps>,
    blocking: TaskTracker,
    #[cfg(feature = "git")]
    keep_git_dir: bool,
    #[cfg(feature = "git")]
    policy: Policy,
    #[cfg(feature = "git")]
    ssh: Option<Ssh>,
    cancel: Cancel,
    client: Client,
    #[cfg(feature = "git")]
    secrets: BTreeMap<String, Secret>,
}

impl Sources {
    fn take(
        build: &mut Build,
        steps: Arc<Steps>,
        blocking: TaskTracker,
        client: Client,
    ) -> Result<Self, Error> {
        Ok(Self {
            context: std::mem::replace(&mut build.context, ContextSource::Empty),
            root: build.root.clone(),
            limits: build.limits,
            remover: room::remover(build.helper.clone(), &build.root),
            dockerfile: build.dockerfile.clone(),
            named: build.contexts.clone(),
            steps,
            blocking,
            #[cfg(feature = "git")]
            keep_git_dir: switch(&build.args, "BUILDKIT_CONTEXT_KEEP_GIT_DIR")?.unwrap_or(false),
            #[cfg(feature = "git")]
            policy: build.git_policy.clone(),
            #[cfg(feature = "git")]
            ssh: build.git_ssh.clone(),
            cancel: build.cancel.clone(),
            client,
            #[cfg(feature = "git")]
            secrets: build.secrets.clone(),
        })
    }

    fn loader(&self, store: ContentStore) -> Loader {
        Loader {
            #[cfg(feature = "git")]
            remote: Remote {
                store: store.clone(),
                policy: self.policy.clone(),
                ssh: self.ssh.clone(),
                cancel: self.cancel.clone(),
                secrets: self.secrets.clone(),
            },
            #[cfg(feature = "git")]
            keep_git_dir: self.keep_git_dir,
            store,
            steps: self.steps.clone(),
            client: self.client.clone(),
            cancel: self.cancel.clone(),
        }
    }
}

fn prepare(sources: Sources) -> Result<Prepared, Error> {
    let (limits, remover) = (sources.limits, sources.remover.clone());
    let store = ContentStore::open_limited(&sources.root, limits, remover)?;
    store.keep_limits()?;
    let loader = sources.loader(store.clone());
    let opened = loader.open(sources.context)?;
    if let Some(id) = &opened.commit {
        sources.steps.events.emit(Event::Commit { id: id.clone() });
    }
    let text = read_dockerfile(&loader, sources.dockerfile, &opened)?;
    sources.steps.events.emit(Event::Dockerfile {
        name: text.name.clone(),
        text: String::from_utf8_lossy(&text.text).into_owned(),
    });
    let ignored = context::read_ignore(&opened.root, text.path.as_deref())?;
    let memory = opened.memory(&store);
    let scanned = Context::scan(&opened.root, ignored.as_ref(), memory, opened.guard)?;
    Ok(Prepared {
        trees: NamedTrees::open(loader.clone(), sources.blocking, &sources.named)?,
        store,
        loader,
        text,
        context: Arc::new(scanned),
        context_image: opened.image,
        ignored: ignored.map(Arc::new),
        commit: opened.commit,
        time: opened.time,
    })
}

/// Decides for one platform what can be decided before anything runs.
async fn plan(
    build: &Build,
    prepared: &Prepared,
    platform: &Platform,
    blocking: &TaskTracker,
) -> Result<Planned, Error> {
    let request = graph::Request {
        file: prepared.text.name.clone(),
        args: build.args.clone(),
        target: build.target.clone(),
        platform: platform.clone(),
        contexts: build.contexts.keys().cloned().collect(),
        entitlements: build.entitlements.clone(),
    };
    let mut plan = make_plan(&prepared.text, request)?;
    let epoch = match build.epoch {
        Some(seconds) => Some(seconds),
        None => epoch_of(&plan, prepared, blocking).await?,
    };
    plan.set_epoch(epoch);
    let checks = check::settings(&plan)?;
    Ok(Planned {
        plan,
        checks,
        epoch,
    })
}

async fn epoch_of(
    plan: &Plan,
    prepared: &Prepared,
    blocking: &TaskTracker,
) -> Result<Option<i64>, Error> {
    Ok(match plan.epoch()? {
        None => None,
        Some(Epoch::Seconds(seconds)) => Some(seconds),
        Some(Epoch::Context) => prepared.time,
        Some(Epoch::Named(name)) => {
            let tree = prepared.trees.get(&name).await?;
            tree.and_then(|tree| tree.time)
        }
        Some(Epoch::Remote { url, checksum }) => {
            let loader = prepared.loader.clone();
            let time = blocking.spawn_blocking(move || loader.time_of(&url, checksum));
            time.await.map_err(|lost| Error::Lost(lost.to_string()))??
        }
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

#[cfg_attr(
    not(feature = "git"),
    expect(unused_variables, reason = "no Dockerfile comes from a server")
)]
fn read_dockerfile(
    #[cfg_attr(
        not(feature = "git"),
        expect(unused_variables, reason = "nothing is fetched")
    )]
    loader: &Loader,
    source: DockerfileSource,
    opened: &Opened,
) -> Result<Text, Error> {
    match source {
        DockerfileSource::Text { name, text } => Ok(Text {
            name,
            text: text.into_bytes(),
            path: None,
        }),
        DockerfileSource::File(path) => {
            read_file(&path.display().to_string(), &path, fs::File::open(&path))
        }
        #[cfg(feature = "git")]
        DockerfileSource::Http(url) => {
            let file = loader.file(&url)?;
            let text = read_file(&file.name, &file.blob, fs::File::open(&file.blob))?;
            Ok(Text { path: None, ..text })
        }
        DockerfileSource::InContext(name) => in_context(&name, opened),
    }
}

fn in_context(name: &str, opened: &Opened) -> Result<Text, Error> {
    if opened.image.is_some() {
        return Err(Error::Invalid {
            message: "the context is an image, out of which no Dockerfile is read".to_owned(),
            hint: Some("give a Dockerfile from elsewhere, with -f FILE".to_owned()),
        });
    }
    let root = &opened.root;
    let read = |name: &str| read_file(name, &root.join(name), context::open_in(root, name));
    if name != DEFAULT_NAME {
        return read(name);
    }
    if let Some(name) = opened.dockerfile {
        return read(name);
    }
    match read(name) {
        // Docker has always taken the lower case for the name that nobody gave.
        Err(missing @ Error::NoDockerfile(_)) => {
            read(&DEFAULT_NAME.to_lowercase()).map_err(|error| match error {
                Error::NoDockerfile(_) => missing,
                error => error,
            })
        }
        found => found,
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
