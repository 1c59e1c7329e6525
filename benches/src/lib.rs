//! Five programs that measure, four of them with one line of JSON on standard output per result.
//!
//! The first measures whole builds: from a folder and a base in a registry to an image whose
//! push the registry has confirmed, a line per workload, builder and mode. `workload` makes
//! the folders, `builder` knows how each builder is called, `measure` runs a command and says
//! what it cost, `schedule` decides what runs when, and `report` makes the lines.
//!
//! The second measures the build service, a line per figure and database: see `service`. The
//! third measures RUN in every engine, a line per figure and engine: see `sandbox`. The fourth
//! compares whole builds with those of every other builder that is installed: see `peers`. The
//! fifth measures transfers of large layers, a line per figure and server: see `registry`.
//!
//! The rooms of the library by themselves are in `rooms`: a bench target measures them, and a
//! test counts the instructions of some.
//!
//! Everything that is needed is made here: a clone and a static busybox are enough, and
//! MariaDB for the figures that have it.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program whose result is its output"
)]

mod builder;
mod measure;
mod options;
mod peers;
mod registry;
mod report;
pub mod rooms;
mod sandbox;
mod schedule;
mod service;
mod spread;
mod workload;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;

use options::Options;

/// Measures builds; both the bench target and the binary are nothing but this call.
pub fn main() -> ExitCode {
    // A sandbox starts as this program again; it must not see anything of what follows.
    ocibuild::init();
    // So does every measured build of ocibuild: see `builder`.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.split_first() {
        Some((verb, rest)) if verb == builder::BUILD => builder::build_here(rest),
        _ => run(&Options::parse()),
    };
    ended(result)
}

/// Measures the service; both the bench target and the binary are nothing but this call.
pub fn service_main() -> ExitCode {
    // The base is pushed by a build in this process.
    ocibuild::init();
    ended(service::run(&service::Options::parse()))
}

/// Compares ocibuild with other builders; both the bench target and the binary are nothing but
/// this call.
pub fn peers_main() -> ExitCode {
    // A sandbox of a measured build starts as this program again.
    ocibuild::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    ended(match arguments.split_first() {
        Some((verb, rest)) if verb == builder::BUILD => builder::build_here(rest),
        _ => peers::run(&peers::Options::parse()),
    })
}

/// Measures RUN in every engine; the bench target is nothing but this call.
pub fn sandbox_main() -> ExitCode {
    ocibuild::init();
    // A chroot is timed by this program again, behind what is mounted for it.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    ended(match arguments.split_first() {
        Some((verb, rest)) if verb == sandbox::NATIVE => sandbox::time_native(rest),
        _ => sandbox::run(&sandbox::Options::parse()),
    })
}

/// Measures transfers; both the bench target and the binary are nothing but this call.
pub fn registry_main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    ended(match arguments.split_first() {
        Some((verb, rest)) if verb == registry::CHILD => registry::child::run(rest),
        _ => registry::run(&registry::Options::parse()),
    })
}

fn ended(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let mut place = schedule::Place::prepare(options)?;
    for workload in place.take_workloads() {
        for line in schedule::measure(&mut place, &workload, options)? {
            println!("{line}");
        }
    }
    Ok(())
}
