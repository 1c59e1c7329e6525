//! A Dockerfile and a context become an OCI image.
//!
//! The path, in the order in which the rooms of this crate stand:
//! `git` and `context` give the files, `dockerfile` parses the text, `graph` makes
//! stages and steps of it, `source` finds the bases, `executor` and `copy` carry a
//! step out, `snapshot` knows root file systems, `layer` makes bytes of changes,
//! `image` makes configuration and manifest, `output` hands the image over, and
//! `cache` remembers which step gave which layer.

pub mod cancel;
pub mod context;
pub mod dockerfile;
pub mod event;
pub mod executor;
#[cfg(feature = "git")]
pub mod git;
pub mod layer;
pub mod snapshot;
#[cfg(feature = "testing")]
pub mod testing;

pub use cancel::Cancel;
pub use event::{Event, EventSink, LayerSummary, StepId, Stream};
pub use ocibuild_registry as registry;
