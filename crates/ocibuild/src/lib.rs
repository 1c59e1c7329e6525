//! A Dockerfile and a context become an OCI image.
//!
//! The path, in the order in which the rooms of this crate stand:
//! `git` and `context` give the files, `dockerfile` parses the text, `graph` makes
//! stages and steps of it, `source` finds the bases, `executor` and `copy` carry a
//! step out, `snapshot` knows root file systems, `layer` makes bytes of changes,
//! `image` makes configuration and manifest, `output` hands the image over, and
//! `cache` remembers which step gave which layer.

pub mod cancel;
pub mod event;
pub mod executor;

pub use cancel::Cancel;
pub use event::{Event, EventSink, LayerSummary, StepId, Stream};
pub use ocibuild_registry as registry;

/// Work that the program does in processes of its own, by name; see [`executor::Sandbox::call`].
const JOBS: &[(&str, executor::Job)] = &[(executor::REMOVE_TREE, executor::remove::remove_tree)];

/// Lets this program be its own sandbox helper. Must come first in `main`, before any
/// thread is started: in a helper it does the helper's work and never returns.
pub fn init() {
    executor::init::enter(JOBS);
}
