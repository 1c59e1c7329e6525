//! One stage: its base, then one instruction after the other. A stage is built when
//! somebody asks for it, once, and whoever asks next waits for the same result; so
//! stages that nobody needs are never built, and independent ones run side by side.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt, try_join, try_join_all};

use super::known::{self, Asked, Late};
use super::late::{Made, Packs};
use super::mounts::{Prepared, Source};
use super::session::{Located, StageResult};
use super::step_names::StepNames;
use super::weights::{self, Weight};
use super::{Shared, base, check, copy_step, files, foreign, layers, run_step, trees};
use crate::cache::StepResult;
use crate::content::Layer;
use crate::copy::{self, LayerPolicy};
use crate::dockerfile::ast::Instruction;
use crate::dockerfile::{Mount, parse_trigger};
use crate::error::{Error, Location};
use crate::event::StepId;
use crate::graph::key::{KeyBuilder, StepKey};
use crate::graph::{Applied, CopyStep, RunStep, StageConfig, StageRef, Step, supported};
use crate::image::History;
use crate::layer::{ChainId, DiffId};
use crate::snapshot::RootView;

/// A stage between two instructions, and at its end.
#[derive(Debug, Clone)]
pub(crate) struct StageState {
    pub(crate) layers: Vec<Layer>,
    pub(crate) config: StageConfig,
    /// Layers whose compression is not for outputs to choose: those of the base, and what the
    /// layer policy sets apart.
    pub(crate) given: BTreeSet<DiffId>,
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
        let cell = session.stage_cell(index);
        let built = cell.get_or_init(|| async {
            let built = Box::pin(build(session, index)).await;
            built.map(Arc::new).map_err(|error| match error {
                Error::Shared(error) => error,
                error => Arc::new(error),
            })
        });
        built.await.clone()
    }
    .boxed()
}

/// What it waits for is boxed: stages wait for each other, and stacks are small.
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
        let begun = Box::pin(base::begin(session, planned, &namer.first())).await;
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
        next: 0,
        late: Vec::new(),
    };
    let mut packs = Packs::default();
    for trigger in &begun.triggers {
        let done = packs.beside(Box::pin(work.trigger(trigger))).await;
        done.located(&from)?;
        packs.extend(work.packs_at(&from));
    }
    for (number, instruction) in source.instructions.iter().enumerate() {
        work.next = number;
        let location = session.plan.location(instruction.origin());
        let done = packs.beside(Box::pin(work.instruction(instruction))).await;
        done.located(&location)?;
        packs.extend(work.packs_at(&location));
    }
    packs.settle(&mut work.state.layers).await?;
    Ok(work.state)
}

/// Where files are, before anything is looked into.
enum Found {
    Files(files::Files),
    Layers(Vec<Layer>),
}

/// A stage that is being built.
struct Work<'a> {
    session: &'a Shared,
    index: usize,
    state: StageState,
    names: StepNames,
    /// The merged view of the layers so far, once somebody asked for it.
    view: Option<Arc<RootView>>,
    /// Which instruction is being carried out.
    next: usize,
    /// Steps whose layers are not packed.
    late: Vec<Late<'a>>,
}

impl<'a> Work<'a> {
    /// Gives what is left to do of the instruction at a place.
    fn packs_at(&mut self, location: &Location) -> Vec<BoxFuture<'a, Result<StepResult, Error>>> {
        let ended = |late: Late<'a>| {
            let location = location.clone();
            async move { late.end().await.located(&location) }.boxed()
        };
        self.late.drain(..).map(ended).collect()
    }

    /// Carries out what a base left behind with ONBUILD.
    async fn trigger(&mut self, text: &str) -> Result<(), Error> {
        let instruction = parse_trigger(text)
            .map_err(|error| Error::invalid(format!("ONBUILD {text:?} of the base: {error}")))?;
        supported::check_one(&instruction, &self.session.plan.request)?;
        if let Instruction::Run(_) = instruction {
            foreign::check_one(self.session.plan.platform_of(self.index))?;
        }
        Box::pin(self.instruction(&instruction)).await
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
            Step::Config => {
                self.state.config.image.history.extend(history);
                return Ok(());
            }
            Step::Run(run) => vec![Box::pin(self.run(line, run)).await?],
            Step::Copy(copy) => Box::pin(self.copy(line, copy)).await?,
            Step::Workdir(path) => vec![Box::pin(self.workdir(line, &path)).await?],
        };
        for result in made {
            // Each layer has an entry of the history.
            let entry = history.clone().map(|entry| History {
                created: Some(result.created.clone()),
                ..entry
            });
            self.state.config.image.history.extend(entry);
            self.push(result);
        }
        Ok(())
    }

    fn push(&mut self, result: StepResult) {
        self.view = None;
        self.state.layers.push(result.into_layer());
    }

    async fn run(&mut self, line: &str, run: RunStep) -> Result<StepResult, Error> {
        let session = self.session;
        let name = self.name_of_run(&run).await?;
        if let Some(name) = &name
            && let Some(result) = self.by_name(line, name).await?
        {
            return Ok(result);
        }
        let mounts = self.mounts(&run.mounts).await?;
        let platform = session.plan.platform_of(self.index);
        let (layers, chain) = (self.state.layers.clone(), self.state.chain());
        let described = run.clone();
        let seen: Vec<_> = mounts.iter().map(Prepared::key).collect();
        let key = |keep| {
            let key = KeyBuilder::of("run", keep);
            run_step::key(key, session, platform, &described, &chain).list("mounts", &seen)
        };
        let (index, next) = (self.index, self.next + 1);
        let after = run_step::After {
            others_follow: session.plan.runs_from(index, next),
            goes_ahead: session.early.goes_ahead(session, index),
        };
        self.step(line, &key, name, async |step| {
            session.preflight.passed().await;
            session.early.below(session, index, &layers);
            run_step::run(session, step, &layers, run, mounts, after).await
        })
        .await
    }

    /// Names a command that sees files of layers by what is known before these are looked
    /// into; none where it sees no such files, or others too.
    async fn name_of_run(&self, run: &RunStep) -> Result<Option<StepKey>, Error> {
        let mut seen = Vec::new();
        for mount in &run.mounts {
            let from = match mount {
                Mount::Bind(_) => mount.from(),
                Mount::Cache(cache) if cache.from.is_some() => mount.from(),
                Mount::Cache(_) | Mount::Tmpfs(_) | Mount::Secret(_) | Mount::Ssh(_) => continue,
            };
            let found = match from {
                None => self.main_source().await?,
                Some(from) => match self.session.plan.resolve_mount(self.index, from)? {
                    Some(found) => self.found(found).await?,
                    None => return Ok(None),
                },
            };
            match found {
                Found::Layers(layers) => seen.push(chain_of(&layers)),
                Found::Files(_) => return Ok(None),
            }
        }
        if seen.is_empty() {
            return Ok(None);
        }
        let platform = self.session.plan.platform_of(self.index);
        let begun = KeyBuilder::new("name of run");
        let key = run_step::key(begun, self.session, platform, run, &self.state.chain());
        let mounts = run.mounts.iter().map(|mount| format!("{mount:?}"));
        Ok(Some(key.list("mounts", mounts).list("seen", seen).finish()))
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
        let chain = self.state.chain();
        let key = |keep| {
            KeyBuilder::of("workdir", keep)
                .part("below", &chain)
                .part("path", path)
                .part("user", &user)
                .part("epoch", format!("{:?}", session.epoch))
        };
        let layers = self.state.layers.clone();
        self.step(line, &key, None, async |_| {
            let view = layers::view(session, &layers).await?;
            let owner = copy_step::owner_of(session, &user, &layers, &view).await?;
            let placement = copy::place_folder(&view, path, owner)?;
            let made = copy_step::write(session, placement, session.created());
            Ok(made.await?.into())
        })
        .await
    }

    async fn copy(&mut self, line: &str, copy: CopyStep) -> Result<Vec<StepResult>, Error> {
        let session = self.session;
        let chain = self.state.chain();
        let source = self.source(&copy).await?;
        let name = match &source {
            Found::Layers(layers) => Some(copy_step::name(
                &copy,
                &chain_of(layers),
                &chain,
                session.epoch,
            )),
            Found::Files(_) => None,
        };
        // What may become several layers has no name that stands for one.
        let name = name.filter(|_| session.layer_policy == LayerPolicy::Whole);
        if let Some(name) = &name
            && let Some(result) = self.by_name(line, name).await?
        {
            return Ok(vec![result]);
        }
        // Files of a commit have its time, wherever they are copied.
        let is_of_commit = copy.from.is_none() && session.commit.is_some();
        let goes_ahead = !is_of_commit && session.early.goes_ahead(session, self.index);
        let files = self.looked_into(source).await?;
        let prepared = copy_step::prepare(session, copy, files).await?;
        if prepared.has_apart(&session.layer_policy) {
            return self.copy_apart(line, prepared, &chain, goes_ahead).await;
        }
        let described = prepared.clone();
        let key = |keep| described.key(KeyBuilder::of("copy", keep), &chain, session.epoch);
        let layers = self.state.layers.clone();
        let made = self.step(line, &key, name, async |_| {
            let made = copy_step::run(session, prepared, &layers, goes_ahead);
            Ok(made.await?.into())
        });
        Ok(vec![made.await?])
    }

    /// Copies large files into layers of their own.
    async fn copy_apart(
        &mut self,
        line: &str,
        prepared: copy_step::Prepared,
        chain: &str,
        goes_ahead: bool,
    ) -> Result<Vec<StepResult>, Error> {
        let (session, layers) = (self.session, self.state.layers.clone());
        let laid = copy_step::lay(session, prepared.clone(), &layers).await?;
        let (mut rest, weights) = weights::split(session, laid).await?;
        rest.goes_ahead = goes_ahead;
        let names: Vec<String> = weights.iter().map(Weight::name).collect();
        let key = |keep| {
            let key = prepared.key(KeyBuilder::of("copy", keep), chain, session.epoch);
            key.list("apart", &names)
        };
        let rest = self.step(line, &key, None, async |_| {
            Ok(rest.layer(session).await?.into())
        });
        let mut made = vec![rest.await?];
        for weight in weights {
            let line = format!("{line} ({})", weight.name());
            let (laid, named) = weight.named();
            let key = |keep| named.key(KeyBuilder::of("weight", keep), session.epoch);
            let layer = self.step(&line, &key, None, async |_| {
                Ok(laid.layer(session).await?.into())
            });
            let layer = layer.await?;
            self.state.given.insert(layer.diff_id);
            made.push(layer);
        }
        Ok(made)
    }

    /// Finds what a copy is from.
    async fn source(&self, copy: &CopyStep) -> Result<Found, Error> {
        let Some(from) = &copy.from else {
            return self.main_source().await;
        };
        let found = self.session.plan.resolve_from(self.index, from)?;
        self.found(found).await
    }

    /// Gives the context of the build.
    async fn main_source(&self) -> Result<Found, Error> {
        let Some(image) = &self.session.context_image else {
            let context = self.session.context.clone();
            return Ok(Found::Files(files::Files::Context(context)));
        };
        let image = base::of_context(self.session, image, None).await?;
        Ok(Found::Layers(image.layers))
    }

    /// Gives the files of the context of the build.
    async fn main_files(&self) -> Result<files::Files, Error> {
        let found = self.main_source().await?;
        self.looked_into(found).await
    }

    async fn looked_into(&self, found: Found) -> Result<files::Files, Error> {
        match found {
            Found::Files(files) => Ok(files),
            Found::Layers(layers) => self.layered(layers).await,
        }
    }

    async fn layered(&self, layers: Vec<Layer>) -> Result<files::Files, Error> {
        let view = layers::view(self.session, &layers).await?;
        Ok(files::Files::Layers { layers, view })
    }

    /// Gives the files of a stage, image or named context.
    async fn files_of(&self, found: StageRef) -> Result<files::Files, Error> {
        let found = self.found(found).await?;
        self.looked_into(found).await
    }

    /// Gives a stage, image or named context.
    async fn found(&self, found: StageRef) -> Result<Found, Error> {
        Ok(Found::Layers(match found {
            StageRef::Stage(index) => {
                let state = stage(self.session, index).await.map_err(Error::Shared)?;
                state.layers.clone()
            }
            StageRef::Image(reference) => base::image(self.session, &reference, None).await?.layers,
            StageRef::Context(name) => {
                if let Some(tree) = self.session.trees.get(&name).await? {
                    return Ok(Found::Files(files::Files::Context(tree.context)));
                }
                base::named(self.session, &name, None).await?.layers
            }
        }))
    }

    /// Takes the result of a step from a cache, or makes and remembers it. `name` is
    /// another name of the step, to be remembered too.
    async fn step(
        &mut self,
        line: &str,
        key: &(dyn Fn(bool) -> KeyBuilder + Sync),
        name: Option<StepKey>,
        make: impl AsyncFnOnce(StepId) -> Result<Made, Error>,
    ) -> Result<StepResult, Error> {
        let asked = Asked {
            session: self.session,
            index: self.index,
            step: self.session.step(self.names.next(line)),
            key: key(false).finish(),
        };
        let (session, index, layers) = (self.session, self.index, &self.state.layers);
        let make = async |step| {
            session.preflight.ask();
            // What is not known here is followed by what is not known either.
            if session.run_above[index] || session.plan.runs_from(index, self.next) {
                trees::foresee(session, layers);
            }
            make(step).await
        };
        let (result, late) = asked.done(key, name, make).await?;
        self.late.extend(late);
        Ok(result)
    }

    /// Takes the result of a step that is known by another name.
    async fn by_name(&mut self, line: &str, name: &StepKey) -> Result<Option<StepResult>, Error> {
        let Some(known) = known::by_name(self.session, name).await else {
            return Ok(None);
        };
        let asked = Asked {
            session: self.session,
            index: self.index,
            step: self.session.step(self.names.next(line)),
            key: known.key,
        };
        asked.known_as(name, known).map(Some)
    }
}
