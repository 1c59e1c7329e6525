//! The engine below [`words`](super): one pass over a text collects the result, the
//! words in it and the names that were asked for. What begins with `$` is in
//! `substitution`.

mod substitution;

use std::collections::BTreeSet;
use std::ops::Range;

use super::{Expansion, Lookup, MAX_EXPANDED, MAX_EXPANDED_BODY, WordError};
use crate::dockerfile::directive::Escape;
use crate::dockerfile::work;

/// Reads a text under `rules`.
pub(super) fn expand(
    text: &str,
    rules: Rules,
    lookup: &Lookup<'_>,
) -> Result<Expansion, WordError> {
    Lexer::new(text, rules, lookup).run().map(Expansion::from)
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
pub(in crate::dockerfile) struct Rules {
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
    /// Reads an argument.
    pub(super) fn word(escape: Escape) -> Self {
        Self {
            escape: escape.as_char(),
            quotes: Quotes::Removed,
            keeps_escapes: false,
            keeps_unset: false,
            joins_heredocs: false,
            limit: MAX_EXPANDED,
        }
    }

    /// Reads the body of a here-document.
    pub(super) fn heredoc_body() -> Self {
        Self {
            quotes: Quotes::Ordinary,
            limit: MAX_EXPANDED_BODY,
            ..Self::word(Escape::Backslash)
        }
    }

    /// Reads an instruction to find the words in it, and changes nothing.
    pub(in crate::dockerfile) fn instruction() -> Self {
        Self {
            quotes: Quotes::Kept,
            keeps_escapes: true,
            keeps_unset: true,
            joins_heredocs: true,
            // Nothing is replaced, so the result is no longer than the text.
            limit: usize::MAX,
            ..Self::word(Escape::Backslash)
        }
    }

    /// Reads the name of a here-document: quotes go, variables stay.
    pub(in crate::dockerfile) fn heredoc_name() -> Self {
        Self {
            keeps_unset: true,
            ..Self::word(Escape::Backslash)
        }
    }
}

/// Splits a text into words under `rules`, without any variables.
pub(in crate::dockerfile) fn split(text: &str, rules: Rules) -> Result<Vec<LexedWord>, WordError> {
    Lexer::new(text, rules, &|_| None)
        .run()
        .map(|lexed| lexed.words)
}

/// A word with the place it was read from.
#[derive(Debug, Default)]
pub(in crate::dockerfile) struct LexedWord {
    pub(in crate::dockerfile) text: String,
    /// Range of the input.
    pub(in crate::dockerfile) range: Range<usize>,
    /// Some part of it is in quotes.
    pub(in crate::dockerfile) quoted: bool,
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
            work::count(1);
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
        work::count(1);
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
}
