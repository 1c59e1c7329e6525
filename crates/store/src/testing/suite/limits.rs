//! How many tasks of one application run at once.

use std::sync::Arc;

use tokio::sync::Barrier;

use super::{LEASE, claimed, complete, new_task};
use crate::{Claim, NewTask, TaskStore};

pub(super) async fn check(store: &Arc<dyn TaskStore>) {
    others_pass_an_application_at_its_limit(&**store).await;
    claimers_do_not_exceed_the_limit_together(store).await;
}

fn task_of(app: &str, tag: &str) -> NewTask {
    NewTask {
        app_name: app.to_owned(),
        ..new_task(tag)
    }
}

async fn claim(store: &dyn TaskStore, per_app: u32) -> Option<Claim> {
    store.claim("suite", LEASE, Some(per_app)).await.unwrap()
}

async fn others_pass_an_application_at_its_limit(store: &dyn TaskStore) {
    // More of one application than one look at the queue offers.
    for number in 0..40 {
        store
            .enqueue(&task_of("busy", &format!("busy-{number}")))
            .await
            .unwrap();
    }
    store.enqueue(&task_of("quiet", "quiet-0")).await.unwrap();
    let tags = async |claims: &mut Vec<Claim>| {
        let claim = claim(store, 2).await?;
        let tag = claim.task.image_tag.clone();
        claims.push(claim);
        Some(tag)
    };
    let mut claims = Vec::new();
    assert_eq!(tags(&mut claims).await.as_deref(), Some("busy-0"));
    assert_eq!(tags(&mut claims).await.as_deref(), Some("busy-1"));
    assert_eq!(tags(&mut claims).await.as_deref(), Some("quiet-0"));
    assert_eq!(tags(&mut claims).await, None, "the limit is reached");
    let unlimited = claimed(store).await;
    assert_eq!(
        unlimited.task.image_tag, "busy-2",
        "without a limit they go on"
    );

    complete(store, &unlimited.lease).await;
    assert_eq!(tags(&mut claims).await, None, "two still run");
    complete(store, &claims[0].lease).await;
    assert_eq!(tags(&mut claims).await.as_deref(), Some("busy-3"));
    for claim in &claims[1..] {
        complete(store, &claim.lease).await;
    }
    while let Some(claim) = claim(store, 1).await {
        complete(store, &claim.lease).await;
    }
}

async fn claimers_do_not_exceed_the_limit_together(store: &Arc<dyn TaskStore>) {
    const CLAIMERS: usize = 8;
    for round in 0..6 {
        // A new application each time: the claimers also meet where nobody knows it yet.
        let app = format!("limited-{round}");
        for number in 0..CLAIMERS {
            store
                .enqueue(&task_of(&app, &format!("{app}-{number}")))
                .await
                .unwrap();
        }
        let start = Arc::new(Barrier::new(CLAIMERS));
        let claimers: Vec<_> = (0..CLAIMERS)
            .map(|_| {
                let (store, start) = (Arc::clone(store), Arc::clone(&start));
                tokio::spawn(async move {
                    start.wait().await;
                    claim(&*store, 2).await
                })
            })
            .collect();
        let mut claims = Vec::new();
        for claimer in claimers {
            claims.extend(claimer.await.unwrap());
        }
        assert_eq!(claims.len(), 2, "{claims:?}");
        for claim in claims {
            complete(&**store, &claim.lease).await;
        }
        while let Some(claim) = claim(&**store, 1).await {
            complete(&**store, &claim.lease).await;
        }
    }
}
