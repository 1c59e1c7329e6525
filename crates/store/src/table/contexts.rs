//! Uploaded contexts.

use crate::database::{Database, Work};
use crate::statement::sql;
use crate::store::{Result, StoreError};
use crate::table::chunks::CONTEXT;
use crate::table::row::size;
use crate::{Context, ContextId};

pub(super) async fn begin<D: Database>(database: &D, context: &Context) -> Result<()> {
    let mut work = Work::plain(database, "begin the upload of a context").await?;
    let insert = sql("INSERT INTO ocibuild_context (context_id, tenant, used_at)
         VALUES (?, ?, {now})")
    .bind(context.id.as_str())
    .bind(context.tenant.as_deref());
    work.execute(insert).await?;
    Ok(())
}

pub(super) async fn append<D: Database>(
    database: &D,
    id: &ContextId,
    offset: u64,
    data: &[u8],
) -> Result<()> {
    let mut work = Work::transaction(database, "add to a context").await?;
    let update = sql(
        "UPDATE ocibuild_context SET size = size + ?, used_at = {now}
         WHERE context_id = ? AND size = ? AND complete = 0",
    )
    .bind(data.len() as u64)
    .bind(id.as_str())
    .bind(offset);
    if work.execute(update).await? == 0 {
        work.commit().await?;
        return Err(misplaced(id, offset));
    }
    CONTEXT.add(&mut work, id.as_str(), offset, data).await?;
    work.commit().await
}

/// Also succeeds when it did before, and only the answer was lost.
pub(super) async fn complete<D: Database>(database: &D, id: &ContextId, length: u64) -> Result<()> {
    let mut work = Work::plain(database, "complete a context").await?;
    let update = sql("UPDATE ocibuild_context SET complete = 1, used_at = {now}
         WHERE context_id = ? AND size = ?");
    let found = work.execute(update.bind(id.as_str()).bind(length)).await? == 1;
    found.then_some(()).ok_or_else(|| misplaced(id, length))
}

pub(super) async fn get<D: Database>(database: &D, id: &ContextId) -> Result<Option<Context>> {
    let mut work = Work::plain(database, "look for a context").await?;
    let select = sql("SELECT tenant, size, complete FROM ocibuild_context WHERE context_id = ?");
    let row: Option<(Option<String>, i64, i64)> = work.row(select.bind(id.as_str())).await?;
    Ok(row.map(|(tenant, length, complete)| Context {
        id: id.clone(),
        tenant,
        size: size(length),
        complete: complete != 0,
    }))
}

pub(super) async fn read<D: Database>(
    database: &D,
    id: &ContextId,
    offset: u64,
    limit: u64,
) -> Result<Vec<u8>> {
    let mut work = Work::plain(database, "read a context").await?;
    CONTEXT.read(&mut work, id.as_str(), offset, limit).await
}

fn misplaced(id: &ContextId, offset: u64) -> StoreError {
    StoreError::ContextOffset {
        context: id.clone(),
        offset,
    }
}
