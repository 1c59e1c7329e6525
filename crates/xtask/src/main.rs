//! Development tasks of the workspace: `cargo xtask` lists them.
//!
//! What a person runs at a desk and what continuous integration runs is the same command.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people"
)]

mod checks;
mod debian;
mod image;
mod machine;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask <task>

Tasks:
  test [--only <step>]...    prepare the machine and run every check, or only the named
                             ones; stops at the first that fails
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}{}", image::USAGE);
            print_steps();
            ExitCode::SUCCESS
        }
        ["test", ref options @ ..] => match named_steps(options) {
            Ok(only) => checks::run(&only),
            Err(problem) => refuse(&problem),
        },
        ["image", ref options @ ..] => match image::Request::parse(options) {
            Ok(request) => image::run(&request),
            Err(problem) => refuse(&problem),
        },
        [task, ..] => refuse(&format!("no task {task:?}")),
    }
}

fn print_steps() {
    println!("\nSteps of test:");
    for step in checks::STEPS {
        println!("  {:<10} {}", step.name, step.summary);
    }
}

fn named_steps(mut options: &[&str]) -> Result<Vec<String>, String> {
    let mut only = Vec::new();
    while let ["--only", name, rest @ ..] = options {
        if !checks::STEPS.iter().any(|step| step.name == *name) {
            return Err(format!("no step {name:?}"));
        }
        only.push((*name).to_owned());
        options = rest;
    }
    match options {
        [] => Ok(only),
        [option, ..] => Err(format!("unexpected {option:?}")),
    }
}

fn refuse(problem: &str) -> ExitCode {
    eprintln!("error: {problem}\n\n{USAGE}{}", image::USAGE);
    ExitCode::from(2)
}

fn workspace() -> PathBuf {
    // The package lies in `crates/xtask`.
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).unwrap_or(package).to_owned()
}

/// Where cargo puts what it makes.
fn target_folder() -> PathBuf {
    let folder = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace().join(folder)
}
