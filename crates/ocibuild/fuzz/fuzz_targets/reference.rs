//! Names of images: what is understood is the same when it is written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ocibuild_registry::Reference;

fuzz_target!(|text: &str| {
    if let Ok(reference) = text.parse::<Reference>() {
        let written = reference.to_string();
        let again: Reference = written.parse().expect("what was written can be read");
        assert_eq!(again.to_string(), written);
    }
});
