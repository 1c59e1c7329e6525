//! The service against its own description: schemathesis makes requests from it, right and
//! wrong ones, and judges the answers.

use std::path::Path;
use std::process::Stdio;

use ocibuild_registry::testing::not_installed;
use serde_json::json;
use tokio::process::Command;

use crate::fixture::Fixture;

/// No answer is a fault of ours, and each is one that the description has.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_schema_conformance";

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_what_the_description_says() {
    // `cargo xtask test --only machine` installs it in cargo's target folder, in which, or in
    // the folder of one target in which, cargo's folder for tests lies.
    let folders = Path::new(env!("CARGO_TARGET_TMPDIR")).ancestors();
    let mut programs = folders.map(|folder| folder.join("schemathesis/bin/st"));
    let Some(program) = programs.find(|program| program.is_file()) else {
        return not_installed("schemathesis");
    };
    let fixture = Fixture::start(&[]).await;
    let output = Command::new(program)
        .arg("run")
        .arg(fixture.url("/openapi.json"))
        .args(["--checks", CHECKS])
        .args(["--phases", "examples,coverage,fuzzing"])
        .args(["--max-examples", "20", "--seed", "1", "--no-color"])
        // It cannot make a tar.
        .args(["--exclude-operation-id", "upload_context"])
        .args(["--exclude-operation-id", "append_context"])
        .current_dir(fixture.folder.path())
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}");
    assert!(report.contains("Fuzzing"), "{report}");
}

#[tokio::test]
async fn operations_have_names_of_their_own() {
    let fixture = Fixture::start(&[]).await;
    let description = fixture.json("/openapi.json").await;
    assert_eq!(description["openapi"], json!("3.1.0"));
    let paths = description["paths"].as_object().unwrap();
    let operations = paths.values().flat_map(|path| path.as_object().unwrap());
    let mut names: Vec<_> = operations
        .map(|(_, operation)| operation["operationId"].as_str().unwrap())
        .collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "{names:?}");
}
