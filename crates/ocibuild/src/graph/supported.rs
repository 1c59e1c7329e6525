//! Refuses what cannot be done, or not yet, before anything is done: a build must not
//! find out after an hour that its last line was in vain.

use crate::copy::Mode;
use crate::dockerfile::Word;
use crate::dockerfile::ast::{Add, Copy, Instruction, Origin, Run, Security, Stage};

use super::{CopySource, Error};

/// Looks at every instruction of a stage.
pub(super) fn check(stage: &Stage) -> Result<(), (&Origin, Error)> {
    for instruction in &stage.instructions {
        check_one(instruction).map_err(|error| (instruction.origin(), error))?;
    }
    Ok(())
}

/// Looks at one instruction.
pub fn check_one(instruction: &Instruction) -> Result<(), Error> {
    match instruction {
        Instruction::Run(run) => check_run(run),
        Instruction::Copy(copy) => check_copy(copy),
        Instruction::Add(add) => check_add(add),
        _ => Ok(()),
    }
}

fn refuse_if(refused: bool, what: impl Into<String>) -> Result<(), Error> {
    match refused {
        true => Err(Error::Unsupported(what.into())),
        false => Ok(()),
    }
}

fn check_run(run: &Run) -> Result<(), Error> {
    refuse_if(
        run.security == Security::Insecure,
        "RUN --security=insecure",
    )?;
    refuse_if(!run.devices.is_empty(), "RUN --device")
}

fn check_copy(copy: &Copy) -> Result<(), Error> {
    check_mode(copy.flags.chmod.as_ref())
}

fn check_add(add: &Add) -> Result<(), Error> {
    check_mode(add.flags.chmod.as_ref())?;
    let plain = add.sources.iter().filter(|source| is_plain(source));
    for source in plain {
        super::copy::check_source(&CopySource::of(&source.text))?;
    }
    Ok(())
}

fn check_mode(mode: Option<&Word>) -> Result<(), Error> {
    match mode.filter(|mode| is_plain(mode)) {
        Some(mode) => Mode::parse(&mode.text)
            .map(drop)
            .map_err(|error| Error::Invalid(error.to_string())),
        None => Ok(()),
    }
}

/// Tells whether a word is what it will be once it is expanded.
fn is_plain(word: &Word) -> bool {
    !word.text.contains(['$', '\\', '"', '\''])
}
