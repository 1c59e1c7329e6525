//! The image itself: configuration, history, manifest, and the check that all
//! of it fits together. Pure values; OCI image-spec config.md and manifest.md rule.

pub mod config;
pub mod history;
pub mod manifest;
pub mod validate;

pub use config::ImageConfig;
pub use history::History;
pub use manifest::assemble;
pub use validate::{Problem, validate};
