//! Shell-like words: quotes, escapes and `$NAME` substitution as Dockerfile
//! instructions know them.
//!
//! A word and a way to look names up enter, the expanded text leaves, together
//! with the names that were asked for. The rules resemble a POSIX shell but are
//! narrower: special parameters such as `$$` and `$1` are empty, patterns have no
//! brackets, and inside double quotes the escape character works only before `"`,
//! `$` and itself. Output and nesting are limited, because a file can double a
//! value with every line.

mod glob;
mod lexer;

use std::collections::BTreeSet;

use thiserror::Error;

use super::directive::Escape;
pub(super) use lexer::{Rules, split};

/// The most bytes that the expansion of a word may produce.
pub const MAX_EXPANDED: usize = 1024 * 1024;

/// The most bytes that the expansion of a here-document may produce.
pub const MAX_EXPANDED_BODY: usize = 16 * 1024 * 1024;

/// The deepest nesting of `${a:-${b:-…}}`.
pub const MAX_DEPTH: usize = 100;

/// Finds the value of a variable.
pub type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Why a word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WordError {
    /// A quote is opened and never closed.
    #[error("quote {0} is not closed")]
    UnclosedQuote(char),
    /// A `${` has no `}`.
    #[error("substitution is not closed with }}")]
    UnclosedSubstitution,
    /// A `${` is followed by something that cannot begin a name.
    #[error("bad substitution")]
    BadSubstitution,
    /// The characters after the name are no known modifier.
    #[error("unsupported modifier {0:?} in substitution")]
    UnsupportedModifier(String),
    /// `${name/pattern` has no second slash.
    #[error("substitution has a pattern and no / in front of the replacement")]
    NoReplacement,
    /// The pattern escapes a character that cannot be escaped.
    #[error("invalid escape {escape:?} in pattern {pattern:?}")]
    InvalidPattern {
        /// The pattern.
        pattern: String,
        /// The escape character and what follows it.
        escape: String,
    },
    /// `${name?message}` of a name that has no value.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What the file says about it.
        message: String,
    },
    /// The result would be longer than [`MAX_EXPANDED`] or [`MAX_EXPANDED_BODY`].
    #[error("expansion is too long")]
    TooLong,
    /// Substitutions are nested deeper than [`MAX_DEPTH`].
    #[error("substitutions are nested deeper than {MAX_DEPTH}")]
    TooDeep,
}

/// The result of an expansion.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expansion {
    /// The text, as one word.
    pub text: String,
    /// The same text split at blanks that were neither quoted nor escaped.
    pub words: Vec<String>,
    /// The variables that were asked for and have a value.
    pub used: BTreeSet<String>,
    /// The variables that were asked for and have none.
    pub unset: BTreeSet<String>,
}

/// Expands `word` and gives one word.
///
/// ```
/// use ocibuild::dockerfile::{Escape, words::expand};
///
/// let lookup = |name: &str| (name == "version").then(|| "1.2".to_owned());
/// let expanded = expand("app-${version%.*}-'$x'", Escape::Backslash, &lookup)?;
/// assert_eq!(expanded, "app-1-$x");
/// # Ok::<(), ocibuild::dockerfile::words::WordError>(())
/// ```
pub fn expand(word: &str, escape: Escape, lookup: &Lookup<'_>) -> Result<String, WordError> {
    trace(word, escape, lookup).map(|expansion| expansion.text)
}

/// Expands `word` and splits the result, as `EXPOSE` does.
pub fn expand_words(
    word: &str,
    escape: Escape,
    lookup: &Lookup<'_>,
) -> Result<Vec<String>, WordError> {
    trace(word, escape, lookup).map(|expansion| expansion.words)
}

/// Expands the body of a here-document: quotes are ordinary characters, and the
/// escape character is a backslash whatever the file says.
pub fn expand_heredoc(body: &str, lookup: &Lookup<'_>) -> Result<String, WordError> {
    trace_heredoc(body, lookup).map(|expansion| expansion.text)
}

/// Expands `word` and reports the names that it asked for.
pub fn trace(word: &str, escape: Escape, lookup: &Lookup<'_>) -> Result<Expansion, WordError> {
    lexer::expand(word, Rules::word(escape), lookup)
}

/// Expands the body of a here-document and reports the names that it asked for.
pub fn trace_heredoc(body: &str, lookup: &Lookup<'_>) -> Result<Expansion, WordError> {
    lexer::expand(body, Rules::heredoc_body(), lookup)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "a" => Some("one two".to_owned()),
            "e" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn names_are_reported() {
        let found = trace("$a ${e:-$x} ${y+z} '$q'", Escape::Backslash, &lookup).unwrap();
        assert_eq!(found.text, "one two   $q");
        assert_eq!(found.words, ["one", "two", "$q"]);
        assert_eq!(Vec::from_iter(found.used), ["a", "e"]);
        assert_eq!(Vec::from_iter(found.unset), ["x", "y"]);
    }

    #[test]
    fn heredoc_bodies_keep_their_quotes() {
        let table = [
            ("'$a' \"$a\"", "'one two' \"one two\""),
            ("\\$a \\\\ it's", "$a \\ it's"),
            ("${e:-'x'}\n", "'x'\n"),
            ("\\n", "n"),
        ];
        for (body, expected) in table {
            assert_eq!(expand_heredoc(body, &lookup).unwrap(), expected, "{body:?}");
        }
    }

    #[test]
    fn expansion_is_limited_in_size_and_depth() {
        let deep = format!(
            "{}x{}",
            "${q:-".repeat(MAX_DEPTH + 1),
            "}".repeat(MAX_DEPTH + 1)
        );
        assert_eq!(
            expand(&deep, Escape::Backslash, &lookup),
            Err(WordError::TooDeep)
        );
        let half = |_: &str| Some("x".repeat(MAX_EXPANDED / 2 + 1));
        for word in ["$a$a", "\"$a$a\"", "${a//x/yyy}"] {
            assert_eq!(
                expand(word, Escape::Backslash, &half),
                Err(WordError::TooLong),
                "{word}"
            );
        }
    }
}
