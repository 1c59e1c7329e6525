//! The parameters of a target and the list of targets, as BuildKit's subrequests
//! `frontend.outline` and `frontend.targets` give them.

use std::collections::{BTreeMap, BTreeSet};

use crate::check::{Lines, Outline, OutlineArg, OutlineMount, Target};
use crate::dockerfile::ast::{Arg, ArgDeclaration, Instruction, Origin, Run};
use crate::dockerfile::path::base;
use crate::error::Location;

use super::walk::walk;
use super::{Error, Plan};

/// Gives the parameters of the target: arguments, secrets, agents and caches.
pub fn outline(plan: &Plan) -> Result<Outline, (Location, Error)> {
    let needed = plan.reachable()?;
    let target = &plan.dockerfile.stages[plan.target];
    let mut outline = Outline {
        name: target
            .name
            .as_ref()
            .map(|name| name.text.clone())
            .unwrap_or_default(),
        description: target.description.clone().unwrap_or_default(),
        args: args(plan, &needed)?,
        ..Outline::default()
    };
    for index in needed {
        for instruction in &plan.dockerfile.stages[index].instructions {
            if let Instruction::Run(run) = instruction {
                add_mounts(plan, run, &mut outline);
            }
        }
    }
    for mounts in [&mut outline.secrets, &mut outline.ssh, &mut outline.caches] {
        mounts.sort_by_key(|mount| mount.lines.first);
    }
    Ok(outline)
}

/// Gives all stages, in order.
pub fn targets(plan: &Plan) -> Result<Vec<Target>, (Location, Error)> {
    let last = plan.dockerfile.stages.len().saturating_sub(1);
    let stages = plan.dockerfile.stages.iter().enumerate();
    Ok(stages
        .map(|(index, stage)| Target {
            name: stage
                .name
                .as_ref()
                .map(|name| name.text.clone())
                .unwrap_or_default(),
            description: stage.description.clone().unwrap_or_default(),
            is_default: index == last,
            base: stage.from.image.text.clone(),
            platform: stage
                .from
                .platform
                .as_ref()
                .map(|it| it.text.clone())
                .unwrap_or_default(),
            lines: lines(plan, &stage.from.origin),
        })
        .collect())
}

fn lines(plan: &Plan, origin: &Origin) -> Lines {
    let lines = plan.lines.lines(origin.span);
    Lines {
        first: *lines.start(),
        last: *lines.end(),
    }
}

/// The arguments that the needed stages declare or their FROM uses. One that a stage only
/// takes over is shown where it is global.
fn args(plan: &Plan, needed: &BTreeSet<usize>) -> Result<Vec<OutlineArg>, (Location, Error)> {
    let mut globals = BTreeMap::new();
    let mut used = BTreeMap::new();
    for arg in &plan.dockerfile.global_args {
        for declaration in &arg.declarations {
            let value = plan.globals.get(declaration.name.as_str());
            let shown = shown(plan, arg, declaration, value.unwrap_or_default());
            globals.insert(declaration.name.text.as_str(), (shown, declaration));
        }
    }
    for index in needed {
        let from = &plan.dockerfile.stages[*index].from;
        for word in [Some(&from.image), from.platform.as_ref()]
            .into_iter()
            .flatten()
        {
            if let Ok(found) = plan.globals.trace(&word.text) {
                let names = found.used.into_iter().chain(found.unset);
                use_globals(plan, names.collect(), &globals, &mut used);
            }
        }
    }
    let mut declared = Vec::new();
    walk(
        plan,
        needed.iter().copied(),
        &BTreeMap::new(),
        &mut |visit| {
            if let Instruction::Arg(arg) = visit.instruction {
                let mut config = visit.config.clone();
                // What is wrong with it is said by the walk itself.
                let _ = config.apply(plan, visit.instruction);
                for declaration in &arg.declarations {
                    let value = config
                        .scope
                        .get(declaration.name.as_str())
                        .unwrap_or_default();
                    declared.push((shown(plan, arg, declaration, value), declaration.clone()));
                }
            }
        },
    )?;
    for (arg, declaration) in declared {
        let is_given = plan.request.args.contains_key(&arg.name);
        let is_taken_over = declaration.default.is_none() && !is_given;
        match is_taken_over && globals.contains_key(arg.name.as_str()) {
            true => use_globals(plan, vec![arg.name], &globals, &mut used),
            // A platform argument is none that anybody has to give.
            false if is_taken_over && plan.globals.get(&arg.name).is_some() => {}
            false => drop(used.insert(arg.name.clone(), arg)),
        }
    }
    let mut args: Vec<OutlineArg> = used.into_values().collect();
    args.sort_by_key(|arg| arg.lines.first);
    Ok(args)
}

/// Adds global arguments with those that their defaults use.
fn use_globals(
    plan: &Plan,
    mut names: Vec<String>,
    globals: &BTreeMap<&str, (OutlineArg, &ArgDeclaration)>,
    used: &mut BTreeMap<String, OutlineArg>,
) {
    while let Some(name) = names.pop() {
        let Some((arg, declaration)) = globals.get(name.as_str()) else {
            continue;
        };
        if used.insert(name, arg.clone()).is_some() {
            continue;
        }
        let default = declaration.default.as_ref();
        if let Some(Ok(found)) = default.map(|word| plan.globals.trace(&word.text)) {
            names.extend(found.used);
        }
    }
}

fn shown(plan: &Plan, arg: &Arg, declaration: &ArgDeclaration, value: &str) -> OutlineArg {
    OutlineArg {
        name: declaration.name.text.clone(),
        value: value.to_owned(),
        description: declaration.description.clone().unwrap_or_default(),
        lines: lines(plan, &arg.origin),
    }
}

fn add_mounts(plan: &Plan, run: &Run, outline: &mut Outline) {
    for mount in &run.mounts {
        let options: BTreeMap<&str, &str> = mount
            .text
            .split(',')
            .map(|option| option.split_once('=').unwrap_or((option, "true")))
            .collect();
        let get = |names: &[&str]| names.iter().find_map(|name| options.get(name).copied());
        let target = get(&["target", "dst", "destination"]);
        let (list, default) = match get(&["type"]) {
            Some("secret") => (&mut outline.secrets, target.map_or("", base)),
            Some("ssh") => (&mut outline.ssh, "default"),
            Some("cache") => (&mut outline.caches, target.unwrap_or_default()),
            _ => continue,
        };
        let id = get(&["id"]).unwrap_or(default).to_owned();
        let required = get(&["required"]) == Some("true");
        match list.iter_mut().find(|known| known.id == id) {
            Some(known) => known.required |= required,
            None => list.push(OutlineMount {
                id,
                required,
                lines: lines(plan, &run.origin),
            }),
        }
    }
}
