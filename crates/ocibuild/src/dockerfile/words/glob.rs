//! The patterns of `${name#pattern}`, `${name%pattern}` and `${name/pattern/text}`:
//! `*` for any text, `?` for one character, a backslash before `*`, `?`, `\`, `/`
//! and `}`. There are no brackets.

use super::{MAX_EXPANDED, WordError};
use crate::dockerfile::work;

/// The most comparisons that one substitution may need.
const MAX_WORK: usize = 64 * MAX_EXPANDED;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Char(char),
    One,
    Many,
}

/// Removes the shortest or longest prefix that matches.
pub(super) fn trim_prefix(value: &str, pattern: &str, longest: bool) -> Result<String, WordError> {
    let value: Vec<char> = value.chars().collect();
    let tokens = parse(pattern, value.len())?;
    let end = Matcher {
        tokens: &tokens,
        value: &value,
        longest,
    }
    .end(0)
    .unwrap_or(0);
    Ok(value.iter().skip(end).collect())
}

/// Removes the shortest or longest suffix that matches.
pub(super) fn trim_suffix(value: &str, pattern: &str, longest: bool) -> Result<String, WordError> {
    let value: Vec<char> = value.chars().rev().collect();
    let mut tokens = parse(pattern, value.len())?;
    tokens.reverse();
    let end = Matcher {
        tokens: &tokens,
        value: &value,
        longest,
    }
    .end(0)
    .unwrap_or(0);
    Ok(value.iter().skip(end).rev().collect())
}

/// Replaces the first or every match; matches are as long as they can be.
pub(super) fn replace(
    value: &str,
    pattern: &str,
    replacement: &str,
    every: bool,
) -> Result<String, WordError> {
    let value: Vec<char> = value.chars().collect();
    let tokens = parse(pattern, value.len())?;
    let matcher = Matcher {
        tokens: &tokens,
        value: &value,
        longest: true,
    };
    let mut result = String::new();
    let mut position = 0;
    let mut last_end = None;
    while let Some((start, end)) = matcher.find(position) {
        result.extend(value.iter().take(start).skip(position));
        // An empty match directly behind the match before it does not count.
        if start < end || last_end != Some(start) {
            result.push_str(replacement);
        }
        if result.len() > MAX_EXPANDED {
            return Err(WordError::TooLong);
        }
        position = end;
        last_end = Some(end);
        if start == end {
            result.extend(value.get(end));
            position = end + 1;
        }
        if !every || position > value.len() {
            break;
        }
    }
    result.extend(value.iter().skip(position));
    Ok(result)
}

fn parse(pattern: &str, value_len: usize) -> Result<Vec<Token>, WordError> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            // Two stars in a row say no more than one.
            '*' if tokens.last() == Some(&Token::Many) => continue,
            '*' => Token::Many,
            '?' => Token::One,
            '\\' => match chars.next() {
                Some(escaped @ ('*' | '?' | '\\' | '/' | '}')) => Token::Char(escaped),
                other => {
                    let escape = std::iter::once('\\').chain(other).collect();
                    return Err(WordError::InvalidPattern {
                        pattern: pattern.to_owned(),
                        escape,
                    });
                }
            },
            other => Token::Char(other),
        });
    }
    match tokens.len().saturating_mul(value_len) > MAX_WORK {
        true => Err(WordError::TooLong),
        false => Ok(tokens),
    }
}

struct Matcher<'a> {
    tokens: &'a [Token],
    value: &'a [char],
    longest: bool,
}

impl Matcher<'_> {
    /// Finds the first match at or behind `from`.
    fn find(&self, from: usize) -> Option<(usize, usize)> {
        let first = self.segments().next().unwrap_or_default();
        let start = self.search(first, from)?;
        // Whatever follows the first star can only fail again from a later start.
        self.end(start).map(|end| (start, end))
    }

    /// Gives the end of a match that begins at `start`.
    fn end(&self, start: usize) -> Option<usize> {
        let count = self.segments().count();
        let mut position = start;
        for (index, segment) in self.segments().enumerate() {
            let is_last = index + 1 == count;
            position = match (index, is_last && self.longest) {
                (0, _) => Some(position).filter(|at| self.is_at(segment, *at)),
                (_, true) => self.search_back(segment, position),
                (_, false) => self.search(segment, position),
            }? + segment.len();
        }
        Some(position)
    }

    /// The parts between the stars.
    fn segments(&self) -> impl Iterator<Item = &[Token]> {
        self.tokens.split(|token| *token == Token::Many)
    }

    fn search(&self, segment: &[Token], from: usize) -> Option<usize> {
        (from..=self.last_start(segment)?).find(|at| self.is_at(segment, *at))
    }

    fn search_back(&self, segment: &[Token], from: usize) -> Option<usize> {
        (from..=self.last_start(segment)?)
            .rev()
            .find(|at| self.is_at(segment, *at))
    }

    fn last_start(&self, segment: &[Token]) -> Option<usize> {
        self.value.len().checked_sub(segment.len())
    }

    fn is_at(&self, segment: &[Token], at: usize) -> bool {
        let Some(value) = self.value.get(at..at + segment.len()) else {
            return false;
        };
        value.iter().zip(segment).all(|(c, token)| {
            work::count(1);
            match token {
                Token::Char(wanted) => c == wanted,
                Token::One | Token::Many => true,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trims_the_shortest_and_the_longest() {
        let prefix = |pattern, longest| trim_prefix("a/b/c", pattern, longest).unwrap();
        assert_eq!(prefix("*/", false), "b/c");
        assert_eq!(prefix("*/", true), "c");
        assert_eq!(prefix("*", false), "a/b/c");
        assert_eq!(prefix("*", true), "");
        assert_eq!(prefix("?/", true), "b/c");
        assert_eq!(prefix("b", true), "a/b/c");
        assert_eq!(prefix("a*b*", true), "");
        let suffix = |pattern, longest| trim_suffix("a.b.c", pattern, longest).unwrap();
        assert_eq!(suffix(".*", false), "a.b");
        assert_eq!(suffix(".*", true), "a");
        assert_eq!(suffix("\\*", true), "a.b.c");
        assert_eq!(trim_suffix("a*c*", "\\**", false).unwrap(), "a*c");
        assert_eq!(trim_suffix("a*c*", "\\**", true).unwrap(), "a");
    }

    #[test]
    fn replaces_one_or_every_match() {
        let one = |value, pattern| replace(value, pattern, "-", false).unwrap();
        let all = |value, pattern| replace(value, pattern, "-", true).unwrap();
        assert_eq!(one("aXbXc", "X"), "a-bXc");
        assert_eq!(all("aXbXc", "X"), "a-b-c");
        assert_eq!(all("aXbXc", "X*"), "a-");
        assert_eq!(all("abcabd", "a?"), "-c-d");
        assert_eq!(all("ab", ""), "-a-b-");
        assert_eq!(one("ab", ""), "-ab");
        assert_eq!(all("ab", "*"), "-");
        assert_eq!(all("", "x"), "");
        assert_eq!(all("a*b", "\\*"), "a-b");
        assert_eq!(one("xab", "b*a"), "xab");
    }

    #[test]
    fn refuses_escapes_that_mean_nothing() {
        for pattern in ["\\a", "a\\"] {
            assert!(trim_prefix("a", pattern, false).is_err(), "{pattern:?}");
        }
    }
}
