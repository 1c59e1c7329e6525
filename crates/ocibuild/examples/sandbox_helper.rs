//! The smallest program that can be a sandbox helper. The tests use it as one, and as a
//! builder that runs as another user:
//!
//! ```text
//! sandbox_helper check-host DIR       which sandboxes can run, with DIR for their files
//! sandbox_helper run-spec DIR         runs the RunSpec that is JSON on stdin in the best one;
//!                                     prints what came of it as one JSON object
//! sandbox_helper remove DIR TREE      removes a tree as root of the sandbox
//! ```
//!
//! `SANDBOX` names the only sandboxes that may be taken.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program, not a library"
)]

use std::path::Path;
use std::process::ExitCode;

use ocibuild::executor::{Choice, Helper, REMOVE_TREE, RunSpec, Sandbox, probe};
use ocibuild::{Cancel, Stream};

fn main() -> ExitCode {
    ocibuild::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["check-host", dir] => {
            for verdict in probe::report(&Helper::CurrentExe, Path::new(dir)) {
                println!("{verdict}");
            }
            Ok(())
        }
        ["run-spec", dir] => run_spec(dir),
        ["remove", dir, tree] => remove(dir, tree),
        _ => Err("usage: sandbox_helper check-host|run-spec|remove DIR [TREE]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The best sandbox, or the best of those that the environment names.
fn select(dir: &str) -> Result<Box<dyn Sandbox>, Box<dyn std::error::Error>> {
    let choice = match std::env::var("SANDBOX") {
        Ok(name) => name.parse()?,
        Err(_) => Choice::default(),
    };
    let sandbox = probe::select_among(&choice, &Helper::CurrentExe, Path::new(dir))?;
    Ok(sandbox)
}

fn run_spec(dir: &str) -> Result<(), Box<dyn std::error::Error>> {
    let spec: RunSpec = serde_json::from_reader(std::io::stdin())?;
    let sandbox = select(dir)?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut output = |stream, bytes: &[u8]| match stream {
        Stream::Stdout => stdout.extend_from_slice(bytes),
        Stream::Stderr => stderr.extend_from_slice(bytes),
    };
    let result = sandbox.run(&spec, &mut output, &Cancel::new());
    let outcome = serde_json::json!({
        "identity": sandbox.identity(),
        "exit": result.as_ref().ok(),
        "error": result.as_ref().err().map(ToString::to_string),
        "stdout": String::from_utf8_lossy(&stdout),
        "stderr": String::from_utf8_lossy(&stderr),
    });
    println!("{outcome}");
    Ok(())
}

fn remove(dir: &str, tree: &str) -> Result<(), Box<dyn std::error::Error>> {
    let sandbox = select(dir)?;
    sandbox.call(REMOVE_TREE, tree.as_bytes(), &Cancel::new())?;
    Ok(())
}
