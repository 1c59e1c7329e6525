//! How long logs are kept.

use std::time::Duration;

use super::{begun, complete, found, log_text, new_task};
use crate::{NewTask, Retention, TaskId, TaskStore};

const DAY: Duration = Duration::from_secs(86_400);

pub(super) async fn check(store: &dyn TaskStore) {
    // Everything that other cases have left.
    prune(store, Duration::ZERO, u64::MAX).await;
    the_oldest_logs_go_first(store).await;
    only_ended_tasks_lose_their_log(store).await;
}

async fn prune(store: &dyn TaskStore, age: Duration, total_bytes: u64) -> Vec<TaskId> {
    let retention = Retention { age, total_bytes };
    store.prune_logs(&retention).await.unwrap()
}

async fn ended(store: &dyn TaskStore, length: usize) -> TaskId {
    let new = NewTask {
        log: "x".repeat(length),
        ..new_task("pruned")
    };
    let claim = begun(store, &new).await;
    complete(store, &claim.lease).await;
    new.id
}

async fn the_oldest_logs_go_first(store: &dyn TaskStore) {
    let mut ids = Vec::new();
    for length in [500, 100_000, 300] {
        ids.push(ended(store, length).await);
    }
    assert_eq!(
        prune(store, DAY, 100_800).await,
        [],
        "they are small enough"
    );
    assert_eq!(prune(store, DAY, 100_799).await, ids[..1]);
    assert_eq!(store.log_info(&ids[0]).await.unwrap(), None);
    assert_eq!(store.read_log(&ids[0], 0, 9).await.unwrap().data, b"");
    assert_eq!(log_text(store, &ids[1]).await.len(), 100_000);
    assert_eq!(prune(store, DAY, 100_799).await, [], "they are now");
    assert_eq!(prune(store, DAY, 299).await, ids[1..]);
    assert_eq!(
        found(store, &ids[2]).await.digest.as_deref(),
        Some("sha256:0")
    );
    assert_eq!(prune(store, Duration::ZERO, 0).await, [], "a log goes once");
}

async fn only_ended_tasks_lose_their_log(store: &dyn TaskStore) {
    let (running, waiting) = (new_task("runs"), new_task("waits"));
    let claim = begun(store, &running).await;
    store.enqueue(&waiting).await.unwrap();
    assert_eq!(prune(store, Duration::ZERO, 0).await, []);
    assert_eq!(log_text(store, &running.id).await, running.log);
    assert_eq!(log_text(store, &waiting.id).await, waiting.log);
    complete(store, &claim.lease).await;
    let old = prune(store, DAY, u64::MAX).await;
    assert_eq!(old, [], "its age is that of its end");
    assert_eq!(prune(store, Duration::ZERO, u64::MAX).await, [running.id]);
    store.cancel(&waiting.id, "only a row").await.unwrap();
    assert_eq!(prune(store, Duration::ZERO, u64::MAX).await, [waiting.id]);
}
