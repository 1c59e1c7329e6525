//! What all stages of one build share: the store, the context, the means to run and to
//! report, and for each platform the plan. Nothing here is decided; it is looked up and
//! counted.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use tokio::sync::OnceCell;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::task::TaskTracker;

use super::cores::Cores;
use super::early::Early;
use super::flights::Flights;
use super::imports::Imports;
use super::late::Coming;
use super::ledger::Ledger;
use super::named::NamedTrees;
use super::preflight::Preflight;
#[cfg(feature = "git")]
use super::remote::Remote;
use super::stage::StageState;
use super::steps::{Step, Steps};
use super::trees::{Foreseen, Unpackings};
use crate::Cancel;
use crate::build::NamedContext;
use crate::cache::shared::CacheTarget;
use crate::content::{ContentStore, StoreLimits};
use crate::context::Context;
use crate::context::ignore::IgnoreMatcher;
use crate::copy::LayerPolicy;
use crate::dockerfile::lint::Settings;
use crate::error::{Error, Location};
use crate::executor::{Choice, Helper, Sandbox, probe};
use crate::graph::Plan;
use crate::mutex::lock;
use crate::output::{Form, Wanted, form};
use crate::registry::{Client, Platform, Reference};
use crate::secret::Secret;
use crate::source::BaseImage;
use crate::time;

/// The result of a stage, as everybody who waits for it gets it.
pub(crate) type StageResult = Result<Arc<StageState>, Arc<Error>>;

/// A stage that is built once.
pub(crate) type StageCell = Arc<OnceCell<StageResult>>;

/// An image that is loaded once.
pub(crate) type BaseCell = Arc<OnceCell<Result<BaseImage, Arc<Error>>>>;

/// The build for one platform.
pub(crate) struct Session {
    /// What the builds for all platforms share.
    pub(crate) common: Arc<Common>,
    pub(crate) plan: Plan,
    /// The stages over whose files commands of other stages run.
    pub(crate) run_above: Vec<bool>,
    pub(crate) platform: Platform,
    /// Which build checks are in force.
    pub(crate) checks: Settings,
    pub(crate) epoch: Option<i64>,
    /// The stages that somebody has asked for.
    pub(crate) stages: Mutex<BTreeMap<usize, StageCell>>,
    /// Caches that are read.
    pub(crate) imports: Imports,
    /// The trees that are being made.
    pub(crate) unpackings: Unpackings,
}

impl Deref for Session {
    type Target = Common;

    fn deref(&self) -> &Common {
        &self.common
    }
}

/// What is the same for every platform of a build.
pub(crate) struct Common {
    pub(crate) store: ContentStore,
    pub(crate) client: Client,
    pub(crate) context: Arc<Context>,
    /// The image that the files of the context are in; `context` is empty then.
    pub(crate) context_image: Option<NamedContext>,
    /// What the context leaves out.
    pub(crate) ignored: Option<Arc<IgnoreMatcher>>,
    pub(crate) named: BTreeMap<String, NamedContext>,
    /// Those of the named contexts that are files.
    pub(crate) trees: NamedTrees,
    pub(crate) secrets: BTreeMap<String, Secret>,
    pub(crate) agents: BTreeMap<String, PathBuf>,
    pub(crate) cache_scope: String,
    /// With what ADD asks servers.
    #[cfg(feature = "git")]
    pub(crate) remote: Remote,
    /// The platform was asked for.
    pub(crate) platform_given: bool,
    /// Several platforms are built, and end in one index.
    pub(crate) several: bool,
    /// Steps that are the same for several platforms, and layers that several stages pack, are
    /// made once.
    pub(crate) flights: Flights,
    pub(crate) names: Vec<Reference>,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) outputs: Vec<Wanted>,
    /// In which form the image is kept, and written where an output has none of its own.
    pub(crate) form: Form,
    /// How layers are packed.
    pub(crate) packed: Option<form::Recipe>,
    pub(crate) use_cache: bool,
    pub(crate) cache_to: Vec<CacheTarget>,
    pub(crate) limits: StoreLimits,
    pub(crate) layer_policy: LayerPolicy,
    /// What became of the steps.
    pub(crate) ledger: Ledger,
    pub(crate) now: SystemTime,
    pub(crate) threads: usize,
    pub(crate) commit: Option<String>,
    pub(crate) cancel: Cancel,
    /// Images that were loaded, by name and platform.
    pub(crate) bases: Mutex<BTreeMap<String, BaseCell>>,
    pub(crate) helper: Helper,
    /// Which sandboxes RUN steps may have.
    pub(crate) choice: Choice,
    pub(crate) sandbox: OnceCell<Result<Arc<dyn Sandbox>, String>>,
    /// What packs and unpacks layers shares them.
    pub(crate) cores: Cores,
    /// Layers that are being packed.
    pub(crate) coming: Coming,
    /// Takes layers that can be sent before the image is made.
    pub(crate) early: Early,
    pub(crate) preflight: Preflight,
    /// Takes what commands will run over.
    pub(crate) foreseen: UnboundedSender<Foreseen>,
    pub(crate) steps: Arc<Steps>,
    pub(crate) blocking: TaskTracker,
}

impl Session {
    /// Gives the time of this build in seconds since 1970.
    pub(crate) fn created(&self) -> i64 {
        self.epoch.unwrap_or_else(|| time::seconds(self.now))
    }

    /// Gives the time of this build as the configuration writes it.
    pub(crate) fn created_text(&self) -> String {
        match self.epoch {
            Some(seconds) => time::rfc3339(seconds),
            None => time::rfc3339_of(self.now),
        }
    }

    /// Runs what blocks on a thread of its own; the build does not end before it has.
    pub(crate) async fn block<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.blocking
            .spawn_blocking(work)
            .await
            .map_err(|lost| Error::Lost(lost.to_string()))?
    }

    /// Begins a step.
    pub(crate) fn step(&self, name: impl Into<String>) -> Step<'_> {
        self.steps.begin(name)
    }

    /// Gives the sandbox, and finds out which one works here when it is first asked for.
    pub(crate) async fn sandbox(self: &Arc<Self>) -> Result<Arc<dyn Sandbox>, Error> {
        let found = self
            .sandbox
            .get_or_init(|| async {
                let (helper, choice) = (self.helper.clone(), self.choice.clone());
                let folder = self.store.root().join("tmp");
                let probed = self
                    .block(move || Ok(probe::select_among(&choice, &helper, &folder)))
                    .await;
                match probed {
                    Ok(Ok(sandbox)) => Ok(Arc::from(sandbox)),
                    Ok(Err(refusals)) => Err(refusals.to_string()),
                    Err(error) => Err(error.to_string()),
                }
            })
            .await;
        found.clone().map_err(Error::NoSandbox)
    }

    /// Gives where a stage is kept once it is built.
    pub(crate) fn stage_cell(&self, index: usize) -> StageCell {
        lock(&self.stages).entry(index).or_default().clone()
    }

    /// Lets every stage be built again.
    pub(crate) fn begin_again(&self) {
        lock(&self.stages).clear();
        self.flights.clear();
        self.unpackings.clear();
        self.coming.clear();
        self.ledger.forget();
        self.steps.forget();
    }

    /// Gives where an image is kept once it is loaded.
    pub(crate) fn base_cell(&self, name: String) -> BaseCell {
        lock(&self.bases).entry(name).or_default().clone()
    }
}

/// Adds a place in the Dockerfile to an error.
pub(crate) trait Located<T> {
    /// Says where.
    fn located(self, location: &Location) -> Result<T, Error>;
}

impl<T, E: Into<Error>> Located<T> for Result<T, E> {
    fn located(self, location: &Location) -> Result<T, Error> {
        self.map_err(|error| error.into().at(location))
    }
}
