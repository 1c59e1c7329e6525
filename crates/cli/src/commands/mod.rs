//! One file a verb: arguments in, calls of the library, an exit status out.

pub mod build;
pub mod check_host;
pub mod inspect;
pub mod pull;
pub mod push;
pub mod serve;
mod surroundings;
pub mod worker;
