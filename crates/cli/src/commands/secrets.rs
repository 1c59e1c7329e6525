//! `--secret`: a text becomes the id of a secret and where it comes from, as
//! `docker buildx build` reads it.

use ocibuild::Secret;
use ocibuild::dockerfile::{mount::split_csv, suggest::nearest};

use crate::error::Error;

const KEYS: [&str; 5] = ["id", "src", "source", "env", "type"];
const TYPES: [&str; 2] = ["file", "env"];

/// Reads `id=ID[,src=FILE|,env=NAME][,type=file|env]`. Without a source it is the
/// environment variable of that name, else the file of that name. What it names must be
/// there: a slip is to be seen before an hour of building.
pub(crate) fn parse(text: &str) -> Result<(String, Secret), Error> {
    let usage = |reason: String| Error::Usage(format!("--secret {text:?}: {reason}"));
    let spec = Spec::parse(text).map_err(usage)?;
    if spec.id.is_empty() {
        return Err(usage("say id=ID".to_owned()));
    }
    let secret = spec.secret().map_err(usage)?;
    secret
        .read()
        .map_err(|error| Error::failed(format!("the secret {:?}", spec.id), error))?;
    Ok((spec.id, secret))
}

#[derive(Default)]
struct Spec {
    id: String,
    file: Option<String>,
    variable: Option<String>,
    kind: Option<String>,
}

impl Spec {
    fn parse(text: &str) -> Result<Self, String> {
        let mut spec = Self::default();
        let fields = split_csv(text).ok_or("its quotes are in the wrong place")?;
        for field in fields {
            let (key, value) = field
                .split_once('=')
                .ok_or_else(|| format!("{field:?}: want KEY=VALUE"))?;
            let value = value.to_owned();
            match key.to_ascii_lowercase().as_str() {
                "id" => spec.id = value,
                "src" | "source" => spec.file = Some(value),
                "env" => spec.variable = Some(value),
                "type" if TYPES.contains(&value.as_str()) => spec.kind = Some(value),
                "type" => {
                    let near = did_you_mean(&value, &TYPES);
                    return Err(format!("unknown type {value:?}{near}"));
                }
                _ => {
                    let near = did_you_mean(key, &KEYS);
                    return Err(format!("unknown key {key:?}{near}"));
                }
            }
        }
        Ok(spec)
    }

    fn secret(&self) -> Result<Secret, String> {
        let is_variable = self.kind.as_deref() == Some("env");
        Ok(match (&self.file, &self.variable) {
            (Some(_), Some(_)) => return Err("say src=FILE or env=NAME, not both".to_owned()),
            (None, Some(_)) if self.kind.as_deref() == Some("file") => {
                return Err("type=file wants src=FILE".to_owned());
            }
            (None, Some(name)) => Secret::variable(name),
            // With a type the source is the name of a variable.
            (Some(name), None) if is_variable => Secret::variable(name),
            (Some(file), None) => Secret::file(file),
            (None, None) if is_variable => Secret::variable(&self.id),
            (None, None) if self.kind.is_none() && std::env::var_os(&self.id).is_some() => {
                Secret::variable(&self.id)
            }
            (None, None) => Secret::file(&self.id),
        })
    }
}

fn did_you_mean(word: &str, known: &[&'static str]) -> String {
    nearest(word, known)
        .map(|near| format!(", did you mean {near:?}?"))
        .unwrap_or_default()
}
