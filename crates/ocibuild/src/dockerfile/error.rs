//! Why a Dockerfile cannot be parsed, where, and what was probably meant.

use std::ops::RangeInclusive;

use thiserror::Error;

use super::ast::Keyword;
use super::lines::MAX_LINE;
use super::mount::MountError;
use super::span::{SourceMap, Span};

/// A Dockerfile that cannot be parsed: the reason and its place.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{kind}")]
pub struct ParseError {
    #[source]
    kind: Box<ParseErrorKind>,
    span: Span,
    lines: (usize, usize),
    hint: Option<String>,
}

impl ParseError {
    pub(super) fn new(kind: ParseErrorKind, span: Span) -> Self {
        Self {
            kind: Box::new(kind),
            span,
            lines: (1, 1),
            hint: None,
        }
    }

    pub(super) fn with_suggestion(mut self, suggestion: Option<&str>) -> Self {
        self.hint = suggestion.map(|word| format!("did you mean {word}?"));
        self
    }

    /// Lets an error about something that is missing point at what misses it.
    pub(super) fn or_at(mut self, span: Span) -> Self {
        if self.span.is_empty() {
            self.span = span;
        }
        self
    }

    /// Fills in the lines, which only the caller that holds the text can know.
    pub(super) fn located(mut self, source: &str) -> Self {
        let lines = SourceMap::new(source).lines(self.span);
        self.lines = (*lines.start(), *lines.end());
        self
    }

    /// Gives the reason.
    pub fn kind(&self) -> &ParseErrorKind {
        &self.kind
    }

    /// Gives the place in the source text.
    pub fn span(&self) -> Span {
        self.span
    }

    /// Gives the lines, counted from one, that an excerpt should mark.
    pub fn lines(&self) -> RangeInclusive<usize> {
        self.lines.0..=self.lines.1
    }

    /// Gives advice such as `did you mean --chown?`, where there is some.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Gives the lines around the error with their numbers; `true` marks its own lines.
    pub fn excerpt<'a>(&self, source: &'a str, around: usize) -> Vec<(usize, bool, &'a str)> {
        let map = SourceMap::new(source);
        let last = map.line(source.trim_end_matches('\n').len());
        let first = self.lines.0.saturating_sub(around).max(1);
        (first..=self.lines.1.saturating_add(around).min(last))
            .map(|line| (line, self.lines().contains(&line), map.text(line)))
            .collect()
    }
}

/// The reasons why a Dockerfile cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseErrorKind {
    /// A line is longer than the format allows.
    #[error("line is longer than {MAX_LINE} bytes")]
    LineTooLong,
    /// An instruction holds bytes that are not UTF-8.
    #[error("instruction is not UTF-8 text")]
    NotUtf8,
    /// There is nothing but comments and blank lines.
    #[error("file has no instructions")]
    Empty,
    /// There is no `FROM`.
    #[error("file has no FROM, so there is nothing to build")]
    NoStage,
    /// An instruction other than `ARG` stands before the first `FROM`.
    #[error("{0} stands before the first FROM, where only ARG may")]
    OutsideStage(Keyword),
    /// A parser directive is given twice.
    #[error("parser directive {0} is given twice")]
    DuplicateDirective(String),
    /// The escape directive names something else than a backslash or a backtick.
    #[error("escape character {0:?} is neither \\ nor `")]
    InvalidEscape(String),
    /// The first word of a line is no instruction.
    #[error("unknown instruction {0:?}")]
    UnknownInstruction(String),
    /// The flag does not exist for the instruction.
    #[error("{keyword} has no flag --{flag}")]
    UnknownFlag {
        /// The instruction.
        keyword: Keyword,
        /// The flag, without dashes.
        flag: String,
    },
    /// The flag may be given once only.
    #[error("flag --{0} is given twice")]
    DuplicateFlag(String),
    /// The flag needs a value.
    #[error("flag --{0} needs a value")]
    FlagWithoutValue(String),
    /// The flag takes `true` or `false`.
    #[error("flag --{flag} is either true or false, not {value:?}")]
    FlagNotBoolean {
        /// The flag, without dashes.
        flag: String,
        /// What was given.
        value: String,
    },
    /// The JSON form holds something else than strings.
    #[error("the JSON form of {0} takes strings only")]
    JsonNotStrings(Keyword),
    /// The instruction has only a JSON form.
    #[error("{0} takes its arguments as a JSON array of strings")]
    JsonRequired(Keyword),
    /// Nothing follows the instruction.
    #[error("{0} needs an argument")]
    NoArgument(Keyword),
    /// A copying instruction has only one argument.
    #[error("{0} needs a source and a destination")]
    NoDestination(Keyword),
    /// A here-document stands where the destination should.
    #[error("{0} cannot have a here-document as its destination")]
    HeredocDestination(Keyword),
    /// The text ends before the here-document does.
    #[error("here-document is not ended by a line {0:?}")]
    UnterminatedHeredoc(String),
    /// The legacy form has a name and no value.
    #[error("{0} needs a name and a value")]
    NoValue(Keyword),
    /// A word of a list of `name=value` has no `=`.
    #[error("{keyword} takes name=value, and {word:?} has no =")]
    NoEquals {
        /// The instruction.
        keyword: Keyword,
        /// The word.
        word: String,
    },
    /// The name before `=` is empty.
    #[error("{0} cannot set a name that is empty")]
    BlankName(Keyword),
    /// `FROM` has neither one nor three words.
    #[error("FROM takes an image, or an image and AS and a name")]
    FromArguments,
    /// The name of a stage breaks the rules.
    #[error(
        "stage name {0:?} must begin with a letter and hold only letters, digits, '-', '_' and '.'"
    )]
    StageName(String),
    /// `ONBUILD` may not hold this instruction.
    #[error("{0} cannot be an ONBUILD trigger")]
    TriggerNotAllowed(Keyword),
    /// The stored text of a trigger is not exactly one instruction.
    #[error("an ONBUILD trigger is exactly one instruction")]
    TriggerNotSingle,
    /// `HEALTHCHECK` is followed by something else than `CMD` or `NONE`.
    #[error("HEALTHCHECK is followed by CMD or NONE, not {0:?}")]
    HealthcheckType(String),
    /// `HEALTHCHECK NONE` is followed by something.
    #[error("HEALTHCHECK NONE takes no arguments")]
    HealthcheckNone,
    /// `HEALTHCHECK CMD` is followed by nothing.
    #[error("HEALTHCHECK CMD needs a command")]
    HealthcheckCommand,
    /// A flag's value is no duration.
    #[error("flag --{flag}: {value:?} is no duration such as 1m30s")]
    Duration {
        /// The flag, without dashes.
        flag: String,
        /// What was given.
        value: String,
    },
    /// A flag's duration is below a millisecond.
    #[error("flag --{0}: the shortest duration is 1ms")]
    ShortDuration(String),
    /// The number of retries is no number or negative.
    #[error("flag --retries: {0:?} is not a count")]
    Retries(String),
    /// `RUN --network` names an unknown mode.
    #[error("flag --network: {0:?} is not default, none or host")]
    Network(String),
    /// `RUN --security` names an unknown mode.
    #[error("flag --security: {0:?} is not sandbox or insecure")]
    Security(String),
    /// `RUN --mount` cannot be read.
    #[error("flag --mount: {0}")]
    Mount(#[source] MountError),
    /// A path of `VOLUME` is empty.
    #[error("VOLUME cannot take an empty path")]
    EmptyVolume,
}
