//! Refuses what cannot be done, or not yet, before anything is done: a build must not
//! find out after an hour that its last line was in vain.

use crate::copy::{self, Mode};
use crate::dockerfile::Word;
use crate::dockerfile::ast::{Add, Copy, Instruction, Network, Origin, Run, Security, Stage};

use super::{CopySource, Entitlement, Error, Request};

/// Looks at every instruction of a stage.
pub(super) fn check<'a>(stage: &'a Stage, request: &Request) -> Result<(), (&'a Origin, Error)> {
    for instruction in &stage.instructions {
        check_one(instruction, request).map_err(|error| (instruction.origin(), error))?;
    }
    Ok(())
}

/// Looks at one instruction.
pub fn check_one(instruction: &Instruction, request: &Request) -> Result<(), Error> {
    match instruction {
        Instruction::Run(run) => check_run(run, request),
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

fn check_run(run: &Run, request: &Request) -> Result<(), Error> {
    let wanted = [
        (
            run.security == Security::Insecure,
            Entitlement::SecurityInsecure,
        ),
        (run.network == Network::Host, Entitlement::NetworkHost),
    ];
    for (asked, entitlement) in wanted {
        if asked && !request.entitlements.contains(&entitlement) {
            return Err(Error::NotEntitled(entitlement));
        }
    }
    refuse_if(!run.devices.is_empty(), "RUN --device")
}

fn check_copy(copy: &Copy) -> Result<(), Error> {
    let flags = &copy.flags;
    check_flags(flags.chmod.as_ref(), &flags.exclude)?;
    let plain = copy.sources.iter().filter(|source| is_plain(source));
    let sources: Vec<CopySource> = plain.map(|word| CopySource::of(&word.text)).collect();
    super::copy::check_paths(&sources)
}

fn check_add(add: &Add) -> Result<(), Error> {
    let flags = &add.flags;
    check_flags(flags.chmod.as_ref(), &flags.exclude)?;
    let plain = add.sources.iter().filter(|source| is_plain(source));
    let sources: Vec<CopySource> = plain.map(|word| CopySource::of(&word.text)).collect();
    if let Some(checksum) = flags.checksum.as_ref().filter(|word| is_plain(word))
        && sources.len() == add.sources.len()
    {
        super::copy::check_checksum(&checksum.text, &sources)?;
    }
    sources.iter().try_for_each(super::copy::check_source)
}

fn check_flags(mode: Option<&Word>, exclude: &[Word]) -> Result<(), Error> {
    let invalid = |error: copy::Error| Error::Invalid(error.to_string());
    if let Some(mode) = mode.filter(|mode| is_plain(mode)) {
        Mode::parse(&mode.text).map_err(invalid)?;
    }
    copy::check_exclude(exclude.iter().map(|word| word.text.as_str())).map_err(invalid)
}

/// Tells whether a word is what it will be once it is expanded.
fn is_plain(word: &Word) -> bool {
    !word.text.contains(['$', '\\', '"', '\''])
}
