//! `ocibuild delete`: a tag goes, or an image with all that belongs to it.

use std::io::Write;
use std::process::ExitCode;

use ocibuild::registry::{self, Client, Reference};

use super::surroundings::{client, reference};
use crate::args::DeleteArgs;
use crate::error::Error;

/// Statuses of registries that cannot take a tag from an image.
const NO_TAGS: [u16; 3] = [400, 405, 501];

/// Runs the command.
pub(crate) async fn run(args: DeleteArgs) -> Result<ExitCode, Error> {
    let client = client(&args.registry)?;
    for image in &args.images {
        let name = reference(image)?;
        if name.tag().is_none() && name.digest().is_none() {
            let problem = format!("{image}: say which tag or digest is to be deleted");
            return Err(Error::Usage(problem));
        }
        let deleted = delete(&client, &name, &args).await;
        let deleted = deleted.map_err(|error| Error::failed(doing(&name, &error), error))?;
        for line in deleted {
            let _ = writeln!(std::io::stdout().lock(), "deleted {line}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn delete(
    client: &Client,
    name: &Reference,
    args: &DeleteArgs,
) -> Result<Vec<String>, registry::Error> {
    let repository = name.repository();
    if args.all {
        let deleted = client.delete_tree(name).await?;
        let full = |digest| repository.with_digest(digest).to_string();
        return Ok(deleted.into_iter().map(full).collect());
    }
    match name.digest() {
        None if !args.manifest => client.delete_tag(name).await?,
        _ => client.delete_manifest(name).await?,
    }
    Ok(vec![name.to_string()])
}

fn doing(name: &Reference, error: &registry::Error) -> String {
    let only_tag = name.digest().is_none();
    match error.status() {
        Some(status) if only_tag && NO_TAGS.contains(&status) => format!(
            "delete {name}: this registry may not be able to delete a tag alone; --manifest deletes \
             the image with all of its tags"
        ),
        _ => format!("delete {name}"),
    }
}
