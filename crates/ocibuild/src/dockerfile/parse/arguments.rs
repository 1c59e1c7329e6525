//! The three ways to write arguments: a JSON array, words with quotes, and pairs.

use serde_json::Value;

use super::Result;
use crate::dockerfile::ast::{Command, KeyValue, Keyword};
use crate::dockerfile::directive::Escape;
use crate::dockerfile::error::{ParseError, ParseErrorKind};
use crate::dockerfile::lines::Fragment;
use crate::dockerfile::span::Word;
use crate::dockerfile::work;

/// Tells whether arguments are in the JSON form, be it right or wrong inside.
pub(in crate::dockerfile) fn is_json(arguments: Fragment<'_>) -> bool {
    parse_values(arguments).is_some()
}

fn parse_values(arguments: Fragment<'_>) -> Option<Vec<Value>> {
    let text = arguments.as_str();
    work::count(text.len());
    text.trim_start()
        .starts_with('[')
        .then(|| serde_json::from_str(text).ok())
        .flatten()
}

/// Reads a JSON array of strings. Text that is no JSON array is not an error but
/// the other form of the instruction; an array of other things is one.
pub(in crate::dockerfile) fn json(
    keyword: Keyword,
    arguments: Fragment<'_>,
) -> Result<Option<Vec<Word>>> {
    let Some(values) = parse_values(arguments) else {
        return Ok(None);
    };
    let mut spans = json_strings(arguments).into_iter();
    let mut words = Vec::new();
    for value in values {
        let (Value::String(text), Some(written)) = (value, spans.next()) else {
            let kind = ParseErrorKind::JsonNotStrings(keyword);
            return Err(ParseError::new(kind, arguments.span()));
        };
        words.push(Word::new(text, written.span()));
    }
    Ok(Some(words))
}

/// Finds the strings of a valid JSON array, without their quotes.
fn json_strings(arguments: Fragment<'_>) -> Vec<Fragment<'_>> {
    let mut strings = Vec::new();
    let mut open = None;
    let mut chars = arguments.as_str().char_indices();
    while let Some((at, c)) = chars.next() {
        match (c, open) {
            ('"', None) => open = Some(at + 1),
            ('"', Some(start)) => {
                strings.push(arguments.slice(start..at));
                open = None;
            }
            ('\\', Some(_)) => {
                chars.next();
            }
            _ => {}
        }
    }
    strings
}

/// Reads a command: JSON where it is JSON, otherwise text for a shell.
pub(in crate::dockerfile) fn command(keyword: Keyword, arguments: Fragment<'_>) -> Result<Command> {
    let words = json(keyword, arguments)?;
    Ok(words.map_or_else(|| Command::Shell(arguments.word()), Command::Exec))
}

/// Reads a list of paths: JSON where it is JSON, otherwise words between blanks.
pub(in crate::dockerfile) fn list(keyword: Keyword, arguments: Fragment<'_>) -> Result<Vec<Word>> {
    let words = json(keyword, arguments)?;
    Ok(words.unwrap_or_else(|| arguments.split().iter().map(Fragment::word).collect()))
}

/// Splits at blanks that are neither quoted nor escaped. Quotes stay in the words.
pub(in crate::dockerfile) fn quoted_words(
    arguments: Fragment<'_>,
    escape: Escape,
) -> Vec<Fragment<'_>> {
    let text = arguments.as_str();
    let escape = escape.as_char();
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        work::count(1);
        if quote.is_none() && c.is_whitespace() {
            words.extend(start.take().map(|start| arguments.slice(start..at)));
            continue;
        }
        start.get_or_insert(at);
        match quote {
            Some(open) if c == open => quote = None,
            None if matches!(c, '\'' | '"') => quote = Some(c),
            // In single quotes nothing can be escaped.
            open if c == escape && open != Some('\'') => {
                chars.next();
            }
            _ => {}
        }
    }
    words.extend(start.map(|start| arguments.from(start)));
    words
}

/// Reads `name=value` pairs, or the one pair of the old form `name value`.
pub(in crate::dockerfile) fn key_values(
    keyword: Keyword,
    arguments: Fragment<'_>,
    escape: Escape,
) -> Result<Vec<KeyValue>> {
    let pairs = key_values_raw(keyword, arguments, escape)?;
    let blank = pairs.iter().find(|pair| pair.key.text.is_empty());
    match (pairs.as_slice(), blank) {
        ([], _) => Err(ParseError::new(
            ParseErrorKind::NoArgument(keyword),
            arguments.span(),
        )),
        (_, Some(pair)) => Err(ParseError::new(
            ParseErrorKind::BlankName(keyword),
            pair.key.span.to(pair.value.span),
        )),
        _ => Ok(pairs),
    }
}

/// Reads pairs without asking whether there are any and whether they have names.
pub(in crate::dockerfile) fn key_values_raw(
    keyword: Keyword,
    arguments: Fragment<'_>,
    escape: Escape,
) -> Result<Vec<KeyValue>> {
    let words = quoted_words(arguments, escape);
    let Some(first) = words.first() else {
        return Ok(Vec::new());
    };
    if !first.as_str().contains('=') {
        return legacy_pair(keyword, arguments).map(|pair| vec![pair]);
    }
    words.into_iter().map(|word| pair(keyword, word)).collect()
}

/// The value of the old form is everything behind the first blank.
fn legacy_pair(keyword: Keyword, arguments: Fragment<'_>) -> Result<KeyValue> {
    let (key, value) = arguments.split_first();
    let no_value = || ParseError::new(ParseErrorKind::NoValue(keyword), arguments.span());
    let value = value.ok_or_else(no_value)?;
    Ok(KeyValue {
        key: key.word(),
        value: value.word(),
        is_legacy: true,
    })
}

fn pair(keyword: Keyword, word: Fragment<'_>) -> Result<KeyValue> {
    let text = word.as_str();
    let error = |kind| Err(ParseError::new(kind, word.span()));
    match text.find('=') {
        None => error(ParseErrorKind::NoEquals {
            keyword,
            word: text.to_owned(),
        }),
        Some(at) => Ok(KeyValue {
            key: word.slice(0..at).word(),
            value: word.from(at + 1).word(),
            is_legacy: false,
        }),
    }
}
