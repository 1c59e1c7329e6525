//! The result of a check as JSON in the form of BuildKit's subrequest `frontend.lint`, and
//! as SARIF 2.1.0 (OASIS, Static Analysis Results Interchange Format).

use ocibuild::check::Checked;
use ocibuild::dockerfile::lint::Rule;
use serde_json::{Value, json};

/// Lines of the first source, as BuildKit writes a location.
pub(super) fn location(first: usize, last: usize) -> Value {
    json!({"ranges": [{"start": {"line": first}, "end": {"line": last}}]})
}

/// Gives what `docker buildx build --call=check,format=json` gives.
pub(super) fn json(checked: &Checked) -> Value {
    let warnings = checked.warnings.iter().map(|warning| {
        let mut value = json!({
            "ruleName": warning.rule,
            "description": Rule::parse(&warning.rule).map(Rule::description),
            "detail": warning.message,
            "location": location(warning.line, warning.end_line),
        });
        if let Some(url) = &warning.url {
            value["url"] = json!(url);
        }
        value
    });
    let mut value = json!({
        "warnings": Vec::from_iter(warnings),
        "sources": [{
            "filename": checked.file,
            "language": "Dockerfile",
            "data": super::outline::base64(checked.text.as_bytes()),
        }],
    });
    if let Some(error) = &checked.error {
        let lines = error.location().map(|place| place.lines.clone());
        value["buildError"] = json!({
            "message": ocibuild::causes::one_line(error),
            "location": lines.map(|lines| location(*lines.start() as usize, *lines.end() as usize)),
        });
    }
    value
}

/// Gives one SARIF run with the rules that found something.
pub(super) fn sarif(checked: &Checked) -> Value {
    let used = Rule::ALL
        .iter()
        .filter(|rule| checked.warnings.iter().any(|it| it.rule == rule.name()));
    let rules = used.map(|rule| {
        json!({
            "id": rule.name(),
            "shortDescription": {"text": rule.description()},
            "helpUri": rule.url(),
        })
    });
    let mut results: Vec<Value> = checked
        .warnings
        .iter()
        .map(|warning| {
            json!({
                "ruleId": warning.rule,
                "level": "warning",
                "message": {"text": warning.message},
                "locations": [place(checked, json!({
                    "startLine": warning.line,
                    "endLine": warning.end_line,
                }))],
            })
        })
        .collect();
    if let Some(error) = &checked.error {
        let lines = error.location().map(|place| place.lines.clone());
        let lines = lines.unwrap_or(1..=1);
        let region = json!({"startLine": lines.start(), "endLine": lines.end()});
        results.push(json!({
            "level": "error",
            "message": {"text": ocibuild::causes::one_line(error)},
            "locations": [place(checked, region)],
        }));
    }
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "ocibuild",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": Vec::from_iter(rules),
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn place(checked: &Checked, region: Value) -> Value {
    json!({"physicalLocation": {
        "artifactLocation": {"uri": checked.file},
        "region": region,
    }})
}
