//! Which variables an instruction sees. ARG and ENV fill one list, and the later one
//! of a name wins; the image keeps only what ENV set.

use crate::dockerfile::words;
use crate::dockerfile::{Escape, Mount};

use super::Error;

/// Arguments that speak to the builder and are no variables.
pub(super) const SILENT: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Names and values in the order in which they were first set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    variables: Vec<(String, String)>,
    /// Names that ARG declared, in order, for the history of RUN.
    declared: Vec<(String, String)>,
    escape: Escape,
}

impl Scope {
    /// Begins with the variables of an image configuration.
    pub fn from_env(env: &[String], escape: Escape) -> Self {
        let mut scope = Self {
            escape,
            ..Self::default()
        };
        for entry in env {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            scope.set(name, value);
        }
        scope
    }

    /// Gives a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.variables.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Sets a variable; one that is there keeps its place.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.variables.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.variables.push((name.to_owned(), value.to_owned())),
        }
    }

    /// Remembers that ARG declared a name; without a value it stays unset. One that is
    /// declared again keeps its place in the history.
    pub fn declare(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value.filter(|_| !SILENT.contains(&name)) {
            self.set(name, value);
        }
        let value = value.unwrap_or_default();
        match self.declared.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.declared.push((name.to_owned(), value.to_owned())),
        }
    }

    /// Tells whether ARG declared a name, with a value or without.
    pub fn is_declared(&self, name: &str) -> bool {
        self.declared.iter().any(|(known, _)| known == name)
    }

    /// Gives all variables: the environment of RUN.
    pub fn variables(&self) -> &[(String, String)] {
        &self.variables
    }

    /// Gives the declared arguments with the values that they have now.
    pub fn arguments(&self) -> impl Iterator<Item = (&str, &str)> {
        self.declared
            .iter()
            .map(|(name, value)| (name.as_str(), self.get(name).unwrap_or(value)))
    }

    /// Expands a word.
    pub fn expand(&self, word: &str) -> Result<String, Error> {
        words::expand(word, self.escape, &|name| self.get(name).map(str::to_owned))
            .map_err(|source| failed(word, source))
    }

    /// Expands a word and tells which names it asked for.
    pub fn trace(&self, word: &str) -> Result<words::Expansion, Error> {
        words::trace(word, self.escape, &|name| self.get(name).map(str::to_owned))
            .map_err(|source| failed(word, source))
    }

    /// Gives the names that have a value.
    pub fn names(&self) -> Vec<&str> {
        self.variables
            .iter()
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// Reads a mount of RUN, each value of which is expanded.
    pub fn mount(&self, text: &str) -> Result<Mount, Error> {
        let expand = |value: &str| {
            words::expand(value, self.escape, &|name| {
                self.get(name).map(str::to_owned)
            })
        };
        Mount::parse(text, &expand).map_err(|source| Error::Mount {
            text: text.to_owned(),
            source,
        })
    }

    /// Expands a word and splits the result.
    pub fn expand_words(&self, word: &str) -> Result<Vec<String>, Error> {
        words::expand_words(word, self.escape, &|name| self.get(name).map(str::to_owned))
            .map_err(|source| failed(word, source))
    }

    /// Expands the body of a here-document.
    pub fn expand_heredoc(&self, body: &str) -> Result<String, Error> {
        words::expand_heredoc(body, &|name| self.get(name).map(str::to_owned))
            .map_err(|source| failed(body.lines().next().unwrap_or_default(), source))
    }
}

fn failed(word: &str, source: words::WordError) -> Error {
    Error::Word {
        word: word.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_one_wins_and_places_stay() {
        let mut scope = Scope::from_env(&["X=env".into(), "PATH=/bin".into()], Escape::Backslash);
        scope.declare("X", Some("arg"));
        scope.declare("Y", None);
        assert_eq!(scope.get("X"), Some("arg"));
        assert_eq!(scope.get("Y"), None);
        assert_eq!(scope.variables()[0], ("X".to_owned(), "arg".to_owned()));
        let args: Vec<_> = scope.arguments().collect();
        assert_eq!(args, [("X", "arg"), ("Y", "")]);
        scope.declare("X", Some("again"));
        assert_eq!(scope.arguments().next(), Some(("X", "again")));
        scope.declare("X", Some("arg"));
        scope.declare("BUILDKIT_SBOM_SCAN_STAGE", Some("true"));
        assert_eq!(scope.get("BUILDKIT_SBOM_SCAN_STAGE"), None);
        assert_eq!(
            scope.arguments().last(),
            Some(("BUILDKIT_SBOM_SCAN_STAGE", "true"))
        );
        assert_eq!(scope.expand("${X}-${Y:-none}").as_deref(), Ok("arg-none"));
    }
}
