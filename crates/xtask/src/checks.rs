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
    Cargo {
        arguments: &'static [&'static str],
        environment: &'static [(&'static str, &'static str)],
    },
}

impl Work {
    const fn cargo(arguments: &'static [&'static str]) -> Self {
        Self::Cargo {
            arguments,
            environment: &[],
        }
    }
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
        work: Work::cargo(&["fmt", "--all", "--check"]),
    },
    Step {
        name: "clippy",
        summary: "lints, warnings denied",
        work: Work::cargo(&[
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
        work: Work::Cargo {
            // The command has the name of the library, and its pages would overwrite them.
            arguments: &[
                "doc",
                "--workspace",
                "--no-deps",
                "--exclude",
                "ocibuild-cli",
            ],
            environment: &[("RUSTDOCFLAGS", "--deny warnings")],
        },
    },
    Step {
        name: "build",
        summary: "the command that some tests run",
        work: Work::cargo(&["build", "--package", "ocibuild-cli"]),
    },
    Step {
        name: "test",
        summary: "unit, integration and doc tests, and the examples",
        work: Work::cargo(&["test", "--workspace"]),
    },
    Step {
        name: "packages",
        summary: "Debian packages that the environments install",
        work: Work::Task(debian::prepare),
    },
    Step {
        name: "static",
        summary: "the same command without libraries, for the environments",
        work: Work::Task(image::static_command),
    },
    Step {
        name: "environments",
        summary: "RUN in eight environments, after packages and static",
        work: Work::cargo(&[
            "test",
            // As in the step before, so that nothing is compiled again.
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
        let status = match &step.work {
            Work::Task(task) => task(),
            Work::Cargo {
                arguments,
                environment,
            } => cargo(arguments, environment),
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

fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> u8 {
    // Cargo says which cargo has started this program.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).envs(environment.iter().copied());
    if machine::can_install() {
        // Tests that could be skipped elsewhere fail here.
        command.env("OCIBUILD_TEST_ALL", "1");
    }
    let settings: String = environment
        .iter()
        .map(|(name, value)| format!("{name}={value:?} "))
        .collect();
    println!("==> {settings}cargo {}", arguments.join(" "));
    run_command(&mut command)
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
