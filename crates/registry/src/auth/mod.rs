//! Who we are to a registry: credentials that the caller hands in, the challenges
//! that a registry answers with, and the tokens that are fetched for them.
//!
//! Rules: RFC 7617 (Basic), RFC 6750 (Bearer), and the token protocol that the
//! distribution project documents as "Token Authentication" and "OAuth2".

mod challenge;
mod credentials;
mod docker_config;
mod token;

pub use credentials::{Credential, CredentialError, Credentials};
pub use token::TokenError;

pub(crate) use challenge::Challenge;
pub(crate) use token::{Access, AuthError, Authenticator};
