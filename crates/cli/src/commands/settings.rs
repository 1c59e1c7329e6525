//! The settings of `serve`, from flags, environment and a `.env` file, and how they are shown.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use ocibuild_server::config::{printed, settings};
use ocibuild_server::{Defaults, Source, Values};

use super::surroundings::store_root;
use crate::args::{PrintConfig, ServeArgs, StoreArgs};
use crate::error::Error;

/// The file of variables that is read where it exists.
const USUAL_FILE: &str = ".env";

/// Gives what flags, environment and file say.
pub(crate) fn values(args: &ServeArgs) -> Result<Values, Error> {
    let data = store_root(&StoreArgs { root: None }).unwrap_or_else(|_| PathBuf::from("."));
    Ok(Values::new(defaults(data))
        .with(Source::EnvFile, file(args.env_file.as_deref())?)
        .with(Source::Environment, environment()?)
        .with(Source::Flag, flags(args)))
}

/// Gives what is known of the machine.
pub(crate) fn defaults(data: PathBuf) -> Defaults {
    let max_builds = std::thread::available_parallelism().map_or(1, usize::from);
    Defaults { data, max_builds }
}

/// Gives the variables that flags stand for.
pub(crate) fn flags(args: &ServeArgs) -> Vec<(String, String)> {
    let flags = [
        ("--listen", &args.listen),
        ("--data-dir", &args.data_dir),
        ("--embedded-registry", &args.embedded_registry),
        ("--sandbox", &args.sandbox),
    ];
    let variable = |flag| settings::all().find(|setting| setting.flag == Some(flag));
    let pair = |(flag, value): (&'static str, &Option<String>)| {
        Some((variable(flag)?.name.to_owned(), value.clone()?))
    };
    flags.into_iter().filter_map(pair).collect()
}

/// Shows the settings.
pub(crate) fn print(values: &Values, format: PrintConfig) -> Result<(), Error> {
    let text = match format {
        PrintConfig::Text => printed::text(values),
        PrintConfig::Json => format!("{:#}\n", printed::json(values)),
    };
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Error::failed("write to standard output", error))
}

/// Takes what is text; of what is not, nothing that is a setting may be lost.
fn environment() -> Result<Vec<(String, String)>, Error> {
    let mut all = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else {
            continue;
        };
        match value.into_string() {
            Ok(value) => all.push((name, value)),
            Err(_) if settings::find(&name).is_some() => {
                return Err(Error::Usage(format!("{name} must be UTF-8 (environment)")));
            }
            Err(_) => {}
        }
    }
    all.extend(host_name(&all));
    Ok(all)
}

/// The kernel knows the host name where no container runtime said it.
fn host_name(variables: &[(String, String)]) -> Option<(String, String)> {
    const NAME: &str = "HOSTNAME";
    let said = variables
        .iter()
        .any(|(name, value)| name == NAME && !value.is_empty());
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    (!said).then(|| (NAME.to_owned(), name.trim().to_owned()))
}

fn file(named: Option<&Path>) -> Result<Vec<(String, String)>, Error> {
    let path = named.unwrap_or(Path::new(USUAL_FILE));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if named.is_none() && error.kind() == ErrorKind::NotFound => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(Error::failed(format!("read {}", path.display()), error)),
    };
    parsed(&text).map_err(|place| {
        let path = path.display();
        Error::Usage(format!("{path}: {place} must be NAME=value"))
    })
}

/// Reads the text of a file of variables; fails with the place that cannot be read. The parser's
/// own error shows the line, which may hold a secret.
fn parsed(text: &str) -> Result<Vec<(String, String)>, String> {
    let text = text.trim_start_matches('\u{feff}');
    let mut all: Vec<(String, String)> = Vec::new();
    for variable in dotenvy::from_read_iter(text.as_bytes()) {
        let Ok(pair) = variable else {
            return Err(match all.last() {
                Some((name, _)) => format!("what follows {name}"),
                None => "the first line".to_owned(),
            });
        };
        all.push(pair);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_variables_have_this_form() {
        let text = "\u{feff}# comment\nA=1\n\nexport B=\"two words\" # why\nC='a$b#c'\nD=\n";
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected = [
            pair("A", "1"),
            pair("B", "two words"),
            pair("C", "a$b#c"),
            pair("D", ""),
        ];
        assert_eq!(parsed(text).unwrap(), expected);
        assert_eq!(parsed("hidden").unwrap_err(), "the first line");
        assert_eq!(parsed("A=1\nhid den=1\n").unwrap_err(), "what follows A");
    }
}
