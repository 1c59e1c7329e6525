//! `cargo bench -p ocibuild-benches --bench service`: see `service` in the library beside this file.

use std::process::ExitCode;

fn main() -> ExitCode {
    ocibuild_benches::service_main()
}
