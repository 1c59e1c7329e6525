//! What clients and builds may take of the machine.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ocibuild_registry::testing::Registry;
use serde_json::json;

use crate::command::Place;
use crate::served::{Served, until};

const GIBIBYTE: u64 = 1 << 30;
/// What the service may take while somebody sends it a gibibyte; an idle one has some 30.
const MEBIBYTES: u64 = 128;

fn site(vars: &[(&str, String)]) -> (Place, Registry, Served) {
    let place = Place::new();
    let registry = Registry::start().unwrap();
    place.push_base(registry.reference("base:1"));
    let own = [("LOCAL_REGISTRY", registry.host())];
    let service = Served::start(&place, "data", &[&own, vars].concat());
    (place, registry, service)
}

fn running(registry: &Registry, command: &str) -> serde_json::Value {
    let text = format!("FROM {}/base:1\nRUN {command}\n", registry.host());
    json!({
        "app_name": "app",
        "image_tag": "v1",
        "context": {"type": "empty"},
        "dockerfile": {"text": text},
    })
}

/// Sends a body of a gibibyte as far as it is taken; gives the first line of the answer.
fn send(service: &Served, kind: &str, start: &str, filler: u8) -> String {
    let address = service.url.trim_start_matches("http://");
    let mut connection = TcpStream::connect(address).unwrap();
    write!(
        connection,
        "POST /build_with_dockerfile HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Type: {kind}\r\nContent-Length: {GIBIBYTE}\r\n\r\n{start}"
    )
    .unwrap();
    let part = vec![filler; 1 << 20];
    for _ in 0..1024 {
        if connection.write_all(&part).is_err() {
            break;
        }
    }
    let mut answer = String::new();
    // A server that has said what it thinks may close before it has read everything.
    let _ = connection.read_to_string(&mut answer);
    answer.lines().next().unwrap_or_default().to_owned()
}

/// The most memory that a process ever had, in MiB (proc_pid_status(5)).
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kibibytes = line.unwrap().split_whitespace().nth(1).unwrap();
    kibibytes.parse::<u64>().unwrap() / 1024
}

#[test]
fn forms_of_a_gibibyte_are_refused_and_not_kept() {
    let (place, _registry, service) = site(&[]);
    let part = "--b\r\nContent-Disposition: form-data; name=\"dockerfile\"; filename=\"Dockerfile\"\r\n\r\n";
    for (kind, start) in [
        ("application/x-www-form-urlencoded", "app_name="),
        ("multipart/form-data; boundary=b", part),
    ] {
        let line = send(&service, kind, start, b'a');
        assert!(line.is_empty() || line.contains(" 4"), "{kind}: {line}");
        let peak = peak_memory(service.pid());
        assert!(peak < MEBIBYTES, "{kind}: {peak} MiB");
    }
    assert_eq!(
        service.text("/task"),
        r#"{"status":"SUCCESS","data":[],"message":""}"#
    );
    let largest = |path: &std::path::Path| {
        let entries = std::fs::read_dir(path).unwrap();
        entries
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .max()
    };
    assert!(largest(&place.path("data")).unwrap() < 16 << 20);
}

/// A command with processes that want to outlive it, and their mark in the process list.
fn stubborn(mark: u32) -> String {
    format!(
        "(trap '' TERM INT HUP; sleep {mark}) & setsid sh -c \"trap '' TERM; sleep {mark}\" & \
         echo at-work; sleep {mark}"
    )
}

fn marked(mark: u32) -> usize {
    let mark = format!("sleep\0{mark}\0");
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read(entry.unwrap().path().join("cmdline")).ok())
        .filter(|line| line == mark.as_bytes())
        .count()
}

#[test]
fn a_cancelled_build_is_gone_with_everything_that_it_started() {
    let (_place, registry, service) = site(&[]);
    let mark = 900_000 + std::process::id() % 90_000;
    let task = service.submit_json(&running(&registry, &stubborn(mark)));
    until("the processes of the step", || marked(mark) == 3);
    let cancelled = Instant::now();
    let answer = service
        .post(&format!("/v1/builds/{task}/cancel"))
        .send()
        .unwrap();
    assert!(answer.status().is_success());
    until("their end", || marked(mark) == 0);
    assert!(cancelled.elapsed() < Duration::from_secs(2));
    service.assert_fails(&task, "cancel");
}

#[test]
fn a_build_that_takes_too_long_is_killed_with_everything_that_it_started() {
    let (_place, registry, service) = site(&[("OCIBUILD_BUILD_TIMEOUT", "2s".to_owned())]);
    let mark = 800_000 + std::process::id() % 90_000;
    let task = service.submit_json(&running(&registry, &stubborn(mark)));
    service.assert_fails(&task, "2 s");
    assert_eq!(marked(mark), 0);
}

#[test]
fn a_build_that_takes_too_much_memory_ends_alone() {
    let (_place, registry, service) = site(&[]);
    // What has no end of a line is kept by tail until it ends.
    let mut hungry = running(&registry, "head -c 400000000 /dev/zero | tail -n 1 | wc -c");
    hungry["limits"] = json!({"memory_bytes": 128 << 20});
    let hungry = service.submit_json(&hungry);
    let modest = service.submit_json(&running(&registry, "echo fine"));
    service.assert_fails(&hungry, "memory");
    let ended = service.follow(&modest);
    assert_eq!(ended.state, "completed", "{}", ended.log);
}
