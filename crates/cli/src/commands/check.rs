//! `ocibuild check`, and what `build --call` asks for in place of a build.

mod documents;
mod outline;

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use ocibuild::Build;
use ocibuild::check::Checked;

use super::build;
use super::ssh::Agents;
use crate::args::{BuildArgs, CheckArgs, CheckFormat};
use crate::error::Error;
use crate::warnings;

/// What `--call` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// An image.
    Build,
    /// The warnings of build checks.
    Check(CheckFormat),
    /// The parameters of the target.
    Outline(CheckFormat),
    /// All targets.
    Targets(CheckFormat),
}

impl Call {
    /// Reads `method[,format=FORMAT]`.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let usage = |reason: String| Error::Usage(format!("--call {text:?}: {reason}"));
        let (method, options) = text.split_once(',').unwrap_or((text, ""));
        let format = match options {
            "" | "format=text" => CheckFormat::Text,
            "format=json" => CheckFormat::Json,
            "format=sarif" if matches!(method, "check" | "lint") => CheckFormat::Sarif,
            other => {
                return Err(usage(format!(
                    "want format=text or format=json, not {other:?}"
                )));
            }
        };
        match method {
            "build" => Ok(Self::Build),
            "check" | "lint" => Ok(Self::Check(format)),
            "outline" => Ok(Self::Outline(format)),
            "targets" => Ok(Self::Targets(format)),
            other => Err(usage(format!(
                "want build, check, outline or targets, not {other:?}"
            ))),
        }
    }
}

/// Runs the command.
pub(crate) async fn run(args: CheckArgs) -> Result<ExitCode, Error> {
    let (format, offline) = (args.format, args.offline);
    let folder = temporary()?;
    let build = build::to_check(args.into(), &Agents::default(), folder.path())?;
    check(build, format, offline).await
}

/// Answers what `build --call` asks for; gives nothing where that is a build.
pub(crate) async fn called(args: &BuildArgs) -> Result<Option<ExitCode>, Error> {
    let call = match args.check {
        true => Call::Check(CheckFormat::Text),
        false => Call::parse(&args.call)?,
    };
    if call == Call::Build {
        return Ok(None);
    }
    let folder = temporary()?;
    let agents = Agents::of(&args.ssh)?;
    let build = build::to_check(build::CheckedBuild::of(args), &agents, folder.path())?;
    match call {
        Call::Build => Ok(None),
        Call::Check(format) => check(build, format, false).await.map(Some),
        Call::Outline(format) => {
            let found = build.outline().await?;
            print(&match format {
                CheckFormat::Text => outline::text(&found.answer),
                _ => pretty(&outline::json(&found)),
            });
            Ok(Some(ExitCode::SUCCESS))
        }
        Call::Targets(format) => {
            let found = build.targets().await?;
            print(&match format {
                CheckFormat::Text => outline::targets_text(&found.answer),
                _ => pretty(&outline::targets_json(&found)),
            });
            Ok(Some(ExitCode::SUCCESS))
        }
    }
}

/// What is loaded for a check leaves no trace.
fn temporary() -> Result<tempfile::TempDir, Error> {
    tempfile::tempdir().map_err(|error| Error::failed("make a temporary folder", error))
}

/// Checks; as with Docker, a warning makes the status 1.
async fn check(build: Build, format: CheckFormat, offline: bool) -> Result<ExitCode, Error> {
    let checked = build.check(offline).await?;
    for base in checked.unknown_bases.iter().filter(|_| !offline) {
        let _ = writeln!(
            std::io::stderr().lock(),
            "note: variables of a base image are not known: {base}"
        );
    }
    print(&match format {
        CheckFormat::Text => text(&checked),
        CheckFormat::Json => pretty(&documents::json(&checked)),
        CheckFormat::Sarif => pretty(&documents::sarif(&checked)),
    });
    Ok(match (checked.error, checked.warnings.is_empty()) {
        (Some(error), _) if format == CheckFormat::Text => return Err(error.into()),
        (None, true) => ExitCode::SUCCESS,
        _ => ExitCode::from(1),
    })
}

fn text(checked: &Checked) -> String {
    let coloured = std::io::stdout().is_terminal();
    let mut text = String::new();
    for warning in &checked.warnings {
        let _ = writeln!(text, "{}", warnings::render(warning, coloured));
    }
    text += &match checked.warnings.len() {
        0 if checked.error.is_some() => String::new(),
        0 => "Check complete, no warnings found.\n".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    };
    text
}

fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

fn print(text: &str) {
    // A reader that went away does not make it a failure.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

impl From<CheckArgs> for build::CheckedBuild {
    /// A file in the place of the context is a Dockerfile without one.
    fn from(args: CheckArgs) -> Self {
        let (mut file, mut context) = (args.file, args.context);
        if file.is_none() && Path::new(&context).is_file() {
            let folder = Path::new(&context).parent().unwrap_or(Path::new("."));
            let folder = match folder.as_os_str().is_empty() {
                true => ".".to_owned(),
                false => folder.to_string_lossy().into_owned(),
            };
            file = Some(std::mem::replace(&mut context, folder));
        }
        Self {
            file,
            context,
            target: args.target,
            build_arg: args.build_arg,
            platform: args.platform,
            build_context: args.build_context,
            known_hosts: args.known_hosts,
            registry: args.registry,
        }
    }
}
