//! Real things for tests, made on the spot and without network: a Git server with
//! repositories, a base image of busybox, contexts with fixed times.
//!
//! Behind the feature `testing`; whoever calls these functions wants a test to fail, so
//! they panic where something is missing and say what.

mod base;
mod context;
#[cfg(feature = "git")]
mod git_repository;
#[cfg(feature = "git")]
mod git_server;
#[cfg(feature = "git")]
mod ssh_server;

pub use base::{busybox_layout, has_busybox};
pub use context::ContextDir;
#[cfg(feature = "git")]
pub use git_repository::GitRepository;
#[cfg(feature = "git")]
pub use git_server::{GitServer, SeenRequest};
#[cfg(feature = "git")]
pub use ssh_server::SshServer;
