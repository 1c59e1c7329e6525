//! What instructions make of the configuration and its history, against the table in
//! `testdata/config.txt`, whose numbers are those of `docs/dockerfile.md`.

use std::collections::BTreeMap;

use ocibuild::dockerfile::parse;
use ocibuild::graph::walk::{WalkedStage, walk};
use ocibuild::graph::{Entitlement, Error, Plan, Request, RunStep, Step, plan};
use ocibuild::registry::Platform;
use serde_json::{Value, json};

use crate::table;

/// Plans a Dockerfile without any context.
pub(crate) fn plan_of(text: &str, args: &str) -> Result<Plan, String> {
    let dockerfile = parse(text).map_err(|error| error.to_string())?;
    let pairs = args.split("; ").filter_map(|pair| pair.split_once('='));
    let mut args: BTreeMap<String, String> = pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let target = args.remove("--target");
    let request = Request {
        file: "Dockerfile".to_owned(),
        args,
        target,
        platform: Platform::linux("amd64"),
        contexts: Default::default(),
        entitlements: [Entitlement::NetworkHost].into(),
    };
    plan(dockerfile, request).map_err(|(_, error)| describe(&error))
}

fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    if let Error::Word { source, .. } = error {
        text = format!("{text}: {source}");
    }
    match error.hint() {
        Some(hint) => format!("{text} ({hint})"),
        None => text,
    }
}

fn target_of(text: &str, args: &str) -> Result<WalkedStage, String> {
    let plan = plan_of(text, args)?;
    let needed = plan.reachable().map_err(|(_, error)| describe(&error))?;
    let mut walked = walk(&plan, needed, &BTreeMap::new(), &mut |_| {})
        .map_err(|(_, error)| describe(&error))?;
    Ok(walked.remove(&plan.target).unwrap())
}

fn answer(stage: &WalkedStage, query: &str) -> String {
    let image = &stage.config.image;
    let config = serde_json::to_value(&image.config).unwrap();
    let entries = stage
        .applied
        .iter()
        .filter_map(|applied| applied.history.as_ref());
    let texts = entries.filter_map(|entry| entry.created_by.as_deref());
    let layers = stage
        .applied
        .iter()
        .filter(|applied| applied.step != Step::Config);
    let pairs = |pairs: &[(String, String)]| {
        let pairs = pairs.iter().filter(|(name, _)| name != "PATH");
        json!(
            pairs
                .map(|(name, value)| format!("{name}={value}"))
                .collect::<Vec<_>>()
        )
    };
    match query {
        "history" => json!(texts.collect::<Vec<_>>()),
        "last" => json!(Vec::from_iter(texts).pop()),
        "author" => json!(image.author),
        "layers" => json!(layers.count()),
        "argv" => json!(last_run(stage).argv),
        "script" => json!(last_run(stage).script),
        "env" => pairs(&last_run(stage).env),
        "silent" => pairs(&last_run(stage).silent_env),
        "Env" => json!(&image.config.env[1..]),
        key => config.get(key).cloned().unwrap_or(Value::Null),
    }
    .to_string()
}

fn last_run(stage: &WalkedStage) -> RunStep {
    let runs = stage
        .applied
        .iter()
        .filter_map(|applied| match &applied.step {
            Step::Run(run) => Some(run.clone()),
            _ => None,
        });
    Vec::from_iter(runs).pop().unwrap()
}

fn epoch_of(text: &str, args: &str) -> String {
    match plan_of(text, args).unwrap().epoch() {
        Ok(epoch) => format!("{epoch:?}"),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn instructions_do_what_the_table_says() {
    let rows = table::rows("config.txt");
    assert!(rows.len() >= 120, "only {} rows", rows.len());
    let mut wrong = Vec::new();
    for row in &rows {
        let [number, args, instructions, query, expected] = row.fields.as_slice() else {
            panic!("{}: not five fields", row.place)
        };
        let mut text = instructions.replace(" ; ", "\n");
        if !text.starts_with("FROM ") && !text.starts_with("ARG G") && !text.starts_with('#') {
            text = format!("FROM scratch\n{text}");
        }
        let found = match target_of(&(text.clone() + "\n"), args) {
            _ if query == "epoch" => epoch_of(&text, args),
            Ok(stage) => answer(&stage, query),
            Err(error) => format!("error: {error}"),
        };
        if found != *expected {
            wrong.push(format!(
                "{}: {number}: {instructions}\n  gave {found}",
                row.place
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
