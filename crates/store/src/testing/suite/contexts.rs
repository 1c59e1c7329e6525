//! Uploaded contexts.

use std::time::Duration;

use super::{begun, claimed, complete, new_task};
use crate::{Context, ContextId, NewTask, StoreError, TaskStore};

const DAY: Duration = Duration::from_secs(86_400);

pub(super) async fn check(store: &dyn TaskStore) {
    a_context_comes_back_as_it_went_in(store).await;
    an_upload_continues_where_it_stands(store).await;
    contexts_in_use_are_kept(store).await;
}

fn context(tenant: Option<&str>) -> Context {
    Context {
        id: ContextId::random(),
        tenant: tenant.map(str::to_owned),
        size: 0,
        complete: false,
    }
}

async fn uploaded(store: &dyn TaskStore) -> ContextId {
    let new = context(None);
    store.begin_context(&new).await.unwrap();
    store.append_context(&new.id, 0, b"tar").await.unwrap();
    store.complete_context(&new.id, 3).await.unwrap();
    new.id
}

async fn a_context_comes_back_as_it_went_in(store: &dyn TaskStore) {
    let new = context(Some("Team Größe"));
    assert_eq!(store.context(&new.id).await.unwrap(), None);
    assert_eq!(store.read_context(&new.id, 0, 9).await.unwrap(), b"");
    store.begin_context(&new).await.unwrap();
    assert!(
        store.begin_context(&new).await.is_err(),
        "an id is used once"
    );
    assert_eq!(store.context(&new.id).await.unwrap().as_ref(), Some(&new));
    let bytes: Vec<u8> = (0..(5_u32 << 19)).map(|byte| (byte % 253) as u8).collect();
    let (first, second) = bytes.split_at(3);
    store.append_context(&new.id, 0, first).await.unwrap();
    store.append_context(&new.id, 3, second).await.unwrap();
    store
        .complete_context(&new.id, bytes.len() as u64)
        .await
        .unwrap();
    let whole = Context {
        size: bytes.len() as u64,
        complete: true,
        ..new.clone()
    };
    assert_eq!(store.context(&new.id).await.unwrap(), Some(whole));
    for (offset, limit) in [
        (0, 1),
        (2, 2),
        (3, 1 << 20),
        (4, 1 << 20),
        (1_048_578, 2),
        (9, 1 << 30),
    ] {
        let read = store
            .read_context(&new.id, offset as u64, limit as u64)
            .await
            .unwrap();
        let end = (offset + limit).min(bytes.len());
        assert!(read == bytes[offset..end], "{offset} {limit}");
    }
    let end = bytes.len() as u64;
    assert_eq!(store.read_context(&new.id, end, 9).await.unwrap(), b"");
    assert_eq!(store.read_context(&new.id, u64::MAX, 9).await.unwrap(), b"");
}

async fn an_upload_continues_where_it_stands(store: &dyn TaskStore) {
    let misplaced = |result| matches!(result, Err(StoreError::ContextOffset { .. }));
    let new = context(None);
    let id = &new.id;
    assert!(
        misplaced(store.append_context(id, 0, b"a").await),
        "it is unknown"
    );
    assert!(misplaced(store.complete_context(id, 0).await));
    store.begin_context(&new).await.unwrap();
    store.append_context(id, 0, b"abc").await.unwrap();
    assert!(misplaced(store.append_context(id, 0, b"abc").await));
    assert!(misplaced(store.append_context(id, 4, b"d").await));
    store.append_context(id, 3, b"").await.unwrap();
    assert!(misplaced(store.complete_context(id, 4).await));
    store.complete_context(id, 3).await.unwrap();
    store.complete_context(id, 3).await.unwrap();
    assert!(
        misplaced(store.append_context(id, 3, b"d").await),
        "it is whole"
    );
    assert_eq!(store.read_context(id, 0, 9).await.unwrap(), b"abc");
}

async fn contexts_in_use_are_kept(store: &dyn TaskStore) {
    store.prune_contexts(Duration::ZERO).await.unwrap();
    let (unused, used) = (uploaded(store).await, uploaded(store).await);
    let new = NewTask {
        context: Some(used.clone()),
        ..new_task("context")
    };
    store.enqueue(&new).await.unwrap();
    assert_eq!(store.prune_contexts(DAY).await.unwrap(), 0);
    assert_eq!(store.prune_contexts(Duration::ZERO).await.unwrap(), 1);
    assert_eq!(store.context(&unused).await.unwrap(), None);
    assert_eq!(store.read_context(&unused, 0, 9).await.unwrap(), b"");
    let claim = claimed(store).await;
    assert_eq!(claim.task.context.as_ref(), Some(&used));
    assert_eq!(store.prune_contexts(Duration::ZERO).await.unwrap(), 0);
    assert_eq!(store.read_context(&used, 0, 9).await.unwrap(), b"tar");
    complete(store, &claim.lease).await;
    assert_eq!(store.prune_contexts(Duration::ZERO).await.unwrap(), 1);
    // A task whose context is gone can still be read, claimed and ended.
    let late = NewTask {
        context: Some(used),
        ..new_task("late")
    };
    let claim = begun(store, &late).await;
    complete(store, &claim.lease).await;
}
