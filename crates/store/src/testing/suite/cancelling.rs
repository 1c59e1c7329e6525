//! Ending tasks from outside, in every state.

use std::slice::from_ref;

use super::{EXPIRED, LEASE, begun, complete, found, log_text, lost, new_task, state};
use crate::{CancelRequest, Cancelled, FailureCode, Recovered, TaskId, TaskState, TaskStore};

const REASON: &str = "nobody needs it\nany more";

pub(super) async fn check(store: &dyn TaskStore) {
    a_waiting_task_fails_at_once(store).await;
    a_running_task_is_stopped_by_its_owner(store).await;
    an_abandoned_task_fails_with_the_reason(store).await;
    a_released_task_does_not_wait_again(store).await;
    what_is_over_or_unknown_stays_so(store).await;
}

async fn a_waiting_task_fails_at_once(store: &dyn TaskStore) {
    let new = new_task("cancelled");
    store.enqueue(&new).await.unwrap();
    assert_eq!(
        store.cancel(&new.id, REASON).await.unwrap(),
        Cancelled::Ended
    );
    assert_eq!(store.claim("suite", LEASE, None).await.unwrap(), None);
    let task = found(store, &new.id).await;
    assert_eq!((task.state, task.attempts), (TaskState::Failed, 0));
    assert_eq!(task.error.as_deref(), Some(REASON));
    assert_eq!(task.error_code, Some(FailureCode::Cancelled));
    assert!(task.ended_at.is_some());
    let log = format!("{}Build failed: nobody needs it any more\n", new.log);
    assert_eq!(log_text(store, &new.id).await, log);
}

async fn a_running_task_is_stopped_by_its_owner(store: &dyn TaskStore) {
    let claim = begun(store, &new_task("stopped")).await;
    let id = &claim.task.id;
    assert_eq!(store.cancel_requests("suite").await.unwrap(), []);
    assert_eq!(
        store.cancel(id, REASON).await.unwrap(),
        Cancelled::Requested
    );
    let again = store.cancel(id, "another reason").await.unwrap();
    assert_eq!(again, Cancelled::Requested);
    let request = CancelRequest {
        task: id.clone(),
        reason: REASON.to_owned(),
    };
    assert_eq!(store.cancel_requests("suite").await.unwrap(), [request]);
    assert_eq!(store.cancel_requests("other").await.unwrap(), []);
    let task = found(store, id).await;
    assert_eq!(task.state, TaskState::Running);
    assert_eq!(task.cancel_reason.as_deref(), Some(REASON));
    // The build may have come to its end before the owner heard of it.
    complete(store, &claim.lease).await;
    assert_eq!(state(store, id).await, TaskState::Completed);
    assert_eq!(store.cancel_requests("suite").await.unwrap(), []);
}

async fn an_abandoned_task_fails_with_the_reason(store: &dyn TaskStore) {
    let claim = begun(store, &new_task("abandoned")).await;
    store.heartbeat(&claim.lease, EXPIRED).await.unwrap();
    store.cancel(&claim.task.id, REASON).await.unwrap();
    let recovered = store.recover(3).await.unwrap();
    assert_eq!(recovered.failed, from_ref(&claim.task.id));
    let task = found(store, &claim.task.id).await;
    assert_eq!(task.error.as_deref(), Some(REASON));
    assert_eq!(task.error_code, Some(FailureCode::Cancelled));
    let log = log_text(store, &claim.task.id).await;
    assert!(
        log.ends_with("\nBuild failed: nobody needs it any more\n"),
        "{log}"
    );
    assert!(lost(store.release(&claim.lease).await));
}

async fn a_released_task_does_not_wait_again(store: &dyn TaskStore) {
    let claim = begun(store, &new_task("released")).await;
    store.cancel(&claim.task.id, REASON).await.unwrap();
    store.release(&claim.lease).await.unwrap();
    assert_eq!(store.claim("suite", LEASE, None).await.unwrap(), None);
    let task = found(store, &claim.task.id).await;
    assert_eq!(task.state, TaskState::Failed);
    assert_eq!(task.error_code, Some(FailureCode::Cancelled));
}

async fn what_is_over_or_unknown_stays_so(store: &dyn TaskStore) {
    let claim = begun(store, &new_task("over")).await;
    complete(store, &claim.lease).await;
    let before = found(store, &claim.task.id).await;
    let late = store.cancel(&claim.task.id, REASON).await.unwrap();
    assert_eq!(late, Cancelled::TooLate);
    assert_eq!(found(store, &claim.task.id).await, before);
    let unknown = store.cancel(&TaskId::random(), REASON).await.unwrap();
    assert_eq!(unknown, Cancelled::Unknown);
    assert_eq!(store.recover(1).await.unwrap(), Recovered::default());
}
