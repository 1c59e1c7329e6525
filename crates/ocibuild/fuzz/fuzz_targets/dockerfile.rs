//! A Dockerfile in any bytes: parsed or refused, its tree shown, and what a prefix of it is.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ocibuild::dockerfile::{dump, parse_bytes, parse_prefix, parse_tree};

fuzz_target!(|bytes: &[u8]| {
    let parsed = parse_bytes(bytes);
    if let Ok(file) = &parsed {
        assert!(!dump(file).is_empty());
        for origin in file.origins() {
            assert!(origin.span.start <= origin.span.end);
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let (_, problem) = parse_prefix(text);
        if parsed.is_ok() {
            assert!(problem.is_none());
        }
        let _ = parse_tree(text);
    }
});
