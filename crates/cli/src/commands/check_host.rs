//! `ocibuild check-host`: which sandbox works here, and why not a better one.

use std::io::Write;
use std::process::ExitCode;

use ocibuild::executor::Helper;
use ocibuild::executor::probe::{self, Verdict};

use super::surroundings::store_root;
use crate::args::CheckHostArgs;
use crate::error::Error;

/// Runs the command; the status is 1 where no sandbox works.
pub(crate) fn run(args: &CheckHostArgs) -> Result<ExitCode, Error> {
    let root = store_root(&args.store)?;
    std::fs::create_dir_all(&root)
        .map_err(|error| Error::failed(format!("create {}", root.display()), error))?;
    let verdicts = probe::report(&Helper::CurrentExe, &root);
    let environment = probe::environment(&root);
    let text = match args.json {
        true => json(&environment, &verdicts),
        false => plain(&environment, &verdicts),
    };
    // A reader that went away has seen what it wanted.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    match verdicts.iter().any(|verdict| verdict.usable) {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::FAILURE),
    }
}

fn plain(environment: &[(&str, String)], verdicts: &[Verdict]) -> String {
    let facts = environment
        .iter()
        .map(|(name, value)| format!("{name}: {value}\n"));
    let verdicts = verdicts.iter().map(|verdict| format!("{verdict}\n"));
    facts.chain(["\n".to_owned()]).chain(verdicts).collect()
}

fn json(environment: &[(&str, String)], verdicts: &[Verdict]) -> String {
    let facts = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.as_str().into()))
        .collect::<serde_json::Map<_, _>>();
    let list: Vec<_> = verdicts
        .iter()
        .map(|verdict| {
            serde_json::json!({
                "engine": verdict.engine,
                "identity": verdict.identity,
                "usable": verdict.usable,
                "reason": verdict.reason,
            })
        })
        .collect();
    let all = serde_json::json!({ "environment": facts, "sandboxes": list });
    format!("{all:#}\n")
}
