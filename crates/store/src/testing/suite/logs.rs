//! Logs and steps.

use super::{LEASE, begun, claimed, complete, found, log_text, lost, new_task};
use crate::{Lease, LogInfo, LogPart, NewTask, Progress, Step, StepState, TaskId, TaskStore};

pub(super) async fn check(store: &dyn TaskStore) {
    a_log_grows_only_at_its_end(store).await;
    only_the_owner_adds_to_a_log(store).await;
    a_log_is_read_from_any_byte(store).await;
    an_unknown_task_has_no_log(store).await;
    an_empty_log_is_a_log(store).await;
    steps_are_replaced_by_number(store).await;
    a_new_attempt_begins_without_steps(store).await;
}

fn part(offset: u64, log: &[u8]) -> Progress {
    Progress {
        offset,
        log: log.to_owned(),
        ..Progress::default()
    }
}

async fn a_log_grows_only_at_its_end(store: &dyn TaskStore) {
    let new = NewTask {
        log: "begin\n".to_owned(),
        ..new_task("grows")
    };
    let claim = begun(store, &new).await;
    let record = async |progress: Progress| store.record(&claim.lease, &progress).await.unwrap();
    assert_eq!(record(part(6, b"one\n")).await, 10);
    assert_eq!(
        record(part(6, b"one\n")).await,
        10,
        "it came through before"
    );
    assert_eq!(record(part(8, b"two\n")).await, 10, "it overlaps");
    assert_eq!(record(part(99, b"two\n")).await, 10, "it would leave a gap");
    assert_eq!(record(part(10, b"")).await, 10, "nothing is added");
    // What does not depend on the place is noted nevertheless.
    let known = Progress {
        commit: Some("c0ffee".to_owned()),
        ..part(3, b"x")
    };
    assert_eq!(record(known).await, 10);
    assert_eq!(
        found(store, &new.id).await.commit.as_deref(),
        Some("c0ffee")
    );
    assert_eq!(record(part(10, b"two\n")).await, 14);
    assert_eq!(log_text(store, &new.id).await, "begin\none\ntwo\n");
    let running = LogInfo {
        length: 14,
        ended: false,
    };
    assert_eq!(store.log_info(&new.id).await.unwrap(), Some(running));
    complete(store, &claim.lease).await;
    let task = found(store, &new.id).await;
    assert_eq!(
        task.commit.as_deref(),
        Some("c0ffee"),
        "the end did not know it"
    );
    let ended = LogInfo {
        ended: true,
        ..running
    };
    assert_eq!(store.log_info(&new.id).await.unwrap(), Some(ended));
}

async fn only_the_owner_adds_to_a_log(store: &dyn TaskStore) {
    let new = new_task("owned");
    let claim = begun(store, &new).await;
    let progress = Progress {
        steps: vec![step(1)],
        commit: Some("c0ffee".to_owned()),
        ..part(new.log.len() as u64, b"forged\n")
    };
    let forged = Lease::new(new.id.clone());
    assert!(lost(store.record(&forged, &progress).await));
    let empty = part(new.log.len() as u64, b"");
    assert!(lost(store.record(&forged, &empty).await));
    complete(store, &claim.lease).await;
    assert!(lost(store.record(&claim.lease, &progress).await));
    assert_eq!(log_text(store, &new.id).await, new.log);
    assert_eq!(store.steps(&new.id).await.unwrap(), []);
    assert_eq!(found(store, &new.id).await.commit, None);
}

async fn a_log_is_read_from_any_byte(store: &dyn TaskStore) {
    let new = new_task("pieces");
    let claim = begun(store, &new).await;
    let mut expected = new.log.clone().into_bytes();
    // Longer than one row can be, exactly as long, and short; bytes that are no text, too.
    for length in [150_001_usize, 65_536, 1, 131_072, 7] {
        let piece: Vec<u8> = (0..length).map(|byte| (byte % 251) as u8).collect();
        let progress = part(expected.len() as u64, &piece);
        expected.extend(&piece);
        let length = store.record(&claim.lease, &progress).await.unwrap();
        assert_eq!(length, expected.len() as u64);
    }
    complete(store, &claim.lease).await;
    let begin = new.log.len();
    let second = begin + 65_536;
    for offset in [
        0,
        1,
        begin - 1,
        begin,
        begin + 1,
        second - 1,
        second,
        begin + 150_001,
    ] {
        for limit in [0, 1, 2, 65_536, 65_537, 200_000, usize::MAX] {
            let read = store
                .read_log(&new.id, offset as u64, limit as u64)
                .await
                .unwrap();
            let end = offset.saturating_add(limit.max(1)).min(expected.len());
            assert!(read.data == expected[offset..end], "{offset} {limit}");
            assert_eq!(read.info.length, expected.len() as u64);
        }
    }
    for offset in [expected.len() as u64, expected.len() as u64 + 1, u64::MAX] {
        let read = store.read_log(&new.id, offset, 10).await.unwrap();
        assert_eq!(read.data, b"", "{offset}");
        assert!(read.info.ended);
    }
}

async fn an_unknown_task_has_no_log(store: &dyn TaskStore) {
    let id = TaskId::random();
    assert_eq!(store.log_info(&id).await.unwrap(), None);
    let nothing = LogPart {
        data: Vec::new(),
        info: LogInfo {
            length: 0,
            ended: true,
        },
    };
    assert_eq!(store.read_log(&id, 0, 10).await.unwrap(), nothing);
    assert_eq!(store.steps(&id).await.unwrap(), []);
}

async fn an_empty_log_is_a_log(store: &dyn TaskStore) {
    let new = NewTask {
        log: String::new(),
        ..new_task("empty")
    };
    store.enqueue(&new).await.unwrap();
    let info = LogInfo {
        length: 0,
        ended: false,
    };
    assert_eq!(store.log_info(&new.id).await.unwrap(), Some(info));
    let claim = claimed(store).await;
    assert_eq!(store.record(&claim.lease, &part(0, b"x")).await.unwrap(), 1);
    complete(store, &claim.lease).await;
}

fn step(number: u32) -> Step {
    Step {
        number,
        name: format!("[stage 1/2] RUN echo {number} größe"),
        state: StepState::Running,
        begin_millis: 17,
        millis: None,
        layer: None,
        layer_size: None,
        error: None,
    }
}

async fn steps_are_replaced_by_number(store: &dyn TaskStore) {
    let claim = begun(store, &new_task("steps")).await;
    let record = async |steps: &[Step]| {
        let progress = Progress {
            steps: steps.to_owned(),
            ..part(1 << 40, b"")
        };
        store.record(&claim.lease, &progress).await.unwrap();
    };
    record(&[step(2), step(1)]).await;
    let steps = store.steps(&claim.task.id).await.unwrap();
    assert_eq!(steps, [step(1), step(2)]);
    let mut all = Vec::new();
    for (number, state) in (1..).zip(StepState::ALL) {
        all.push(Step {
            state,
            millis: Some(1234),
            layer: Some("sha256:5".to_owned()),
            layer_size: Some(5 << 32),
            error: Some("exit 1".to_owned()),
            ..step(number)
        });
    }
    record(&all).await;
    record(&all).await;
    assert_eq!(store.steps(&claim.task.id).await.unwrap(), all);
    complete(store, &claim.lease).await;
    assert_eq!(store.steps(&claim.task.id).await.unwrap(), all);
}

async fn a_new_attempt_begins_without_steps(store: &dyn TaskStore) {
    let new = new_task("attempts");
    let first = begun(store, &new).await;
    let progress = Progress {
        steps: vec![step(1)],
        ..part(new.log.len() as u64, b"first\n")
    };
    let length = store.record(&first.lease, &progress).await.unwrap();
    store.release(&first.lease).await.unwrap();
    let second = store
        .claim("suite", LEASE, Some(1))
        .await
        .unwrap()
        .expect("it waits");
    assert_eq!(store.steps(&new.id).await.unwrap(), []);
    // The log goes on behind what the first attempt wrote.
    let more = part(length, b"second\n");
    store.record(&second.lease, &more).await.unwrap();
    assert!(log_text(store, &new.id).await.ends_with("first\nsecond\n"));
    complete(store, &second.lease).await;
}
