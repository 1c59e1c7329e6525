//! A line before a server, which counts what it carries and breaks now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// Which bytes count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// Those towards the server.
    Up,
    /// Those from it.
    Down,
}

/// Carries connections as long as it lives.
pub(super) struct Line {
    pub(super) address: String,
    wear: Wear,
    _runtime: Runtime,
}

#[derive(Clone)]
struct Wear {
    every: u64,
    carried: Arc<AtomicU64>,
    breaks: Arc<AtomicU64>,
}

impl Line {
    /// Whenever `every` bytes have gone in a direction, over all connections, that one which
    /// carried the last of them is reset.
    pub(super) fn start(server: &str, direction: Direction, every: u64) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?.to_string();
        let wear = Wear {
            every,
            carried: Arc::default(),
            breaks: Arc::default(),
        };
        let (server, worn) = (server.to_owned(), wear.clone());
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server.clone(), direction, worn.clone()));
            }
        });
        Ok(Self {
            address,
            wear,
            _runtime: runtime,
        })
    }

    /// Gives the bytes that have gone in its direction, headers included.
    pub(super) fn carried(&self) -> u64 {
        self.wear.carried.load(Ordering::Relaxed)
    }

    /// Tells how often it has broken.
    pub(super) fn breaks(&self) -> u64 {
        self.wear.breaks.load(Ordering::Relaxed)
    }
}

async fn carry(client: TcpStream, server: String, direction: Direction, wear: Wear) {
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    let (worn, mut other) = match direction {
        Direction::Up => ((from_client, to_server), (from_server, to_client)),
        Direction::Down => ((from_server, to_client), (from_client, to_server)),
    };
    let back = async { tokio::io::copy(&mut other.0, &mut other.1).await };
    let mut worn = std::pin::pin!(worn_copy(worn.0, worn.1, wear));
    let broken = tokio::select! {
        broken = &mut worn => broken,
        _ = back => None,
    };
    if let Some((from, to)) = broken {
        let _ = from.as_ref().set_zero_linger();
        let _ = to.as_ref().set_zero_linger();
    }
}

/// Copies until the line breaks, which gives the halves back, or a side ends.
async fn worn_copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    wear: Wear,
) -> Option<(OwnedReadHalf, OwnedWriteHalf)> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = from.read(&mut buffer).await.ok().filter(|&n| n > 0)?;
        to.write_all(&buffer[..length]).await.ok()?;
        let before = wear.carried.fetch_add(length as u64, Ordering::Relaxed);
        if (before + length as u64) / wear.every > before / wear.every {
            wear.breaks.fetch_add(1, Ordering::Relaxed);
            return Some((from, to));
        }
    }
}
