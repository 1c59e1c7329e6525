//! `ocibuild push`: an image of the store goes to a registry, as it is or in another form.

use std::io::Write;
use std::process::ExitCode;

use ocibuild::images::{Images, StoredImage, StoredIndex};
use ocibuild::registry::{Client, Digest, Reference};

use super::outputs::form_of;
use super::surroundings::{client, reference, store_root};
use crate::args::PushArgs;
use crate::error::Error;

/// What is pushed.
enum Pushed {
    Image(Box<StoredImage>),
    Index(Box<StoredIndex>),
}

/// Runs the command.
pub(crate) async fn run(args: PushArgs) -> Result<ExitCode, Error> {
    let client = client(&args.registry)?;
    let images = Images::open(&store_root(&args.store)?)?;
    let pushed = find(&images, &client, &args).await?;
    let targets = match args.targets.is_empty() {
        true => vec![args.image.clone()],
        false => args.targets.clone(),
    };
    for target in targets {
        let target = reference(&target)?;
        let digest = push(&images, &client, &pushed, &target).await?;
        let _ = writeln!(std::io::stdout().lock(), "pushed {target}@{digest}");
    }
    Ok(ExitCode::SUCCESS)
}

async fn find(images: &Images, client: &Client, args: &PushArgs) -> Result<Pushed, Error> {
    let form = form_of(&args.form)?;
    if let Some(index) = images.find_index(&args.image)? {
        return Ok(Pushed::Index(Box::new(match &form {
            Some(form) => images.formed_index(client, &index, form).await?,
            None => index,
        })));
    }
    let image = images.find(&args.image)?;
    Ok(Pushed::Image(Box::new(match &form {
        Some(form) => images.formed(client, &image, form).await?,
        None => image,
    })))
}

async fn push(
    images: &Images,
    client: &Client,
    pushed: &Pushed,
    target: &Reference,
) -> Result<Digest, Error> {
    Ok(match pushed {
        Pushed::Image(image) => images.push(client, image, target).await?,
        Pushed::Index(index) => images.push_index(client, index, target).await?,
    })
}
