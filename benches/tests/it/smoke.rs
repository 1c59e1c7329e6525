//! One small workload through the whole program.

use std::process::Command;

use ocibuild::testing::has_busybox;
use ocibuild_registry::testing::not_installed;
use serde_json::Value;

#[test]
fn one_workload_gives_one_line_per_mode() {
    if !has_busybox() {
        return not_installed("busybox-static");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_ocibuild-benches"))
        .args(["--only", "copy", "--runs", "1"])
        .output()
        .expect("run the program");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    let modes: Vec<_> = lines.iter().map(|line| line["mode"].as_str()).collect();
    let expected = ["cold", "unchanged", "edited", "base"].map(Some);
    assert_eq!(modes, expected, "{text}");
    for line in &lines {
        assert_eq!(line["workload"], "copy");
        assert_eq!(line["builder"], "ocibuild");
        assert!(
            line["wall_seconds"]["median"].as_f64() > Some(0.0),
            "{line}"
        );
        assert!(line["peak_memory_bytes"].as_u64() > Some(0), "{line}");
    }
    let sent = |mode: usize| lines[mode]["sent_bytes"].as_u64();
    assert!(sent(0) > Some(0), "a cold build sends layers: {text}");
    assert_eq!(sent(1), Some(0), "nothing has changed: {text}");
    assert!(sent(2) > Some(0), "the edited file is sent: {text}");
}
