//! `ocibuild worker`: one build of the service, in a process of its own.

use std::process::ExitCode;

/// Runs the command. It makes its own runtime, because nothing else runs here.
pub(crate) fn run() -> ExitCode {
    let status = ocibuild_server::run_child(std::io::stdin(), std::io::stdout());
    ExitCode::from(u8::try_from(status).unwrap_or(1))
}
