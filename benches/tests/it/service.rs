//! Every figure of the service once, with small numbers.

use std::process::Command;

use ocibuild::testing::has_busybox;
use ocibuild_registry::testing::not_installed;
use serde_json::Value;

#[test]
fn every_figure_is_taken() {
    if !has_busybox() {
        return not_installed("busybox-static");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_service"))
        .args(["--small", "--json", "--database", "sqlite"])
        .output()
        .expect("run the program");
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("there is no ocibuild beside") {
        eprintln!("skipped: {errors}");
        return;
    }
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    let figures: Vec<_> = lines.iter().map(|line| line["figure"].as_str()).collect();
    let expected = [
        "start",
        "first-line",
        "post",
        "burst",
        "burst",
        "followers",
        "memory",
        "recovery",
    ];
    assert_eq!(figures, expected.map(Some), "{text}");
    let [
        start,
        first_line,
        post,
        copies,
        runs,
        followers,
        memory,
        recovery,
    ] = &lines[..]
    else {
        panic!("{text}");
    };
    assert_eq!(start["first_ms"]["count"], 1, "{start}");
    let answered = first_line["answer_ms"]["min"].as_f64();
    assert!(
        answered < first_line["first_line_ms"]["min"].as_f64(),
        "{first_line}"
    );
    assert_eq!(post["failures"], 0, "{post}");
    assert_eq!(post["post_ms"]["count"], 50, "{post}");
    for burst in [copies, runs] {
        assert_eq!(burst["completed"], burst["builds"], "{burst}");
        assert_eq!(burst["waited_ms"]["count"], burst["builds"], "{burst}");
    }
    assert_eq!(followers["got_every_byte"], 5, "{followers}");
    assert_eq!(followers["last_line_late_ms"]["count"], 5, "{followers}");
    assert!(memory["start_bytes"].as_u64() > Some(0), "{memory}");
    assert_eq!(
        memory["after_each_lot_bytes"].as_array().map(Vec::len),
        Some(2)
    );
    assert!(
        recovery["completed_ms"]["min"].as_f64() > recovery["claimed_ms"]["min"].as_f64(),
        "{recovery}"
    );
}
