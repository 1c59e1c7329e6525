//! A word and the text of a here-document, with variables that hold what may surprise.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ocibuild::dockerfile::Escape;
use ocibuild::dockerfile::words::{expand, expand_heredoc, expand_words, trace};

fuzz_target!(|text: &str| {
    let lookup = |name: &str| match name {
        "A" => Some("a value/with.parts".to_owned()),
        "EMPTY" => Some(String::new()),
        "B" => Some("*?[$A]\\\"'".to_owned()),
        _ => None,
    };
    for escape in [Escape::Backslash, Escape::Backtick] {
        let whole = expand(text, escape, &lookup);
        let traced = trace(text, escape, &lookup);
        assert_eq!(whole.is_ok(), traced.is_ok());
        let _ = expand_words(text, escape, &lookup);
    }
    let _ = expand_heredoc(text, &lookup);
});
