//! Every figure of transfers once, with small layers.

use std::process::Command;

use ocibuild_registry::testing::not_installed;
use serde_json::Value;

const SIZE: u64 = 64 << 20;
/// What may be moved beyond the layer itself.
const MOST_EXTRA_PERCENT: f64 = 10.0;
/// What a client may take, whatever the layer is.
const MOST_MEMORY: u64 = 64 << 20;

#[test]
fn every_figure_is_taken() {
    if Command::new("curl").arg("--version").output().is_err() {
        return not_installed("curl");
    }
    let size = SIZE.to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_registry"))
        .args(["--runs", "1", "--size", &size, "--memory-size", &size])
        .args(["--memory-down-size", &size])
        .args(["--every", "32000000"])
        .output()
        .expect("run the program");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    let of = |figure: &str| -> Vec<&Value> {
        let found = lines.iter().filter(|line| line["figure"] == figure);
        found.collect()
    };
    for figure in ["up", "down", "memory up", "memory down"] {
        assert!(!of(figure).is_empty(), "{figure}: {text}");
    }
    for line in of("breaks up").into_iter().chain(of("breaks down")) {
        assert!(line["breaks"].as_u64() >= Some(2), "{line}");
        assert!(
            line["extra_percent"].as_f64() <= Some(MOST_EXTRA_PERCENT),
            "{line}"
        );
    }
    // What a proxy refuses at once has been sent in vain, once for each registry.
    let narrow = |line: &&&Value| line["client_max_body_size"] == "1m";
    for line in of("proxy").iter().filter(|line| !narrow(line)) {
        let extra = line["extra_percent"].as_f64();
        assert!(extra <= Some(MOST_EXTRA_PERCENT), "{line}");
    }
    for line in &lines {
        let memory = line["peak_memory_bytes"].as_u64();
        assert!(memory.is_some_and(|memory| memory <= MOST_MEMORY), "{line}");
    }
}
