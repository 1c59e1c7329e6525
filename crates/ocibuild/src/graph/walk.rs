//! Stages as far as their configuration goes: every instruction is taken, none is
//! carried out. Checks, outlines and tests look at a Dockerfile so, without a store.

use std::collections::BTreeMap;

use crate::dockerfile::ast::{Instruction, Origin};
use crate::dockerfile::parse_trigger;
use crate::error::Location;
use crate::image::ImageConfig;

use super::{Applied, Base, Error, Plan, StageConfig};

/// A stage at its end.
#[derive(Debug, Clone)]
pub struct WalkedStage {
    /// Its configuration.
    pub config: StageConfig,
    /// What each instruction came to, triggers of the base first.
    pub applied: Vec<Applied>,
    /// The image below it was known, so that its variables are, too.
    pub is_known: bool,
}

/// An instruction that is about to be taken.
#[derive(Debug, Clone, Copy)]
pub struct Visit<'a> {
    /// The number of the stage.
    pub stage: usize,
    /// The configuration before it.
    pub config: &'a StageConfig,
    /// The instruction.
    pub instruction: &'a Instruction,
    /// Its place in the Dockerfile; a trigger stands where FROM does.
    pub origin: &'a Origin,
    /// The image below is known.
    pub is_known: bool,
}

/// Walks the given stages in their order.
///
/// `bases` has the configurations of base images, by number of stage; a base that is
/// missing there is taken for an empty image. `visit` sees each instruction first.
pub fn walk(
    plan: &Plan,
    stages: impl IntoIterator<Item = usize>,
    bases: &BTreeMap<usize, ImageConfig>,
    visit: &mut dyn FnMut(Visit<'_>),
) -> Result<BTreeMap<usize, WalkedStage>, (Location, Error)> {
    let mut walked = BTreeMap::new();
    for index in stages {
        let stage = walk_stage(plan, index, bases, &walked, visit)?;
        walked.insert(index, stage);
    }
    Ok(walked)
}

fn walk_stage(
    plan: &Plan,
    index: usize,
    bases: &BTreeMap<usize, ImageConfig>,
    walked: &BTreeMap<usize, WalkedStage>,
    visit: &mut dyn FnMut(Visit<'_>),
) -> Result<WalkedStage, (Location, Error)> {
    let planned = match plan.stages.get(index) {
        Some(Ok(planned)) => planned,
        Some(Err(error)) => return Err(error.clone()),
        None => return Err(plan.missing(index)),
    };
    let parent = match &planned.base {
        Base::Stage(parent) => walked.get(parent),
        _ => None,
    };
    let (begun, triggers, is_known) = match (parent, bases.get(&index)) {
        (Some(parent), _) => {
            let (config, triggers) = parent.config.child();
            (config, triggers, parent.is_known)
        }
        (None, Some(image)) => {
            let (config, triggers) = StageConfig::of_image(plan, image.clone());
            (config, triggers, true)
        }
        (None, None) => {
            let empty = ImageConfig::scratch(&planned.platform);
            let (config, triggers) = StageConfig::of_image(plan, empty);
            (config, triggers, planned.base == Base::Scratch)
        }
    };
    let (config, applied) = take_all(plan, index, begun, &triggers, is_known, visit)?;
    Ok(WalkedStage {
        config,
        applied,
        is_known,
    })
}

/// Takes the triggers of a base and then the instructions of a stage.
pub fn take_all(
    plan: &Plan,
    index: usize,
    begun: StageConfig,
    triggers: &[String],
    is_known: bool,
    visit: &mut dyn FnMut(Visit<'_>),
) -> Result<(StageConfig, Vec<Applied>), (Location, Error)> {
    let stage = &plan.dockerfile.stages[index];
    let from = &stage.from.origin;
    let mut config = begun;
    let mut applied = Vec::new();
    let mut take = |instruction: &Instruction, origin: &Origin| {
        visit(Visit {
            stage: index,
            config: &config,
            instruction,
            origin,
            is_known,
        });
        let result = config.apply(plan, instruction);
        applied.push(result.map_err(|error| (plan.location(origin), error))?);
        Ok(())
    };
    for text in triggers {
        let trigger = parse_trigger(text).map_err(|error| {
            let error = Error::Invalid(format!("ONBUILD {text:?} of the base: {error}"));
            (plan.location(from), error)
        })?;
        take(&trigger, from)?;
    }
    for instruction in &stage.instructions {
        take(instruction, instruction.origin())?;
    }
    Ok((config, applied))
}
