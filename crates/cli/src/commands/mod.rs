//! One file a verb: arguments in, calls of the library, an exit status out.

pub(crate) mod build;
pub(crate) mod cache;
mod caches;
pub(crate) mod check;
pub(crate) mod check_host;
mod contexts;
pub(crate) mod copy;
pub(crate) mod delete;
pub(crate) mod dockerfile;
pub(crate) mod inspect;
mod logins;
mod outputs;
pub(crate) mod pull;
pub(crate) mod push;
mod secrets;
pub(crate) mod serve;
mod settings;
mod ssh;
mod stdin;
mod surroundings;
pub(crate) mod tags;
pub(crate) mod worker;
