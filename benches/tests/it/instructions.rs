//! Rooms that only compute take as many instructions as they did when that was written down,
//! give or take some per cent. Counting them needs no quiet machine.
//!
//! What is written down holds for one compiler and for how `cargo xtask test` links.
//! `RENEW_INSTRUCTIONS=1 cargo xtask test --only test` writes it down anew: after a change of the
//! compiler, or where the change that needs more instructions is worth them, which its commit
//! then says.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use ocibuild_benches::rooms;
use ocibuild_registry::testing::not_installed;
use serde::{Deserialize, Serialize};

/// By how many per cent a count may be larger.
const TOLERANCE: f64 = 3.0;

/// The counts of a compiler.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Recorded {
    rustc: String,
    instructions: BTreeMap<String, u64>,
}

#[test]
fn instructions_do_not_grow() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return not_installed("valgrind");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/instructions.json");
    let recorded: Recorded = fs::read(&path)
        .map(|bytes| serde_json::from_slice(&bytes).expect("counts"))
        .unwrap_or_default();
    let counted = Recorded {
        rustc: rustc(),
        instructions: rooms::COUNTED
            .map(|room| (room.to_owned(), count(room)))
            .into(),
    };
    if std::env::var_os("RENEW_INSTRUCTIONS").is_some() {
        let text = serde_json::to_string_pretty(&counted).expect("JSON");
        fs::write(&path, text + "\n").expect("write the counts");
        return;
    }
    if recorded.rustc != counted.rustc {
        eprintln!(
            "skipped: {} counts for {:?}",
            path.display(),
            recorded.rustc
        );
        return;
    }
    let grown = grown(&recorded, &counted);
    assert!(
        grown.is_empty(),
        "more instructions than {} says: {grown:#?}\nif they are worth it: \
         RENEW_INSTRUCTIONS=1 cargo xtask test --only test",
        path.display()
    );
}

/// Says of each room that needs more by how much.
fn grown(recorded: &Recorded, counted: &Recorded) -> Vec<String> {
    let pairs = counted.instructions.iter().map(|(room, now)| {
        let before = recorded.instructions.get(room).copied().unwrap_or(0);
        (room, before, *now)
    });
    let grown =
        pairs.filter(|(_, before, now)| *now as f64 > *before as f64 * (1.0 + TOLERANCE / 100.0));
    grown
        .map(|(room, before, now)| format!("{room}: {now}, was {before}"))
        .collect()
}

#[test]
fn what_has_grown_is_found() {
    let with = |count| Recorded {
        rustc: String::new(),
        instructions: [("tar".to_owned(), count)].into(),
    };
    assert!(grown(&with(1_000), &with(1_030)).is_empty());
    assert_eq!(grown(&with(1_000), &with(1_031)), ["tar: 1031, was 1000"]);
    assert_eq!(grown(&Recorded::default(), &with(1)).len(), 1);
}

fn count(room: &str) -> u64 {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("callgrind");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no"])
        .arg("--toggle-collect=*Room*enter*")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(env!("CARGO_BIN_EXE_room"))
        .arg(room)
        .output()
        .expect("run valgrind");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = fs::read_to_string(&out).expect("what callgrind wrote");
    let total = text.lines().find_map(|line| {
        let line = line
            .strip_prefix("summary:")
            .or(line.strip_prefix("totals:"))?;
        line.trim().parse().ok()
    });
    total.filter(|count| *count > 0).expect("a count")
}

fn rustc() -> String {
    let program = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(program)
        .arg("--version")
        .output()
        .expect("run rustc");
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let profile = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    format!("{version}, {} {profile}", std::env::consts::ARCH)
}
