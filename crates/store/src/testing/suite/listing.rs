//! Pages of tasks.

use super::{begun, complete, found, new_task};
use crate::{Cursor, NewTask, Order, Page, PageQuery, TaskState, TaskStore};

pub(super) async fn check(store: &dyn TaskStore) {
    pages_hold_every_task_once(store).await;
    pages_stay_stable_while_tasks_come(store).await;
    pages_keep_to_every_filter(store).await;
    every_cursor_is_answered(store).await;
}

/// Only the tasks of this suite's own tenant, so that those of other cases do not count.
fn query(tenant: &str) -> PageQuery {
    PageQuery {
        tenant: Some(tenant.to_owned()),
        state: None,
        app_name: None,
        image_tag: None,
        order: Order::Oldest,
        limit: 3,
        after: None,
    }
}

fn tags(page: &Page) -> Vec<&str> {
    page.tasks
        .iter()
        .map(|task| task.image_tag.as_str())
        .collect()
}

async fn enqueue(store: &dyn TaskStore, tenant: &str, tag: &str) -> NewTask {
    let new = NewTask {
        tenant: Some(tenant.to_owned()),
        ..new_task(tag)
    };
    store.enqueue(&new).await.unwrap();
    new
}

async fn pages_hold_every_task_once(store: &dyn TaskStore) {
    for number in 0..7 {
        let new = enqueue(store, "pages", &format!("page-{number}")).await;
        store.cancel(&new.id, "only a row").await.unwrap();
    }
    for order in [Order::Oldest, Order::Newest] {
        for limit in [1, 2, 6, 7, 8] {
            let mut asked = PageQuery {
                order,
                limit,
                ..query("pages")
            };
            let mut seen = Vec::new();
            loop {
                let page = store.page(&asked).await.unwrap();
                assert!(page.tasks.len() <= limit as usize);
                seen.extend(page.tasks);
                asked.after = page.next;
                if asked.after.is_none() {
                    break;
                }
            }
            if order == Order::Newest {
                seen.reverse();
            }
            let place = |index: usize| (seen[index].created_at, seen[index].id.clone());
            assert_eq!(seen.len(), 7, "{order:?} {limit}");
            assert!((1..7).all(|index| place(index - 1) < place(index)));
        }
    }
    let none = PageQuery {
        limit: 0,
        ..query("pages")
    };
    assert_eq!(store.page(&none).await.unwrap().tasks, []);
}

async fn pages_stay_stable_while_tasks_come(store: &dyn TaskStore) {
    let tenant = "stable";
    for number in 0..4 {
        let new = enqueue(store, tenant, &format!("stable-{number}")).await;
        store.cancel(&new.id, "only a row").await.unwrap();
    }
    let first = PageQuery {
        order: Order::Newest,
        limit: 2,
        ..query(tenant)
    };
    let page = store.page(&first).await.unwrap();
    let mut seen: Vec<_> = page.tasks.iter().map(|task| task.id.clone()).collect();
    let late = enqueue(store, tenant, "late").await;
    store.cancel(&late.id, "only a row").await.unwrap();
    let second = PageQuery {
        after: page.next,
        ..first
    };
    let page = store.page(&second).await.unwrap();
    seen.extend(page.tasks.iter().map(|task| task.id.clone()));
    assert_eq!((seen.len(), page.next), (4, None));
    assert!(!seen.contains(&late.id));
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 4);
}

async fn pages_keep_to_every_filter(store: &dyn TaskStore) {
    let tenant = "filters";
    let special = NewTask {
        tenant: Some(tenant.to_owned()),
        app_name: "x' OR '1' = '1".to_owned(),
        ..new_task("special")
    };
    let claim = begun(store, &special).await;
    let plain = enqueue(store, tenant, "plain").await;
    let of = |change: fn(&mut PageQuery)| {
        let mut query = query(tenant);
        change(&mut query);
        query
    };
    for (asked, expected) in [
        (of(|_| ()), vec!["special", "plain"]),
        (of(|q| q.state = Some(TaskState::Running)), vec!["special"]),
        (of(|q| q.state = Some(TaskState::Waiting)), vec!["plain"]),
        (of(|q| q.state = Some(TaskState::Failed)), vec![]),
        (
            of(|q| q.app_name = Some("x' OR '1' = '1".to_owned())),
            vec!["special"],
        ),
        (of(|q| q.app_name = Some("serve".to_owned())), vec!["plain"]),
        (
            of(|q| q.image_tag = Some("plain".to_owned())),
            vec!["plain"],
        ),
        (of(|q| q.tenant = Some("x' OR '1' = '1".to_owned())), vec![]),
        (of(|q| q.tenant = Some("FILTERS".to_owned())), vec![]),
    ] {
        let page = store.page(&asked).await.unwrap();
        assert_eq!(tags(&page), expected, "{asked:?}");
    }
    let everybody = PageQuery {
        tenant: None,
        order: Order::Newest,
        ..query(tenant)
    };
    let page = store.page(&everybody).await.unwrap();
    assert_eq!(page.tasks.len(), 3);
    assert!(page.next.is_some());
    complete(store, &claim.lease).await;
    store.cancel(&plain.id, "only a row").await.unwrap();
}

async fn every_cursor_is_answered(store: &dyn TaskStore) {
    let new = enqueue(store, "cursors", "cursor").await;
    store.cancel(&new.id, "only a row").await.unwrap();
    let behind = async |order, created_micros, task_id: &str| {
        let cursor = Cursor {
            created_micros,
            task_id: task_id.to_owned(),
        };
        let asked = PageQuery {
            order,
            after: Some(cursor),
            ..query("cursors")
        };
        store.page(&asked).await.unwrap().tasks.len()
    };
    for hostile in ["", "' OR 1 = 1 --", "größe 🦀", &"x".repeat(10_000)] {
        assert_eq!(behind(Order::Oldest, i64::MIN, hostile).await, 1);
        assert_eq!(behind(Order::Oldest, i64::MAX / 2, hostile).await, 0);
        assert_eq!(behind(Order::Newest, i64::MAX / 2, hostile).await, 1);
    }
    let created = found(store, &new.id).await.created_at.timestamp_micros();
    // The smallest steps that both databases keep apart.
    assert_eq!(behind(Order::Oldest, created, new.id.as_str()).await, 0);
    assert_eq!(behind(Order::Newest, created, new.id.as_str()).await, 0);
    assert_eq!(behind(Order::Oldest, created, "id-").await, 1);
    assert_eq!(behind(Order::Newest, created, "id-g").await, 1);
    assert_eq!(behind(Order::Oldest, created + 1000, "id-").await, 0);
    assert_eq!(behind(Order::Newest, created - 1000, "id-g").await, 0);
}
