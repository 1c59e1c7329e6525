//! The same program as the bench target `service`, so that a test can run it.

use std::process::ExitCode;

fn main() -> ExitCode {
    ocibuild_benches::service_main()
}
