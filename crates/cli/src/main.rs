//! The `ocibuild` command: parses the command line, calls the library, shows events and
//! errors. What it does is in `commands`, one file a verb.

mod args;
mod commands;
mod error;
mod logging;
mod report;
mod sizes;
mod warnings;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use error::Error;

fn main() -> ExitCode {
    // A sandbox starts as this program again; it must not see anything of what follows.
    ocibuild::init();
    let cli = Cli::parse();
    // Nothing was installed before, so this cannot fail.
    let _ = rustls::crypto::ring::default_provider().install_default();
    if !matches!(cli.command, Command::Serve(_)) {
        logging::start_from_environment();
    }
    match run(cli.command) {
        Ok(status) => status,
        Err(error) => {
            let _ = write!(std::io::stderr().lock(), "{}", error.render());
            ExitCode::from(error.status())
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Error> {
    if let Command::Worker = command {
        return Ok(commands::worker::run());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::failed("start the runtime", error))?;
    runtime.block_on(async {
        match command {
            Command::Build(args) => commands::build::run(*args).await,
            Command::Check(args) => commands::check::run(args).await,
            Command::Dockerfile(command) => commands::dockerfile::run(command),
            Command::Push(args) => commands::push::run(args).await,
            Command::Pull(args) => commands::pull::run(args).await,
            Command::Inspect(args) => commands::inspect::run(args).await,
            Command::Cache(command) => commands::cache::run(command),
            Command::CheckHost(args) => commands::check_host::run(&args),
            Command::Serve(args) => commands::serve::run(args).await,
            Command::Worker => Ok(commands::worker::run()),
        }
    })
}
