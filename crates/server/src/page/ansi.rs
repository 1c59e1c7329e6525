//! What a command prints for a terminal, as plain text: without colours and movements of the
//! cursor (ECMA-48 §5.4), and with the last state only of lines that were written over.

use std::borrow::Cow;

const ESCAPE: char = '\u{1b}';

/// Makes plain lines of lines for a terminal.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let lines = text.split('\n').map(plain_line);
    Cow::Owned(lines.collect::<Vec<_>>().join("\n"))
}

fn plain_line(line: &str) -> String {
    let line = without_sequences(line);
    let last = line.rsplit('\r').find(|part| !part.is_empty());
    let shown = last.unwrap_or_default().chars();
    shown.filter(|c| !c.is_control() || *c == '\t').collect()
}

/// Takes control sequences, control strings and short escapes out.
fn without_sequences(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        if c != ESCAPE {
            plain.push(c);
            continue;
        }
        match rest.next() {
            // A control sequence ends with a byte from `@` to `~`.
            Some('[') => {
                rest.find(|c| matches!(c, '@'..='~'));
            }
            // A control string, such as the title of a window or a link, ends with BEL or ESC \.
            Some(']' | 'P' | '^' | '_' | 'X') => {
                let end = rest.find(|&c| matches!(c, '\u{7}' | ESCAPE));
                end.filter(|&c| c == ESCAPE).and_then(|_| rest.next());
            }
            _ => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_leave_no_trace() {
        for (text, expected) in [
            ("a\tb\nc", "a\tb\nc"),
            ("\u{1b}[1;31mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}x", "x"),
            ("\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link"),
            ("10 %\r50 %\r100 %\r\nnext\u{1b}[K", "100 %\nnext"),
            ("\r\n\r", "\n"),
            ("open\u{1b}[31", "open"),
            ("end\u{1b}", "end"),
            ("bell\u{7}\u{0}", "bell"),
            ("größe", "größe"),
        ] {
            assert_eq!(plain(text), expected, "{text:?}");
        }
    }
}
