//! One stage: its base, then one instruction after the other. A stage is built when
//! somebody asks for it, once, and whoever asks next waits for the same result; so
//! stages that nobody needs are never built, and independent ones run side by side.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt, try_join, try_join_all};

use super::mounts::{Prepared, Source};
use super::session::{Located, StageResult};
use super::{Shared, base, check, copy_step, files, foreign, layers, run_step};
use crate::cache::{self, StepResult};
use crate::content::Layer;
use crate::copy;
use crate::dockerfile::ast::Instruction;
use crate::dockerfile::{Mount, parse_trigger};
use crate::error::Error;
use crate::event::StepId;
use crate::executor::Identity;
use crate::graph::key::{KeyBuilder, StepKey};
use crate::graph::{
    Applied, CopyStep, PlannedStage, RunStep, StageConfig, StageRef, Step, supported,
};
use crate::layer::ChainId;
use crate::snapshot::RootView;

/// A stage between two instructions, and at its end.
#[derive(Debug, Clone)]
pub(crate) struct StageState {
    pub(crate) layers: Vec<Layer>,
    pub(crate) config: StageConfig,
}

impl StageState {
    /// Names the content of the root file system.
    pub(crate) fn chain(&self) -> String {
        chain_of(&self.layers)
    }
}

/// Names the content of a stack of layers.
pub(crate) fn chain_of(layers: &[Layer]) -> String {
    let chain = ChainId::of(layers.iter().map(|layer| layer.diff_id));
    chain.map_or_else(|| "scratch".to_owned(), |chain| chain.0.to_string())
}

/// Builds the stage that is wanted, with everything that it needs.
///
/// All of it begins at once, the lowest stage first: each then finds the stages below it
/// begun and only waits for them, so that no chain of stages is too long for the stack.
pub(crate) async fn target(session: &Shared) -> Result<Arc<StageState>, Error> {
    let needed = session.plan.reachable();
    let needed = needed.map_err(|(location, error)| Error::from(error).at(&location))?;
    let stages = needed.into_iter().map(|index| stage(session, index));
    try_join_all(stages).await.map_err(Error::Shared)?;
    stage(session, session.plan.target)
        .await
        .map_err(Error::Shared)
}

/// Gives the result of a stage, and builds it where nobody has yet.
pub(crate) fn stage(session: &Shared, index: usize) -> BoxFuture<'_, StageResult> {
    async move {
        let Some(cell) = session.stages.get(index) else {
            return Err(Arc::new(Error::invalid(format!(
                "there is no stage {index}"
            ))));
        };
        let built = cell.get_or_init(|| async {
            let built = build(session, index).await;
            built.map(Arc::new).map_err(|error| match error {
                Error::Shared(error) => error,
                error => Arc::new(error),
            })
        });
        built.await.clone()
    }
    .boxed()
}

async fn build(session: &Shared, index: usize) -> Result<StageState, Error> {
    let planned = match session.plan.stages.get(index) {
        Some(Ok(planned)) => planned,
        Some(Err((location, error))) => return Err(Error::from(error.clone()).at(location)),
        None => return Err(Error::invalid(format!("there is no stage {index}"))),
    };
    let source = &session.plan.dockerfile.stages[index];
    let from = session.plan.location(&source.from.origin);
    let namer = StepNames::new(session, index, planned);
    // What the stage copies from is built beside its base.
    let used = planned.uses.iter().map(|used| stage(session, *used));
    let used = async { try_join_all(used).await.map_err(Error::Shared) };
    let begin = async {
        let begun = base::begin(session, planned, &namer.first()).await;
        begun.located(&from)
    };
    let begin = async {
        let begun = begin.await?;
        check::stage(session, index, planned, &begun)?;
        Ok(begun)
    };
    let (begun, _) = try_join(begin, used).await?;
    let mut work = Work {
        session,
        index,
        state: begun.state,
        names: namer,
        view: None,
    };
    for trigger in &begun.triggers {
        work.trigger(trigger).await.located(&from)?;
    }
    for instruction in &source.instructions {
        let location = session.plan.location(instruction.origin());
        work.instruction(instruction).await.located(&location)?;
    }
    Ok(work.state)
}

/// Gives what the names of the steps of a stage begin with; several platforms are told
/// apart as the reference builder does: `linux/amd64->arm64 builder`.
fn prefix(session: &Shared, index: usize, stages: usize, planned: &PlannedStage) -> String {
    let name = match stages {
        1 => "stage",
        _ => &planned.name,
    };
    if !session.several {
        return name.to_owned();
    }
    let (runs_on, target) = (session.plan.platform_of(index), &session.platform);
    match runs_on.to_string() == target.to_string() {
        true => format!("{runs_on} {name}"),
        false => {
            let target = target.to_string();
            let short = target.strip_prefix("linux/").unwrap_or(&target);
            format!("{runs_on}->{short} {name}")
        }
    }
}

/// The names of the steps of a stage: `[builder 2/5] RUN make`.
struct StepNames {
    prefix: String,
    next: usize,
    total: usize,
    from: String,
}

impl StepNames {
    fn new(session: &Shared, index: usize, planned: &PlannedStage) -> Self {
        let stages = &session.plan.dockerfile.stages;
        let steps = stages[index].instructions.iter().filter(|instruction| {
            matches!(
                instruction,
                Instruction::Run(_)
                    | Instruction::Copy(_)
                    | Instruction::Add(_)
                    | Instruction::Workdir(_)
            )
        });
        Self {
            prefix: prefix(session, index, stages.len(), planned),
            next: 2,
            total: steps.count() + 1,
            from: planned.base_name.clone(),
        }
    }

    fn first(&self) -> String {
        format!("[{} 1/{}] FROM {}", self.prefix, self.total, self.from)
    }

    fn next(&mut self, line: &str) -> String {
        let number = self.next;
        self.next += 1;
        // A trigger of the base is one more than was counted.
        let total = self.total.max(number);
        format!("[{} {number}/{total}] {line}", self.prefix)
    }
}

/// A stage that is being built.
struct Work<'a> {
    session: &'a Shared,
    index: usize,
    state: StageState,
    names: StepNames,
    /// The merged view of the layers so far, once somebody asked for it.
    view: Option<Arc<RootView>>,
}

impl Work<'_> {
    /// Carries out what a base left behind with ONBUILD.
    async fn trigger(&mut self, text: &str) -> Result<(), Error> {
        let instruction = parse_trigger(text)
            .map_err(|error| Error::invalid(format!("ONBUILD {text:?} of the base: {error}")))?;
        supported::check_one(&instruction, &self.session.plan.request)?;
        if let Instruction::Run(_) = instruction {
            foreign::check_one(self.session.plan.platform_of(self.index))?;
        }
        self.instruction(&instruction).await
    }

    async fn instruction(&mut self, instruction: &Instruction) -> Result<(), Error> {
        let applied = self
            .state
            .config
            .apply(&self.session.plan, instruction)
            .map_err(Error::from)?;
        let Applied { step, history } = applied;
        let line = &instruction.origin().line;
        let made = match step {
            Step::Config => None,
            Step::Run(run) => Some(self.run(line, run).await?),
            Step::Copy(copy) => Some(self.copy(line, copy).await?),
            Step::Workdir(path) => Some(self.workdir(line, &path).await?),
        };
        let mut history = history;
        if let Some(result) = made {
            if let Some(entry) = &mut history {
                entry.created = Some(result.created.clone());
            }
            self.push(result);
        }
        self.state.config.image.history.extend(history);
        Ok(())
    }

    fn push(&mut self, result: StepResult) {
        self.view = None;
        self.state.layers.push(result.into_layer());
    }

    async fn run(&mut self, line: &str, run: RunStep) -> Result<StepResult, Error> {
        let session = self.session;
        let mounts = self.mounts(&run.mounts).await?;
        let platform = session.plan.platform_of(self.index);
        let key = run_step::key(session, platform, &run, &mounts, &self.state.chain());
        let layers = self.state.layers.clone();
        self.step(line, key, async |step| {
            run_step::run(session, step, &layers, run, mounts).await
        })
        .await
    }

    /// Finds the files of the mounts of a command.
    async fn mounts(&self, mounts: &[Mount]) -> Result<Vec<Prepared>, Error> {
        let mut prepared = Vec::new();
        for mount in mounts {
            let path = match mount {
                Mount::Bind(bind) => Some(&bind.source),
                Mount::Cache(cache) => cache.from.as_ref().map(|_| &cache.source),
                Mount::Tmpfs(_) | Mount::Secret(_) | Mount::Ssh(_) => None,
            };
            let source = match path {
                None => None,
                Some(path) => {
                    let files = self.mounted_files(mount.from()).await?;
                    Some(Source::find(self.session, files, path.as_deref()).await?)
                }
            };
            let mount = mount.clone();
            prepared.push(Prepared { mount, source });
        }
        Ok(prepared)
    }

    async fn mounted_files(&self, from: Option<&str>) -> Result<files::Files, Error> {
        let Some(from) = from else {
            return self.main_files().await;
        };
        match self.session.plan.resolve_mount(self.index, from)? {
            Some(found) => self.files_of(found).await,
            None => Ok(files::Files::none()),
        }
    }

    async fn workdir(&mut self, line: &str, path: &str) -> Result<StepResult, Error> {
        let user = self.state.config.image.config.user.clone();
        let session = self.session;
        let key = KeyBuilder::new("workdir")
            .part("below", self.state.chain())
            .part("path", path)
            .part("user", &user)
            .part("epoch", format!("{:?}", session.epoch))
            .finish();
        let layers = self.state.layers.clone();
        self.step(line, key, async |_| {
            let view = layers::view(session, &layers).await?;
            let owner = copy_step::owner_of(session, &user, &layers, &view).await?;
            let placement = copy::place_folder(&view, path, owner)?;
            copy_step::write(session, placement, session.created()).await
        })
        .await
    }

    async fn copy(&mut self, line: &str, copy: CopyStep) -> Result<StepResult, Error> {
        let session = self.session;
        let source = self.source_files(&copy).await?;
        let prepared = copy_step::prepare(session, copy, source).await?;
        let key = prepared.key(&self.state.chain(), session.epoch);
        let layers = self.state.layers.clone();
        self.step(line, key, async |_| {
            copy_step::run(session, prepared, &layers).await
        })
        .await
    }

    /// Finds the files that a copy is from.
    async fn source_files(&self, copy: &CopyStep) -> Result<files::Files, Error> {
        let Some(from) = &copy.from else {
            return self.main_files().await;
        };
        let found = self.session.plan.resolve_from(self.index, from)?;
        self.files_of(found).await
    }

    /// Gives the files of the context of the build.
    async fn main_files(&self) -> Result<files::Files, Error> {
        let Some(image) = &self.session.context_image else {
            return Ok(files::Files::Context(self.session.context.clone()));
        };
        let image = base::of_context(self.session, image, None).await?;
        self.layered(image.layers).await
    }

    async fn layered(&self, layers: Vec<Layer>) -> Result<files::Files, Error> {
        let view = layers::view(self.session, &layers).await?;
        Ok(files::Files::Layers { layers, view })
    }

    /// Gives the files of a stage, image or named context.
    async fn files_of(&self, found: StageRef) -> Result<files::Files, Error> {
        let layers = match found {
            StageRef::Stage(index) => {
                let state = stage(self.session, index).await.map_err(Error::Shared)?;
                state.layers.clone()
            }
            StageRef::Image(reference) => base::image(self.session, &reference, None).await?.layers,
            StageRef::Context(name) => {
                if let Some(tree) = self.session.trees.get(&name).await? {
                    return Ok(files::Files::Context(tree.context));
                }
                base::named(self.session, &name, None).await?.layers
            }
        };
        self.layered(layers).await
    }

    /// Takes the result of a step from the cache, or makes and remembers it.
    async fn step(
        &mut self,
        line: &str,
        key: StepKey,
        make: impl AsyncFnOnce(StepId) -> Result<StepResult, Error>,
    ) -> Result<StepResult, Error> {
        let session = self.session;
        let step = session.step(self.names.next(line));
        let result = match session.several {
            true => self.shared(&key, step.id, make).await,
            false => self.alone(&key, step.id, make).await,
        };
        let ended = step.end(result, |(cached, result)| (*cached, Some(result.summary())));
        ended.map(|(_, result)| result)
    }

    /// Gives the result of a step and whether it was there already.
    async fn alone(
        &self,
        key: &StepKey,
        step: StepId,
        make: impl AsyncFnOnce(StepId) -> Result<StepResult, Error>,
    ) -> Result<(bool, StepResult), Error> {
        if let Some(known) = self.known(key).await {
            return Ok((true, known));
        }
        let made = make(step).await?;
        cache::remember(&self.session.store, key, &made)?;
        Ok((false, made))
    }

    /// The same where another platform may need the step too: it is done once.
    async fn shared(
        &self,
        key: &StepKey,
        step: StepId,
        make: impl AsyncFnOnce(StepId) -> Result<StepResult, Error>,
    ) -> Result<(bool, StepResult), Error> {
        let (flight, mut was_there) = (self.session.flights.of(key.0), true);
        let result = flight.get_or_init(|| async {
            let done = self.alone(key, step, make).await.map_err(Arc::new)?;
            was_there = done.0;
            Ok(done.1)
        });
        let result = result.await.clone();
        result
            .map(|result| (was_there, result))
            .map_err(Error::Shared)
    }

    /// Gives the result of an earlier build. One that was made with a single id serves
    /// only a builder that could do no better.
    async fn known(&self, key: &StepKey) -> Option<StepResult> {
        let session = self.session;
        if !session.use_cache {
            return None;
        }
        let known = cache::lookup(&session.store, key)?;
        if known.single_id {
            let sandbox = session.sandbox().await.ok()?;
            return (*sandbox.identity() == Identity::Single).then_some(known);
        }
        Some(known)
    }
}
