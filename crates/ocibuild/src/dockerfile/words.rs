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

use std::collections::BTreeSet;
use std::ops::Range;

use thiserror::Error;

use super::directive::Escape;

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
    Lexer::new(word, Rules::word(escape), lookup)
        .run()
        .map(Expansion::from)
}

/// Expands the body of a here-document and reports the names that it asked for.
pub fn trace_heredoc(body: &str, lookup: &Lookup<'_>) -> Result<Expansion, WordError> {
    let rules = Rules {
        quotes: Quotes::Ordinary,
        limit: MAX_EXPANDED_BODY,
        ..Rules::word(Escape::Backslash)
    };
    Lexer::new(body, rules, lookup).run().map(Expansion::from)
}

impl From<Lexed> for Expansion {
    fn from(lexed: Lexed) -> Self {
        let words = lexed.words.into_iter().map(|word| word.text).collect();
        Self {
            text: lexed.text,
            words,
            used: lexed.used,
            unset: lexed.unset,
        }
    }
}

/// What becomes of `'` and `"`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    /// They quote, and they vanish.
    Removed,
    /// They quote, and they stay.
    Kept,
    /// They mean nothing.
    Ordinary,
}

/// How a text is read.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    escape: char,
    quotes: Quotes,
    /// The escape character stays in the result.
    keeps_escapes: bool,
    /// A variable without a value stays as it is written.
    keeps_unset: bool,
    /// `<<` and the blanks behind it belong to the word that follows.
    joins_heredocs: bool,
    /// The most bytes that the result may have.
    limit: usize,
}

impl Rules {
    fn word(escape: Escape) -> Self {
        Self {
            escape: escape.as_char(),
            quotes: Quotes::Removed,
            keeps_escapes: false,
            keeps_unset: false,
            joins_heredocs: false,
            limit: MAX_EXPANDED,
        }
    }

    /// Reads an instruction to find the words in it, and changes nothing.
    pub(super) fn instruction() -> Self {
        Self {
            quotes: Quotes::Kept,
            keeps_escapes: true,
            keeps_unset: true,
            joins_heredocs: true,
            ..Self::word(Escape::Backslash)
        }
    }

    /// Reads the name of a here-document: quotes go, variables stay.
    pub(super) fn heredoc_name() -> Self {
        Self {
            keeps_unset: true,
            ..Self::word(Escape::Backslash)
        }
    }
}

/// Splits a text into words under `rules`, without any variables.
pub(super) fn split(text: &str, rules: Rules) -> Result<Vec<LexedWord>, WordError> {
    Lexer::new(text, rules, &|_| None)
        .run()
        .map(|lexed| lexed.words)
}

/// A word with the place it was read from.
#[derive(Debug, Default)]
pub(super) struct LexedWord {
    pub(super) text: String,
    /// Range of the input.
    pub(super) range: Range<usize>,
    /// Some part of it is in quotes.
    pub(super) quoted: bool,
}

/// Collects words while text arrives.
#[derive(Default)]
struct Splitter {
    words: Vec<LexedWord>,
    word: LexedWord,
}

impl Splitter {
    /// Adds text whose blanks part words.
    fn add(&mut self, text: &str, range: Range<usize>) {
        for c in text.chars() {
            if !c.is_whitespace() {
                self.add_whole(c.encode_utf8(&mut [0; 4]), range.clone());
            } else if !self.word.text.is_empty() {
                self.words.push(std::mem::take(&mut self.word));
            }
        }
    }

    /// Adds text whose blanks belong to the word.
    fn add_whole(&mut self, text: &str, range: Range<usize>) {
        if self.word.text.is_empty() {
            self.word.range.start = range.start;
        }
        self.word.range.end = range.end;
        self.word.text.push_str(text);
    }

    fn finish(mut self) -> Vec<LexedWord> {
        if !self.word.text.is_empty() {
            self.words.push(self.word);
        }
        self.words
    }
}

struct Lexed {
    text: String,
    words: Vec<LexedWord>,
    used: BTreeSet<String>,
    unset: BTreeSet<String>,
}

struct Lexer<'a> {
    input: &'a str,
    position: usize,
    rules: Rules,
    lookup: &'a Lookup<'a>,
    used: BTreeSet<String>,
    unset: BTreeSet<String>,
    depth: usize,
}

impl<'a> Lexer<'a> {
    fn new(input: &'a str, rules: Rules, lookup: &'a Lookup<'a>) -> Self {
        let (used, unset) = Default::default();
        Self {
            input,
            position: 0,
            rules,
            lookup,
            used,
            unset,
            depth: 0,
        }
    }

    fn run(mut self) -> Result<Lexed, WordError> {
        let (text, splitter) = self.read_until(None)?;
        let words = splitter.finish();
        Ok(Lexed {
            text,
            words,
            used: self.used,
            unset: self.unset,
        })
    }

    fn peek(&self) -> Option<char> {
        self.input.get(self.position..)?.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.position += c.len_utf8();
        Some(c)
    }

    fn next_if(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.next();
        }
        found
    }

    /// Reads up to `stop`, which is consumed, or to the end of the input.
    fn read_until(&mut self, stop: Option<char>) -> Result<(String, Splitter), WordError> {
        let mut text = String::new();
        let mut words = Splitter::default();
        while let Some(c) = self.peek() {
            if stop == Some(c) {
                self.next();
                return Ok((text, words));
            }
            let start = self.position;
            let (piece, splits) = self.read_piece(c)?;
            let range = start..self.position;
            match splits {
                true => words.add(&piece, range),
                false => words.add_whole(&piece, range),
            }
            words.word.quoted |= self.is_quote(c);
            text.push_str(&piece);
            self.check_len(&text)?;
        }
        match stop {
            None => Ok((text, words)),
            Some('/') => Err(WordError::NoReplacement),
            Some(_) => Err(WordError::UnclosedSubstitution),
        }
    }

    fn check_len(&self, text: &str) -> Result<(), WordError> {
        if text.len() > self.rules.limit {
            Err(WordError::TooLong)
        } else {
            Ok(())
        }
    }

    /// Reads one character or construct; the flag tells whether its blanks part words.
    fn read_piece(&mut self, c: char) -> Result<(String, bool), WordError> {
        match c {
            '$' => return Ok((self.read_dollar()?, true)),
            '\'' if self.is_quote(c) => return Ok((self.read_single_quoted()?, false)),
            '"' if self.is_quote(c) => return Ok((self.read_double_quoted()?, false)),
            '<' if self.rules.joins_heredocs => return Ok((self.read_angle(), false)),
            _ => {}
        }
        self.next();
        if c != self.rules.escape {
            return Ok((c.to_string(), true));
        }
        let mut piece = String::new();
        if self.rules.keeps_escapes {
            piece.push(c);
        }
        piece.extend(self.next());
        Ok((piece, false))
    }

    fn is_quote(&self, c: char) -> bool {
        self.rules.quotes != Quotes::Ordinary && matches!(c, '\'' | '"')
    }

    fn read_angle(&mut self) -> String {
        let start = self.position;
        self.next();
        if self.next_if('<') {
            while self.peek().is_some_and(char::is_whitespace) {
                self.next();
            }
        }
        self.input
            .get(start..self.position)
            .unwrap_or_default()
            .to_owned()
    }

    fn read_single_quoted(&mut self) -> Result<String, WordError> {
        let start = self.position;
        self.next();
        while let Some(c) = self.next() {
            if c == '\'' {
                let quoted = self.input.get(start..self.position).unwrap_or_default();
                return Ok(match self.rules.quotes {
                    Quotes::Kept => quoted.to_owned(),
                    _ => quoted.trim_matches('\'').to_owned(),
                });
            }
        }
        Err(WordError::UnclosedQuote('\''))
    }

    fn read_double_quoted(&mut self) -> Result<String, WordError> {
        let keeps_quotes = self.rules.quotes == Quotes::Kept;
        let mut text = String::new();
        text.extend(self.next().filter(|_| keeps_quotes));
        while let Some(c) = self.peek() {
            if c == '$' {
                text.push_str(&self.read_dollar()?);
                self.check_len(&text)?;
                continue;
            }
            self.next();
            if c == '"' {
                text.extend(keeps_quotes.then_some(c));
                return Ok(text);
            }
            if c == self.rules.escape {
                self.read_escape_in_quotes(&mut text);
            } else {
                text.push(c);
            }
        }
        Err(WordError::UnclosedQuote('"'))
    }

    /// Inside double quotes only `"`, `$` and the escape character itself can be escaped.
    /// Where escapes are kept for a pattern, any other is doubled and so stands for itself.
    fn read_escape_in_quotes(&mut self, text: &mut String) {
        let escape = self.rules.escape;
        let escaped = self
            .peek()
            .filter(|c| matches!(c, '"' | '$') || *c == escape);
        if self.rules.keeps_escapes || escaped.is_none() {
            text.push(escape);
        }
        if let Some(c) = escaped {
            self.next();
            text.push(c);
        } else if self.rules.keeps_escapes {
            text.push(escape);
        }
    }

    fn read_dollar(&mut self) -> Result<String, WordError> {
        self.next();
        if !self.next_if('{') {
            let name = self.read_name();
            return Ok(match name.is_empty() {
                true => "$".to_owned(),
                false => self
                    .value(&name)
                    .unwrap_or_else(|| self.unset_text(&format!("${name}"))),
            });
        }
        match self.peek() {
            None => return Err(WordError::UnclosedSubstitution),
            Some('{' | '}' | ':') => return Err(WordError::BadSubstitution),
            Some(_) => {}
        }
        if self.depth == MAX_DEPTH {
            return Err(WordError::TooDeep);
        }
        self.depth += 1;
        let start = self.position - "${".len();
        let name = self.read_name();
        let value = self.read_modifier(&name)?;
        self.depth -= 1;
        let written = self.input.get(start..self.position).unwrap_or_default();
        Ok(value.unwrap_or_else(|| self.unset_text(written)))
    }

    /// Gives what stands for a variable without a value.
    fn unset_text(&self, written: &str) -> String {
        if self.rules.keeps_unset {
            written.to_owned()
        } else {
            String::new()
        }
    }

    /// Reads a name, a number or one special parameter; gives nothing for other characters.
    fn read_name(&mut self) -> String {
        let start = self.position;
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        match self.peek() {
            Some(c) if c.is_ascii_digit() => {
                while self.peek().is_some_and(|c| c.is_ascii_digit()) {
                    self.next();
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => {
                self.next();
            }
            _ => {
                while self.peek().is_some_and(is_name) {
                    self.next();
                }
            }
        }
        self.input
            .get(start..self.position)
            .unwrap_or_default()
            .to_owned()
    }

    fn value(&mut self, name: &str) -> Option<String> {
        let value = (self.lookup)(name);
        let names = if value.is_some() {
            &mut self.used
        } else {
            &mut self.unset
        };
        names.insert(name.to_owned());
        value
    }

    /// Gives the value for a pattern to work on, or nothing where the text is to stay.
    fn value_or_empty(&mut self, name: &str) -> Option<String> {
        let value = self.value(name);
        value.or_else(|| (!self.rules.keeps_unset).then(String::new))
    }

    /// Reads what follows the name up to and with `}`; gives nothing for a variable
    /// that is to stay as written or has no value.
    fn read_modifier(&mut self, name: &str) -> Result<Option<String>, WordError> {
        match self.next() {
            None => Err(WordError::UnclosedSubstitution),
            Some('}') => Ok(self.value(name)),
            Some(':') => match self.next() {
                Some(sign @ ('-' | '+' | '?')) => self.read_alternative(name, sign, true),
                Some(other) => Err(WordError::UnsupportedModifier(format!(":{other}"))),
                None => Err(WordError::UnclosedSubstitution),
            },
            Some(sign @ ('-' | '+' | '?')) => self.read_alternative(name, sign, false),
            Some(sign @ ('#' | '%')) => self.read_trim(name, sign),
            Some('/') => self.read_replace(name),
            Some(other) => Err(WordError::UnsupportedModifier(other.to_string())),
        }
    }

    /// Reads a part of a substitution; patterns keep their escape characters.
    fn read_part(&mut self, stop: char, keeps_escapes: bool) -> Result<String, WordError> {
        let before = std::mem::replace(&mut self.rules.keeps_escapes, keeps_escapes);
        let (text, _) = self.read_until(Some(stop))?;
        self.rules.keeps_escapes = before;
        Ok(text)
    }

    fn read_alternative(
        &mut self,
        name: &str,
        sign: char,
        empty_is_unset: bool,
    ) -> Result<Option<String>, WordError> {
        let word = self.read_part('}', false)?;
        let value = self.value(name);
        if value.is_none() && self.rules.keeps_unset {
            return Ok(None);
        }
        let reason = if value.is_some() {
            "must not be empty"
        } else {
            "must be set"
        };
        let value = value.filter(|value| !(empty_is_unset && value.is_empty()));
        match (sign, value) {
            ('-', value) => Ok(Some(value.unwrap_or(word))),
            ('+', value) => Ok(Some(value.map(|_| word).unwrap_or_default())),
            (_, Some(value)) => Ok(Some(value)),
            (_, None) => {
                let message = if word.is_empty() {
                    reason.to_owned()
                } else {
                    word
                };
                Err(WordError::Required {
                    name: name.to_owned(),
                    message,
                })
            }
        }
    }

    fn read_trim(&mut self, name: &str, sign: char) -> Result<Option<String>, WordError> {
        let word = self.read_part('}', true)?;
        let (pattern, longest) = match word.strip_prefix(sign) {
            Some(pattern) => (pattern, true),
            None => (word.as_str(), false),
        };
        let Some(value) = self.value_or_empty(name) else {
            return Ok(None);
        };
        match sign {
            '#' => glob::trim_prefix(&value, pattern, longest).map(Some),
            _ => glob::trim_suffix(&value, pattern, longest).map(Some),
        }
    }

    fn read_replace(&mut self, name: &str) -> Result<Option<String>, WordError> {
        let every = self.next_if('/');
        let pattern = self.read_part('/', true)?;
        let replacement = self.read_part('}', true)?;
        let Some(value) = self.value_or_empty(name) else {
            return Ok(None);
        };
        glob::replace(&value, &pattern, &replacement, every).map(Some)
    }
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
