//! The routes beyond Darwin's: builds with everything that the library can do, uploaded
//! contexts, logs that can be followed.

pub(crate) mod build;
pub(crate) mod builds;
pub(crate) mod contexts;
pub(crate) mod list;
pub(crate) mod logs;
pub(crate) mod submit;

use ocibuild_store::{Task, TaskId};

use super::error::ApiError;
use crate::app::App;
use crate::auth::Principal;

/// Finds the task of a path, for somebody who may see it.
pub(crate) async fn find(app: &App, who: &Principal, id: &str) -> Result<Task, ApiError> {
    let id: TaskId = id.parse().map_err(|_| ApiError::NotFound)?;
    let task = app.store.get(&id).await?;
    task.filter(|task| who.sees(task)).ok_or(ApiError::NotFound)
}
