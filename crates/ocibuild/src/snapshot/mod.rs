//! States of a root file system: as layers one over the other ([`view`]), and as
//! directories on a disk ([`unpack`] and [`diff`], layer → tree → layer; [`merge`] joins
//! several trees).
//!
//! A [`RootView`] answers what a file system made of layers holds without unpacking
//! any. Trees on disk hold what an image or a command put there, so they are entered
//! only through [`Beneath`], which cannot leave them.

pub mod accounts;
mod attributes;
pub mod beneath;
mod capability;
pub mod diff;
mod error;
pub mod fill;
pub mod merge;
mod sparse_file;
mod unchanged;
pub mod unpack;
pub mod view;
mod whiteout;

pub use accounts::Accounts;
pub use beneath::Beneath;
pub use error::Error;
pub use merge::Merged;
pub use view::{ContentPlace, Found, Resolved, RootView};

#[cfg(test)]
mod tests;
