//! A TCP line before a server, which breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Carries connections to a server as long as it lives.
pub(crate) struct Line {
    pub(crate) address: String,
    carried: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Wear {
    every: u64,
    /// Bytes towards the server, over all connections.
    carried: Arc<AtomicU64>,
    breaks_left: Arc<AtomicU64>,
}

impl Line {
    /// Whenever `every` bytes have gone towards `server`, the connection that carries
    /// the last of them is reset at both ends, at most `breaks` times.
    pub(crate) async fn start(server: &str, every: u64, breaks: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let carried = Arc::<AtomicU64>::default();
        let wear = Wear {
            every,
            carried: Arc::clone(&carried),
            breaks_left: Arc::new(AtomicU64::new(breaks)),
        };
        let server = server.to_owned();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server.clone(), wear.clone()));
            }
        });
        Self {
            address,
            carried,
            task,
        }
    }

    /// Gives the bytes that have gone towards the server, headers included.
    pub(crate) fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(client: TcpStream, server: String, wear: Wear) {
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, mut to_client) = client.into_split();
    let (mut from_server, to_server) = server.into_split();
    let back = async { tokio::io::copy(&mut from_server, &mut to_client).await };
    let there = worn_copy(from_client, to_server, wear);
    // The halves are kept until the end of both directions.
    let mut there = std::pin::pin!(there);
    let broken = tokio::select! {
        halves = &mut there => halves,
        _ = back => None,
    };
    if let Some((from_client, to_server)) = broken {
        let _ = from_client.as_ref().set_zero_linger();
        let _ = to_server.as_ref().set_zero_linger();
    }
}

/// Copies until the line breaks, which gives the halves back, or a side ends.
async fn worn_copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    wear: Wear,
) -> Option<(OwnedReadHalf, OwnedWriteHalf)> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer).await.ok().filter(|&n| n > 0)?;
        to.write_all(&buffer[..length]).await.ok()?;
        let before = wear.carried.fetch_add(length as u64, Ordering::Relaxed);
        let due = (before + length as u64) / wear.every > before / wear.every;
        let take = |left: u64| left.checked_sub(1);
        let order = Ordering::Relaxed;
        if due && wear.breaks_left.fetch_update(order, order, take).is_ok() {
            return Some((from, to));
        }
    }
}
