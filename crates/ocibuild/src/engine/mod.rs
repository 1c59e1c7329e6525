//! What carries a build out, one file a part: `open` finds context, Dockerfile and plan,
//! `stage` builds one stage after the other's need, `run_step` and `copy_step` make
//! layers, `finish` makes the image and hands it over. [`crate::build`] calls them in
//! that order.

mod accounts;
mod agent;
mod archives;
mod arrivals;
mod artifacts;
#[cfg(feature = "git")]
mod auth;
mod base;
mod cache_mounts;
pub(crate) mod check;
mod contexts;
mod copy_step;
mod cores;
pub(crate) mod early;
pub(crate) mod exports;
mod files;
pub(crate) mod finish;
mod flights;
mod folder;
pub(crate) mod foreign;
mod forms;
mod hostname;
mod imports;
mod inputs;
pub(crate) mod jobs;
mod known;
mod late;
mod layer_files;
mod layers;
mod ledger;
mod meter;
mod mounts;
mod named;
pub(crate) mod open;
mod packed;
pub(crate) mod preflight;
#[cfg(feature = "git")]
mod remote;
pub(crate) mod room;
mod run_step;
mod session;
pub(crate) mod stage;
mod step_names;
mod steps;
mod supply;
pub(crate) mod trees;
mod weights;

/// What all parts share.
pub(crate) type Shared = std::sync::Arc<session::Session>;
