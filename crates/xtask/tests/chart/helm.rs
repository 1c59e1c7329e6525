//! Helm, as a library of Python in `target/helm`, where `cargo xtask test --only machine`
//! puts it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What Helm makes of the chart.
pub(crate) enum Outcome {
    Rendered(Rendered),
    /// Nothing; Helm says why.
    Refused(String),
}

/// A rendered chart.
pub(crate) struct Rendered {
    pub(crate) notes: String,
    pub(crate) documents: Vec<Value>,
    /// The values of the chart.
    pub(crate) defaults: Value,
    pub(crate) lint: Value,
}

impl Rendered {
    /// The document of a kind with a name that ends so.
    pub(crate) fn find(&self, kind: &str, suffix: &str) -> Option<&Value> {
        let name = |document: &Value| document["metadata"]["name"].as_str().unwrap().to_owned();
        self.documents
            .iter()
            .find(|document| document["kind"] == kind && name(document).ends_with(suffix))
    }

    pub(crate) fn only(&self, kind: &str) -> &Value {
        let mut found = self.documents.iter().filter(|found| found["kind"] == kind);
        let document = found.next().unwrap_or_else(|| panic!("no {kind}"));
        assert!(found.next().is_none(), "more than one {kind}");
        document
    }

    pub(crate) fn pod(&self) -> &Value {
        &self.only("Deployment")["spec"]["template"]["spec"]
    }

    pub(crate) fn container(&self) -> &Value {
        &self.pod()["containers"][0]
    }

    /// The value of a variable that stands in the pod.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        let variables = self.container()["env"].as_array().unwrap();
        let found = variables.iter().find(|variable| variable["name"] == name);
        found.and_then(|variable| variable["value"].as_str())
    }
}

pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// The file of values with this name in `testdata/helm`.
pub(crate) fn values_file(name: &str) -> String {
    fs::read_to_string(workspace().join("testdata/helm").join(name)).unwrap()
}

/// Lints and renders the chart with a file of values; `None` where Helm is missing.
pub(crate) fn helm(values: &str) -> Option<Outcome> {
    // `cargo xtask test --only machine` installs it in cargo's target folder, in which, or in
    // the folder of one target in which, cargo's folder for tests lies.
    let folders = Path::new(env!("CARGO_TARGET_TMPDIR")).ancestors();
    let mut programs = folders.map(|folder| folder.join("helm/bin/python"));
    let Some(python) = programs.find(|program| program.is_file()) else {
        skip();
        return None;
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), values).unwrap();
    let output = Command::new(python)
        .arg(workspace().join("testdata/helm/helm.py"))
        .arg(workspace().join("crates/server/deploy/helm/artifact-builder"))
        .arg(file.path())
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "helm.py: {message}");
    let mut found: Value = serde_json::from_slice(&output.stdout).unwrap();
    if let Some(reason) = found["refused"].as_str() {
        return Some(Outcome::Refused(reason.to_owned()));
    }
    let Value::Array(documents) = found["documents"].take() else {
        panic!("no documents")
    };
    Some(Outcome::Rendered(Rendered {
        notes: found["notes"].as_str().unwrap().to_owned(),
        documents,
        defaults: found["defaults"].take(),
        lint: found["lint"].take(),
    }))
}

#[expect(clippy::print_stderr, reason = "a skipped test has to be seen")]
fn skip() {
    let all = std::env::var_os("OCIBUILD_TEST_ALL").is_some();
    assert!(!all, "Helm is not installed");
    eprintln!("skipped: no Helm; `cargo xtask test --only machine` installs it");
}

/// The chart with values that it takes; `None` where Helm is missing.
pub(crate) fn rendered(values: &str) -> Option<Rendered> {
    match helm(values)? {
        Outcome::Rendered(rendered) => Some(rendered),
        Outcome::Refused(reason) => panic!("refused: {reason}"),
    }
}
