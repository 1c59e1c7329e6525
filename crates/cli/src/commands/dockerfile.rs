//! `ocibuild dockerfile`: how the parser, the expansion of words and the ignore rules see
//! what they are given. Hidden: for comparisons with other builders.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::process::ExitCode;

use ocibuild::context::ignore::IgnoreMatcher;
use ocibuild::dockerfile::{Escape, ParseError, parse_tree, words};

use crate::args::{DockerfileCommand, TreeFormat};
use crate::error::Error;

/// Runs the command.
pub(crate) fn run(command: DockerfileCommand) -> Result<ExitCode, Error> {
    let text = match command {
        DockerfileCommand::Parse { format, file } => tree(&file, format)?,
        DockerfileCommand::Expand {
            env,
            backtick,
            word,
        } => expanded(&env, backtick, &word)? + "\n",
        DockerfileCommand::Match { rules, paths } => {
            let text = std::fs::read_to_string(&rules)
                .map_err(|error| Error::failed(format!("read {}", rules.display()), error))?;
            judged(&text, &paths)?
        }
    };
    // A reader that went away does not make it a failure.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}

fn tree(file: &str, format: TreeFormat) -> Result<String, Error> {
    let source = read(file)?;
    let failed = |error: ParseError| {
        let line = *error.lines().start();
        Error::failed(format!("parse {file}:{line}"), error)
    };
    let nodes = parse_tree(&source).map_err(failed)?;
    Ok(match format {
        TreeFormat::Sexp => nodes.iter().map(|node| format!("{node}\n")).collect(),
        TreeFormat::Json => serde_json::json!(nodes).to_string() + "\n",
    })
}

fn read(file: &str) -> Result<String, Error> {
    let mut bytes = Vec::new();
    let read = match file {
        "-" => std::io::stdin().read_to_end(&mut bytes).map(drop),
        path => std::fs::read(path).map(|read| bytes = read),
    };
    read.map_err(|error| Error::failed(format!("read {file}"), error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn expanded(env: &[String], backtick: bool, word: &str) -> Result<String, Error> {
    let pairs = env.iter().map(|text| {
        text.split_once('=')
            .ok_or_else(|| Error::Usage(format!("--env {text:?}: want NAME=VALUE")))
    });
    let env: HashMap<&str, &str> = pairs.collect::<Result<_, _>>()?;
    let escape = match backtick {
        true => Escape::Backtick,
        false => Escape::Backslash,
    };
    let lookup = |name: &str| env.get(name).map(|value| (*value).to_owned());
    words::expand(word, escape, &lookup)
        .map_err(|error| Error::failed(format!("expand {word:?}"), error))
}

fn judged(rules: &str, paths: &[String]) -> Result<String, Error> {
    let matcher =
        IgnoreMatcher::parse(rules).map_err(|error| Error::failed("read the rules", error))?;
    let lines = paths.iter().map(|path| match matcher.matches(path) {
        true => format!("ignored {path}\n"),
        false => format!("kept {path}\n"),
    });
    Ok(lines.collect())
}
