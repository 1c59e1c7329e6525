//! The `ocibuild` command.

fn main() {}
