//! The same program as the bench target `peers`, so that a test can run it.

use std::process::ExitCode;

fn main() -> ExitCode {
    ocibuild_benches::peers_main()
}
