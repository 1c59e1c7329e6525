//! What is deleted when: logs that are old or too many, contexts that nobody builds.

use std::sync::Arc;
use std::time::Duration;

use ocibuild_store::{Retention, StoreError};

use crate::app::App;

/// How often the service looks.
const PAUSE: Duration = Duration::from_secs(600);

/// Keeps what is stored within its limits, until the service ends. Several replicas may do
/// it at once.
pub(crate) async fn run(app: Arc<App>) {
    loop {
        if let Err(error) = prune(&app).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "nothing was pruned"
            );
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = app.closing.cancelled() => return,
        }
    }
}

/// Deletes what is too old or too much.
async fn prune(app: &App) -> Result<(), StoreError> {
    let rules = &app.config.retention;
    let retention = Retention {
        age: rules.log_age,
        total_bytes: rules.log_total_bytes,
    };
    for id in app.store.prune_logs(&retention).await? {
        if let Err(error) = app.logs.folder().remove(&id) {
            tracing::warn!(task = %id, %error, "the file of a pruned log stays behind");
        }
        tracing::info!(task = %id, "the log was pruned");
    }
    let contexts = app.store.prune_contexts(rules.context_age).await?;
    if contexts > 0 {
        tracing::info!(contexts, "old contexts were deleted");
    }
    Ok(())
}
