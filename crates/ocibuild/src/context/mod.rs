//! The files of a build.

pub mod tar;
