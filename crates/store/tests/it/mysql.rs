use std::sync::Arc;
use std::time::Duration;

use ocibuild_store::testing::{MariaDb, check_restart, check_store, fill_for_restart, new_task};
use ocibuild_store::{MySqlSettings, MySqlStore, TaskStore};
use sqlx::Executor;

use crate::support::{connection, server};
use crate::{darwin, schema};

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_suite() {
    let Some(server) = server(MariaDb::start()) else {
        return;
    };
    let store = MySqlStore::connect(&server.settings("suite"))
        .await
        .unwrap();
    check_store(Arc::new(store)).await;

    // The same server also judges what is about databases rather than about tasks.
    a_limit_is_counted_under_a_lock(&server).await;
    schema::check(&server).await;
    darwin::check(&server).await;
}

/// Two replicas that count at the same moment would both see room for one more.
async fn a_limit_is_counted_under_a_lock(server: &MariaDb) {
    const LEASE: Duration = Duration::from_secs(60);
    let settings = MySqlSettings {
        timeout: Duration::from_millis(500),
        ..server.settings("limits")
    };
    let store = MySqlStore::connect(&settings).await.unwrap();
    for tag in ["first", "second", "third"] {
        store.enqueue(&new_task(tag)).await.unwrap();
    }
    store.claim("test", LEASE, Some(3)).await.unwrap().unwrap();
    let mut replica = connection(&settings).await;
    for statement in [
        "START TRANSACTION",
        "SELECT app_name FROM ocibuild_app WHERE app_name = 'serve' FOR UPDATE",
    ] {
        replica.execute(statement).await.unwrap();
    }
    let waits = store.claim("test", LEASE, Some(3)).await;
    assert!(waits.is_err(), "{waits:?}");
    let unlimited = store.claim("test", LEASE, None).await.unwrap();
    assert_eq!(unlimited.unwrap().task.image_tag, "second");
    replica.execute("COMMIT").await.unwrap();
    assert_eq!(store.claim("test", LEASE, Some(2)).await.unwrap(), None);
    let limited = store.claim("test", LEASE, Some(3)).await.unwrap();
    assert_eq!(limited.unwrap().task.image_tag, "third");
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_everything_over_a_crash() {
    let Some(mut server) = server(MariaDb::start()) else {
        return;
    };
    let store = MySqlStore::connect(&server.settings("restart"))
        .await
        .unwrap();
    let tasks = fill_for_restart(&store).await;
    server.stop();
    let impatient = MySqlSettings {
        timeout: Duration::from_millis(200),
        ..server.settings("restart")
    };
    assert!(MySqlStore::connect(&impatient).await.is_err());
    server.start_again().unwrap();
    // The pool that was open over the crash reconnects by itself.
    check_restart(&store, &tasks).await;
}
