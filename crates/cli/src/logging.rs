//! What the program has to say about itself: `tracing` to standard error.

use std::io::IsTerminal as _;

use ocibuild_server::config::LogFormat;
use tracing_subscriber::EnvFilter;

/// What commands say that have no configuration of their own.
const QUIET: &str = "warn";

/// Starts logging for a command, with the filter of `OCIBUILD_LOG`. A filter that cannot be
/// read counts as absent: it must not keep anybody from building.
pub(crate) fn start_from_environment() {
    let given = std::env::var("OCIBUILD_LOG").unwrap_or_default();
    let filter = match given.is_empty() {
        true => QUIET,
        false => &given,
    };
    start(filter, LogFormat::Text);
}

/// Starts logging. What comes later changes nothing.
pub(crate) fn start(filter: &str, format: LogFormat) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new(QUIET));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // It fails where logging was started before.
    let _ = match format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
}
