//! Refuses what is understood and cannot be done yet, before anything is done: a build
//! must not find out after an hour that its last line was in vain.

use crate::dockerfile::Word;
use crate::dockerfile::ast::{Add, Copy, Instruction, Origin, Run, Security, Stage};

use super::Error;

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
    let flags = &copy.flags;
    refuse_if(flags.parents, "COPY --parents")?;
    refuse_if(!flags.exclude.is_empty(), "COPY --exclude")?;
    check_mode("COPY", flags.chmod.as_ref())
}

fn check_add(add: &Add) -> Result<(), Error> {
    let flags = &add.flags;
    refuse_if(!flags.exclude.is_empty(), "ADD --exclude")?;
    refuse_if(flags.checksum.is_some(), "ADD --checksum")?;
    refuse_if(flags.keep_git_dir.is_some(), "ADD --keep-git-dir")?;
    refuse_if(flags.unpack == Some(true), "ADD --unpack")?;
    check_mode("ADD", flags.chmod.as_ref())?;
    for source in &add.sources {
        let remote = ["http://", "https://", "git://", "ssh://", "git@"]
            .iter()
            .any(|scheme| source.text.starts_with(scheme));
        refuse_if(
            remote,
            format!("ADD of the remote source {:?}", source.text),
        )?;
    }
    Ok(())
}

fn check_mode(keyword: &str, mode: Option<&Word>) -> Result<(), Error> {
    let symbolic = |mode: &&Word| {
        mode.text
            .chars()
            .any(|c| matches!(c, '+' | '=' | ',') || (c == '-' && !mode.text.contains('$')))
    };
    match mode.filter(symbolic) {
        Some(mode) => Err(Error::Unsupported(format!(
            "{keyword} --chmod={} with a symbolic mode",
            mode.text
        ))),
        None => Ok(()),
    }
}
