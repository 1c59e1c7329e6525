//! Whether a Dockerfile makes device nodes, as far as its text tells. No user namespace may
//! make one, so such a build is better off with an engine that records them.

use super::Plan;
use crate::dockerfile::ast::{Command, Heredoc, Instruction, Run};

/// Programs that make device nodes, or whole systems with some in them.
const MAKERS: &[&str] = &["MAKEDEV", "debootstrap", "makedev", "mknod", "mmdebstrap"];

impl Plan {
    /// Tells whether a command, or a script written with one, names a program that makes
    /// device nodes. A program that does so by another's hand is not found out.
    pub fn makes_devices(&self) -> bool {
        let stages = self.dockerfile.stages.iter();
        let mut instructions = stages.flat_map(|stage| &stage.instructions);
        instructions.any(|instruction| match instruction {
            Instruction::Run(run) => texts(run).any(names_a_maker),
            Instruction::Copy(copy) => bodies(&copy.heredocs).any(names_a_maker),
            Instruction::Add(add) => bodies(&add.heredocs).any(names_a_maker),
            _ => false,
        })
    }
}

fn texts(run: &Run) -> impl Iterator<Item = &str> {
    let words = match &run.command {
        Command::Shell(word) => std::slice::from_ref(word),
        Command::Exec(words) => words,
    };
    let words = words.iter().map(|word| word.text.as_str());
    words.chain(bodies(&run.heredocs))
}

fn bodies(heredocs: &[Heredoc]) -> impl Iterator<Item = &str> {
    heredocs.iter().map(|heredoc| heredoc.body.text.as_str())
}

fn names_a_maker(text: &str) -> bool {
    let mut words = text.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
    words.any(|word| MAKERS.contains(&word))
}
