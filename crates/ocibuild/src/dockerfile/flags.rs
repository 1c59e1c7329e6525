//! `--name=value` between a keyword and its arguments.
//!
//! Flags are first cut off the line, which every instruction does alike, and then
//! checked against the flags that the instruction has.

use super::ast::Keyword;
use super::directive::Escape;
use super::error::{ParseError, ParseErrorKind};
use super::lines::Fragment;
use super::span::{Span, Word};
use super::suggest;
use super::work;

/// A flag as it is written, without quotes and escapes.
pub(super) struct RawFlag {
    /// What stands between `--` and `=`.
    name: String,
    /// What stands behind `=`, if there is one.
    value: Option<Word>,
    span: Span,
}

/// Cuts the flags off the begin of `rest`; `--` alone ends them.
pub(super) fn split(rest: Fragment<'_>, escape: Escape) -> (Vec<RawFlag>, Fragment<'_>) {
    let mut flags = Vec::new();
    let mut rest = rest.trim();
    while rest.as_str().starts_with("--") {
        let (text, len) = unquote(rest.as_str(), escape.as_char());
        let written = rest.slice(0..len);
        rest = rest.from(len).trim();
        match text.strip_prefix("--") {
            Some(text) if !text.is_empty() => flags.push(RawFlag::new(text, written)),
            _ => break,
        }
    }
    (flags, rest)
}

/// Reads one word; gives it without quotes, and its length in the text.
fn unquote(text: &str, escape: char) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        work::count(1);
        match quote {
            None if c.is_whitespace() => return (word, at),
            None if matches!(c, '\'' | '"') => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ if c == escape => word.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => word.push(c),
        }
    }
    (word, text.len())
}

impl RawFlag {
    /// Gives the flag without quotes and escapes: `--name=value`.
    pub(super) fn text(&self) -> String {
        match &self.value {
            Some(value) => format!("--{}={}", self.name, value.text),
            None => format!("--{}", self.name),
        }
    }

    fn new(text: &str, written: Fragment<'_>) -> Self {
        let span = written.span();
        let Some((name, value)) = text.split_once('=') else {
            return Self {
                name: text.to_owned(),
                value: None,
                span,
            };
        };
        let start = written.as_str().find('=').map_or(0, |at| at + 1);
        let value = Word::new(value, written.from(start).span());
        Self {
            name: name.to_owned(),
            value: Some(value),
            span,
        }
    }
}

/// What a flag takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing, `true` or `false`.
    Switch,
    /// One value.
    Text,
    /// One value each time that it is given.
    List,
}

/// The checked flags of an instruction.
pub(super) struct Flags(Vec<RawFlag>);

impl Flags {
    /// Checks flags against the ones that `keyword` has.
    pub(super) fn check(
        keyword: Keyword,
        raw: Vec<RawFlag>,
        known: &[(&'static str, Kind)],
    ) -> Result<Self, ParseError> {
        let mut checked: Vec<RawFlag> = Vec::new();
        for flag in raw {
            let Some((_, kind)) = known.iter().find(|(name, _)| *name == flag.name) else {
                return Err(unknown(keyword, flag, known));
            };
            if *kind != Kind::List && checked.iter().any(|other| other.name == flag.name) {
                return Err(ParseError::new(
                    ParseErrorKind::DuplicateFlag(flag.name),
                    flag.span,
                ));
            }
            flag.check_value(*kind)?;
            checked.push(flag);
        }
        Ok(Self(checked))
    }

    /// Takes the value of a flag; an empty one is as good as none.
    pub(super) fn text(&mut self, name: &str) -> Option<Word> {
        self.list(name).pop().filter(|word| !word.text.is_empty())
    }

    /// Takes the values of a flag, in order.
    pub(super) fn list(&mut self, name: &str) -> Vec<Word> {
        let flags = self.0.iter_mut().filter(|flag| flag.name == name);
        flags.filter_map(|flag| flag.value.take()).collect()
    }

    /// Gives the value of a switch, or nothing where it is not given.
    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        let flag = self.0.iter().find(|flag| flag.name == name)?;
        Some(
            flag.value
                .as_ref()
                .is_none_or(|value| value.text.eq_ignore_ascii_case("true")),
        )
    }
}

fn unknown(keyword: Keyword, flag: RawFlag, known: &[(&'static str, Kind)]) -> ParseError {
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    let suggestion = suggest::nearest(&flag.name, &names).map(|name| format!("--{name}"));
    let kind = ParseErrorKind::UnknownFlag {
        keyword,
        flag: flag.name,
    };
    ParseError::new(kind, flag.span).with_suggestion(suggestion.as_deref())
}

impl RawFlag {
    fn check_value(&self, kind: Kind) -> Result<(), ParseError> {
        let without_value = || ParseErrorKind::FlagWithoutValue(self.name.clone());
        let reason = match (kind, &self.value) {
            (Kind::Switch, None) => return Ok(()),
            (Kind::Switch, Some(value)) => match value.text.to_ascii_lowercase().as_str() {
                "true" | "false" => return Ok(()),
                "" => without_value(),
                _ => ParseErrorKind::FlagNotBoolean {
                    flag: self.name.clone(),
                    value: value.text.clone(),
                },
            },
            (_, None) => without_value(),
            (_, Some(_)) => return Ok(()),
        };
        Err(ParseError::new(reason, self.span))
    }
}
