//! Rules of the workspace that the compiler does not check: which crate may know which,
//! that no test file is forgotten, and where unsafe code may stand.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What a crate may depend on; `xtask` and the benchmarks may use anything.
const ALLOWED: &[(&str, &[&str])] = &[
    (
        "ocibuild-cli",
        &["ocibuild-server", "ocibuild", "ocibuild-registry"],
    ),
    (
        "ocibuild-server",
        &["ocibuild-store", "ocibuild", "ocibuild-registry"],
    ),
    ("ocibuild", &["ocibuild-registry"]),
    ("ocibuild-registry", &[]),
    ("ocibuild-store", &[]),
];
const FREE: &[&str] = &["xtask", "ocibuild-benches"];
const UNSAFE_ROOM: &str = "crates/ocibuild/src/executor/sys";

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(workspace())
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {message}");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

#[test]
fn crates_depend_in_one_direction() {
    let packages = packages();
    let names: Vec<&str> = packages
        .iter()
        .map(|p| p["name"].as_str().unwrap())
        .collect();
    let mut wrong = Vec::new();
    for package in &packages {
        let name = package["name"].as_str().unwrap();
        if FREE.contains(&name) {
            continue;
        }
        let allowed = ALLOWED.iter().find(|(crate_name, _)| *crate_name == name);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("no rule for the crate {name}"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let target = dependency["name"].as_str().unwrap();
            let features = dependency["features"].as_array().unwrap();
            let for_tests = dependency["kind"] == "dev" && features.contains(&"testing".into());
            if names.contains(&target) && !allowed.contains(&target) && !for_tests {
                wrong.push(format!("{name} -> {target}"));
            }
        }
    }
    assert!(wrong.is_empty(), "edges that are not allowed: {wrong:?}");
}

#[test]
fn every_integration_test_is_declared() {
    let mut forgotten = Vec::new();
    for directory in crates().iter().map(|crate_dir| crate_dir.join("tests/it")) {
        let Ok(main) = fs::read_to_string(directory.join("main.rs")) else {
            assert!(
                !directory.exists(),
                "{} has no main.rs",
                directory.display()
            );
            continue;
        };
        for file in fs::read_dir(&directory).unwrap() {
            let path = file.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap();
            let is_module = path.extension().is_some_and(|extension| extension == "rs")
                || path.join("mod.rs").is_file();
            let declaration = format!("mod {stem};");
            let declared = main.lines().any(|line| line.trim() == declaration);
            if is_module && stem != "main" && !declared {
                forgotten.push(path);
            }
        }
    }
    assert!(
        forgotten.is_empty(),
        "not declared in main.rs: {forgotten:?}"
    );
}

#[test]
fn unsafe_code_stands_in_one_room() {
    let room = workspace().join(UNSAFE_ROOM);
    let mut wrong = Vec::new();
    for source in crates()
        .iter()
        .flat_map(|crate_dir| rust_files(&crate_dir.join("src")))
    {
        if source.with_extension("").starts_with(&room) {
            continue;
        }
        let text = fs::read_to_string(&source).unwrap();
        for (index, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            // In a text, such as a content security policy, the word does nothing.
            let does_something = [
                "unsafe {",
                "unsafe fn",
                "unsafe impl",
                "unsafe extern",
                "unsafe(",
            ];
            if does_something
                .iter()
                .any(|code_form| code.contains(code_form))
            {
                wrong.push(format!("{}:{}", source.display(), index + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "unsafe outside {UNSAFE_ROOM}: {wrong:?}");
}

fn crates() -> Vec<PathBuf> {
    let entries = fs::read_dir(workspace().join("crates")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .map(|entry| entry.unwrap().path())
        .flat_map(|path| match path.is_dir() {
            true => rust_files(&path),
            false if path.extension().is_some_and(|extension| extension == "rs") => vec![path],
            false => Vec::new(),
        })
        .collect()
}
