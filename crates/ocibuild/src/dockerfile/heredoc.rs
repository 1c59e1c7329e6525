//! Here-documents: finding `<<NAME` in an instruction. The bodies follow in the
//! lines behind it and are read by [`LineReader`](super::lines::LineReader).
//!
//! `<<` counts at the begin of a word only, after an optional file descriptor; a
//! name may be quoted in any part, which switches expansion of the body off.

use std::ops::Range;

use super::ast::{Command, Heredoc, Invocation, Run};
use super::words::{self, Rules};

/// A `<<NAME` in an instruction, whose body has not been read yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Redirect {
    /// Where it stands in the text of the instruction.
    pub(super) range: Range<usize>,
    pub(super) name: String,
    pub(super) file_descriptor: u32,
    pub(super) expands: bool,
    pub(super) strips_tabs: bool,
}

/// Finds all here-documents of an instruction, in order.
///
/// Text that does not lex as words, for instance with an open quote, has none.
pub(super) fn find(text: &str) -> Vec<Redirect> {
    if !text.contains("<<") {
        return Vec::new();
    }
    let words = words::split(text, Rules::instruction()).unwrap_or_default();
    words
        .into_iter()
        .filter_map(|word| parse_word(&word.text, word.range))
        .collect()
}

fn parse_word(word: &str, range: Range<usize>) -> Option<Redirect> {
    let after_digits = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = word.strip_suffix(after_digits).unwrap_or_default();
    let rest = after_digits.strip_prefix("<<")?;
    let (rest, strips_tabs) = match rest.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let rest = rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']);
    if rest.contains('<') {
        return None;
    }
    let mut names = words::split(rest, Rules::heredoc_name()).ok()?.into_iter();
    let (Some(name), None) = (names.next(), names.next()) else {
        return None;
    };
    Some(Redirect {
        range,
        name: name.text,
        file_descriptor: digits.parse().unwrap_or_default(),
        expands: !name.quoted,
        strips_tabs,
    })
}

impl Heredoc {
    /// Gives the body as a program or file sees it: without leading tabs after `<<-`.
    pub fn content(&self) -> String {
        if !self.strips_tabs {
            return self.body.text.clone();
        }
        let lines = self.body.text.split_inclusive('\n');
        lines.map(|line| line.trim_start_matches('\t')).collect()
    }
}

impl Run {
    /// Gives what is to be started.
    ///
    /// A command that is nothing but a here-document is its body: a program of its own
    /// where it begins with `#!`, text for the shell otherwise. With a command in front,
    /// the bodies are put back where they were and the shell reads them itself.
    pub fn invocation(&self) -> Invocation {
        let text = match &self.command {
            Command::Exec(words) => {
                return Invocation::Exec(words.iter().map(|word| word.text.clone()).collect());
            }
            Command::Shell(text) => text,
        };
        match self.heredocs.as_slice() {
            [only] if only.redirect.span == text.span => {
                let content = only.content();
                match content.starts_with("#!") {
                    true => Invocation::Script {
                        name: only.name.clone(),
                        content,
                    },
                    false => Invocation::Shell(content),
                }
            }
            heredocs => {
                let mut whole = text.text.clone();
                for heredoc in heredocs {
                    whole.extend(["\n", &heredoc.body.text, &heredoc.name]);
                }
                Invocation::Shell(whole)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<(String, u32, bool, bool)> {
        let found = find(text).into_iter();
        found
            .map(|r| (r.name, r.file_descriptor, r.expands, r.strips_tabs))
            .collect()
    }

    #[test]
    fn finds_here_documents() {
        let one = |name: &str, fd, expands, tabs| vec![(name.to_owned(), fd, expands, tabs)];
        let table = [
            ("<<EOF", one("EOF", 0, true, false)),
            ("cat <<EOF > f", one("EOF", 0, true, false)),
            ("cat << EOF", one("EOF", 0, true, false)),
            ("cat 3<<EOF", one("EOF", 3, true, false)),
            ("cat <<-EOF", one("EOF", 0, true, true)),
            ("cat <<'EOF'", one("EOF", 0, false, false)),
            ("cat <<-\"E\"OF", one("EOF", 0, false, true)),
            ("cat <<'E F'", one("E F", 0, false, false)),
            ("cat <<E\\'F", one("E'F", 0, true, false)),
            ("cat <<$EOF", one("$EOF", 0, true, false)),
            ("cat <<${EOF}", one("${EOF}", 0, true, false)),
            ("x $((1 << 3))", one("3))", 0, true, false)),
            ("(cat <<EOF)", one("EOF)", 0, true, false)),
            ("cat <<<EOF", Vec::new()),
            ("cat<<EOF", Vec::new()),
            ("a <<", Vec::new()),
            ("a <<''", Vec::new()),
            ("'<<EOF'", Vec::new()),
            ("\\<<EOF", Vec::new()),
            ("it's <<EOF", Vec::new()),
            ("a < <EOF", Vec::new()),
        ];
        for (text, expected) in table {
            assert_eq!(names(text), expected, "{text:?}");
        }
        let two = find("a <<X 4<<-'Y' b");
        assert_eq!(
            two.iter().map(|r| r.range.clone()).collect::<Vec<_>>(),
            [2..5, 6..13]
        );
    }
}
