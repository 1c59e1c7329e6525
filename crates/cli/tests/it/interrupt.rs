//! Ctrl-C ends a build and everything that it started.

use std::io::{BufRead, BufReader};
use std::process::Command;
use std::time::{Duration, Instant};

use ocibuild::testing::ContextDir;

use crate::command::{Place, build_arguments};

/// Tells whether a process has a text in its command line.
fn runs(text: &str) -> bool {
    let all = std::fs::read_dir("/proc").unwrap().map(Result::unwrap);
    all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .any(|line| {
            String::from_utf8_lossy(&line)
                .replace('\0', " ")
                .contains(text)
        })
}

#[test]
fn ctrl_c_ends_everything() {
    let place = Place::new();
    let sleep = format!("sleep {}", 8_000_000 + std::process::id());
    let text = format!("FROM busybox\nRUN touch /left; (setsid {sleep} &); echo ready; {sleep}\n");
    let context = ContextDir::new().file("Dockerfile", text);
    let arguments = build_arguments(context.path().to_str().unwrap(), &["--progress", "plain"]);
    let mut child = place.command(&arguments).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let ready = lines
        .by_ref()
        .map(Result::unwrap)
        .find(|line| line.ends_with(" ready"));
    assert!(ready.is_some(), "the command has started");
    assert!(runs(&sleep));

    let start = Instant::now();
    let signal = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(signal.unwrap().success());
    let status = child.wait().unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(status.code(), Some(130));
    assert!(!runs(&sleep));
    place.assert_tidy();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(
        rest.contains(&"error: the build was cancelled".to_owned()),
        "{rest:?}"
    );
}
