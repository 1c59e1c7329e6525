//! Refuses commands that this machine cannot run, before anything runs.

use super::Shared;
use crate::dockerfile::ast::Instruction;
use crate::error::Error;
use crate::executor::binfmt;
use crate::registry::Platform;

/// Looks at the commands of every stage that the target needs.
pub(crate) fn check(session: &Shared) -> Result<(), Error> {
    let plan = &session.plan;
    let needed = plan.reachable();
    let needed = needed.map_err(|(location, error)| Error::from(error).at(&location))?;
    for index in needed {
        let mut instructions = plan.dockerfile.stages[index].instructions.iter();
        let run = instructions.find(|instruction| matches!(instruction, Instruction::Run(_)));
        if let Some(run) = run {
            let location = plan.location(run.origin());
            check_one(plan.platform_of(index)).map_err(|error| error.at(&location))?;
        }
    }
    Ok(())
}

/// Looks at one command, which may be a trigger of a base.
pub(super) fn check_one(platform: &Platform) -> Result<(), Error> {
    binfmt::check(platform).map_err(|missing| Error::Foreign {
        platform: platform.to_string(),
        host: Platform::host().to_string(),
        missing,
    })
}
