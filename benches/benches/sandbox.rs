//! `cargo bench -p ocibuild-benches --bench sandbox`: see `sandbox` in the library beside this file.

use std::process::ExitCode;

fn main() -> ExitCode {
    ocibuild_benches::sandbox_main()
}
