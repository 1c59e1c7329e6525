//! The lines of an ignore file, and the path behind the last of them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ocibuild::context::ignore::IgnoreMatcher;

fuzz_target!(|text: &str| {
    let (rules, path) = text.rsplit_once('\n').unwrap_or(("*", text));
    if let Ok(matcher) = IgnoreMatcher::parse(rules) {
        let _ = matcher.matches(path);
        assert!(!matcher.is_empty() || !matcher.matches(path));
    }
});
