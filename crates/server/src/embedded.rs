//! The registry that the service can run itself, so that a laptop needs no other.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ocibuild_registry::server::{self, Store, StoreError};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Why the embedded registry cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddedError {
    /// Its folder cannot be used.
    #[error("cannot use the folder {}", path.display())]
    Store {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: StoreError,
    },
    /// Its address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
}

/// Starts the registry on `address`, with its blobs below `data`, until `stop` is cancelled.
/// Gives the address that it listens on.
pub(crate) async fn start(
    address: SocketAddr,
    data: &Path,
    stop: CancellationToken,
) -> Result<SocketAddr, EmbeddedError> {
    let path = data.join("registry");
    let store = Store::open(&path).map_err(|source| EmbeddedError::Store { path, source })?;
    let listen = |source| EmbeddedError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let bound = listener.local_addr().map_err(listen)?;
    tracing::info!(address = %bound, "the embedded registry listens");
    tokio::spawn(async move {
        let served = server::serve(listener, store, stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "the embedded registry ended");
        }
    });
    Ok(bound)
}
