//! The same program as the bench target `build`, so that a test can run it.

use std::process::ExitCode;

fn main() -> ExitCode {
    ocibuild_benches::main()
}
