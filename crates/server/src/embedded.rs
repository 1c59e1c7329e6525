//! The registry that the service can run itself, so that a laptop needs no other.

use std::net::SocketAddr;
use std::path::Path;

use tokio_util::sync::CancellationToken;

/// Why the embedded registry cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddedError {
    /// This program was built without it.
    #[error("this program has no embedded registry")]
    Unavailable,
}

/// Starts the registry on `address`, with its blobs below `data`, until `stop` is cancelled.
/// Gives the address that it listens on.
pub(crate) async fn start(
    _address: SocketAddr,
    _data: &Path,
    _stop: CancellationToken,
) -> Result<SocketAddr, EmbeddedError> {
    Err(EmbeddedError::Unavailable)
}
