//! `ocibuild tags`: the tags of a repository, a line each.

use std::io::Write;
use std::process::ExitCode;

use ocibuild::registry::{InvalidReference, Repository};
use serde_json::json;

use super::surroundings::client;
use crate::args::TagsArgs;
use crate::error::Error;

/// Runs the command.
pub(crate) async fn run(args: TagsArgs) -> Result<ExitCode, Error> {
    let name = &args.repository;
    let repository: Repository = name
        .parse()
        .map_err(|error: InvalidReference| Error::Usage(error.to_string()))?;
    let tags = client(&args.registry)?.tags(&repository).await;
    let tags = tags.map_err(|error| Error::failed(format!("list the tags of {name}"), error))?;
    let text = match args.json {
        true => format!("{:#}\n", json!(tags)),
        false => tags.iter().map(|tag| format!("{tag}\n")).collect(),
    };
    // A reader that went away has seen what it wanted.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}
