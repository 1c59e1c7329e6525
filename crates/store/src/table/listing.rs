//! Reading tasks: one, all, a page, and how long the queue is.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};

use crate::database::{Database, Work};
use crate::statement::{Statement, sql};
use crate::store::Result;
use crate::table::row::{COLUMNS, TABLES, TaskRow, readable_tasks, size};
use crate::{Order, Page, PageQuery, QueueState, Task, TaskId};

pub(super) async fn get<D: Database>(database: &D, id: &TaskId) -> Result<Option<Task>> {
    let mut work = Work::plain(database, "read a task").await?;
    let statement = tasks().and("WHERE d.task_id = ?").bind(id.as_str());
    let row: Option<TaskRow> = work.row(statement).await?;
    row.map(TaskRow::into_task).transpose()
}

pub(super) async fn dockerfile<D: Database>(database: &D, id: &TaskId) -> Result<Option<String>> {
    let mut work = Work::plain(database, "read an uploaded Dockerfile").await?;
    let statement = sql("SELECT dockerfile FROM ocibuild_task WHERE task_id = ?");
    let row: Option<(Option<String>,)> = work.row(statement.bind(id.as_str())).await?;
    Ok(row.and_then(|(text,)| text))
}

pub(super) async fn list<D: Database>(database: &D) -> Result<Vec<Task>> {
    let mut work = Work::plain(database, "list the tasks").await?;
    let rows = work.rows(tasks().and("{in order}")).await?;
    let mut tasks = readable_tasks(rows);
    // Those of one moment stay as they came.
    tasks.sort_by_key(|task| task.created_at);
    Ok(tasks)
}

pub(super) async fn page<D: Database>(database: &D, query: &PageQuery) -> Result<Page> {
    let mut work = Work::plain(database, "list a page of tasks").await?;
    let mut rows: Vec<TaskRow> = work.rows(page_statement(query)).await?;
    // The row too many only tells that there is one.
    let limit = query.limit as usize;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(TaskRow::cursor);
    Ok(Page {
        tasks: readable_tasks(rows),
        next,
    })
}

pub(super) async fn ahead<D: Database>(database: &D, id: &TaskId) -> Result<Option<u64>> {
    let mut work = Work::plain(database, "count the tasks ahead").await?;
    let statement = sql("SELECT (
             SELECT COUNT(*) FROM darwin_image_builder e
             WHERE e.status = 'waiting'
               AND (e.created_at < d.created_at
                    OR (e.created_at = d.created_at AND e.{arrival} < d.{arrival})))
         FROM darwin_image_builder d
         WHERE d.task_id = ? AND d.status = 'waiting'");
    let count: Option<(i64,)> = work.row(statement.bind(id.as_str())).await?;
    Ok(count.map(|(count,)| size(count)))
}

pub(super) async fn queue<D: Database>(database: &D) -> Result<QueueState> {
    let mut work = Work::plain(database, "measure the queue").await?;
    let waiting = sql("SELECT COUNT(*), {wait} FROM darwin_image_builder
         WHERE status = 'waiting'");
    let running = sql("SELECT COUNT(*) FROM darwin_image_builder WHERE status = 'running'");
    let (waiting, wait): (i64, Option<i64>) = work.row(waiting).await?.unwrap_or_default();
    let (running,): (i64,) = work.row(running).await?.unwrap_or_default();
    Ok(QueueState {
        waiting: size(waiting),
        running: size(running),
        oldest_waiting: wait.map(|micros| Duration::from_micros(size(micros))),
    })
}

pub(super) async fn ping<D: Database>(database: &D) -> Result<()> {
    let mut work = Work::plain(database, "reach the task database").await?;
    let statement = sql("SELECT task_id FROM darwin_image_builder LIMIT 1");
    let _: Option<(String,)> = work.row(statement).await?;
    Ok(())
}

fn tasks() -> Statement {
    sql("SELECT").and(COLUMNS).and(TABLES)
}

fn page_statement(query: &PageQuery) -> Statement {
    let mut statement = tasks().and("WHERE 1 = 1");
    if let Some(tenant) = &query.tenant {
        statement = statement.and("AND o.tenant = ?").bind(tenant.as_str());
    }
    if let Some(state) = query.state {
        statement = statement.and("AND d.status = ?").bind(state.as_str());
    }
    if let Some(app) = &query.app_name {
        statement = statement.and("AND d.app_name = ?").bind(app.as_str());
    }
    if let Some(tag) = &query.image_tag {
        statement = statement.and("AND d.image_tag = ?").bind(tag.as_str());
    }
    if let Some(cursor) = &query.after {
        let behind = match query.order {
            Order::Oldest => "AND d.created_at >= ? AND (d.created_at > ? OR d.task_id > ?)",
            Order::Newest => "AND d.created_at <= ? AND (d.created_at < ? OR d.task_id < ?)",
        };
        let created = moment(cursor.created_micros);
        statement = statement
            .and(behind)
            .bind(created)
            .bind(created)
            .bind(cursor.task_id.as_str());
    }
    let order = match query.order {
        Order::Oldest => "ORDER BY d.created_at, d.task_id LIMIT ?",
        Order::Newest => "ORDER BY d.created_at DESC, d.task_id DESC LIMIT ?",
    };
    statement.and(order).bind(query.limit.saturating_add(1))
}

/// Gives a moment that both databases can hold: a cursor may come from anybody.
fn moment(micros: i64) -> DateTime<Utc> {
    let midnight = |year| {
        NaiveDate::from_ymd_opt(year, 1, 1)
            .map(|day| day.and_time(NaiveTime::MIN).and_utc())
            .unwrap_or_default()
    };
    DateTime::from_timestamp_micros(micros)
        .unwrap_or_default()
        .clamp(midnight(1000), midnight(9999))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cursor_is_a_moment() {
        for micros in [i64::MIN, -1, 0, 1_700_000_000_123_456, i64::MAX] {
            let text = moment(micros).format("%Y-%m-%d").to_string();
            assert_eq!(text.len(), 10, "{text}");
        }
        assert_eq!(
            moment(1_700_000_000_123_456).timestamp_subsec_micros(),
            123_456
        );
    }
}
