//! The same program as the bench target `registry`, so that a test can run it.

use std::process::ExitCode;

fn main() -> ExitCode {
    ocibuild_benches::registry_main()
}
