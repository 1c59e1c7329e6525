//! Runs one room of the library once, for whoever counts its instructions.

use std::process::ExitCode;

use ocibuild_benches::rooms;

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    if !rooms::ROOMS.contains(&&name[..]) {
        return ExitCode::FAILURE;
    }
    rooms::room(&name, 1).enter();
    ExitCode::SUCCESS
}
