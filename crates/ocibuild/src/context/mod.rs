//! The files that a build may copy from: which of them there are, and which of
//! them the context leaves out.

pub mod ignore;
