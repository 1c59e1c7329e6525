//! Expansion against the table in `testdata/words.txt`, and against arbitrary input.

use std::collections::HashMap;

use ocibuild::dockerfile::words::{WordError, expand, expand_heredoc, expand_words};
use ocibuild::dockerfile::{Escape, work};
use proptest::prelude::*;

use crate::table;

fn environment(text: &str) -> HashMap<String, String> {
    let pairs = text
        .split(';')
        .filter_map(|pair| pair.trim_start().split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn expand_row(section: &str, input: &str, env: &str) -> Result<String, WordError> {
    let env = environment(env);
    let lookup = |name: &str| env.get(name).cloned();
    match section {
        "word" => expand(input, Escape::Backslash, &lookup),
        "backtick" => expand(input, Escape::Backtick, &lookup),
        "heredoc" => expand_heredoc(input, &lookup),
        "words" => expand_words(input, Escape::Backslash, &lookup).map(|w| format!("{w:?}")),
        other => panic!("no section {other}"),
    }
}

#[test]
fn words_expand_as_the_table_says() {
    let rows = table::rows("words.txt");
    assert!(rows.len() >= 120, "only {} rows", rows.len());
    let mut wrong = Vec::new();
    for row in &rows {
        let [input, env, expected] = row.fields.as_slice() else {
            panic!("{}: not three fields", row.place)
        };
        let found = match expand_row(&row.section, input, env) {
            Ok(text) => text,
            Err(error) => format!("error: {error}"),
        };
        if found != *expected {
            wrong.push(format!("{}: {input} gave {found:?}", row.place));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a hostile author may repeat, so many times.
type Repeated = (&'static str, fn(usize) -> String);

/// Words with one thing in them many times; `$a` is as long as they are.
const HOSTILE: &[Repeated] = &[
    ("letters", |many| "x".repeat(many)),
    ("blanks", |many| " ".repeat(many)),
    ("dollars", |many| "$".repeat(many)),
    ("variables", |many| "$b".repeat(many)),
    ("braces", |many| "${b:-x}".repeat(many)),
    ("open braces", |many| "${b:-".repeat(many)),
    ("quotes", |many| "\"'\"".repeat(many)),
    ("open quotes", |many| "'\"".repeat(many)),
    ("escapes", |many| "\\".repeat(many)),
    ("a long value", |_| "$a".to_owned()),
    ("a long value, trimmed", |_| {
        "${a%%*y*x}${a##*y*x}".to_owned()
    }),
    ("a long value, replaced", |_| {
        "${a//x/y}${a//*y/}".to_owned()
    }),
    ("a long pattern", |many| {
        format!("${{b#{}}}", "x*".repeat(many))
    }),
];

/// Twice as much of anything is about twice the work.
#[test]
fn work_follows_the_length_of_a_word() {
    for (what, word) in HOSTILE {
        let measure = |many| {
            let (word, value) = (word(many), "x".repeat(many));
            let lookup = |name: &str| match name {
                "a" => Some(value.clone()),
                "b" => Some("xx".to_owned()),
                _ => None,
            };
            work::of(|| {
                let _ = expand(&word, Escape::Backslash, &lookup);
                let _ = expand_words(&word, Escape::Backtick, &lookup);
                let _ = expand_heredoc(&word, &lookup);
            })
        };
        let (once, twice) = (measure(5_000), measure(10_000));
        assert!(once > 0, "{what}: nothing was counted");
        assert!(twice < once * 5 / 2 + 100, "{what}: {once} became {twice}");
    }
}

proptest! {
    #[test]
    fn names_of_images_never_panic(name in "[a-zA-Z0-9./:@_\\-\\[\\]äß ]{0,60}", any in any::<String>()) {
        let _ = name.parse::<ocibuild::registry::Reference>();
        let _ = any.parse::<ocibuild::registry::Reference>();
        let _ = any.parse::<ocibuild::registry::Platform>();
    }

    #[test]
    fn expanding_never_panics(word in "[$a{}:?#%/*\\\\'\"`<>x -]{0,40}") {
        let lookup = |name: &str| (name == "a").then(|| "b/a*c".to_owned());
        for escape in [Escape::Backslash, Escape::Backtick] {
            let one = expand(&word, escape, &lookup);
            let many = expand_words(&word, escape, &lookup);
            prop_assert_eq!(one.is_ok(), many.is_ok());
        }
        let _ = expand_heredoc(&word, &lookup);
    }

    #[test]
    fn quoting_keeps_any_text(text in "[^']*") {
        let nothing = |_: &str| None;
        let quoted = format!("'{text}'");
        prop_assert_eq!(expand(&quoted, Escape::Backslash, &nothing), Ok(text));
    }
}
