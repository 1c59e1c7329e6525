//! The head of a Dockerfile: `# syntax=`, `# escape=` and `# check=`.
//!
//! Directives are looked for only from the first line on, and the first line that
//! is not a known directive ends the search: a blank line, another comment, an
//! unknown name. Finding out which frontend a file asks for ([`detect_syntax`])
//! is a separate and more tolerant search, because it must read files that are
//! not Dockerfiles at all.

use super::error::{ParseError, ParseErrorKind};
use super::span::{Span, Word};

const BYTE_ORDER_MARK: char = '\u{feff}';

/// The character that continues lines and takes the meaning from the next character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Escape {
    /// `\`, unless the file says otherwise.
    #[default]
    Backslash,
    /// `` ` ``, for files with Windows paths.
    Backtick,
}

impl Escape {
    /// Gives the character.
    pub fn as_char(self) -> char {
        match self {
            Self::Backslash => '\\',
            Self::Backtick => '`',
        }
    }
}

/// The directives of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directives {
    /// The value of `# syntax=`: a frontend image and its arguments.
    pub syntax: Option<Word>,
    /// The value of `# escape=`.
    pub escape: Option<Word>,
    /// The value of `# check=`: settings of the linter.
    pub check: Option<Word>,
}

impl Directives {
    /// Gives the escape character that is in force.
    pub fn escape(&self) -> Escape {
        match &self.escape {
            Some(word) if word.text == "`" => Escape::Backtick,
            _ => Escape::Backslash,
        }
    }
}

/// Directives, and where the first line behind them begins.
pub(super) struct Head {
    pub(super) directives: Directives,
    pub(super) end: usize,
}

/// Reads the directives at the head of a file.
pub(super) fn parse_head(source: &str) -> Result<Head, ParseError> {
    let mut end = byte_order_mark_len(source);
    let mut directives = Directives::default();
    for line in source.get(end..).unwrap_or_default().split_inclusive('\n') {
        let Some(found) = Assignment::parse(line, "#", end) else {
            break;
        };
        let slot = match found.name.as_str() {
            "syntax" => &mut directives.syntax,
            "escape" => &mut directives.escape,
            "check" => &mut directives.check,
            _ => break,
        };
        let span = Span::new(end, end + line.trim_end().len());
        if slot.is_some() {
            return Err(ParseError::new(
                ParseErrorKind::DuplicateDirective(found.name),
                span,
            ));
        }
        if found.name == "escape" && !matches!(found.value.as_str(), "\\" | "`") {
            let kind = ParseErrorKind::InvalidEscape(found.value.text);
            return Err(ParseError::new(kind, found.value.span));
        }
        *slot = Some(found.value);
        end += line.len();
    }
    Ok(Head { directives, end })
}

fn byte_order_mark_len(source: &str) -> usize {
    if source.starts_with(BYTE_ORDER_MARK) {
        BYTE_ORDER_MARK.len_utf8()
    } else {
        0
    }
}

/// A comment of the form `# name = value`.
struct Assignment {
    name: String,
    value: Word,
}

impl Assignment {
    /// Parses one line that begins at `offset`; `marker` is what begins a comment.
    fn parse(line: &str, marker: &str, offset: usize) -> Option<Self> {
        let comment = line.trim_start().strip_prefix(marker)?.trim_start();
        let (name, value) = comment.split_once('=')?;
        let name = name.trim_end();
        let mut letters = name.chars();
        if !letters.next()?.is_ascii_alphabetic() || !letters.all(|c| c.is_ascii_alphanumeric()) {
            return None;
        }
        let value = value.trim_start();
        let start = offset + line.len() - value.len();
        let value = value.trim_end();
        if value.is_empty() {
            return None;
        }
        let span = Span::new(start, start + value.len());
        Some(Self {
            name: name.to_ascii_lowercase(),
            value: Word::new(value, span),
        })
    }
}

/// Finds the frontend image that a file asks for, in any form that builders accept:
/// `# syntax=`, `// syntax=` or a JSON object with `"syntax"`. A first line that
/// begins with `#!` is passed over.
pub fn detect_syntax(source: &str) -> Option<Word> {
    let start = byte_order_mark_len(source);
    let text = source.get(start..)?;
    let shebang = match text.starts_with("#!") {
        true => text.find('\n').map_or(text.len(), |at| at + 1),
        false => 0,
    };
    let start = start + shebang;
    let text = source.get(start..)?;
    ["#", "//"]
        .iter()
        .find_map(|marker| syntax_in_comments(text, marker, start))
        .or_else(|| syntax_in_json(text, start))
}

fn syntax_in_comments(text: &str, marker: &str, mut offset: usize) -> Option<Word> {
    for line in text.split_inclusive('\n') {
        let found = Assignment::parse(line, marker, offset)?;
        match found.name.as_str() {
            "syntax" => return Some(found.value),
            "escape" | "check" => offset += line.len(),
            _ => return None,
        }
    }
    None
}

fn syntax_in_json(text: &str, offset: usize) -> Option<Word> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let value = object.get("syntax")?.as_str()?;
    Some(Word::new(value, Span::new(offset, offset + text.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(source: &str) -> (Option<String>, Escape, Option<String>) {
        let found = parse_head(source).unwrap().directives;
        let escape = found.escape();
        (
            found.syntax.map(|w| w.text),
            escape,
            found.check.map(|w| w.text),
        )
    }

    #[test]
    fn directives_end_at_the_first_line_that_is_none() {
        let image = Some("docker/dockerfile:1".to_owned());
        let table = [
            (
                "# syntax=docker/dockerfile:1\n# escape=`\n",
                image.clone(),
                Escape::Backtick,
            ),
            (
                "#\t sYnTax  =  docker/dockerfile:1 \r\n",
                image.clone(),
                Escape::Backslash,
            ),
            (
                "\u{feff}# syntax=docker/dockerfile:1\n",
                image.clone(),
                Escape::Backslash,
            ),
            (
                "# syntax=docker/dockerfile:1\n\n# escape=`\n",
                image.clone(),
                Escape::Backslash,
            ),
            ("# hello\n# escape=`\n", None, Escape::Backslash),
            ("# unknown=1\n# escape=`\n", None, Escape::Backslash),
            ("# escape=\n# escape=`\n", None, Escape::Backslash),
            ("#!/usr/bin/env x\n# escape=`\n", None, Escape::Backslash),
            ("FROM a\n# escape=`\n", None, Escape::Backslash),
            ("", None, Escape::Backslash),
        ];
        for (source, syntax, escape) in table {
            assert_eq!(head(source), (syntax, escape, None), "{source:?}");
        }
        let check = Some("skip=all;error=true".to_owned());
        assert_eq!(head("# check = skip=all;error=true\n").2, check);
    }

    #[test]
    fn directives_are_checked() {
        let errors = [
            "# escape=`\n# ESCAPE=\\\n",
            "# escape=x\n",
            "# syntax=a\n# syntax=a\n",
        ];
        for source in errors {
            assert!(parse_head(source).is_err(), "{source:?}");
        }
    }

    #[test]
    fn the_frontend_is_found_in_every_form() {
        let table = [
            ("# syntax=a/b:1 arg\nFROM x", Some("a/b:1 arg")),
            ("#!/bin/x\n# syntax=a\n", Some("a")),
            ("// escape=`\n// syntax=a\n", Some("a")),
            ("{\"syntax\": \"a\", \"x\": [1]}", Some("a")),
            ("{\"syntax\": 1}", None),
            ("# other=1\n# syntax=a\n", None),
            ("FROM x\n", None),
        ];
        for (source, expected) in table {
            let found = detect_syntax(source).map(|word| word.text);
            assert_eq!(found.as_deref(), expected, "{source:?}");
        }
    }
}
