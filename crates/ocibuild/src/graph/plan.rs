//! Which stages there are, what each is built on, and which the target needs.
//!
//! Global ARGs and the platform arguments decide FROM; a base that depends on nothing
//! else is known before anything is loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::dockerfile::ast::{Arg, Instruction, Origin, Stage};
use crate::dockerfile::mount::from_of;
use crate::dockerfile::{Dockerfile, LineStarts, suggest};
use crate::error::Location;
use crate::registry::{Platform, Reference};

use super::{Entitlement, Error, Scope, cycle, supported};

/// What the plan depends on beside the Dockerfile.
#[derive(Debug, Clone)]
pub struct Request {
    /// The name of the Dockerfile, for errors.
    pub file: String,
    /// Values of `--build-arg`.
    pub args: BTreeMap<String, String>,
    /// The stage that is wanted; the last one where none is named.
    pub target: Option<String>,
    /// The platform that is built for.
    pub platform: Platform,
    /// Names that stand for something else than an image of that name.
    pub contexts: BTreeSet<String>,
    /// What steps may ask for beyond the usual.
    pub entitlements: BTreeSet<Entitlement>,
}

/// What a stage begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// Nothing.
    Scratch,
    /// The result of an earlier stage.
    Stage(usize),
    /// An image of a registry.
    Image(Reference),
    /// What a name was given to stand for.
    Context(String),
}

/// Where `--from` points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StageRef {
    /// A stage.
    Stage(usize),
    /// An image of a registry.
    Image(Reference),
    /// What a name was given to stand for.
    Context(String),
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStage {
    /// What it begins with.
    pub base: Base,
    /// As FROM names it, expanded.
    pub base_name: String,
    /// The platform of its base.
    pub platform: Platform,
    /// The stages that its instructions copy from.
    pub uses: BTreeSet<usize>,
    /// How it is called in what is shown.
    pub name: String,
}

/// A whole Dockerfile with everything decided that can be decided beforehand.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The Dockerfile.
    pub dockerfile: Dockerfile,
    /// Its text, for errors.
    pub text: Arc<str>,
    /// Where its lines begin.
    pub lines: LineStarts,
    /// What the plan was made for.
    pub request: Request,
    /// One a stage of the Dockerfile. Stages that the target does not need may hold an error.
    pub stages: Vec<Result<PlannedStage, (Location, Error)>>,
    /// The stage that is wanted.
    pub target: usize,
    /// Global and platform arguments, which `ARG NAME` brings into a stage.
    pub globals: Scope,
}

/// An error and where in the Dockerfile it is.
pub type Located = (Option<Location>, Error);

/// Makes the plan, and refuses what cannot be done before anything is done.
pub fn plan(dockerfile: Dockerfile, request: Request) -> Result<Plan, Located> {
    let text: Arc<str> = dockerfile.source.as_str().into();
    let mut plan = Plan {
        globals: Scope::default(),
        target: 0,
        stages: Vec::new(),
        lines: LineStarts::new(&text),
        text,
        request,
        dockerfile,
    };
    plan.target = plan.find_target().map_err(|error| (None, error))?;
    plan.globals = plan.global_scope(&plan.request.args).map_err(some)?;
    let stages = (0..plan.dockerfile.stages.len())
        .map(|index| plan.stage(index))
        .collect();
    plan.stages = stages;
    if let Some((origin, error)) = cycle::find(&plan) {
        return Err((Some(plan.location(origin)), error));
    }
    for index in plan.reachable().map_err(some)? {
        supported::check(&plan.dockerfile.stages[index], &plan.request)
            .map_err(|(origin, error)| some((plan.location(origin), error)))?;
    }
    Ok(plan)
}

fn global_arg(scope: &mut Scope, arg: &Arg, args: &BTreeMap<String, String>) -> Result<(), Error> {
    for declaration in &arg.declarations {
        let name = declaration.name.text.clone();
        let value = match (args.get(&name), &declaration.default) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(default)) => Some(scope.expand(&default.text)?),
            (None, None) => None,
        };
        if let Some(value) = value {
            scope.set(&name, &value);
        }
    }
    Ok(())
}

/// Says which stage was probably meant, and which there are.
fn target_hint(wanted: &str, names: &[&str]) -> Option<String> {
    if names.is_empty() {
        return None;
    }
    let all = format!("the stages are: {}", names.join(", "));
    Some(match suggest::search(wanted, names) {
        Some(meant) => format!("did you mean {meant}? {all}"),
        None => all,
    })
}

fn some((location, error): (Location, Error)) -> Located {
    (Some(location), error)
}

impl Plan {
    /// Gives the place of an instruction.
    pub fn location(&self, origin: &Origin) -> Location {
        let lines = self.lines.lines(origin.span);
        let number = |line: usize| u32::try_from(line).unwrap_or(u32::MAX);
        Location {
            file: self.request.file.clone(),
            lines: number(*lines.start())..=number(*lines.end()),
            text: self.text.clone(),
        }
    }

    /// Finds what `--from` of a stage names: an earlier stage by name or number, a name
    /// that stands for something, else an image.
    pub fn resolve_from(&self, stage: usize, name: &str) -> Result<StageRef, Error> {
        if self.request.contexts.contains(name) {
            return Ok(StageRef::Context(name.to_owned()));
        }
        if name.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() {
            let number = name.parse().unwrap_or(usize::MAX);
            return self.earlier(stage, number, name);
        }
        match self.stage_named(name, stage) {
            Some(found) => self.earlier(stage, found, name),
            None => self.image_or_context(name),
        }
    }

    /// Finds what `from` of a mount names; `None` is an empty file system, which `scratch`
    /// stands for.
    pub fn resolve_mount(&self, stage: usize, name: &str) -> Result<Option<StageRef>, Error> {
        let is_known =
            self.request.contexts.contains(name) || self.stage_named(name, stage).is_some();
        if name == "scratch" && !is_known {
            return Ok(None);
        }
        self.resolve_from(stage, name).map(Some)
    }

    /// Finds the stage that `--from` of a stage names, be it earlier or later.
    pub(super) fn stage_of(&self, stage: usize, name: &str) -> Option<usize> {
        if self.request.contexts.contains(name) {
            return None;
        }
        let stages = self.dockerfile.stages.len();
        match name.parse() {
            Ok(number) => Some(number).filter(|number| *number < stages),
            Err(_) => self.stage_named(name, stage),
        }
    }

    /// Gives what a stage is called in what is shown.
    pub fn stage_name(&self, index: usize) -> String {
        let stage = self.dockerfile.stages.get(index);
        match stage.and_then(|stage| stage.name.as_ref()) {
            Some(name) => name.text.clone(),
            None => format!("stage-{index}"),
        }
    }

    /// The error of a number that no stage has.
    pub(super) fn missing(&self, index: usize) -> (Location, Error) {
        let location = Location {
            file: self.request.file.clone(),
            lines: 1..=1,
            text: self.text.clone(),
        };
        (location, Error::StageNumber(index.to_string()))
    }

    fn earlier(&self, stage: usize, found: usize, name: &str) -> Result<StageRef, Error> {
        match found {
            found if found >= self.dockerfile.stages.len() => {
                Err(Error::StageNumber(name.to_owned()))
            }
            found if found == stage => Err(Error::Cycle(name.to_owned())),
            found if found > stage => Err(Error::LaterStage(name.to_owned())),
            found => Ok(StageRef::Stage(found)),
        }
    }

    /// Finds a stage by name: the last one before `before`, else the first after it.
    fn stage_named(&self, name: &str, before: usize) -> Option<usize> {
        let fits = |stage: &Stage| {
            stage
                .name
                .as_ref()
                .is_some_and(|known| known.text.eq_ignore_ascii_case(name))
        };
        let stages = &self.dockerfile.stages;
        stages
            .iter()
            .take(before)
            .rposition(fits)
            .or_else(|| Some(before + stages.get(before..)?.iter().position(fits)?))
    }

    fn find_target(&self) -> Result<usize, Error> {
        let stages = &self.dockerfile.stages;
        let Some(wanted) = &self.request.target else {
            return Ok(stages.len().saturating_sub(1));
        };
        self.stage_named(wanted, stages.len()).ok_or_else(|| {
            let names: Vec<&str> = stages
                .iter()
                .filter_map(|stage| Some(stage.name.as_ref()?.text.as_str()))
                .collect();
            Error::NoTarget(wanted.clone(), target_hint(wanted, &names))
        })
    }

    /// Gives the global arguments as these values of `--build-arg` make them.
    pub(super) fn global_scope(
        &self,
        args: &BTreeMap<String, String>,
    ) -> Result<Scope, (Location, Error)> {
        let mut scope = Scope::from_env(&[], self.dockerfile.escape());
        for (name, value) in self.platform_args() {
            scope.set(name, &value);
        }
        for arg in &self.dockerfile.global_args {
            global_arg(&mut scope, arg, args)
                .map_err(|error| (self.location(&arg.origin), error))?;
        }
        Ok(scope)
    }

    /// The arguments that exist without being given; `--build-arg` wins over them.
    fn platform_args(&self) -> Vec<(&'static str, String)> {
        let (build, target) = (Platform::host(), &self.request.platform);
        let variant = |platform: &Platform| platform.variant.clone().unwrap_or_default();
        let stage = self.dockerfile.stages.get(self.target);
        let stage = stage.and_then(|stage| Some(stage.name.as_ref()?.text.clone()));
        // A target is passed on as it was asked for, upper case and all.
        let asked = self.request.target.clone();
        let stage = asked
            .filter(|asked| {
                stage
                    .as_ref()
                    .is_some_and(|name| name.eq_ignore_ascii_case(asked))
            })
            .or(stage);
        let mut args = vec![
            ("BUILDPLATFORM", build.to_string()),
            ("BUILDOS", build.os.clone()),
            ("BUILDOSVERSION", String::new()),
            ("BUILDARCH", build.architecture.clone()),
            ("BUILDVARIANT", variant(&build)),
            ("TARGETPLATFORM", target.to_string()),
            ("TARGETOS", target.os.clone()),
            (
                "TARGETOSVERSION",
                target.os_version.clone().unwrap_or_default(),
            ),
            ("TARGETARCH", target.architecture.clone()),
            ("TARGETVARIANT", variant(target)),
            ("TARGETSTAGE", stage.unwrap_or_else(|| "default".to_owned())),
        ];
        for (name, value) in &mut args {
            if let Some(given) = self.request.args.get(*name) {
                value.clone_from(given);
            }
        }
        args
    }

    fn stage(&self, index: usize) -> Result<PlannedStage, (Location, Error)> {
        let stage = &self.dockerfile.stages[index];
        let at_from = |error| (self.location(&stage.from.origin), error);
        let written = &stage.from.image.text;
        let base_name = self.globals.expand(written).map_err(at_from)?;
        if base_name.is_empty() {
            return Err(at_from(Error::EmptyBase(written.clone())));
        }
        let platform = self.base_platform(stage).map_err(at_from)?;
        Ok(PlannedStage {
            base: self.base(index, &base_name).map_err(at_from)?,
            base_name,
            platform,
            uses: self.uses(index)?,
            name: self.stage_name(index),
        })
    }

    fn base_platform(&self, stage: &Stage) -> Result<Platform, Error> {
        let Some(word) = &stage.from.platform else {
            return Ok(self.request.platform.clone());
        };
        let expanded = self.globals.trace(&word.text)?;
        let text = expanded.text;
        if text.is_empty() {
            let names = self.globals.names();
            let unset = expanded.unset.iter();
            let meant = unset
                .filter_map(|name| suggest::search(name, &names))
                .next();
            return Err(Error::EmptyPlatform {
                written: word.text.clone(),
                hint: meant.map(|name| format!("did you mean {name}?")),
            });
        }
        text.parse()
            .map_err(|error: crate::registry::descriptor::InvalidPlatform| {
                Error::Platform(error.to_string())
            })
    }

    /// FROM compares names of stages exactly, and a stage may be called `scratch`.
    fn base(&self, index: usize, name: &str) -> Result<Base, Error> {
        let earlier = &self.dockerfile.stages[..index];
        let same = |stage: &Stage| stage.name.as_ref().is_some_and(|known| known.text == name);
        if !self.request.contexts.contains(name)
            && let Some(found) = earlier.iter().rposition(same)
        {
            return Ok(Base::Stage(found));
        }
        if name == "scratch" {
            return Ok(Base::Scratch);
        }
        Ok(match self.image_or_context(name)? {
            StageRef::Stage(found) => Base::Stage(found),
            StageRef::Image(reference) => Base::Image(reference),
            StageRef::Context(name) => Base::Context(name),
        })
    }

    fn image_or_context(&self, name: &str) -> Result<StageRef, Error> {
        if self.request.contexts.contains(name) {
            return Ok(StageRef::Context(name.to_owned()));
        }
        let reference: Reference =
            name.parse()
                .map_err(|error: crate::registry::InvalidReference| Error::Image {
                    name: name.to_owned(),
                    reason: error.to_string(),
                })?;
        // `python` and `docker.io/library/python:latest` are one name.
        let same = |context: &&String| {
            let parsed: Result<Reference, _> = context.parse();
            parsed.is_ok_and(|context| {
                context.repository() == reference.repository()
                    && context.tag_or_latest() == reference.tag_or_latest()
                    && context.digest() == reference.digest()
            })
        };
        match self.request.contexts.iter().find(same) {
            Some(context) => Ok(StageRef::Context(context.clone())),
            None => Ok(StageRef::Image(reference)),
        }
    }

    fn uses(&self, index: usize) -> Result<BTreeSet<usize>, (Location, Error)> {
        let mut uses = BTreeSet::new();
        for instruction in &self.dockerfile.stages[index].instructions {
            let used = self.used_by(index, instruction);
            let at = |error| (self.location(instruction.origin()), error);
            uses.extend(used.map_err(at)?);
        }
        Ok(uses)
    }

    /// Gives the stages that an instruction takes files from.
    fn used_by(&self, index: usize, instruction: &Instruction) -> Result<Vec<usize>, Error> {
        let found: Vec<Option<StageRef>> = match instruction {
            Instruction::Copy(copy) => match &copy.flags.from {
                Some(from) if from.text.contains('$') => {
                    return Err(Error::VariableFrom(from.text.clone()));
                }
                Some(from) => vec![Some(self.resolve_from(index, &from.text)?)],
                None => Vec::new(),
            },
            Instruction::Run(run) => {
                let names = run.mounts.iter().filter_map(|mount| from_of(&mount.text));
                names
                    .map(|name| self.resolve_mount(index, &name))
                    .collect::<Result<_, _>>()?
            }
            _ => Vec::new(),
        };
        let stages = found.into_iter().flatten().filter_map(|found| match found {
            StageRef::Stage(stage) => Some(stage),
            StageRef::Image(_) | StageRef::Context(_) => None,
        });
        Ok(stages.collect())
    }

    /// Gives the platform on which the commands of a stage run: that of the image which it
    /// begins with, be it through other stages.
    pub fn platform_of(&self, stage: usize) -> &Platform {
        let mut index = stage;
        loop {
            match self.stages.get(index) {
                // A stage begins with an earlier one, so that this ends.
                Some(Ok(planned)) => match planned.base {
                    Base::Stage(base) => index = base,
                    _ => return &planned.platform,
                },
                _ => return &self.request.platform,
            }
        }
    }

    /// Gives the stages that the target needs.
    pub fn reachable(&self) -> Result<BTreeSet<usize>, (Location, Error)> {
        let mut seen = BTreeSet::new();
        let mut pending = vec![self.target];
        while let Some(index) = pending.pop() {
            if !seen.insert(index) {
                continue;
            }
            let stage = match self.stages.get(index) {
                Some(Ok(stage)) => stage,
                Some(Err(error)) => return Err(error.clone()),
                None => continue,
            };
            pending.extend(&stage.uses);
            if let Base::Stage(base) = stage.base {
                pending.push(base);
            }
        }
        Ok(seen)
    }

    /// Tells of each stage whether a command runs in a stage that begins with it.
    pub fn run_above(&self) -> Vec<bool> {
        let mut above = vec![false; self.stages.len()];
        // A stage begins with one that stands before it.
        for (index, stage) in self.stages.iter().enumerate().rev() {
            if let Ok(stage) = stage
                && let Base::Stage(base) = stage.base
                && (above[index] || self.runs_from(index, 0))
            {
                above[base] = true;
            }
        }
        above
    }

    /// Tells whether a command runs in a stage, from an instruction on.
    pub fn runs_from(&self, index: usize, instruction: usize) -> bool {
        let stage = self.dockerfile.stages.get(index);
        let instructions = stage.map_or(&[][..], |stage| &stage.instructions);
        let mut rest = instructions.iter().skip(instruction);
        rest.any(|instruction| matches!(instruction, Instruction::Run(_)))
    }
}
