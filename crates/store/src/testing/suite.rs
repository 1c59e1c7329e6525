//! What every store must do, whichever database keeps it.
//!
//! The functions panic, like the tests that call them, with the case that failed.
#![allow(clippy::unwrap_used, reason = "a suite of tests")]

mod cancelling;
mod contexts;
mod limits;
mod listing;
mod logs;
mod pruning;
mod queue;

use std::sync::Arc;
use std::time::Duration;

use crate::{
    BuildParams, Claim, End, FailureCode, Lease, NewTask, Outcome, StoreError, Task, TaskId,
    TaskState, TaskStore,
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
        log: format!("Task {id} waits for a free builder\n"),
        id,
        ..NewTask::default()
    }
}

/// Runs every case on an empty store and leaves it full.
pub async fn check_store(store: Arc<dyn TaskStore>) {
    store.ping().await.unwrap();
    queue::check(&store).await;
    limits::check(&store).await;
    cancelling::check(&*store).await;
    logs::check(&*store).await;
    listing::check(&*store).await;
    pruning::check(&*store).await;
    contexts::check(&*store).await;
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
        let log = log_text(store, &task.id).await;
        assert!(log.starts_with(&task.log), "{log}");
        complete(store, &claim.lease).await;
    }
}

async fn claimed(store: &dyn TaskStore) -> Claim {
    store
        .claim("suite", LEASE, None)
        .await
        .unwrap()
        .expect("a task waits")
}

/// Queues a task and claims it; no other may wait.
async fn begun(store: &dyn TaskStore, new: &NewTask) -> Claim {
    store.enqueue(new).await.unwrap();
    let claim = claimed(store).await;
    assert_eq!(claim.task.id, new.id);
    claim
}

async fn found(store: &dyn TaskStore, id: &TaskId) -> Task {
    store.get(id).await.unwrap().expect("the task exists")
}

async fn state(store: &dyn TaskStore, id: &TaskId) -> TaskState {
    found(store, id).await.state
}

async fn log_text(store: &dyn TaskStore, id: &TaskId) -> String {
    let part = store.read_log(id, 0, u64::MAX).await.unwrap();
    assert_eq!(part.data.len() as u64, part.info.length);
    String::from_utf8(part.data).unwrap()
}

fn success(digest: &str) -> Outcome {
    Outcome {
        end: End::Completed {
            digest: digest.to_owned(),
        },
        commit: None,
        pushed: Vec::new(),
    }
}

fn failure(code: FailureCode, reason: &str) -> Outcome {
    Outcome {
        end: End::Failed {
            code,
            reason: reason.to_owned(),
        },
        commit: None,
        pushed: Vec::new(),
    }
}

async fn complete(store: &dyn TaskStore, lease: &Lease) {
    store.finish(lease, &success("sha256:0")).await.unwrap();
}

fn lost<T: std::fmt::Debug>(result: Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::LeaseLost { .. }))
}
