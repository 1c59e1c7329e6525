//! Wildcard patterns on slash-separated paths.
//!
//! [`matches()`] is what `COPY` uses for its sources: `*` and `?` never match a slash,
//! `[a-z]` and `[^a]` are classes, a backslash takes the meaning from the next
//! character. Patterns of an ignore file know `**` on top of that.
//!
//! Matching follows all possibilities at once, so its time is bounded by the lengths
//! of pattern and path however many stars there are.

use thiserror::Error;

/// A pattern with an open class, an empty or reversed one, or nothing behind a backslash.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("malformed pattern {0:?}")]
pub struct BadPattern(pub String);

/// Tells whether the whole of `name` matches `pattern`, as Go's `filepath.Match` does.
///
/// ```
/// use ocibuild::context::ignore::pattern::matches;
///
/// assert!(matches("src/*.rs", "src/main.rs")?);
/// assert!(!matches("*", "src/main.rs")?);
/// # Ok::<(), ocibuild::context::ignore::pattern::BadPattern>(())
/// ```
pub fn matches(pattern: &str, name: &str) -> Result<bool, BadPattern> {
    Ok(Pattern::new(pattern, DoubleStar::IsStar)?.is_match(name))
}

/// Tells whether a path holds a character that makes it a pattern.
pub fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '[', '\\'])
}

/// What two stars in a row mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DoubleStar {
    /// The same as one.
    IsStar,
    /// Any number of directories.
    CrossesSlashes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(char),
    /// `?`
    One,
    /// `*`
    Star,
    /// `**` at the end: everything.
    Rest,
    /// `**/`: nothing, or everything up to some slash.
    Directories,
    Class(Class),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Class {
    is_negated: bool,
    ranges: Vec<(char, char)>,
}

impl Class {
    fn contains(&self, c: char) -> bool {
        self.ranges
            .iter()
            .any(|(low, high)| (*low..=*high).contains(&c))
            != self.is_negated
    }
}

/// A pattern that is ready to match many names.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    tokens: Vec<Token>,
    /// The characters that every match ends in.
    suffix: String,
}

impl Pattern {
    pub(super) fn new(text: &str, double_star: DoubleStar) -> Result<Self, BadPattern> {
        let tokens = parse(text, double_star).ok_or_else(|| BadPattern(text.to_owned()))?;
        let literal = |token: &Token| match token {
            Token::Char(c) => Some(*c),
            _ => None,
        };
        let mut suffix: Vec<char> = tokens.iter().rev().map_while(literal).collect();
        suffix.reverse();
        Ok(Self {
            tokens,
            suffix: suffix.into_iter().collect(),
        })
    }

    /// Gives the text that the pattern is, if it has no wildcards.
    pub(super) fn literal(&self) -> Option<&str> {
        (self.suffix.chars().count() == self.tokens.len()).then_some(&self.suffix)
    }

    pub(super) fn has_class(&self) -> bool {
        self.tokens
            .iter()
            .any(|token| matches!(token, Token::Class(_)))
    }

    pub(super) fn is_match(&self, name: &str) -> bool {
        if !name.ends_with(&self.suffix) {
            return false;
        }
        let mut states = States::new(self.tokens.len());
        let mut next = States::new(self.tokens.len());
        self.enter(&mut states, 0);
        for c in name.chars() {
            next.clear();
            for &state in &states.active {
                self.advance(&mut next, state, c);
            }
            if next.active.is_empty() {
                return false;
            }
            std::mem::swap(&mut states, &mut next);
        }
        states.contains(self.tokens.len())
    }

    /// Activates a state and those that need no character to be reached from it.
    fn enter(&self, states: &mut States, state: usize) {
        let mut state = state;
        while states.insert(state) {
            match self.tokens.get(state) {
                Some(Token::Star | Token::Rest | Token::Directories) => state += 1,
                _ => break,
            }
        }
    }

    fn advance(&self, next: &mut States, state: usize, c: char) {
        match self.tokens.get(state) {
            Some(Token::Char(wanted)) if *wanted == c => self.enter(next, state + 1),
            Some(Token::One) if c != '/' => self.enter(next, state + 1),
            Some(Token::Class(class)) if class.contains(c) => self.enter(next, state + 1),
            Some(Token::Star) if c != '/' => self.enter(next, state),
            Some(Token::Rest) => self.enter(next, state),
            Some(Token::Directories) => {
                // Inside a directory's name the next token cannot begin, behind its slash it can.
                next.insert(state);
                if c == '/' {
                    self.enter(next, state + 1);
                }
            }
            _ => {}
        }
    }
}

/// A set of positions in a pattern, in order of arrival.
struct States {
    active: Vec<usize>,
    member: Vec<bool>,
}

impl States {
    fn new(tokens: usize) -> Self {
        Self {
            active: Vec::with_capacity(8),
            member: vec![false; tokens + 1],
        }
    }

    fn contains(&self, state: usize) -> bool {
        self.member.get(state).copied().unwrap_or_default()
    }

    /// Adds a state; tells whether it is new.
    fn insert(&mut self, state: usize) -> bool {
        match self.member.get_mut(state) {
            Some(member) if !*member => {
                *member = true;
                self.active.push(state);
                true
            }
            _ => false,
        }
    }

    fn clear(&mut self) {
        for state in self.active.drain(..) {
            if let Some(member) = self.member.get_mut(state) {
                *member = false;
            }
        }
    }
}

fn parse(text: &str, double_star: DoubleStar) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..)?;
        let token = match c {
            '*' => match rest.strip_prefix('*') {
                Some(behind) if double_star == DoubleStar::CrossesSlashes => {
                    rest = behind.strip_prefix('/').unwrap_or(behind);
                    if rest.is_empty() {
                        Token::Rest
                    } else {
                        Token::Directories
                    }
                }
                _ => Token::Star,
            },
            '?' => Token::One,
            '\\' => Token::Char(take_char(&mut rest)?),
            '[' => Token::Class(parse_class(&mut rest)?),
            other => Token::Char(other),
        };
        tokens.push(token);
    }
    Some(tokens)
}

fn take_char(rest: &mut &str) -> Option<char> {
    let mut chars = rest.chars();
    let c = chars.next()?;
    *rest = chars.as_str();
    Some(c)
}

/// Reads what follows `[`, up to and with `]`.
fn parse_class(rest: &mut &str) -> Option<Class> {
    let is_negated = rest.starts_with('^');
    if is_negated {
        take_char(rest)?;
    }
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && rest.starts_with(']') {
            take_char(rest)?;
            return Some(Class { is_negated, ranges });
        }
        let low = take_class_char(rest)?;
        let high = match rest.starts_with('-') {
            true => {
                take_char(rest)?;
                take_class_char(rest)?
            }
            false => low,
        };
        ranges.push((low, high));
    }
}

/// Reads one end of a range, which is neither `-` nor `]` unless it is escaped.
fn take_class_char(rest: &mut &str) -> Option<char> {
    match take_char(rest)? {
        '-' | ']' => None,
        '\\' => take_char(rest),
        c => Some(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_like_filepath_match() {
        let yes = [
            ("abc", "abc"),
            ("*", "abc"),
            ("*c", "abc"),
            ("a*", "a"),
            ("a*", "abc"),
            ("a*/b", "abc/b"),
            ("a*b*c*d*e*/f", "axbxcxdxe/f"),
            ("a*b?c*x", "abxbbxdbxebxczzx"),
            ("ab[c]", "abc"),
            ("ab[b-d]", "abc"),
            ("ab[^e-g]", "abc"),
            ("a\\*b", "a*b"),
            ("a?b", "aäb"),
            ("a[^a]b", "a☺b"),
            ("[a-ζ]*", "α"),
            ("[\\]a]", "]"),
            ("[\\-x]", "-"),
            ("*x", "xxx"),
            ("", ""),
            ("[^a]", "/"),
            ("**", "ab"),
        ];
        for (pattern, name) in yes {
            assert_eq!(matches(pattern, name), Ok(true), "{pattern:?} {name:?}");
        }
        let no = [
            ("a*", "ab/c"),
            ("a*/b", "a/c/b"),
            ("ab[e-g]", "abc"),
            ("ab[^c]", "abc"),
            ("a???b", "aäb"),
            ("*[a-ζ]*", "A"),
            ("a?b", "a/b"),
            ("a*b", "a/b"),
            ("**", "a/b"),
            ("[b-a]", "a"),
            ("", "a"),
            ("a", ""),
        ];
        for (pattern, name) in no {
            assert_eq!(matches(pattern, name), Ok(false), "{pattern:?} {name:?}");
        }
    }

    #[test]
    fn malformed_patterns_are_errors_even_where_nothing_matches() {
        let bad = [
            "[", "[^", "[]a]", "[]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[a", "x[", "\\",
        ];
        for pattern in bad {
            assert_eq!(
                matches(pattern, "q"),
                Err(BadPattern(pattern.to_owned())),
                "{pattern:?}"
            );
        }
    }

    #[test]
    fn many_stars_do_not_explode() {
        let pattern = "*a".repeat(200);
        assert_eq!(matches(&pattern, &"a".repeat(5000)), Ok(true));
        assert_eq!(
            matches(&format!("{pattern}b"), &"a".repeat(5000)),
            Ok(false)
        );
        assert_eq!(
            matches(&format!("{pattern}b*"), &"a".repeat(5000)),
            Ok(false)
        );
    }
}
