//! `Build`, and the one function that walks the whole path: context, Dockerfile,
//! stages, image, outputs. Everything that a build depends on is a field of
//! [`Build`]; nothing is read from the environment and nothing is printed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::Cancel;
use crate::cache::shared::{CacheSource, CacheTarget};
use crate::causes::one_line;
use crate::content::StoreLimits;
use crate::copy::LayerPolicy;
use crate::engine::stage::StageState;
use crate::engine::{
    Shared, check, early, exports, finish, foreign, open, preflight, room, stage, trees,
};
use crate::error::{Error, ErrorKind};
use crate::event::{EventSink, LayerSummary, StepId};
use crate::executor::{Choice, Helper};
use crate::graph::Entitlement;
use crate::image::ImageConfig;
use crate::image::manifest::Document;
use crate::output::{Form, Output, Wanted};
use crate::registry::{Client, Descriptor, Digest, Platform, Reference};
use crate::secret::Secret;
use futures::future::try_join_all;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

/// Where the files of a build come from.
#[non_exhaustive]
pub enum ContextSource {
    /// No files: a Dockerfile that copies nothing from its context.
    Empty,
    /// A directory.
    Directory(PathBuf),
    /// A tar, plain or compressed.
    Tar(Box<dyn Read + Send>),
    /// The files of an image of a registry, for the platform that is built for, with
    /// their owners. The Dockerfile comes from elsewhere.
    Image(Reference),
    /// The files of an image of an OCI image layout, in the same way.
    OciLayout {
        /// The layout.
        path: PathBuf,
        /// Tag or digest in its index; without one it must hold one image.
        name: Option<String>,
    },
    /// The files of an OCI artifact of a registry that is no image: tars, or files with
    /// titles, as `oras push` and `flux push artifact` make them.
    OciArtifact(Reference),
    /// A repository.
    #[cfg(feature = "git")]
    Git(crate::git::GitSource),
    /// A file behind an HTTP URL: the tar of a context, plain or compressed, else a
    /// Dockerfile, which then is all that the context holds, under the name `context`.
    #[cfg(feature = "git")]
    Http(String),
}

/// Where the Dockerfile comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DockerfileSource {
    /// A path inside the context.
    InContext(String),
    /// A file outside of it.
    File(PathBuf),
    /// A file behind an HTTP URL.
    #[cfg(feature = "git")]
    Http(String),
    /// The text itself, with the name that errors give it.
    Text {
        /// Its name.
        name: String,
        /// The text.
        text: String,
    },
}

/// What a name stands for where FROM or `--from` uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NamedContext {
    /// The files of a directory.
    Directory(PathBuf),
    /// An image of an OCI image layout.
    OciLayout {
        /// The layout.
        path: PathBuf,
        /// Tag or digest in its index; without one it must hold one image.
        name: Option<String>,
    },
    /// Another image of a registry.
    Image(Reference),
    /// The files of an OCI artifact that is no image.
    OciArtifact(Reference),
    /// The files of a repository.
    #[cfg(feature = "git")]
    Git(crate::git::GitSource),
    /// A file behind an HTTP URL: the files of a tar, plain or compressed, else that one
    /// file, under the name `context`.
    #[cfg(feature = "git")]
    Http(String),
}

impl NamedContext {
    /// Tells whether it stands for files; else it does for an image.
    pub(crate) fn is_files(&self) -> bool {
        !matches!(self, Self::OciLayout { .. } | Self::Image(_))
    }
}

/// One build: what goes in, where the result goes, and with what.
///
/// ```no_run
/// # async fn example() -> Result<(), ocibuild::Error> {
/// use ocibuild::{Build, ContextSource, Output};
///
/// ocibuild::init(); // first thing in `main`
/// let image = Build::new(ContextSource::Directory("app".into()), "/var/lib/ocibuild")
///     .build_arg("VERSION", "1.2")
///     .output(Output::OciDirectory("out".into()))
///     .run()
///     .await?;
/// assert_eq!(image.digest, image.manifest.descriptor.digest);
/// # Ok(())
/// # }
/// ```
#[must_use = "a build does nothing before `run`"]
pub struct Build {
    pub(crate) context: ContextSource,
    pub(crate) root: PathBuf,
    pub(crate) dockerfile: DockerfileSource,
    pub(crate) args: BTreeMap<String, String>,
    pub(crate) target: Option<String>,
    /// What is built for, without repetition; none was asked for where it is empty.
    pub(crate) platforms: Vec<Platform>,
    pub(crate) names: Vec<Reference>,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) contexts: BTreeMap<String, NamedContext>,
    pub(crate) secrets: BTreeMap<String, Secret>,
    pub(crate) agents: BTreeMap<String, PathBuf>,
    pub(crate) cache_scope: String,
    pub(crate) entitlements: BTreeSet<Entitlement>,
    #[cfg(feature = "git")]
    pub(crate) git_policy: crate::git::Policy,
    pub(crate) outputs: Vec<Wanted>,
    pub(crate) form: Form,
    #[cfg(feature = "git")]
    pub(crate) git_ssh: Option<crate::git::Ssh>,
    pub(crate) use_cache: bool,
    pub(crate) cache_from: Vec<CacheSource>,
    pub(crate) cache_to: Vec<CacheTarget>,
    pub(crate) explain: bool,
    pub(crate) limits: StoreLimits,
    pub(crate) layer_policy: LayerPolicy,
    pub(crate) epoch: Option<i64>,
    pub(crate) now: SystemTime,
    pub(crate) threads: usize,
    pub(crate) client: Option<Client>,
    pub(crate) helper: Helper,
    pub(crate) sandbox: Choice,
    pub(crate) events: EventSink,
    pub(crate) cancel: Cancel,
}

impl Build {
    /// Begins a build over a context, with a store in the folder `root`.
    pub fn new(context: ContextSource, root: impl Into<PathBuf>) -> Self {
        Self {
            context,
            root: root.into(),
            dockerfile: DockerfileSource::InContext("Dockerfile".to_owned()),
            args: BTreeMap::new(),
            target: None,
            platforms: Vec::new(),
            names: Vec::new(),
            labels: Vec::new(),
            contexts: BTreeMap::new(),
            secrets: BTreeMap::new(),
            agents: BTreeMap::new(),
            cache_scope: String::new(),
            entitlements: BTreeSet::from([Entitlement::NetworkHost]),
            #[cfg(feature = "git")]
            git_policy: crate::git::Policy::default(),
            #[cfg(feature = "git")]
            git_ssh: None,
            outputs: Vec::new(),
            form: Form::default(),
            use_cache: true,
            cache_from: Vec::new(),
            cache_to: Vec::new(),
            explain: false,
            limits: StoreLimits::default(),
            layer_policy: LayerPolicy::default(),
            epoch: None,
            now: SystemTime::now(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            client: None,
            helper: Helper::CurrentExe,
            sandbox: Choice::default(),
            events: EventSink::none(),
            cancel: Cancel::new(),
        }
    }

    /// Takes another Dockerfile than `Dockerfile` in the context.
    pub fn dockerfile(mut self, source: DockerfileSource) -> Self {
        self.dockerfile = source;
        self
    }

    /// Gives a build argument a value; the last one of a name counts.
    pub fn build_arg(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.args.insert(name.into(), value.into());
        self
    }

    /// Builds this stage in place of the last one.
    pub fn target(mut self, stage: impl Into<String>) -> Self {
        self.target = Some(stage.into());
        self
    }

    /// Builds for this platform in place of the machine's.
    pub fn platform(self, platform: Platform) -> Self {
        self.platforms([platform])
    }

    /// Builds for these platforms. More than one become one OCI index (image-spec,
    /// image-index.md), in this order; so does one with the build argument
    /// `BUILDKIT_MULTI_PLATFORM=1`. Outputs take the index as they take an image, but for
    /// archives of Docker and tars of a root file system, which are refused; a directory
    /// gets the root file system of each platform in a directory such as `linux_amd64`.
    ///
    /// Steps that do not depend on the platform are done once. A RUN for a processor that
    /// this machine neither is nor emulates (binfmt_misc) is refused before anything runs.
    pub fn platforms(mut self, platforms: impl IntoIterator<Item = Platform>) -> Self {
        self.platforms.clear();
        for platform in platforms.into_iter().map(Platform::normalized) {
            if !self.platforms.contains(&platform) {
                self.platforms.push(platform);
            }
        }
        self
    }

    /// Names the image: in the store, in layouts and archives.
    pub fn tag(mut self, name: Reference) -> Self {
        self.names.push(name);
        self
    }

    /// Sets a label of the image; it wins over the Dockerfile's.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push((name.into(), value.into()));
        self
    }

    /// Lets a name in FROM and `--from` stand for something else than an image of that name.
    pub fn named_context(mut self, name: impl Into<String>, context: NamedContext) -> Self {
        self.contexts.insert(name.into(), context);
        self
    }

    /// Gives a secret to those RUN steps that name it in `--mount=type=secret,id=ID`; the
    /// last one of an id counts. It ends in no layer, key, record or log of ours, and its
    /// value does not decide whether the result of a step is known.
    pub fn secret(mut self, id: impl Into<String>, secret: Secret) -> Self {
        self.secrets.insert(id.into(), secret);
        self
    }

    /// Gives the SSH agent that listens at `socket` to those RUN steps that name it in
    /// `--mount=type=ssh,id=ID`; an id that is not said there is `default`. A step can list
    /// the agent's keys and sign with them, and change nothing.
    pub fn ssh(mut self, id: impl Into<String>, socket: impl Into<PathBuf>) -> Self {
        self.agents.insert(id.into(), socket.into());
        self
    }

    /// Allows steps what they may ask for beyond the usual, and nothing else; without this
    /// it is the network of the machine. `security.insecure` gives RUN the rights of root
    /// on this machine, so it is for Dockerfiles that may have them.
    pub fn entitlements(mut self, allowed: impl IntoIterator<Item = Entitlement>) -> Self {
        self.entitlements = allowed.into_iter().collect();
        self
    }

    /// Separates this build from builds of other scopes: it finds no results of their RUN
    /// steps and gets none of their directories of `--mount=type=cache`, and they not its.
    /// Results of COPY and ADD hold nothing but what this build has anyway, and are shared.
    pub fn cache_scope(mut self, name: impl Into<String>) -> Self {
        self.cache_scope = name.into();
        self
    }

    /// Sets from which servers repositories and files that ADD names may come, and how
    /// much of them may.
    #[cfg(feature = "git")]
    pub fn git_policy(mut self, policy: crate::git::Policy) -> Self {
        self.git_policy = policy;
        self
    }

    /// Fetches repositories over ssh too, for contexts and for ADD, with what is given here.
    #[cfg(feature = "git")]
    pub fn git_ssh(mut self, ssh: crate::git::Ssh) -> Self {
        self.git_ssh = Some(ssh);
        self
    }

    /// Adds an output; there may be several, and none leaves the image in the store.
    pub fn output(mut self, output: Output) -> Self {
        self.outputs.push(Wanted { output, form: None });
        self
    }

    /// Adds an output that writes the image in a form of its own. A layer that several
    /// outputs have in the same form is compressed once.
    pub fn output_as(mut self, output: Output, form: Form) -> Self {
        let form = Some(form);
        self.outputs.push(Wanted { output, form });
        self
    }

    /// Sets in which form the image is kept and reported, and written by all outputs that
    /// have no form of their own.
    pub fn form(mut self, form: Form) -> Self {
        self.form = form;
        self
    }

    /// Runs every step, also those whose result is known.
    pub fn no_cache(mut self) -> Self {
        self.use_cache = false;
        self
    }

    /// Looks here too for results of steps, in the order in which sources are added. What
    /// is found is believed for this build only; layers are fetched when their bytes are
    /// needed. A cache that is not there or cannot be used does not fail a build.
    pub fn cache_from(mut self, source: CacheSource) -> Self {
        self.cache_from.push(source);
        self
    }

    /// Leaves results of steps here for others; see [`CacheTarget`].
    pub fn cache_to(mut self, target: CacheTarget) -> Self {
        self.cache_to.push(target);
        self
    }

    /// Limits what the store may take of the disk. Before a write would break a limit, the
    /// longest unused things go that no running build uses and no image with a name needs;
    /// where that is not enough, the build fails. What a command writes is looked at five
    /// times a second.
    pub fn store_limits(mut self, limits: StoreLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how the files of a COPY or ADD become layers.
    pub fn layer_policy(mut self, policy: LayerPolicy) -> Self {
        self.layer_policy = policy;
        self
    }

    /// Tells of every step whose result is not known why that is so, as
    /// [`Event::StepMissed`](crate::Event::StepMissed).
    pub fn explain_misses(mut self) -> Self {
        self.explain = true;
        self
    }

    /// Dates the image, and everything that this build makes newer, to this second since 1970.
    pub fn source_date_epoch(mut self, seconds: i64) -> Self {
        self.epoch = Some(seconds);
        self
    }

    /// Limits the threads that hash and compress.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Sets how registries are spoken to, with which credentials.
    pub fn client(mut self, client: Client) -> Self {
        self.client = Some(client);
        self
    }

    /// Sets the program that sandboxes start as, where this program cannot call
    /// [`init`](crate::init) first.
    pub fn helper(mut self, helper: Helper) -> Self {
        self.helper = helper;
        self
    }

    /// Lets RUN steps have these sandboxes only; without it the best one that works here.
    pub fn sandbox(mut self, choice: Choice) -> Self {
        self.sandbox = choice;
        self
    }

    /// Sets where events go.
    pub fn events(mut self, events: EventSink) -> Self {
        self.events = events;
        self
    }

    /// Sets the switch that ends the build.
    pub fn cancel(mut self, cancel: Cancel) -> Self {
        self.cancel = cancel;
        self
    }

    /// Builds the image and hands it to every output.
    ///
    /// When it returns, nothing of the build runs any more, also where it was cancelled.
    pub async fn run(mut self) -> Result<Image, Error> {
        let cancel = self.cancel.clone();
        // The build may have to end its commands itself.
        let stop = cancel.child();
        self.cancel = stop.clone();
        let blocking = TaskTracker::new();
        // Its state is large, and whoever calls may have a small stack.
        let work = Box::pin(walk(self, blocking.clone()));
        let result = tokio::select! {
            result = work => result,
            () = cancel.cancelled() => Err(Error::Cancelled),
        };
        if result.is_err() {
            // Nobody needs what other stages are doing.
            stop.cancel();
        }
        blocking.close();
        blocking.wait().await;
        match result {
            // What failed because it was told to stop did not fail by itself.
            Err(_) if cancel.is_cancelled() => Err(Error::Cancelled),
            other => other,
        }
    }
}

/// The whole path.
async fn walk(build: Build, blocking: TaskTracker) -> Result<Image, Error> {
    let (made, queued) = match exports::is_wanted_beside(&build.cache_to) {
        true => Some(mpsc::unbounded_channel()).unzip(),
        false => (None, None),
    };
    let (foreseen, to_unpack) = trees::foresight();
    let queues = open::Queues { made, foreseen };
    let sessions = open::sessions(build, blocking, queues).await?;
    let Some(first) = sessions.first() else {
        return Err(Error::invalid("there is no platform to build for"));
    };
    for session in &sessions {
        check::file(session)?;
        foreign::check(session)?;
    }
    let built = async {
        let built = built(&sessions, to_unpack).await;
        first.ledger.close();
        built
    };
    let beside = async {
        if let Some(queued) = queued {
            exports::beside(first, queued).await;
        }
    };
    let work = async { tokio::join!(built, beside).0 };
    let built = tokio::select! {
        built = work => built,
        full = room::watch(first) => full.map(|never| match never {}),
        refused = Box::pin(preflight::registries(first)) => refused.map(|never| match never {}),
    };
    // A trace that cannot be written is no reason to fail.
    if let Err(error) = first.ledger.keep(&first.store) {
        tracing::warn!(%error, "what became of the steps is not kept");
    }
    let (mut image, targets) = built?;
    exports::all(&sessions, &targets).await?;
    image.steps = first.steps.records();
    Ok(image)
}

/// How often a build begins again because of layers of caches that cannot be had.
const MOST_ATTEMPTS: usize = 8;

/// Builds the stages and hands the image over. Where a layer that a cache promised cannot
/// be had, the step that gave it is done after all.
async fn built(
    sessions: &[Shared],
    mut to_unpack: trees::Foresight,
) -> Result<(Image, Vec<Arc<StageState>>), Error> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let built = tokio::select! {
            built = Box::pin(attempt(sessions)) => built,
            never = trees::beside(&mut to_unpack) => match never {},
        };
        let error = match built {
            Ok(built) => return Ok(built),
            Err(error) => error,
        };
        // What it foresaw holds for no other attempt: a layer may be another then.
        while to_unpack.try_recv().is_ok() {}
        let doubts = sessions
            .iter()
            .filter(|session| session.imports.has_new_doubts());
        let is_final = attempts == MOST_ATTEMPTS || error.kind() == ErrorKind::NoRoom;
        if doubts.count() == 0 || is_final {
            return Err(error);
        }
        let reason = one_line(&error);
        for session in sessions {
            session.warn(format!("a cached layer cannot be used: {reason}"));
            session.begin_again();
        }
    }
}

async fn attempt(sessions: &[Shared]) -> Result<(Image, Vec<Arc<StageState>>), Error> {
    let targets = try_join_all(sessions.iter().map(stage::target));
    let targets = match sessions.first() {
        Some(first) => early::beside(first, targets).await?,
        None => Vec::new(),
    };
    let image = finish::image(sessions, &targets).await?;
    Ok((image, targets))
}

/// The image that a build gave.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Image {
    /// The digest by which it is known: that of the index where there is one, else of
    /// its manifest.
    pub digest: Digest,
    /// The index, where the result is one.
    pub index: Option<Document>,
    /// The image for each platform, in the order in which they were asked for; at least
    /// one. What follows is said of the first.
    pub platforms: Vec<PlatformImage>,
    /// Its manifest.
    pub manifest: Document,
    /// The descriptor of its configuration.
    pub config_descriptor: Descriptor,
    /// Its configuration.
    pub config: ImageConfig,
    /// Its layers, lowest first.
    pub layers: Vec<LayerSummary>,
    /// What was done.
    pub steps: Vec<StepRecord>,
    /// The names that registries have confirmed.
    pub pushed: Vec<Reference>,
    /// The commit of a context from Git.
    pub commit: Option<String>,
}

/// The image that a build gave for one platform.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PlatformImage {
    /// The platform, as its configuration says it.
    pub platform: Platform,
    /// Its manifest.
    pub manifest: Document,
    /// The descriptor of its configuration.
    pub config_descriptor: Descriptor,
    /// Its configuration.
    pub config: ImageConfig,
    /// Its layers, lowest first.
    pub layers: Vec<LayerSummary>,
}

/// One step of a build, as it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Its number.
    pub step: StepId,
    /// What was shown for it.
    pub name: String,
    /// Its result was there already.
    pub cached: bool,
    /// How long it took, in milliseconds.
    pub millis: u64,
    /// The layer that it made.
    pub layer: Option<LayerSummary>,
}
