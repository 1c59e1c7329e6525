//! Here-documents of RUN and COPY, also behind ONBUILD.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ocibuild::dockerfile::{dump, parse};

fuzz_target!(|text: &str| {
    for begin in ["RUN <<", "COPY <<", "ONBUILD RUN <<-", "RUN 3<<"] {
        if let Ok(file) = parse(&format!("FROM scratch\n{begin}{text}")) {
            assert!(dump(&file).contains("FROM") || dump(&file).contains("from"));
        }
    }
});
