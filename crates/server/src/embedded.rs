//! The registry that the service can run itself, so that a laptop needs no other.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ocibuild_registry::Secret;
use ocibuild_registry::server::{self, Account, GarbagePolicy, Right, Settings, Store, StoreError};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Embedded;
use crate::spec::RegistryLogin;

/// The name of the account by which builds push where there are accounts.
const BUILDER: &str = "ocibuild";

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

/// An embedded registry that runs.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// With what builds log in, where it has accounts.
    pub(crate) login: Option<RegistryLogin>,
}

/// Starts the registry with its blobs below `data`, until `stop` is cancelled.
pub(crate) async fn start(
    config: &Embedded,
    data: &Path,
    stop: CancellationToken,
) -> Result<Running, EmbeddedError> {
    let path = data.join("registry");
    let store = Store::open_with(&path, config.quota)
        .map_err(|source| EmbeddedError::Store { path, source })?;
    let address = config.address;
    let listen = |source| EmbeddedError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    tracing::info!(%address, "the embedded registry listens");
    let builder = config.accounts.as_ref().map(|_| account());
    let settings = Settings {
        accounts: config
            .accounts
            .clone()
            .zip(builder.clone())
            .map(|(accounts, builder)| accounts.with(builder)),
    };
    if let Some(every) = config.collected_every {
        let collecting = collect(store.clone(), every, config.garbage, stop.clone());
        tokio::spawn(collecting);
    }
    tokio::spawn(async move {
        let stopped = stop.cancelled_owned();
        let served = server::serve_with(listener, store, settings, stopped).await;
        if let Err(error) = served {
            tracing::error!(%error, "the embedded registry ended");
        }
    });
    let login = builder.map(|account| RegistryLogin {
        registry: address.to_string(),
        user: account.name,
        password: account.password,
    });
    Ok(Running { address, login })
}

/// Makes the account of the builds of this process, which nobody else knows.
fn account() -> Account {
    Account {
        name: BUILDER.to_owned(),
        password: Secret::new(uuid::Uuid::new_v4().simple().to_string()),
        right: Right::Push,
        below: String::new(),
    }
}

/// Collects garbage now and then.
async fn collect(store: Store, every: Duration, garbage: GarbagePolicy, stop: CancellationToken) {
    loop {
        let store = store.clone();
        let collected = tokio::task::spawn_blocking(move || store.collect_garbage(&garbage));
        match collected.await {
            Ok(Ok(collected)) => tracing::info!(
                manifests = collected.manifests,
                blobs = collected.contents,
                bytes = collected.bytes,
                "the embedded registry has collected garbage"
            ),
            Ok(Err(error)) => tracing::warn!(%error, "the embedded registry keeps its garbage"),
            Err(error) => tracing::error!(%error, "collecting garbage ended badly"),
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = stop.cancelled() => return,
        }
    }
}
