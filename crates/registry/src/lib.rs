//! OCI distribution: the plain types that every other crate shares, a client that
//! pulls and pushes, and a registry server that can be embedded.
//!
//! What enters: references, descriptors, credentials, bytes. What leaves: verified
//! bytes and digests that a registry has confirmed. Nothing here reads the
//! environment, prints, or knows what an image is built from.
//!
//! Features: `client` (default), `server`, and `testing`, a server that fails on
//! purpose.

pub mod descriptor;
pub mod digest;
pub mod reference;
pub mod secret;

#[cfg(feature = "client")]
mod action;
#[cfg(feature = "client")]
pub mod auth;
mod authorities;
#[cfg(feature = "client")]
pub mod blob;
#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
mod connector;
#[cfg(feature = "client")]
mod copy;
#[cfg(feature = "client")]
pub mod error;
#[cfg(feature = "client")]
mod home;
#[cfg(feature = "client")]
mod manage;
#[cfg(feature = "client")]
mod policy;
#[cfg(feature = "client")]
mod preflight;
#[cfg(feature = "client")]
pub mod progress;
#[cfg(feature = "client")]
pub mod pull;
#[cfg(feature = "client")]
pub mod push;
#[cfg(feature = "client")]
mod referrers;
#[cfg(feature = "client")]
pub mod registries;
#[cfg(feature = "client")]
mod retry;
#[cfg(feature = "server")]
pub mod server;
#[cfg(any(feature = "client", feature = "server"))]
mod stream;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "client")]
mod transport;
#[cfg(feature = "client")]
mod upload;

#[cfg(feature = "client")]
pub use action::{Action, Phase};
#[cfg(feature = "client")]
pub use auth::{
    AccessKey, AwsKeys, CloudEnvironment, Credential, Credentials, EcrLogin, EcrSettings,
    GoogleLogin,
};
#[cfg(feature = "client")]
pub use blob::{Arrived, Arriving, Blob, Downloads, arriving};
#[cfg(feature = "client")]
pub use client::{Client, ClientBuilder};
#[cfg(feature = "client")]
pub use connector::BuildError;
#[cfg(feature = "client")]
pub use copy::{Copied, Copy};
pub use descriptor::{Descriptor, Index, Manifest, Platform, media_type, null_default};
pub use digest::{Digest, Hasher};
#[cfg(feature = "client")]
pub use error::Error;
#[cfg(feature = "client")]
pub use policy::TagPolicy;
#[cfg(feature = "client")]
pub use progress::{Progress, Transfer, TransferState};
#[cfg(feature = "client")]
pub use pull::Image;
#[cfg(feature = "client")]
pub use push::{ImagePush, LayerPush, PushedImage};
pub use reference::{InvalidReference, Reference, Repository};
#[cfg(feature = "client")]
pub use registries::Registries;
#[cfg(feature = "client")]
pub use retry::Retry;
pub use secret::Secret;
#[cfg(feature = "client")]
pub use upload::{BlobOutcome, BlobSource, Growing, Growth, RemoteBlob, growing};
