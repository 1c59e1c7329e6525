//! The files that a build may copy from.

pub mod ignore;
pub mod tar;
