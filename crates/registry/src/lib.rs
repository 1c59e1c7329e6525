//! OCI distribution: the plain types that every other crate shares, a client that
//! pulls and pushes, and a registry server that can be embedded.
//!
//! What enters: references, descriptors, credentials, bytes. What leaves: verified
//! bytes and digests that a registry has confirmed. Nothing here reads the
//! environment, prints, or knows what an image is built from.

pub mod descriptor;
pub mod digest;
pub mod secret;

pub use descriptor::{Descriptor, Index, Manifest, Platform, media_type};
pub use digest::{Digest, Hasher};
pub use secret::Secret;
