//! `cargo bench -p ocibuild-benches --bench peers`: see `peers` in the library beside this file.

use std::process::ExitCode;

fn main() -> ExitCode {
    ocibuild_benches::peers_main()
}
