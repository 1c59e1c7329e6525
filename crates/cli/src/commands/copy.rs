//! `ocibuild copy`: an image goes from one registry to others, past the store.

use std::io::Write;
use std::process::ExitCode;

use ocibuild::registry::{Copy, Progress};

use super::surroundings::{client, platform, reference};
use crate::args::CopyArgs;
use crate::error::Error;

/// Runs the command.
pub(crate) async fn run(args: CopyArgs) -> Result<ExitCode, Error> {
    let client = client(&args.registry)?;
    let from = reference(&args.source)?;
    let platforms = args.platform.iter().map(|text| platform(text));
    let what = Copy {
        platforms: platforms.collect::<Result<_, _>>()?,
        referrers: args.referrers,
    };
    for target in &args.targets {
        let to = reference(target)?;
        let copied = client.copy(&from, &to, &what, &Progress::none()).await;
        let copied =
            copied.map_err(|error| Error::failed(format!("copy {from} to {to}"), error))?;
        let name = client.reported_name(&to);
        let _ = writeln!(std::io::stdout().lock(), "copied {name}@{}", copied.digest);
    }
    Ok(ExitCode::SUCCESS)
}
