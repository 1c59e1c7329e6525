//! `.dockerignore`: which paths of a context are left out.
//!
//! Lines become rules; the last rule that matches a path decides, and a rule that
//! begins with `!` brings back what earlier rules left out. A rule that matches a
//! directory matches everything below it. A walk keeps a [`Verdict`] per directory,
//! so that each path costs one look at each rule and not one for each of its parents.
//!
//! The semantics are those of moby's `patternmatcher`, its shortcuts for `**`
//! included, because they are visible in results: `a**` is any path that begins
//! with `a`, and `**a` is any path that ends in `a`.

pub mod pattern;

use thiserror::Error;

use self::pattern::{BadPattern, DoubleStar, Pattern};
use crate::dockerfile::path;

/// The longest line that is accepted.
const MAX_LINE: usize = 64 * 1024 - 1;

/// Why an ignore file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IgnoreError {
    /// A line is a `!` with nothing behind it.
    #[error("line {line}: nothing follows the exclamation mark")]
    BareExclamation {
        /// The line, from one.
        line: usize,
    },
    /// A line holds a pattern that means nothing.
    #[error("line {line}: {source}")]
    Pattern {
        /// The line, from one.
        line: usize,
        /// The pattern.
        source: BadPattern,
    },
    /// A line is longer than any path.
    #[error("line {line}: longer than {MAX_LINE} bytes")]
    LineTooLong {
        /// The line, from one.
        line: usize,
    },
}

impl IgnoreError {
    /// Gives what is wrong, for patterns that were not lines of a file.
    pub fn without_line(&self) -> String {
        match self {
            Self::BareExclamation { .. } => "nothing follows the exclamation mark".to_owned(),
            Self::Pattern { source, .. } => source.to_string(),
            Self::LineTooLong { .. } => format!("longer than {MAX_LINE} bytes"),
        }
    }
}

/// The rules of an ignore file, ready to match many paths.
///
/// ```
/// use ocibuild::context::ignore::IgnoreMatcher;
///
/// let rules = IgnoreMatcher::parse("target\n**/*.log\n!keep.log\n")?;
/// assert!(rules.matches("target/debug/app"));
/// assert!(rules.matches("a/b.log"));
/// assert!(!rules.matches("keep.log"));
/// # Ok::<(), ocibuild::context::ignore::IgnoreError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct IgnoreMatcher {
    rules: Vec<Rule>,
}

/// What the rules say about one path; a directory's verdict is needed below it.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    is_ignored: bool,
    /// For each rule, whether it matches the path or a directory above it.
    matched: Vec<bool>,
}

impl Verdict {
    /// Tells whether the path is left out.
    pub fn is_ignored(&self) -> bool {
        self.is_ignored
    }
}

impl IgnoreMatcher {
    /// Reads the text of an ignore file.
    pub fn parse(text: &str) -> Result<Self, IgnoreError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.split('\n').enumerate();
        // `#` begins a comment in the first column only; elsewhere it is part of a name.
        let lines = lines.filter(|(_, line)| !line.starts_with('#'));
        Self::from_lines(lines.map(|(index, line)| (index + 1, line)))
    }

    /// Takes patterns that were given one by one, such as those of `COPY --exclude`;
    /// errors count them as lines.
    pub fn from_patterns<'a>(
        patterns: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, IgnoreError> {
        Self::from_lines((1..).zip(patterns))
    }

    fn from_lines<'a>(lines: impl Iterator<Item = (usize, &'a str)>) -> Result<Self, IgnoreError> {
        let rules = lines.filter_map(|(number, line)| Rule::parse(line, number).transpose());
        Ok(Self {
            rules: rules.collect::<Result<_, _>>()?,
        })
    }

    /// Tells whether there are no rules, so that nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Tells whether some rule brings back what others leave out.
    pub fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.brings_back)
    }

    /// Tells whether a path, relative to the context and without `.` and `..`, is left
    /// out. Rules do not distinguish files from directories.
    pub fn matches(&self, path: &str) -> bool {
        let mut verdict = Verdict::default();
        for (slash, _) in path.match_indices('/') {
            let parent = path.get(..slash).unwrap_or_default();
            verdict = self.check(parent, &verdict);
        }
        self.check(path, &verdict).is_ignored
    }

    /// Judges a path by the verdict on its directory, which is the default one for the
    /// context itself.
    pub fn check(&self, path: &str, parent: &Verdict) -> Verdict {
        let mut verdict = Verdict {
            is_ignored: false,
            matched: Vec::with_capacity(self.rules.len()),
        };
        for (index, rule) in self.rules.iter().enumerate() {
            let is_inherited = parent.matched.get(index).copied().unwrap_or_default();
            // A rule that cannot change the verdict is not looked at, and then it is not
            // inherited either. That is visible below a directory that was brought back.
            let could_change = rule.brings_back == verdict.is_ignored;
            let matched = is_inherited || could_change && rule.matcher.is_match(path);
            if matched {
                verdict.is_ignored = !rule.brings_back;
            }
            verdict.matched.push(matched);
        }
        verdict
    }

    /// Tells whether a walk may pass over an ignored directory, because no rule can
    /// bring back anything below it. Otherwise it must be looked into, and it is part
    /// of the context if something below it is.
    pub fn can_prune(&self, directory: &str, verdict: &Verdict) -> bool {
        if !verdict.is_ignored {
            return false;
        }
        let decided = |(index, rule): (usize, &Rule)| {
            !rule.brings_back && verdict.matched.get(index).copied().unwrap_or_default()
        };
        // Everything below inherits the match of this rule, so rules before it are void.
        let decisive = self
            .rules
            .iter()
            .enumerate()
            .rposition(decided)
            .unwrap_or_default();
        let later = self.rules.iter().skip(decisive + 1);
        !later
            .filter(|rule| rule.brings_back)
            .any(|rule| rule.reaches_below(directory))
    }
}

#[derive(Debug, Clone)]
struct Rule {
    brings_back: bool,
    matcher: Matcher,
    /// The pattern of each component, up to the first that may cross slashes.
    components: Vec<Pattern>,
    /// The last of `components` is not the last of the rule.
    crosses_slashes: bool,
}

impl Rule {
    /// Reads one line; gives nothing for a blank one.
    fn parse(line: &str, number: usize) -> Result<Option<Self>, IgnoreError> {
        if line.len() > MAX_LINE {
            return Err(IgnoreError::LineTooLong { line: number });
        }
        let line = line.trim();
        let (brings_back, pattern) = match line.strip_prefix('!') {
            Some(pattern) => (true, pattern.trim()),
            None => (false, line),
        };
        if pattern.is_empty() {
            return match brings_back {
                true => Err(IgnoreError::BareExclamation { line: number }),
                false => Ok(None),
            };
        }
        let cleaned = path::clean(pattern);
        let relative = cleaned.strip_prefix('/').filter(|rest| !rest.is_empty());
        Self::new(brings_back, relative.unwrap_or(&cleaned))
            .map(Some)
            .map_err(|source| IgnoreError::Pattern {
                line: number,
                source,
            })
    }

    fn new(brings_back: bool, text: &str) -> Result<Self, BadPattern> {
        let matcher = Matcher::new(text)?;
        let (mut components, mut crosses_slashes) = (Vec::new(), false);
        for component in text.split('/') {
            // A class may hold a slash, and then a component is not what it seems.
            let pattern = Pattern::new(component, DoubleStar::IsStar).ok();
            match pattern.filter(|pattern| !component.contains("**") && !pattern.has_class()) {
                Some(pattern) => components.push(pattern),
                None => {
                    crosses_slashes = true;
                    break;
                }
            }
        }
        Ok(Self {
            brings_back,
            matcher,
            components,
            crosses_slashes,
        })
    }

    /// Tells whether the rule may match a path below `directory`.
    fn reaches_below(&self, directory: &str) -> bool {
        let mut components = self.components.iter();
        for name in directory.split('/') {
            match components.next() {
                Some(pattern) if pattern.is_match(name) => {}
                Some(_) => return false,
                None => return self.crosses_slashes,
            }
        }
        components.next().is_some() || self.crosses_slashes
    }
}

/// How a rule is compared with a path.
#[derive(Debug, Clone)]
enum Matcher {
    Exact(String),
    Prefix(String),
    /// The path ends so, or is this without its leading slash.
    Suffix(String),
    Pattern(Pattern),
}

impl Matcher {
    fn new(text: &str) -> Result<Self, BadPattern> {
        // Patterns are judged by the rules of single stars; `**` never makes one malformed.
        let plain = Pattern::new(text, DoubleStar::IsStar)?;
        if !text.contains('\\') && plain.literal().is_some() {
            return Ok(Self::Exact(text.to_owned()));
        }
        let is_plain = |part: &str| !pattern::is_pattern(part) && !part.contains(']');
        if let Some(suffix) = text.strip_prefix("**").filter(|rest| is_plain(rest)) {
            return Ok(Self::Suffix(suffix.to_owned()));
        }
        if let Some(prefix) = text.strip_suffix("**").filter(|rest| is_plain(rest)) {
            return Ok(Self::Prefix(prefix.to_owned()));
        }
        Pattern::new(text, DoubleStar::CrossesSlashes).map(Self::Pattern)
    }

    fn is_match(&self, path: &str) -> bool {
        match self {
            Self::Exact(text) => path == text,
            Self::Prefix(prefix) => path.starts_with(prefix),
            Self::Suffix(suffix) => {
                path.ends_with(suffix) || suffix.strip_prefix('/') == Some(path)
            }
            Self::Pattern(pattern) => pattern.is_match(path),
        }
    }
}
