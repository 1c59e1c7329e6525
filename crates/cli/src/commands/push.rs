//! `ocibuild push`: an image of the store goes to a registry.

use std::io::Write;
use std::process::ExitCode;

use ocibuild::images::Images;

use super::surroundings::{client, reference, store_root};
use crate::args::PushArgs;
use crate::error::Error;

/// Runs the command.
pub(crate) async fn run(args: PushArgs) -> Result<ExitCode, Error> {
    let client = client(&args.registry)?;
    let images = Images::open(&store_root(&args.store)?)?;
    let index = images.find_index(&args.image)?;
    let targets = match args.targets.is_empty() {
        true => vec![args.image.clone()],
        false => args.targets.clone(),
    };
    for target in targets {
        let target = reference(&target)?;
        let digest = match &index {
            Some(index) => images.push_index(&client, index, &target).await?,
            None => {
                let image = images.find(&args.image)?;
                images.push(&client, &image, &target).await?
            }
        };
        let _ = writeln!(std::io::stdout().lock(), "pushed {target}@{digest}");
    }
    Ok(ExitCode::SUCCESS)
}
