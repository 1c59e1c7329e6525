//! Places in a Dockerfile: byte ranges into its text, and the lines and columns
//! that people read. Every value of the AST carries the range it was written at.

use std::ops::RangeInclusive;

/// A half-open range of bytes of the source text, always on character boundaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Span {
    /// Offset of the first byte.
    pub start: usize,
    /// Offset behind the last byte.
    pub end: usize,
}

impl Span {
    /// Makes a span; `end` is never below `start`.
    pub fn new(start: usize, end: usize) -> Self {
        Self {
            start,
            end: end.max(start),
        }
    }

    /// Gives the smallest span that covers both.
    pub fn to(self, other: Span) -> Self {
        Self::new(self.start.min(other.start), self.end.max(other.end))
    }

    /// Tells whether the span has no bytes.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Gives the text of the span, or nothing where it does not belong to `source`.
    pub fn slice(self, source: &str) -> &str {
        source.get(self.start..self.end).unwrap_or_default()
    }
}

/// A piece of text after the parser's work, with the place where it was written.
///
/// Text and source differ where a line was continued, or where a flag or a JSON
/// string lost its quotes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Word {
    /// The text as the instruction sees it.
    pub text: String,
    /// Where it was written.
    pub span: Span,
}

impl Word {
    /// Makes a word.
    pub fn new(text: impl Into<String>, span: Span) -> Self {
        Self {
            text: text.into(),
            span,
        }
    }

    /// Borrows the text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// A line and a column, both counted from one; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LineColumn {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl std::fmt::Display for LineColumn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Where the lines of a text begin, so that offsets become lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LineStarts(Vec<usize>);

impl LineStarts {
    /// Reads the line starts of a text.
    pub fn new(source: &str) -> Self {
        let ends = source
            .bytes()
            .enumerate()
            .filter(|(_, byte)| *byte == b'\n');
        let first = std::iter::once(0);
        Self(first.chain(ends.map(|(at, _)| at + 1)).collect())
    }

    /// Gives the line, from one, that holds the byte at `offset`.
    pub fn line(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset)
    }

    /// Gives the lines that a span touches.
    pub fn lines(&self, span: Span) -> RangeInclusive<usize> {
        let last = span.end.saturating_sub(1).max(span.start);
        self.line(span.start)..=self.line(last)
    }

    /// Gives line and column of the byte at `offset` of the same text.
    pub fn line_col(&self, source: &str, offset: usize) -> LineColumn {
        let line = self.line(offset);
        let start = self.start(line).unwrap_or_default();
        let before = Span::new(start, offset).slice(source);
        LineColumn {
            line,
            column: before.chars().count() + 1,
        }
    }

    /// Gives the text of a line of the same text, without its line end.
    pub fn text<'s>(&self, source: &'s str, line: usize) -> &'s str {
        let start = self.start(line);
        let end = self.start(line.saturating_add(1)).unwrap_or(source.len());
        let text = start.map_or("", |start| Span::new(start, end).slice(source));
        text.trim_end_matches(['\r', '\n'])
    }

    /// Gives the offset at which a line begins, where there is such a line.
    fn start(&self, line: usize) -> Option<usize> {
        self.0.get(line.checked_sub(1)?).copied()
    }
}

/// A text that knows its lines, so that offsets become lines and columns.
#[derive(Debug, Clone)]
pub struct SourceMap<'a> {
    source: &'a str,
    starts: LineStarts,
}

impl<'a> SourceMap<'a> {
    /// Reads the line starts of a text.
    pub fn new(source: &'a str) -> Self {
        let starts = LineStarts::new(source);
        Self { source, starts }
    }

    /// Gives the line, from one, that holds the byte at `offset`.
    pub fn line(&self, offset: usize) -> usize {
        self.starts.line(offset)
    }

    /// Gives line and column of the byte at `offset`.
    pub fn line_col(&self, offset: usize) -> LineColumn {
        self.starts.line_col(self.source, offset)
    }

    /// Gives the lines that a span touches.
    pub fn lines(&self, span: Span) -> RangeInclusive<usize> {
        self.starts.lines(span)
    }

    /// Gives the text of a line, without its line end.
    pub fn text(&self, line: usize) -> &'a str {
        self.starts.text(self.source, line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one_and_in_characters() {
        let map = SourceMap::new("FROM ä\r\nRUN é x\n");
        assert_eq!(map.line_col(0).to_string(), "1:1");
        assert_eq!(map.line_col(5).to_string(), "1:6");
        assert_eq!(map.line_col(9).to_string(), "2:1");
        assert_eq!(map.line_col(16).to_string(), "2:7");
        assert_eq!(map.text(1), "FROM ä");
        assert_eq!(map.text(2), "RUN é x");
        assert_eq!(map.text(7), "");
        assert_eq!(map.lines(Span::new(0, 9)), 1..=1);
        assert_eq!(map.lines(Span::new(0, 10)), 1..=2);
    }

    #[test]
    fn a_span_of_another_text_is_empty_instead_of_a_panic() {
        assert_eq!(Span::new(1, 2).slice("ä"), "");
        assert_eq!(Span::new(4, 9).slice("ab"), "");
    }
}
