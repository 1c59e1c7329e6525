//! Who we are to a registry: credentials that the caller hands in, the challenges
//! that a registry answers with, and the tokens that are fetched for them.
//!
//! Rules: RFC 7617 (Basic), RFC 6750 (Bearer), and the token protocol that the
//! distribution project documents as "Token Authentication" and "OAuth2". Amazon ECR has
//! a login of its own before Basic, and Google gives tokens to machines.

mod aws;
mod call;
mod challenge;
mod credentials;
mod docker_config;
mod ecr;
mod environment;
mod google;
mod renewed;
mod sigv4;
mod token;

pub use aws::{AwsChain, AwsKeyError, AwsKeyProblem, AwsKeySource, AwsKeys};
pub use call::CallError;
pub use credentials::{Credential, CredentialError, Credentials};
pub use ecr::{EcrError, EcrLogin, EcrOperation, EcrProblem, EcrSettings, InvalidEcrLogin};
pub use environment::CloudEnvironment;
pub use google::{GoogleError, GoogleLogin, GoogleProblem, InvalidGoogleLogin};
pub use sigv4::AccessKey;
pub use token::TokenError;

pub(crate) use challenge::Challenge;
pub(crate) use token::{Access, AuthError, Authenticator};
