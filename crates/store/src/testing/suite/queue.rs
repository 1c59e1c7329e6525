//! Queueing, claiming, ending and recovering.

use std::collections::HashSet;
use std::slice::from_ref;
use std::sync::Arc;

use super::{
    EXPIRED, LEASE, begun, claimed, complete, failure, found, log_text, lost, new_task, state,
    success,
};
use crate::{
    Claim, ContextId, FailureCode, Lease, NewTask, Outcome, Pushed, Recovered, TaskId, TaskState,
    TaskStore,
};

pub(super) async fn check(store: &Arc<dyn TaskStore>) {
    an_empty_queue_gives_nothing(&**store).await;
    a_task_comes_back_as_it_went_in(&**store).await;
    claims_follow_the_order_of_arrival(&**store).await;
    an_outcome_needs_the_lease(&**store).await;
    an_outcome_is_kept_whole(&**store).await;
    an_expired_lease_is_taken_away(&**store).await;
    an_owner_takes_back_its_own(&**store).await;
    a_released_task_keeps_its_place(&**store).await;
    a_heartbeat_saves_a_lease(&**store).await;
    concurrent_claims_are_distinct(store).await;
}

async fn an_empty_queue_gives_nothing(store: &dyn TaskStore) {
    assert_eq!(store.claim("suite", LEASE, None).await.unwrap(), None);
    assert_eq!(store.claim("suite", LEASE, Some(1)).await.unwrap(), None);
    assert_eq!(store.list().await.unwrap(), []);
    assert_eq!(store.get(&TaskId::random()).await.unwrap(), None);
    assert_eq!(store.ahead(&TaskId::random()).await.unwrap(), None);
    assert_eq!(store.recover(3).await.unwrap(), Recovered::default());
    let queue = store.queue().await.unwrap();
    assert_eq!((queue.waiting, queue.running), (0, 0));
    assert_eq!(queue.oldest_waiting, None);
}

async fn a_task_comes_back_as_it_went_in(store: &dyn TaskStore) {
    let new = NewTask {
        dockerfile: Some("FROM scratch\n# ünïcode 🦀\n".to_owned()),
        request: Some(r#"{"args":{"a":"ü"}}"#.to_owned()),
        context: Some(ContextId::random()),
        tenant: Some("Team Größe".to_owned()),
        trace_parent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        ..new_task("round-trip")
    };
    store.enqueue(&new).await.unwrap();
    assert!(store.enqueue(&new).await.is_err(), "an id is used once");
    let task = found(store, &new.id).await;
    assert_eq!(task.params, new.params);
    assert_eq!(task.app_name, new.app_name);
    assert_eq!(task.image_tag, new.image_tag);
    assert_eq!(task.logs_url, new.logs_url);
    assert_eq!(task.request, new.request);
    assert_eq!(task.context, new.context);
    assert_eq!(task.tenant, new.tenant);
    assert_eq!(task.trace_parent, new.trace_parent);
    assert_eq!((task.state, task.attempts), (TaskState::Waiting, 0));
    assert_eq!((task.started_at, task.ended_at), (None, None));
    assert_eq!((task.worker, task.cancel_reason), (None, None));
    assert_eq!(log_text(store, &new.id).await, new.log);
    assert_eq!(store.dockerfile(&new.id).await.unwrap(), new.dockerfile);
    assert_eq!(store.dockerfile(&TaskId::random()).await.unwrap(), None);

    let claim = claimed(store).await;
    assert_eq!(claim.dockerfile, new.dockerfile);
    assert_eq!(claim.task, found(store, &new.id).await);
    assert_eq!(
        (claim.task.state, claim.task.attempts),
        (TaskState::Running, 1)
    );
    assert_eq!(claim.task.worker.as_deref(), Some("suite"));
    store
        .finish(&claim.lease, &success("sha256:12"))
        .await
        .unwrap();
    let task = found(store, &new.id).await;
    assert_eq!(task.state, TaskState::Completed);
    assert_eq!(task.digest.as_deref(), Some("sha256:12"));
    assert_eq!((task.worker, task.error_code), (None, None));
    assert!(task.created_at <= task.started_at.unwrap());
    assert!(task.started_at.unwrap() <= task.ended_at.unwrap());
}

async fn claims_follow_the_order_of_arrival(store: &dyn TaskStore) {
    let tasks: Vec<_> = (0..20)
        .map(|number| new_task(&format!("fifo-{number}")))
        .collect();
    for task in &tasks {
        store.enqueue(task).await.unwrap();
    }
    for (number, task) in (0..).zip(&tasks) {
        assert_eq!(store.ahead(&task.id).await.unwrap(), Some(number));
    }
    let queue = store.queue().await.unwrap();
    assert_eq!((queue.waiting, queue.running), (20, 0));
    assert!(queue.oldest_waiting.unwrap() < LEASE, "{queue:?}");
    for task in &tasks {
        assert_eq!(store.ahead(&task.id).await.unwrap(), Some(0));
        let claim = claimed(store).await;
        assert_eq!(claim.task.image_tag, task.image_tag);
        assert_eq!(store.ahead(&task.id).await.unwrap(), None);
        assert_eq!(store.queue().await.unwrap().running, 1);
        complete(store, &claim.lease).await;
    }
}

async fn an_outcome_needs_the_lease(store: &dyn TaskStore) {
    let Claim { lease, task, .. } = begun(store, &new_task("outcome")).await;
    let forged = Lease::new(task.id.clone());
    let failed = failure(FailureCode::Registry, "the base is missing");
    assert!(lost(store.finish(&forged, &failed).await));
    assert!(lost(store.heartbeat(&forged, LEASE).await));
    assert!(lost(store.release(&forged).await));
    assert_eq!(state(store, &task.id).await, TaskState::Running);

    store.finish(&lease, &failed).await.unwrap();
    let task = found(store, &task.id).await;
    assert_eq!(task.state, TaskState::Failed);
    assert_eq!(task.error.as_deref(), Some("the base is missing"));
    assert_eq!(task.error_code, Some(FailureCode::Registry));
    let again = store.finish(&lease, &failed).await;
    assert!(lost(again), "a task ends once");
    assert!(lost(store.heartbeat(&lease, LEASE).await));
}

async fn an_outcome_is_kept_whole(store: &dyn TaskStore) {
    for code in FailureCode::ALL {
        let claim = begun(store, &new_task("whole")).await;
        let pushed = |name: &str| Pushed {
            reference: format!("localhost:5000/{name}:größe"),
            digest: "sha256:3".to_owned(),
        };
        let outcome = Outcome {
            commit: Some("c0ffee".to_owned()),
            pushed: vec![pushed("one"), pushed("two")],
            ..failure(code, "half of it")
        };
        store.finish(&claim.lease, &outcome).await.unwrap();
        let task = found(store, &claim.task.id).await;
        assert_eq!(task.error_code, Some(code));
        assert_eq!(task.commit, outcome.commit);
        assert_eq!(task.pushed, outcome.pushed);
    }
}

async fn an_expired_lease_is_taken_away(store: &dyn TaskStore) {
    let new = new_task("expired");
    store.enqueue(&new).await.unwrap();
    let claim = async |owner| {
        let claim = store.claim(owner, EXPIRED, None).await.unwrap();
        claim.expect("a task waits")
    };
    let first = claim("dies").await;
    assert_eq!(store.recover(2).await.unwrap().requeued, from_ref(&new.id));
    assert!(lost(store.heartbeat(&first.lease, LEASE).await));
    let waits = format!(
        "{}The worker that built this task disappeared; it waits again\n",
        new.log
    );
    assert_eq!(log_text(store, &new.id).await, waits);

    let second = claim("dies too").await;
    assert_eq!((&second.task.id, second.task.attempts), (&new.id, 2));
    let late = store.finish(&first.lease, &success("sha256:0")).await;
    assert!(lost(late), "the first owner is too late");
    assert_eq!(store.recover(2).await.unwrap().failed, from_ref(&new.id));
    let task = found(store, &new.id).await;
    assert_eq!(task.state, TaskState::Failed);
    assert_eq!(task.error_code, Some(FailureCode::Abandoned));
    assert!(task.ended_at.is_some());
    let reason = task.error.unwrap();
    assert!(reason.contains("disappeared, 2 times"), "{reason}");
    let ended = format!("{waits}Build failed: {reason}\n");
    assert_eq!(log_text(store, &new.id).await, ended);
}

async fn an_owner_takes_back_its_own(store: &dyn TaskStore) {
    let tasks = [new_task("mine"), new_task("other")];
    for task in &tasks {
        store.enqueue(task).await.unwrap();
    }
    for owner in ["restarted", "lives"] {
        store
            .claim(owner, LEASE, None)
            .await
            .unwrap()
            .expect("a task waits");
    }
    assert_eq!(store.recover(3).await.unwrap(), Recovered::default());
    let recovered = store.recover_owner("restarted", 3).await.unwrap();
    assert_eq!(recovered.requeued, from_ref(&tasks[0].id));
    assert_eq!(recovered.failed, []);
    assert_eq!(state(store, &tasks[1].id).await, TaskState::Running);

    store
        .claim("restarted", LEASE, None)
        .await
        .unwrap()
        .expect("it waits again");
    let recovered = store.recover_owner("restarted", 2).await.unwrap();
    assert_eq!(recovered.failed, from_ref(&tasks[0].id));
    let recovered = store.recover_owner("lives", 1).await.unwrap();
    assert_eq!(recovered.failed, from_ref(&tasks[1].id));
}

async fn a_released_task_keeps_its_place(store: &dyn TaskStore) {
    let (older, newer) = (new_task("older"), new_task("newer"));
    store.enqueue(&older).await.unwrap();
    store.enqueue(&newer).await.unwrap();
    let claim = claimed(store).await;
    store.release(&claim.lease).await.unwrap();
    let twice = store.release(&claim.lease).await;
    assert!(lost(twice), "a lease is returned once");
    let again = claimed(store).await;
    assert_eq!((&again.task.id, again.task.attempts), (&older.id, 1));
    complete(store, &again.lease).await;
    complete(store, &claimed(store).await.lease).await;
}

async fn a_heartbeat_saves_a_lease(store: &dyn TaskStore) {
    store.enqueue(&new_task("heartbeat")).await.unwrap();
    let claim = store.claim("suite", EXPIRED, None).await.unwrap();
    let claim = claim.expect("a task waits");
    store.heartbeat(&claim.lease, LEASE).await.unwrap();
    assert_eq!(store.recover(1).await.unwrap(), Recovered::default());
    complete(store, &claim.lease).await;
}

async fn concurrent_claims_are_distinct(store: &Arc<dyn TaskStore>) {
    const WORKERS: usize = 8;
    const TASKS: usize = 64;
    for number in 0..TASKS {
        let task = new_task(&format!("concurrent-{number}"));
        store.enqueue(&task).await.unwrap();
    }
    let start = Arc::new(tokio::sync::Barrier::new(WORKERS));
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (store, start) = (Arc::clone(store), Arc::clone(&start));
            tokio::spawn(async move {
                start.wait().await;
                let mut claims = Vec::new();
                while let Some(claim) = store.claim("suite", LEASE, None).await.unwrap() {
                    claims.push(claim.task.id.clone());
                    complete(&*store, &claim.lease).await;
                }
                claims
            })
        })
        .collect();
    let mut claims = Vec::new();
    for worker in workers {
        claims.extend(worker.await.unwrap());
    }
    let distinct: HashSet<_> = claims.iter().collect();
    assert_eq!((claims.len(), distinct.len()), (TASKS, TASKS));
}
