//! Text in double quotes, written as Go's `strconv.Quote` writes it: histories of
//! images, messages of build checks and the parse tree are compared byte for byte.

use std::fmt::Write;

/// Writes text in double quotes (Go, `strconv.Quote`, the verb `%q`).
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        push(&mut quoted, c);
    }
    quoted.push('"');
    quoted
}

/// Writes a list of quoted texts: `["a" "b"]`.
pub(crate) fn quote_list<T: AsRef<str>>(words: &[T]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote(word.as_ref())).collect();
    format!("[{}]", words.join(" "))
}

fn push(quoted: &mut String, c: char) {
    let short = match c {
        '"' => "\\\"",
        '\\' => "\\\\",
        '\u{7}' => "\\a",
        '\u{8}' => "\\b",
        '\u{c}' => "\\f",
        '\n' => "\\n",
        '\r' => "\\r",
        '\t' => "\\t",
        '\u{b}' => "\\v",
        _ => "",
    };
    // Writing to a string cannot fail.
    let _ = match (short, c as u32) {
        ("", _) if is_printable(c) => write!(quoted, "{c}"),
        ("", code @ (..0x20 | 0x7f)) => write!(quoted, "\\x{code:02x}"),
        ("", code @ ..0x1_0000) => write!(quoted, "\\u{code:04x}"),
        ("", code) => write!(quoted, "\\U{code:08x}"),
        (short, _) => write!(quoted, "{short}"),
    };
}

/// Letters, marks, numbers, punctuation, symbols and the blank. The letter in front
/// keeps a mark from being escaped for standing alone.
fn is_printable(c: char) -> bool {
    let pair: String = ['x', c].iter().collect();
    pair.escape_debug().skip(1).eq(std::iter::once(c)) || c == '\''
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        let table = [
            ("", r#""""#),
            ("a b", r#""a b""#),
            ("\"\\'", r#""\"\\'""#),
            ("\n\r\t\u{7}\u{8}\u{b}\u{c}", r#""\n\r\t\a\b\v\f""#),
            ("\u{1}\u{7f}", r#""\x01\x7f""#),
            ("\u{85}\u{a0}\u{ad}", r#""\u0085\u00a0\u00ad""#),
            ("ä☃e\u{301}", "\"ä☃e\u{301}\""),
            ("\u{e0001}", r#""\U000e0001""#),
        ];
        for (text, want) in table {
            assert_eq!(quote(text), want, "{text:?}");
        }
        assert_eq!(quote_list(&["a", "b \"c\"\n"]), r#"["a" "b \"c\"\n"]"#);
    }
}
