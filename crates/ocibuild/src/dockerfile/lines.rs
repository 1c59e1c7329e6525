//! Physical lines become logical ones: comments and blank lines are dropped, lines
//! that end in the escape character are joined with the next.
//!
//! A logical line is new text, so it keeps a table from its offsets back to the
//! source. A [`Fragment`] is a part of a logical line that still knows its place.

use std::ops::Range;

use super::directive::Escape;
use super::error::{ParseError, ParseErrorKind};
use super::span::{Span, Word};
use super::work;

/// The longest line, without its line end, that is accepted.
pub const MAX_LINE: usize = 64 * 1024 - 1;

/// One line of the source.
#[derive(Clone, Copy)]
struct PhysicalLine<'a> {
    /// The line with its line end.
    raw: &'a str,
    /// Offset of its first byte.
    start: usize,
}

impl<'a> PhysicalLine<'a> {
    fn text(&self) -> &'a str {
        self.raw.trim_end_matches(['\r', '\n'])
    }

    fn is_comment(&self) -> bool {
        self.raw.trim_start().starts_with('#')
    }

    fn is_blank(&self) -> bool {
        self.raw.trim_start().is_empty()
    }

    /// Gives the text behind the `#`, without blanks around it.
    fn comment(&self) -> Word {
        let text = self.raw.trim_start().trim_start_matches('#').trim_start();
        let start = self.start + self.raw.len() - text.len();
        let text = text.trim_end();
        Word::new(text, Span::new(start, start + text.len()))
    }

    fn span(&self) -> Span {
        Span::new(self.start, self.start + self.text().len())
    }
}

/// A line after continuation, with the comments above it.
#[derive(Debug, Default)]
pub(super) struct LogicalLine {
    text: String,
    /// Offset in `text` and the offset in the source from which it was taken.
    pieces: Vec<(usize, usize)>,
    /// The comments since the last instruction or empty comment.
    pub(super) comments: Vec<Word>,
    /// The first blank line inside, which is deprecated.
    pub(super) blank_inside: Option<Span>,
}

impl LogicalLine {
    fn push(&mut self, text: &str, source: usize) {
        self.pieces.push((self.text.len(), source));
        self.text.push_str(text);
    }

    /// Gives the whole line as a fragment.
    pub(super) fn fragment(&self) -> Fragment<'_> {
        Fragment {
            line: self,
            start: 0,
            end: self.text.len(),
        }
    }

    fn source_offset(&self, offset: usize) -> usize {
        let index = self.pieces.partition_point(|(at, _)| *at <= offset);
        match self.pieces.get(index.saturating_sub(1)) {
            Some((at, source)) => source + offset.saturating_sub(*at),
            None => 0,
        }
    }

    fn span(&self, range: Range<usize>) -> Span {
        let start = self.source_offset(range.start);
        match range.is_empty() {
            true => Span::new(start, start),
            // The last byte decides, so that the span does not run on into the line
            // that follows a continuation.
            false => Span::new(start, self.source_offset(range.end - 1) + 1),
        }
    }
}

/// A part of a logical line.
#[derive(Clone, Copy)]
pub(super) struct Fragment<'a> {
    line: &'a LogicalLine,
    start: usize,
    end: usize,
}

impl<'a> Fragment<'a> {
    /// Gives the text.
    pub(super) fn as_str(&self) -> &'a str {
        self.line.text.get(self.start..self.end).unwrap_or_default()
    }

    /// Gives the range within the logical line.
    pub(super) fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    /// Gives the place in the source.
    pub(super) fn span(&self) -> Span {
        self.line.span(self.range())
    }

    /// Copies the text together with its place.
    pub(super) fn word(&self) -> Word {
        Word::new(self.as_str(), self.span())
    }

    /// Gives a part by offsets within this fragment.
    pub(super) fn slice(&self, range: Range<usize>) -> Self {
        let start = (self.start + range.start).min(self.end);
        let end = (self.start + range.end).clamp(start, self.end);
        Self {
            line: self.line,
            start,
            end,
        }
    }

    /// Gives what begins at an offset within this fragment.
    pub(super) fn from(&self, at: usize) -> Self {
        self.slice(at..self.end - self.start)
    }

    /// Drops blanks at both ends.
    pub(super) fn trim(&self) -> Self {
        let text = self.as_str();
        let start = text.len() - text.trim_start().len();
        self.slice(start..start + text.trim().len())
    }

    /// Splits at the first run of blanks into a word and the rest, if there is one.
    pub(super) fn split_first(&self) -> (Self, Option<Self>) {
        let text = self.as_str();
        let Some(end) = text.find(is_separator) else {
            work::count(text.len());
            return (*self, None);
        };
        work::count(end + 1);
        let rest = text.get(end..).unwrap_or_default();
        let next = text.len() - rest.trim_start_matches(is_separator).len();
        (self.slice(0..end), Some(self.from(next)))
    }

    /// Splits at every run of blanks.
    pub(super) fn split(&self) -> Vec<Self> {
        let mut words = Vec::new();
        let mut rest = Some(*self);
        while let Some(fragment) = rest {
            let (word, next) = fragment.split_first();
            words.push(word);
            rest = next;
        }
        words.retain(|word| !word.as_str().is_empty());
        words
    }
}

/// The characters that part the words of an instruction.
fn is_separator(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\u{b}' | '\u{c}')
}

/// The lines of a here-document.
pub(super) struct HeredocBody {
    pub(super) body: Word,
    /// Offset behind the line that ends it.
    pub(super) end: usize,
}

/// Reads a source line by line.
pub(super) struct LineReader<'a> {
    source: &'a str,
    position: usize,
    escape: Escape,
}

impl<'a> LineReader<'a> {
    /// Begins at an offset, which is the start of a line.
    pub(super) fn new(source: &'a str, position: usize, escape: Escape) -> Self {
        Self {
            source,
            position,
            escape,
        }
    }

    /// Gives the offset behind the lines that were read.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    fn next_physical(&mut self) -> Result<Option<PhysicalLine<'a>>, ParseError> {
        let rest = self.source.get(self.position..).unwrap_or_default();
        let Some(raw) = rest.split_inclusive('\n').next() else {
            return Ok(None);
        };
        let line = PhysicalLine {
            raw,
            start: self.position,
        };
        if raw.strip_suffix('\n').unwrap_or(raw).len() > MAX_LINE {
            return Err(ParseError::new(ParseErrorKind::LineTooLong, line.span()));
        }
        self.position += raw.len();
        work::count(raw.len());
        Ok(Some(line))
    }

    /// Gives the next logical line, or nothing at the end of the source.
    pub(super) fn next_logical(&mut self) -> Result<Option<LogicalLine>, ParseError> {
        let mut logical = LogicalLine::default();
        while let Some(line) = self.next_physical()? {
            if line.is_comment() {
                collect_comment(&mut logical.comments, line.comment());
                continue;
            }
            // Only the first line loses the blanks in front of it.
            let text = line.text().trim_start();
            let start = line.start + line.text().len() - text.len();
            let (text, continued) = self.strip_continuation(text);
            if !continued && text.is_empty() {
                continue;
            }
            logical.push(text, start);
            if continued {
                self.append_continuation(&mut logical)?;
            }
            return Ok(Some(logical));
        }
        Ok(None)
    }

    fn append_continuation(&mut self, logical: &mut LogicalLine) -> Result<(), ParseError> {
        while let Some(line) = self.next_physical()? {
            if line.is_comment() {
                continue;
            }
            if line.is_blank() {
                logical.blank_inside.get_or_insert(line.span());
                continue;
            }
            let (text, continued) = self.strip_continuation(line.text());
            logical.push(text, line.start);
            if !continued {
                break;
            }
        }
        Ok(())
    }

    /// Takes the escape character off the end of a line; a doubled one does not count.
    fn strip_continuation<'t>(&self, text: &'t str) -> (&'t str, bool) {
        let escape = self.escape.as_char();
        match text.trim_end_matches([' ', '\t']).strip_suffix(escape) {
            Some(before) if !before.ends_with(escape) => (before, true),
            _ => (text, false),
        }
    }

    /// Reads lines up to one that is `name`; gives nothing where the source ends before.
    pub(super) fn heredoc_body(
        &mut self,
        name: &str,
        strips_tabs: bool,
    ) -> Result<Option<HeredocBody>, ParseError> {
        let start = self.position;
        while let Some(line) = self.next_physical()? {
            let text = line.text();
            let text = if strips_tabs {
                text.trim_start_matches('\t')
            } else {
                text
            };
            if text == name {
                let span = Span::new(start, line.start);
                let body = Word::new(span.slice(self.source), span);
                return Ok(Some(HeredocBody {
                    body,
                    end: line.span().end,
                }));
            }
        }
        Ok(None)
    }
}

/// An empty comment parts the comments above it from the instruction below.
fn collect_comment(comments: &mut Vec<Word>, comment: Word) {
    match comment.text.is_empty() {
        true => comments.clear(),
        false => comments.push(comment),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(source: &str, escape: Escape) -> Vec<String> {
        let mut reader = LineReader::new(source, 0, escape);
        let mut found = Vec::new();
        while let Some(line) = reader.next_logical().unwrap() {
            found.push(line.text);
        }
        found
    }

    #[test]
    fn joins_lines_as_the_format_does() {
        let table: [(&str, &[&str]); 12] = [
            ("A\nB", &["A", "B"]),
            ("  A \r\n\n# c\n\tB\r\n", &["A ", "B"]),
            ("a \\\n  b", &["a   b"]),
            ("a \\ \t\nb", &["a b"]),
            ("a \\\r\nb\r\n", &["a b"]),
            ("a \\\\\nb", &["a \\\\", "b"]),
            ("a \\\n# c\n  # d\n\n b\nc", &["a  b", "c"]),
            ("a # c\\\nb", &["a # cb"]),
            ("a \\", &["a "]),
            ("a \\\n", &["a "]),
            ("\\\na", &["a"]),
            ("# c\\\na", &["a"]),
        ];
        for (source, expected) in table {
            assert_eq!(lines(source, Escape::Backslash), expected, "{source:?}");
        }
        assert_eq!(lines("a \\\nb `\nc", Escape::Backtick), ["a \\", "b c"]);
    }

    #[test]
    fn spans_lead_back_to_the_source() {
        let source = "RUN a \\\n# no\n  b c\n";
        let line = LineReader::new(source, 0, Escape::Backslash)
            .next_logical()
            .unwrap()
            .unwrap();
        let words = line.fragment().split();
        let found: Vec<_> = words.iter().map(|word| word.span().slice(source)).collect();
        assert_eq!(found, ["RUN", "a", "b", "c"]);
        let both = line.fragment().slice(4..10).span();
        assert_eq!(both.slice(source), "a \\\n# no\n  b ");
    }

    #[test]
    fn an_overlong_line_is_an_error() {
        let long = "x".repeat(MAX_LINE);
        let read = |text: &str| {
            LineReader::new(text, 0, Escape::Backslash)
                .next_logical()
                .is_ok()
        };
        assert!(read(&long));
        assert!(read(&format!("{long}\n")));
        assert!(!read(&format!("{long}x\n")));
        assert!(!read(&format!("a \\\n{long}x\n")));
    }

    #[test]
    fn an_empty_comment_parts_comments() {
        let source = "# a\n#\n# b\n\n#  c \nRUN x";
        let line = LineReader::new(source, 0, Escape::Backslash)
            .next_logical()
            .unwrap()
            .unwrap();
        let comments: Vec<_> = line.comments.iter().map(Word::as_str).collect();
        assert_eq!(comments, ["b", "c"]);
    }
}
