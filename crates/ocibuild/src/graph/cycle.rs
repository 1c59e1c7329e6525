//! Stages that copy from each other in a ring. They are an error wherever they stand,
//! whereas a stage that uses a later one is only an error where it is built.

use crate::dockerfile::ast::{Instruction, Origin};
use crate::dockerfile::mount::from_of;

use super::{Error, Plan};

/// How far a stage has been looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    New,
    /// On the way that led here.
    Open,
    Done,
}

/// Gives an instruction that closes a ring, where there is one.
pub(super) fn find(plan: &Plan) -> Option<(&Origin, Error)> {
    let copies: Vec<Vec<(&Origin, usize)>> = (0..plan.dockerfile.stages.len())
        .map(|index| copies(plan, index))
        .collect();
    let mut marks = vec![Mark::New; copies.len()];
    for start in 0..copies.len() {
        if marks[start] != Mark::New {
            continue;
        }
        // A stack of our own: a file can have more stages than a thread has room for.
        let mut way = vec![(start, 0)];
        marks[start] = Mark::Open;
        while let Some((stage, next)) = way.last_mut() {
            let Some((origin, used)) = copies[*stage].get(*next) else {
                marks[*stage] = Mark::Done;
                way.pop();
                continue;
            };
            *next += 1;
            match marks[*used] {
                Mark::Open => return Some((origin, Error::Cycle(plan.stage_name(start)))),
                Mark::New => {
                    marks[*used] = Mark::Open;
                    way.push((*used, 0));
                }
                Mark::Done => {}
            }
        }
    }
    None
}

/// The stages that a stage takes files from, wherever they stand.
fn copies(plan: &Plan, index: usize) -> Vec<(&Origin, usize)> {
    let mut copies = Vec::new();
    for instruction in &plan.dockerfile.stages[index].instructions {
        let names = match instruction {
            Instruction::Copy(copy) => copy.flags.from.iter().map(|it| it.text.clone()).collect(),
            Instruction::Run(run) => {
                let froms = run.mounts.iter().filter_map(|mount| from_of(&mount.text));
                froms.collect::<Vec<_>>()
            }
            _ => Vec::new(),
        };
        let used = names.iter().filter_map(|name| plan.stage_of(index, name));
        copies.extend(used.map(|used| (instruction.origin(), used)));
    }
    copies
}
