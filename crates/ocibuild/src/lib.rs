//! A Dockerfile and a context become an OCI image.
//!
//! [`Build`] is the way in. The path behind it, in the order in which data passes:
//! [`git`] and [`context`] give the files, [`dockerfile`] parses the text, [`graph`]
//! makes stages and steps of it, [`source`] finds the bases, [`download`] brings what ADD
//! names, [`executor`] and [`copy`] carry a step out, [`snapshot`] knows root file
//! systems and [`ownership`] what a disk cannot hold of them, [`layer`] makes bytes of
//! changes, [`image`] makes configuration and manifest, and [`output`] hands the image
//! over. [`secret`] is what a command may see and nothing may keep. [`content`] is the
//! store on disk, [`cache`] remembers there which step gave which layer, [`images`] finds
//! what builds left there; `engine` carries a build out. [`check`] says what can be said
//! of a Dockerfile without building it.

pub mod build;
pub mod cache;
pub mod cancel;
pub mod causes;
pub mod check;
pub mod content;
pub mod context;
pub mod copy;
pub mod dockerfile;
#[cfg(feature = "git")]
pub mod download;
mod engine;
pub mod error;
pub mod event;
pub mod executor;
#[cfg(feature = "git")]
pub mod git;
pub mod graph;
pub mod image;
pub mod images;
pub mod layer;
mod mutex;
pub mod net;
pub mod output;
pub mod ownership;
pub mod secret;
pub mod snapshot;
pub mod source;
#[cfg(feature = "testing")]
pub mod testing;
mod time;

pub use build::{
    Build, ContextSource, DockerfileSource, Image, NamedContext, PlatformImage, StepRecord,
};
pub use cache::shared::{CacheMode, CachePlace, CacheSource, CacheTarget};
pub use cancel::Cancel;
pub use copy::{Apart, LayerPolicy};
pub use error::{Error, ErrorKind};
pub use event::{CheckWarning, Event, EventSink, LayerSummary, StepId, Stream, TransferState};
pub use image::manifest::MediaTypes;
pub use ocibuild_registry as registry;
pub use output::{Annotation, AnnotationPlace, Form, InvalidAnnotation, Output};
pub use secret::Secret;

/// Lets this program be its own sandbox helper. Must come first in `main`, before any
/// thread is started: in a helper it does the helper's work and never returns.
pub fn init() {
    executor::init::enter(engine::jobs::JOBS);
}
