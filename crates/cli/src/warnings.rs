//! A warning of a build check as a compiler shows its own: what is wrong, where, the
//! line with the part that is meant, where to read more.

use std::fmt::Write as _;

use ocibuild::CheckWarning;

/// The escape sequences of a terminal, or nothing.
struct Style {
    yellow: &'static str,
    blue: &'static str,
    bold: &'static str,
    reset: &'static str,
}

const PLAIN: Style = Style {
    yellow: "",
    blue: "",
    bold: "",
    reset: "",
};

const COLOURED: Style = Style {
    yellow: "\x1b[1;33m",
    blue: "\x1b[1;34m",
    bold: "\x1b[1m",
    reset: "\x1b[0m",
};

/// Writes one warning, its line end included.
pub(crate) fn render(warning: &CheckWarning, coloured: bool) -> String {
    let Style {
        yellow,
        blue,
        bold,
        reset,
    } = if coloured { COLOURED } else { PLAIN };
    let CheckWarning { rule, file, .. } = warning;
    let (line, column) = (warning.at_line, warning.at_column);
    let margin = " ".repeat(line.to_string().len());
    let before: String = warning
        .text
        .chars()
        .take(column.saturating_sub(1))
        .collect();
    // Tabs stay, so that the mark stands below what it marks.
    let before: String = before
        .chars()
        .map(|c| if c == '\t' { c } else { ' ' })
        .collect();
    let mark = "^".repeat(warning.at_width);
    let (message, text) = (harmless(&warning.message), harmless(&warning.text));
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{yellow}warning[{rule}]{reset}{bold}: {message}{reset}"
    );
    let _ = writeln!(
        out,
        "{margin}{blue}-->{reset} {}:{line}:{column}",
        harmless(file)
    );
    let _ = writeln!(out, "{margin} {blue}|{reset}");
    let _ = writeln!(out, "{blue}{line} |{reset} {text}");
    let _ = writeln!(out, "{margin} {blue}|{reset} {before}{yellow}{mark}{reset}");
    if let Some(url) = &warning.url {
        let _ = writeln!(out, "{margin} {blue}={reset} see {url}");
    }
    out
}

/// A Dockerfile from anywhere must not speak to the terminal.
fn harmless(text: &str) -> String {
    let shown = |c: char| match c {
        '\t' => c,
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warning() -> CheckWarning {
        CheckWarning {
            rule: "UndefinedVar".to_owned(),
            message: "Usage of undefined variable '$PAHT'".to_owned(),
            url: Some("https://example.com".to_owned()),
            file: "Dockerfile".to_owned(),
            line: 12,
            end_line: 13,
            at_line: 12,
            at_column: 8,
            at_width: 5,
            text: "ENV\tA=\x1b$PAHT".to_owned(),
        }
    }

    #[test]
    fn marks_the_part_that_is_meant() {
        let want = "warning[UndefinedVar]: Usage of undefined variable '$PAHT'\n  \
            --> Dockerfile:12:8\n   |\n12 | ENV\tA=\u{fffd}$PAHT\n   |    \t   ^^^^^\n   \
            = see https://example.com\n";
        assert_eq!(render(&warning(), false), want);
    }

    #[test]
    fn colours_change_nothing_else() {
        let mut text = render(&warning(), true);
        for code in ["\x1b[1;33m", "\x1b[1;34m", "\x1b[1m", "\x1b[0m"] {
            assert!(text.contains(code));
            text = text.replace(code, "");
        }
        assert_eq!(text, render(&warning(), false));
    }
}
