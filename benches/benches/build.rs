//! `cargo bench -p ocibuild-benches --bench build`: see the library beside this file.

use std::process::ExitCode;

fn main() -> ExitCode {
    ocibuild_benches::main()
}
