//! What every store must do, whichever database keeps it.
//!
//! The functions panic, like the tests that call them, with the case that failed.
#![allow(clippy::unwrap_used, reason = "a suite of tests")]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::{
    BuildParams, Claim, Lease, NewTask, Outcome, StoreError, TaskId, TaskState, TaskStore,
};

const LEASE: Duration = Duration::from_secs(60);
const EXPIRED: Duration = Duration::ZERO;

/// Makes a task whose tag is `image_tag`.
pub fn new_task(image_tag: &str) -> NewTask {
    let id = TaskId::random();
    NewTask {
        app_name: "serve".to_owned(),
        image_tag: image_tag.to_owned(),
        logs_url: format!("http://localhost:8000/static/{id}.log"),
        params: BuildParams {
            git_repo: "https://github.com/example/größe 'quoted' \\".to_owned(),
            branch: "main".to_owned(),
            ..BuildParams::default()
        },
        dockerfile: None,
        id,
    }
}

/// Runs every case on an empty store and leaves it full.
pub async fn check_store(store: Arc<dyn TaskStore>) {
    store.ping().await.unwrap();
    an_empty_queue_gives_nothing(&*store).await;
    a_task_comes_back_as_it_went_in(&*store).await;
    claims_follow_the_order_of_arrival(&*store).await;
    an_outcome_needs_the_lease(&*store).await;
    an_expired_lease_is_taken_away(&*store).await;
    a_released_task_keeps_its_place(&*store).await;
    a_heartbeat_saves_a_lease(&*store).await;
    concurrent_claims_are_distinct(store).await;
}

/// Queues three tasks and claims the first, before the database is stopped.
pub async fn fill_for_restart(store: &dyn TaskStore) -> Vec<NewTask> {
    let tasks = vec![new_task("one"), new_task("two"), new_task("three")];
    for task in &tasks {
        store.enqueue(task).await.unwrap();
    }
    let claim = claimed(store).await;
    assert_eq!(claim.task.id, tasks[0].id);
    store.heartbeat(&claim.lease, EXPIRED).await.unwrap();
    tasks
}

/// Checks that nothing of [`fill_for_restart`] was lost and that work goes on.
pub async fn check_restart(store: &dyn TaskStore, tasks: &[NewTask]) {
    let listed: Vec<_> = store
        .list()
        .await
        .unwrap()
        .into_iter()
        .map(|task| task.id)
        .collect();
    let expected: Vec<_> = tasks.iter().map(|task| task.id.clone()).collect();
    assert_eq!(listed, expected);
    assert_eq!(state(store, &tasks[0].id).await, TaskState::Running);
    assert_eq!(
        store.recover(3).await.unwrap().requeued,
        [tasks[0].id.clone()]
    );
    for task in tasks {
        let claim = claimed(store).await;
        assert_eq!(claim.task.id, task.id);
        complete(store, &claim.lease).await;
    }
}

async fn claimed(store: &dyn TaskStore) -> Claim {
    store
        .claim("suite", LEASE)
        .await
        .unwrap()
        .expect("a task waits")
}

async fn state(store: &dyn TaskStore, id: &TaskId) -> TaskState {
    store.get(id).await.unwrap().expect("the task exists").state
}

async fn complete(store: &dyn TaskStore, lease: &Lease) {
    let outcome = Outcome::Completed {
        digest: "sha256:0".to_owned(),
        commit: None,
    };
    store.finish(lease, &outcome).await.unwrap();
}

fn lost<T: std::fmt::Debug>(result: Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::LeaseLost { .. }))
}

async fn an_empty_queue_gives_nothing(store: &dyn TaskStore) {
    assert_eq!(store.claim("suite", LEASE).await.unwrap(), None);
    assert_eq!(store.list().await.unwrap(), []);
    assert_eq!(store.get(&TaskId::random()).await.unwrap(), None);
    assert_eq!(store.recover(3).await.unwrap(), crate::Recovered::default());
}

async fn a_task_comes_back_as_it_went_in(store: &dyn TaskStore) {
    let new = NewTask {
        dockerfile: Some("FROM scratch\n# ünïcode 🦀\n".to_owned()),
        ..new_task("round-trip")
    };
    store.enqueue(&new).await.unwrap();
    assert!(store.enqueue(&new).await.is_err(), "an id is used once");
    let task = store.get(&new.id).await.unwrap().expect("the task exists");
    assert_eq!(task.params, new.params);
    assert_eq!(
        (&task.app_name, &task.image_tag),
        (&new.app_name, &new.image_tag)
    );
    assert_eq!(
        (&task.logs_url, task.state),
        (&new.logs_url, TaskState::Waiting)
    );
    assert_eq!(
        (task.attempts, task.started_at, task.ended_at),
        (0, None, None)
    );

    let claim = claimed(store).await;
    assert_eq!(claim.dockerfile, new.dockerfile);
    assert_eq!(
        (claim.task.state, claim.task.attempts),
        (TaskState::Running, 1)
    );
    assert_eq!(state(store, &new.id).await, TaskState::Running);
    let outcome = Outcome::Completed {
        digest: "sha256:12".to_owned(),
        commit: Some("c0ffee".to_owned()),
    };
    store.finish(&claim.lease, &outcome).await.unwrap();
    let task = store.get(&new.id).await.unwrap().expect("the task exists");
    assert_eq!(task.state, TaskState::Completed);
    assert_eq!(task.digest.as_deref(), Some("sha256:12"));
    assert_eq!(task.commit.as_deref(), Some("c0ffee"));
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
    for task in &tasks {
        let claim = claimed(store).await;
        assert_eq!(claim.task.image_tag, task.image_tag);
        complete(store, &claim.lease).await;
    }
}

async fn an_outcome_needs_the_lease(store: &dyn TaskStore) {
    store.enqueue(&new_task("outcome")).await.unwrap();
    let Claim { lease, task, .. } = claimed(store).await;
    let forged = Lease::new(task.id.clone());
    let failed = Outcome::Failed {
        reason: "the base is missing".to_owned(),
        commit: None,
    };
    assert!(lost(store.finish(&forged, &failed).await));
    assert!(lost(store.heartbeat(&forged, LEASE).await));
    assert!(lost(store.release(&forged).await));
    assert_eq!(state(store, &task.id).await, TaskState::Running);

    store.finish(&lease, &failed).await.unwrap();
    let task = store.get(&task.id).await.unwrap().expect("the task exists");
    assert_eq!(
        (task.state, task.error.as_deref()),
        (TaskState::Failed, Some("the base is missing"))
    );
    assert!(
        lost(store.finish(&lease, &failed).await),
        "a task ends once"
    );
    assert!(lost(store.heartbeat(&lease, LEASE).await));
}

async fn an_expired_lease_is_taken_away(store: &dyn TaskStore) {
    let new = new_task("expired");
    store.enqueue(&new).await.unwrap();
    let first = store
        .claim("dies", EXPIRED)
        .await
        .unwrap()
        .expect("a task waits");
    assert_eq!(
        store.recover(2).await.unwrap().requeued,
        std::slice::from_ref(&new.id)
    );
    assert!(lost(store.heartbeat(&first.lease, LEASE).await));

    let second = store
        .claim("dies too", EXPIRED)
        .await
        .unwrap()
        .expect("it waits again");
    assert_eq!((&second.task.id, second.task.attempts), (&new.id, 2));
    let late = Outcome::Completed {
        digest: "sha256:0".to_owned(),
        commit: None,
    };
    assert!(
        lost(store.finish(&first.lease, &late).await),
        "the first owner is too late"
    );
    assert_eq!(
        store.recover(2).await.unwrap().failed,
        std::slice::from_ref(&new.id)
    );
    let task = store.get(&new.id).await.unwrap().expect("the task exists");
    assert_eq!(task.state, TaskState::Failed);
    assert!(task.error.unwrap().contains("disappeared, 2 times"));
    assert!(task.ended_at.is_some());
}

async fn a_released_task_keeps_its_place(store: &dyn TaskStore) {
    let (older, newer) = (new_task("older"), new_task("newer"));
    store.enqueue(&older).await.unwrap();
    store.enqueue(&newer).await.unwrap();
    let claim = claimed(store).await;
    store.release(&claim.lease).await.unwrap();
    assert!(
        lost(store.release(&claim.lease).await),
        "a lease is returned once"
    );
    let again = claimed(store).await;
    assert_eq!((&again.task.id, again.task.attempts), (&older.id, 1));
    complete(store, &again.lease).await;
    complete(store, &claimed(store).await.lease).await;
}

async fn a_heartbeat_saves_a_lease(store: &dyn TaskStore) {
    store.enqueue(&new_task("heartbeat")).await.unwrap();
    let claim = store
        .claim("suite", EXPIRED)
        .await
        .unwrap()
        .expect("a task waits");
    store.heartbeat(&claim.lease, LEASE).await.unwrap();
    assert_eq!(store.recover(1).await.unwrap(), crate::Recovered::default());
    complete(store, &claim.lease).await;
}

async fn concurrent_claims_are_distinct(store: Arc<dyn TaskStore>) {
    const WORKERS: usize = 8;
    const TASKS: usize = 64;
    for number in 0..TASKS {
        store
            .enqueue(&new_task(&format!("concurrent-{number}")))
            .await
            .unwrap();
    }
    let start = Arc::new(tokio::sync::Barrier::new(WORKERS));
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (store, start) = (Arc::clone(&store), Arc::clone(&start));
            tokio::spawn(async move {
                start.wait().await;
                let mut claims = Vec::new();
                while let Some(claim) = store.claim("suite", LEASE).await.unwrap() {
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
