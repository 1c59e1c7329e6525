//! Where the access key of a login to Amazon comes from: a key that the caller has, or the
//! first source of the chain that Amazon's own programs follow. A temporary key is kept
//! until shortly before its end.
//!
//! Rules: "Standardized credential providers" of the AWS SDKs and Tools Reference Guide.
//! The order is that of the SDK for Rust: variables, profile, web identity, container,
//! machine.

mod container;
mod error;
mod instance;
mod profile;
mod sts;

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;

use super::environment::CloudEnvironment;
use super::renewed::Renewed;
use super::sigv4::AccessKey;
use crate::Secret;
use crate::connector::Connector;

pub use error::{AwsKeyError, AwsKeyProblem, AwsKeySource};

/// Temporary keys are renewed this long before their end.
const MARGIN: TimeDelta = TimeDelta::minutes(5);
/// A key whose end is not known is looked for again after this time.
const UNKNOWN_LIFE: TimeDelta = TimeDelta::minutes(15);

/// Who asks Amazon for something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AwsKeys {
    /// This key.
    Fixed(AccessKey),
    /// Whatever the chain finds.
    Chain(AwsChain),
}

impl From<AccessKey> for AwsKeys {
    fn from(key: AccessKey) -> Self {
        Self::Fixed(key)
    }
}

impl AwsKeys {
    /// Looks for a key as Amazon's programs do, in the variables of an environment, the
    /// files that they name, and the metadata services of containers and machines.
    pub fn chain(environment: CloudEnvironment) -> Self {
        Self::Chain(AwsChain(Arc::new(Chain {
            environment,
            key: Renewed::new(MARGIN),
        })))
    }

    /// Gives the key of the moment.
    pub(super) async fn get(
        &self,
        region: &str,
        connector: &Connector,
    ) -> Result<AccessKey, AwsKeyError> {
        match self {
            Self::Fixed(key) => Ok(key.clone()),
            Self::Chain(AwsChain(chain)) => {
                let finder = Finder {
                    environment: &chain.environment,
                    region,
                    connector,
                };
                chain.key.get(finder.find()).await
            }
        }
    }

    /// Drops a key that was refused; tells whether another one may be found.
    pub(super) fn forget(&self, refused: &AccessKey) -> bool {
        match self {
            Self::Fixed(_) => false,
            Self::Chain(AwsChain(chain)) => {
                chain.key.forget(|key| key == refused);
                true
            }
        }
    }

    /// Lists what must not be shown.
    pub(super) fn secrets(&self) -> Vec<Secret> {
        let key = match self {
            Self::Fixed(key) => Some(key.clone()),
            Self::Chain(AwsChain(chain)) => chain.key.latest(),
        };
        let both = |key: AccessKey| [Some(key.secret), key.session_token];
        key.into_iter().flat_map(both).flatten().collect()
    }
}

/// The chain of sources, with the key that it found last; clones share it.
#[derive(Clone)]
pub struct AwsChain(Arc<Chain>);

struct Chain {
    environment: CloudEnvironment,
    key: Renewed<AccessKey>,
}

impl PartialEq for AwsChain {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for AwsChain {}

impl fmt::Debug for AwsChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AwsChain({:?})", self.0.environment)
    }
}

/// A key and its end, where a source has one.
type Found = Result<Option<(AccessKey, DateTime<Utc>)>, AwsKeyError>;

/// What the sources need.
struct Finder<'a> {
    environment: &'a CloudEnvironment,
    /// Where the Security Token Service is asked, unless the environment says.
    region: &'a str,
    connector: &'a Connector,
}

impl Finder<'_> {
    /// Asks one source after the other; one that is configured and fails ends the search,
    /// as another identity than the one that was meant must not be used.
    async fn find(&self) -> Result<(AccessKey, DateTime<Utc>), AwsKeyError> {
        if let Some(found) = self.variables() {
            return Ok(found);
        }
        if let Some(found) = self.profile().await? {
            return Ok(found);
        }
        if let Some(found) = self.web_identity().await? {
            return Ok(found);
        }
        if let Some(found) = self.container().await? {
            return Ok(found);
        }
        match self.instance().await? {
            Some(found) => Ok(found),
            None => Err(AwsKeySource::Chain.failed(AwsKeyProblem::Nothing)),
        }
    }

    fn variables(&self) -> Option<(AccessKey, DateTime<Utc>)> {
        let key = AccessKey {
            id: self.environment.get("AWS_ACCESS_KEY_ID")?.to_owned(),
            secret: Secret::new(self.environment.get("AWS_SECRET_ACCESS_KEY")?),
            session_token: self.environment.get("AWS_SESSION_TOKEN").map(Secret::new),
        };
        Some(without_end(key))
    }
}

fn without_end(key: AccessKey) -> (AccessKey, DateTime<Utc>) {
    (key, Utc::now() + MARGIN + UNKNOWN_LIFE)
}

/// How the metadata services of containers and machines write a key.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<DateTime<Utc>>,
}

fn read_document(body: &[u8]) -> Option<(AccessKey, DateTime<Utc>)> {
    let document: Document = serde_json::from_slice(body).ok()?;
    let key = AccessKey {
        id: document.access_key_id,
        secret: Secret::new(document.secret_access_key),
        session_token: document
            .token
            .filter(|token| !token.is_empty())
            .map(Secret::new),
    };
    Some(match document.expiration {
        Some(end) => (key, end),
        None => without_end(key),
    })
}
