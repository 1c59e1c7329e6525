//! Expansion against the table in `testdata/words.txt`, and against arbitrary input.

use std::collections::HashMap;

use ocibuild::dockerfile::Escape;
use ocibuild::dockerfile::words::{WordError, expand, expand_heredoc, expand_words};
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

proptest! {
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
