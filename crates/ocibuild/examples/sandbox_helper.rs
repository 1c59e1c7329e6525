//! The smallest program that can be a sandbox helper. The tests use it as one, and as a
//! builder that runs as another user:
//!
//! ```text
//! sandbox_helper check-host DIR       which sandboxes can run, with DIR for their files
//! sandbox_helper run-spec DIR         runs the RunSpec that is JSON on stdin in the best one;
//!                                     prints the command's output and then the exit
//! sandbox_helper remove DIR TREE      removes a tree as root of the sandbox
//! ```

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program, not a library"
)]

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use ocibuild::executor::{Helper, REMOVE_TREE, RunSpec, probe};
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

fn run_spec(dir: &str) -> Result<(), Box<dyn std::error::Error>> {
    let spec: RunSpec = serde_json::from_reader(std::io::stdin())?;
    let sandbox = probe::select(&Helper::CurrentExe, Path::new(dir))?;
    let mut output = |stream, bytes: &[u8]| {
        // A reader that is gone does not matter to the command.
        let _ = match stream {
            Stream::Stdout => std::io::stdout().write_all(bytes),
            Stream::Stderr => std::io::stderr().write_all(bytes),
        };
        let _ = std::io::stdout().flush();
    };
    let exit = sandbox.run(&spec, &mut output, &Cancel::new())?;
    println!("{:?} with {:?}", exit, sandbox.identity());
    Ok(())
}

fn remove(dir: &str, tree: &str) -> Result<(), Box<dyn std::error::Error>> {
    let sandbox = probe::select(&Helper::CurrentExe, Path::new(dir))?;
    sandbox.call(REMOVE_TREE, tree.as_bytes(), &Cancel::new())?;
    Ok(())
}
