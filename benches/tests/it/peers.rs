//! The comparison of builders, with ocibuild as its own peer.

use std::path::Path;
use std::process::Command;

use ocibuild::testing::has_busybox;
use ocibuild_registry::testing::not_installed;
use serde_json::Value;

#[test]
fn a_peer_is_measured_in_turns() {
    let registry = ["/usr/bin/docker-registry", "/bin/docker-registry"];
    if !has_busybox() || !registry.iter().any(|path| Path::new(path).is_file()) {
        return not_installed("busybox-static or docker-registry");
    }
    let program = env!("CARGO_BIN_EXE_peers");
    let folder = tempfile::tempdir().expect("a folder");
    let report = folder.path().join("report");
    let other = format!("again={program} build --push --tag $IMAGE --root $STORE $CONTEXT");
    let output = Command::new(program)
        .args(["--only", "copy", "--rounds", "1", "--peer", "none"])
        .args(["--other", &other, "--json"])
        .arg(&report)
        .output()
        .expect("run the program");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    for expected in [
        "| SHA-256, one core |",
        "| copy cold | ocibuild |",
        "| copy rebased | again |",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let report = std::fs::read_to_string(report).expect("a report");
    let lines = report
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    let lines: Vec<Value> = lines.collect();
    let modes: Vec<_> = lines.iter().map(|line| line["mode"].as_str()).collect();
    let expected = ["cold", "unchanged", "edited", "rebased"].map(Some);
    assert_eq!(modes, expected.map(|mode| [mode; 2]).concat());
    for pair in lines.chunks(2) {
        assert_eq!(pair[0]["ratio"], 1.0);
        let number = |name: &str| {
            pair.iter()
                .map(|line| line[name].as_u64())
                .collect::<Vec<_>>()
        };
        let [sent, received, requests] = ["sent_bytes", "received_bytes", "requests"].map(number);
        match pair[0]["mode"].as_str() {
            Some("unchanged") => {
                assert_eq!(sent, [Some(0); 2]);
                // What is the base, and is it the image already?
                assert_eq!(requests, [Some(2); 2]);
            }
            Some("cold") => {
                assert!(
                    received > vec![Some(1_000_000); 2],
                    "the base is read: {pair:?}"
                );
                // Times in the configuration have no zeros at their end.
                let difference = sent[0].unwrap_or(0).abs_diff(sent[1].unwrap_or(0));
                assert!(difference < 64, "the same image is sent: {pair:?}");
            }
            _ => assert!(sent > vec![Some(0); 2], "{pair:?}"),
        }
    }
}
