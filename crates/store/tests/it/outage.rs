//! A server that keeps its connections and answers nobody.

use std::future::Future;
use std::time::Duration;

use ocibuild_store::testing::{MariaDb, new_task};
use ocibuild_store::{Lease, MySqlSettings, MySqlStore, StoreError, TaskStore};

use crate::support::{causes, server};

/// Much longer than the operations may take, and than the server needs to come back.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn nothing_waits_for_a_server_that_hangs() {
    let Some(server) = server(MariaDb::start()) else {
        return;
    };
    let settings = MySqlSettings {
        timeout: Duration::from_millis(500),
        connections: 2,
        ..server.settings("hangs")
    };
    let store = MySqlStore::connect(&server.settings("hangs")).await;
    store.unwrap().enqueue(&new_task("before")).await.unwrap();
    let store = MySqlStore::connect(&settings).await.unwrap();
    let claim = store.claim("test", PATIENCE, None).await.unwrap().unwrap();

    server.pause().unwrap();
    let new = new_task("never");
    // More at once than there are connections.
    let (ping, list, enqueue, claimed, beat) = tokio::join!(
        answered(store.ping()),
        answered(store.list()),
        answered(store.enqueue(&new)),
        answered(store.claim("test", PATIENCE, Some(1))),
        answered(store.heartbeat(&claim.lease, PATIENCE)),
    );
    for failed in [
        ping.unwrap_err(),
        list.map(drop).unwrap_err(),
        enqueue.unwrap_err(),
        claimed.map(drop).unwrap_err(),
        beat.unwrap_err(),
    ] {
        assert!(matches!(failed, StoreError::Query { .. }), "{failed:?}");
    }
    let refused = answered(MySqlStore::connect(&settings)).await.unwrap_err();
    assert!(causes(&refused).starts_with("cannot open"), "{refused}");

    server.resume().unwrap();
    answered(async {
        while store.ping().await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let other = MySqlStore::connect(&server.settings("hangs"))
        .await
        .unwrap();
    let mut lease = claim.lease;
    for _ in 0..8 {
        lease = writes_count_at_once(&store, &other, &lease).await;
    }
}

/// Checks that no connection is left inside a transaction that nobody waited for: another
/// store sees what this one writes, and may change it.
async fn writes_count_at_once(store: &MySqlStore, other: &MySqlStore, lease: &Lease) -> Lease {
    store.heartbeat(lease, Duration::ZERO).await.unwrap();
    let recovered = other.recover(u32::MAX).await.unwrap();
    assert_eq!(recovered.requeued, std::slice::from_ref(&lease.task));
    let claim = other.claim("test", PATIENCE, None).await.unwrap();
    claim.expect("it waits again").lease
}

/// A caller that goes away, such as a client that disconnects, does no harm either.
#[tokio::test(flavor = "multi_thread")]
async fn an_operation_may_be_dropped_anywhere() {
    let Some(server) = server(MariaDb::start()) else {
        return;
    };
    let settings = MySqlSettings {
        connections: 1,
        ..server.settings("dropped")
    };
    let store = MySqlStore::connect(&settings).await.unwrap();
    let other = MySqlStore::connect(&settings).await.unwrap();
    store.enqueue(&new_task("first")).await.unwrap();
    let claim = store.claim("test", PATIENCE, None).await.unwrap();
    let mut lease = claim.unwrap().lease;
    for polls in 0..60 {
        let abandoned = new_task("abandoned");
        poll_some(store.enqueue(&abandoned), polls).await;
        lease = writes_count_at_once(&store, &other, &lease).await;
    }
}

/// Polls a future some times at most, then drops it.
async fn poll_some<F: Future>(future: F, polls: usize) {
    let mut future = Box::pin(future);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return std::task::Poll::Ready(());
        }
        left -= 1;
        future.as_mut().poll(context).map(drop)
    })
    .await;
}

async fn answered<F: Future>(operation: F) -> F::Output {
    tokio::time::timeout(PATIENCE, operation)
        .await
        .expect("it ends by itself")
}
