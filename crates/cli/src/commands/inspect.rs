//! `ocibuild inspect`: manifest and configuration of an image as JSON.

use std::io::Write;
use std::process::ExitCode;

use ocibuild::images::{Images, StoredImage};
use ocibuild::registry::{self, Client, Descriptor, Manifest, Reference, media_type};
use serde_json::{Value, json};

use super::surroundings::{client, reference, store_root};
use crate::args::InspectArgs;
use crate::error::Error;

const MAX_CONFIG: u64 = 8 << 20;

/// Runs the command.
pub(crate) async fn run(args: InspectArgs) -> Result<ExitCode, Error> {
    let document = match args.remote {
        true => remote(&args).await?,
        false => stored(&args).await?,
    };
    // A reader that went away has seen what it wanted.
    let _ = writeln!(std::io::stdout().lock(), "{document:#}");
    Ok(ExitCode::SUCCESS)
}

async fn stored(args: &InspectArgs) -> Result<Value, Error> {
    let images = Images::open(&store_root(&args.store)?)?;
    let Some(index) = images.find_index(&args.image)? else {
        return image(&images, &images.find(&args.image)?, args).await;
    };
    let mut each = Vec::new();
    for stored in &index.images {
        each.push(image(&images, stored, args).await?);
    }
    Ok(json!({
        "descriptor": index.index.descriptor,
        "index": parse(&index.index.bytes)?,
        "images": each,
    }))
}

async fn image(images: &Images, image: &StoredImage, args: &InspectArgs) -> Result<Value, Error> {
    if args.verify {
        images.verify(&client(&args.registry)?, image).await?;
    }
    Ok(json!({
        "descriptor": image.manifest.descriptor,
        "manifest": parse(&image.manifest.bytes)?,
        "config": parse(&image.config_document.bytes)?,
    }))
}

async fn remote(args: &InspectArgs) -> Result<Value, Error> {
    let failed = |error| Error::failed(format!("inspect {}", args.image), error);
    let name = reference(&args.image)?;
    let client = client(&args.registry)?;
    let (descriptor, bytes) = client.manifest(&name).await.map_err(failed)?;
    let mut shown = json!({ "descriptor": descriptor, "manifest": parse(&bytes)? });
    if let Some(config) = config(&client, &name, &bytes).await.map_err(failed)? {
        shown["config"] = parse(&config)?;
    }
    if args.referrers {
        let listed = client.referrers(name.repository(), &descriptor.digest);
        shown["referrers"] = json!(listed.await.map_err(failed)?);
    }
    Ok(shown)
}

/// Reads the configuration of what is an image.
async fn config(
    client: &Client,
    name: &Reference,
    manifest: &[u8],
) -> Result<Option<Vec<u8>>, registry::Error> {
    let is_config = |d: &Descriptor| {
        matches!(
            d.media_type.as_str(),
            media_type::CONFIG | media_type::DOCKER_CONFIG
        )
    };
    match serde_json::from_slice::<Manifest>(manifest) {
        Ok(manifest) if is_config(&manifest.config) => {
            let read = client.blob_bytes(name.repository(), &manifest.config, MAX_CONFIG);
            Ok(Some(read.await?.to_vec()))
        }
        _ => Ok(None),
    }
}

fn parse(bytes: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::failed("read a document", error))
}
