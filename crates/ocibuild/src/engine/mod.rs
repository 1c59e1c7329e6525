//! What carries a build out, one file a part: `open` finds context, Dockerfile and plan,
//! `stage` builds one stage after the other's need, `run_step` and `copy_step` make
//! layers, `finish` makes the image and hands it over. [`crate::build`] calls them in
//! that order.

mod archives;
mod base;
pub(crate) mod check;
mod copy_step;
mod files;
pub(crate) mod finish;
pub(crate) mod jobs;
mod layers;
pub(crate) mod open;
mod run_step;
mod session;
pub(crate) mod stage;
mod steps;

/// What all parts share.
pub(crate) type Shared = std::sync::Arc<session::Session>;
