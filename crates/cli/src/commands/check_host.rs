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
    let text = match args.json {
        true => json(&verdicts),
        false => verdicts
            .iter()
            .map(|verdict| format!("{verdict}\n"))
            .collect(),
    };
    // A reader that went away has seen what it wanted.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    match verdicts.iter().any(|verdict| verdict.usable) {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::FAILURE),
    }
}

fn json(verdicts: &[Verdict]) -> String {
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
    format!("{:#}\n", serde_json::Value::from(list))
}
