//! A task table whose failures are counted, whoever uses it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ocibuild_store::{
    CancelRequest, Cancelled, Claim, Context, ContextId, Lease, LogInfo, LogPart, NewTask, Outcome,
    Page, PageQuery, Progress, QueueState, Recovered, Retention, Step, StoreError, Task, TaskId,
    TaskStore,
};

use super::Metrics;

/// Passes everything on to another store.
pub(crate) struct CountedStore {
    store: Arc<dyn TaskStore>,
    metrics: Metrics,
}

impl CountedStore {
    pub(super) fn new(store: Arc<dyn TaskStore>, metrics: Metrics) -> Self {
        Self { store, metrics }
    }

    fn count<T>(
        &self,
        action: &'static str,
        result: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let failed = match &result {
            Ok(_) => false,
            // These are answers: the database works.
            Err(StoreError::LeaseLost { .. } | StoreError::ContextOffset { .. }) => false,
            Err(_) => true,
        };
        if failed {
            self.metrics.database_failed(action);
        }
        result
    }
}

macro_rules! pass_on {
    ($($action:ident($($name:ident: $type:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl TaskStore for CountedStore {
            $(async fn $action(&self, $($name: $type),*) -> Result<$answer, StoreError> {
                self.count(stringify!($action), self.store.$action($($name),*).await)
            })*
        }
    };
}

pass_on! {
    enqueue(task: &NewTask) -> ();
    claim(owner: &str, lease: Duration, per_app: Option<u32>) -> Option<Claim>;
    heartbeat(lease: &Lease, time: Duration) -> ();
    finish(lease: &Lease, outcome: &Outcome) -> ();
    release(lease: &Lease) -> ();
    recover(max_attempts: u32) -> Recovered;
    recover_owner(owner: &str, max_attempts: u32) -> Recovered;
    queue() -> QueueState;
    cancel(id: &TaskId, reason: &str) -> Cancelled;
    cancel_requests(owner: &str) -> Vec<CancelRequest>;
    get(id: &TaskId) -> Option<Task>;
    dockerfile(id: &TaskId) -> Option<String>;
    list() -> Vec<Task>;
    page(query: &PageQuery) -> Page;
    ahead(id: &TaskId) -> Option<u64>;
    steps(id: &TaskId) -> Vec<Step>;
    record(lease: &Lease, progress: &Progress) -> u64;
    log_info(id: &TaskId) -> Option<LogInfo>;
    read_log(id: &TaskId, offset: u64, limit: u64) -> LogPart;
    prune_logs(retention: &Retention) -> Vec<TaskId>;
    begin_context(context: &Context) -> ();
    append_context(id: &ContextId, offset: u64, data: &[u8]) -> ();
    complete_context(id: &ContextId, size: u64) -> ();
    context(id: &ContextId) -> Option<Context>;
    read_context(id: &ContextId, offset: u64, limit: u64) -> Vec<u8>;
    prune_contexts(age: Duration) -> u64;
    ping() -> ();
}
