//! `ocibuild pull`: an image of a registry comes into the store, checked.

use std::io::Write;
use std::process::ExitCode;

use ocibuild::images::Images;
use ocibuild::registry::Platform;

use super::surroundings::{client, platform, reference, store_root};
use crate::args::PullArgs;
use crate::error::Error;

/// Runs the command.
pub(crate) async fn run(args: PullArgs) -> Result<ExitCode, Error> {
    let client = client(&args.registry)?;
    let platform = match &args.platform {
        Some(text) => platform(text)?,
        None => Platform::host(),
    };
    let images = Images::open(&store_root(&args.store)?)?;
    let name = reference(&args.image)?;
    let image = images.pull(&client, &name, &platform).await?;
    let digest = image.manifest.descriptor.digest;
    let _ = writeln!(std::io::stdout().lock(), "pulled {name}@{digest}");
    Ok(ExitCode::SUCCESS)
}
