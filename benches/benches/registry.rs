//! `cargo bench -p ocibuild-benches --bench registry`: see the library beside this file.

use std::process::ExitCode;

fn main() -> ExitCode {
    ocibuild_benches::registry_main()
}
