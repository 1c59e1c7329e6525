//! The checks that every change must pass, cheapest first.

use std::process::{Command, ExitCode};
use std::time::Instant;

use crate::{debian, image, machine};

/// One check.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) summary: &'static str,
    work: Work,
}

enum Work {
    Task(fn() -> u8),
    Cargo(&'static [&'static str]),
    /// `cargo doc`, whose compiler has flags of its own.
    Doc(&'static [&'static str]),
    /// `cargo test` of programs without libraries: the command that the tests run is the one
    /// that the environments take into containers, and nothing is compiled twice.
    Test(&'static [&'static str]),
}

/// All checks in the order in which they run.
pub(crate) const STEPS: &[Step] = &[
    Step {
        name: "machine",
        summary: "find or install what the tests need",
        work: Work::Task(machine::prepare),
    },
    Step {
        name: "fmt",
        summary: "formatting",
        work: Work::Cargo(&["fmt", "--all", "--check"]),
    },
    Step {
        name: "clippy",
        summary: "lints, warnings denied",
        work: Work::Cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ]),
    },
    Step {
        name: "doc",
        summary: "documentation, warnings denied",
        // The command has the name of the library, and its pages would overwrite them.
        work: Work::Doc(&["--workspace", "--no-deps", "--exclude", "ocibuild-cli"]),
    },
    Step {
        name: "test",
        summary: "unit, integration and doc tests, and the examples",
        work: Work::Test(&["--workspace"]),
    },
    Step {
        name: "packages",
        summary: "Debian packages that the environments install",
        work: Work::Task(debian::prepare),
    },
    Step {
        name: "environments",
        summary: "RUN in eight environments, after packages",
        work: Work::Test(&[
            // As in the step test, so that nothing is compiled again.
            "--workspace",
            "--test",
            "environments",
            "--",
            "--ignored",
            "--test-threads=2",
        ]),
    },
];

/// Runs the named steps, or all, until one fails.
pub(crate) fn run(only: &[String]) -> ExitCode {
    let start = Instant::now();
    let wanted = |step: &&Step| only.is_empty() || only.iter().any(|name| name == step.name);
    for step in STEPS.iter().filter(wanted) {
        let step_start = Instant::now();
        let status = match step.work {
            Work::Task(task) => task(),
            Work::Cargo(arguments) => announced(cargo().args(arguments)),
            Work::Doc(arguments) => {
                let mut doc = cargo();
                doc.arg("doc").args(arguments);
                announced(doc.env("RUSTDOCFLAGS", "--deny warnings"))
            }
            Work::Test(arguments) => test(arguments),
        };
        println!("    {} took {:.1?}", step.name, step_start.elapsed());
        if status != 0 {
            eprintln!("error: step {} failed with status {status}", step.name);
            return ExitCode::from(status);
        }
    }
    println!("all steps passed in {:.1?}", start.elapsed());
    ExitCode::SUCCESS
}

/// The cargo that has started this program.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn test(arguments: &[&str]) -> u8 {
    let mut test = cargo();
    image::link_statically(test.arg("test"));
    test.args(arguments);
    if machine::can_install() {
        // Tests that could be skipped elsewhere fail here.
        test.env("OCIBUILD_TEST_ALL", "1");
    }
    announced(&mut test)
}

/// Prints a command and the settings that it gets, and runs it.
fn announced(command: &mut Command) -> u8 {
    let settings: String = command
        .get_envs()
        .filter_map(|(name, value)| Some((name.display(), value?)))
        .map(|(name, value)| format!("{name}={value:?} "))
        .collect();
    let arguments: Vec<_> = command
        .get_args()
        .map(|word| word.to_string_lossy())
        .collect();
    println!("==> {settings}cargo {}", arguments.join(" "));
    run_command(command)
}

/// Runs a command and gives its status; 128 and the number where a signal ended it, as shells do.
pub(crate) fn run_command(command: &mut Command) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    match command.status() {
        Ok(status) => {
            let code = status.code().or(status.signal().map(|signal| 128 + signal));
            code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
        }
        Err(error) => {
            eprintln!("error: {}: {error}", command.get_program().display());
            127
        }
    }
}
