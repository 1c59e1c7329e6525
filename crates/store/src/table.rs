//! The task table, the same for both databases.
//!
//! Every change of a task begins with the lock of its row in `darwin_image_builder`, then of
//! the one in `ocibuild_task`; whoever keeps to this order never waits in a circle.

mod cancel;
mod chunks;
mod claim;
mod contexts;
mod listing;
mod logs;
mod moves;
mod prune;
mod queue;
mod recover;
mod row;

use std::time::Duration;

use async_trait::async_trait;

use crate::database::{Database, retried};
use crate::store::{Claim, Lease, Recovered, Result, TaskStore};
use crate::{
    CancelRequest, Cancelled, Context, ContextId, LogInfo, LogPart, NewTask, Outcome, Page,
    PageQuery, Progress, QueueState, Retention, Step, Task, TaskId,
};

#[async_trait]
impl<D: Database> TaskStore for D {
    async fn enqueue(&self, task: &NewTask) -> Result<()> {
        retried(|| queue::enqueue(self, task)).await
    }

    async fn claim(
        &self,
        owner: &str,
        lease: Duration,
        per_app: Option<u32>,
    ) -> Result<Option<Claim>> {
        retried(|| claim::claim(self, owner, lease, per_app)).await
    }

    async fn heartbeat(&self, lease: &Lease, time: Duration) -> Result<()> {
        retried(|| queue::heartbeat(self, lease, time)).await
    }

    async fn finish(&self, lease: &Lease, outcome: &Outcome) -> Result<()> {
        retried(|| queue::finish(self, lease, outcome)).await
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        retried(|| queue::release(self, lease)).await
    }

    async fn recover(&self, max_attempts: u32) -> Result<Recovered> {
        recover::recover(self, recover::Whose::Expired, max_attempts).await
    }

    async fn recover_owner(&self, owner: &str, max_attempts: u32) -> Result<Recovered> {
        recover::recover(self, recover::Whose::Owner(owner), max_attempts).await
    }

    async fn queue(&self) -> Result<QueueState> {
        listing::queue(self).await
    }

    async fn cancel(&self, id: &TaskId, reason: &str) -> Result<Cancelled> {
        retried(|| cancel::cancel(self, id, reason)).await
    }

    async fn cancel_requests(&self, owner: &str) -> Result<Vec<CancelRequest>> {
        cancel::requests(self, owner).await
    }

    async fn get(&self, id: &TaskId) -> Result<Option<Task>> {
        listing::get(self, id).await
    }

    async fn dockerfile(&self, id: &TaskId) -> Result<Option<String>> {
        listing::dockerfile(self, id).await
    }

    async fn list(&self) -> Result<Vec<Task>> {
        listing::list(self).await
    }

    async fn page(&self, query: &PageQuery) -> Result<Page> {
        listing::page(self, query).await
    }

    async fn ahead(&self, id: &TaskId) -> Result<Option<u64>> {
        listing::ahead(self, id).await
    }

    async fn steps(&self, id: &TaskId) -> Result<Vec<Step>> {
        logs::steps(self, id).await
    }

    async fn record(&self, lease: &Lease, progress: &Progress) -> Result<u64> {
        retried(|| logs::record(self, lease, progress)).await
    }

    async fn log_info(&self, id: &TaskId) -> Result<Option<LogInfo>> {
        logs::info(self, id).await
    }

    async fn read_log(&self, id: &TaskId, offset: u64, limit: u64) -> Result<LogPart> {
        logs::read(self, id, offset, limit).await
    }

    async fn prune_logs(&self, retention: &Retention) -> Result<Vec<TaskId>> {
        prune::logs(self, retention).await
    }

    async fn begin_context(&self, context: &Context) -> Result<()> {
        contexts::begin(self, context).await
    }

    async fn append_context(&self, id: &ContextId, offset: u64, data: &[u8]) -> Result<()> {
        retried(|| contexts::append(self, id, offset, data)).await
    }

    async fn complete_context(&self, id: &ContextId, size: u64) -> Result<()> {
        contexts::complete(self, id, size).await
    }

    async fn context(&self, id: &ContextId) -> Result<Option<Context>> {
        contexts::get(self, id).await
    }

    async fn read_context(&self, id: &ContextId, offset: u64, limit: u64) -> Result<Vec<u8>> {
        contexts::read(self, id, offset, limit).await
    }

    async fn prune_contexts(&self, age: Duration) -> Result<u64> {
        prune::contexts(self, age).await
    }

    async fn ping(&self) -> Result<()> {
        listing::ping(self).await
    }
}
