//! `SOURCE_DATE_EPOCH` (reproducible-builds.org) as a build argument or a global ARG: a
//! number of seconds, or something that has a time of its own.

use crate::dockerfile::ast::{Add, Arg, Instruction, Stage};

use super::{CopySource, Error, Plan, Scope};

const NAME: &str = "SOURCE_DATE_EPOCH";

/// The time that a build is to be dated to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Epoch {
    /// Seconds since 1970.
    Seconds(i64),
    /// That of the context, where it has one: of a repository that of its commit.
    Context,
    /// That of a named context, where it has one.
    Named(String),
    /// That of what a server has: the one source of the one ADD of a stage.
    Remote {
        /// Its URL.
        url: CopySource,
        /// What `--checksum` says.
        checksum: Option<String>,
    },
}

impl Plan {
    /// Reads what the build argument or else the global ARG says; an empty value says nothing.
    pub fn epoch(&self) -> Result<Option<Epoch>, Error> {
        let given = self.request.args.get(NAME).map(String::as_str);
        match given.or_else(|| self.globals.get(NAME)) {
            None | Some("") => Ok(None),
            Some("context") => Ok(Some(Epoch::Context)),
            Some(text) => match text.parse() {
                Ok(seconds) => Ok(Some(Epoch::Seconds(seconds))),
                Err(_) if self.request.contexts.contains(text) => {
                    Ok(Some(Epoch::Named(text.to_owned())))
                }
                Err(_) => match self.stage_called(text) {
                    Some(stage) => self.source_of(text, stage).map(Some),
                    None => Err(Error::Invalid(format!(
                        "invalid {NAME}: {text:?}: want seconds since 1970, context, or the name of a stage or named context"
                    ))),
                },
            },
        }
    }

    fn stage_called(&self, name: &str) -> Option<&Stage> {
        let mut stages = self.dockerfile.stages.iter();
        stages.find(|stage| {
            let known = stage.name.as_ref();
            known.is_some_and(|known| known.text.eq_ignore_ascii_case(name))
        })
    }

    /// A stage has the time of something that comes from a server where it is nothing
    /// else: `FROM scratch`, `ARG`s and one ADD.
    fn source_of(&self, name: &str, stage: &Stage) -> Result<Epoch, Error> {
        let refuse = |what: &str| {
            Error::Invalid(format!(
                "{NAME}={name}: the stage has no time: want FROM scratch, ARGs and one ADD of a URL, not {what}"
            ))
        };
        let mut scope = self.globals.clone();
        if scope.expand(&stage.from.image.text)? != "scratch" {
            return Err(refuse("another base"));
        }
        let mut source = None;
        for instruction in &stage.instructions {
            match instruction {
                Instruction::Arg(arg) => self.declare(&mut scope, arg)?,
                Instruction::Add(add) if source.is_none() => {
                    source = Some(remote(&scope, add)?.ok_or_else(|| refuse("files"))?);
                }
                other => return Err(refuse(&other.keyword().to_string())),
            }
        }
        source.ok_or_else(|| refuse("nothing"))
    }

    fn declare(&self, scope: &mut Scope, arg: &Arg) -> Result<(), Error> {
        for declaration in &arg.declarations {
            let name = &declaration.name.text;
            let value = match (self.request.args.get(name), &declaration.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(scope.expand(&default.text)?),
                (None, None) => None,
            };
            if let Some(value) = value {
                scope.set(name, &value);
            }
        }
        Ok(())
    }

    /// Lets instructions see the number in place of what stood for it.
    pub fn set_epoch(&mut self, seconds: Option<i64>) {
        let value = seconds.map_or_else(String::new, |seconds| seconds.to_string());
        if let Some(given) = self.request.args.get_mut(NAME) {
            given.clone_from(&value);
        }
        if self.globals.get(NAME).is_some() {
            self.globals.set(NAME, &value);
        }
    }
}

/// Gives what a server has and ADD names, where that is all that it names.
fn remote(scope: &Scope, add: &Add) -> Result<Option<Epoch>, Error> {
    let ([source], []) = (&add.sources[..], &add.heredocs[..]) else {
        return Ok(None);
    };
    let checksum = add.flags.checksum.as_ref();
    let checksum = checksum.map(|word| scope.expand(&word.text)).transpose()?;
    Ok(match CopySource::of(&scope.expand(&source.text)?) {
        CopySource::Path(_) => None,
        url => Some(Epoch::Remote { url, checksum }),
    })
}
