//! `SOURCE_DATE_EPOCH` (reproducible-builds.org) as a build argument or a global ARG: a
//! number of seconds, or something that has a time of its own.

use super::{Error, Plan};

const NAME: &str = "SOURCE_DATE_EPOCH";

/// The time that a build is to be dated to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Epoch {
    /// Seconds since 1970.
    Seconds(i64),
    /// That of the context, where it has one: of a repository that of its commit.
    Context,
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
                Err(_) if self.is_name(text) => Err(Error::Unsupported(format!(
                    "{NAME}={text}, the time of a stage or named context,"
                ))),
                Err(_) => Err(Error::Invalid(format!(
                    "invalid {NAME}: {text:?}: want seconds since 1970, or context"
                ))),
            },
        }
    }

    fn is_name(&self, text: &str) -> bool {
        self.request.contexts.contains(text)
            || self.stage_of(self.dockerfile.stages.len(), text).is_some()
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
