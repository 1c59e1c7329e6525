//! The parameters of a target and the list of targets, as tables and as JSON in the form
//! of BuildKit's subrequests `frontend.outline` and `frontend.targets`.

use ocibuild::check::{Found, Lines, Outline, OutlineMount, Target};
use serde_json::{Map, Value, json};

use super::documents::location;

/// Writes the tables of a target.
pub(super) fn text(outline: &Outline) -> String {
    let mut text = String::new();
    if !outline.name.is_empty() || !outline.description.is_empty() {
        let name = match outline.name.as_str() {
            "" => "(default)",
            name => name,
        };
        text += &format!("TARGET:      {name}\n");
        if !outline.description.is_empty() {
            text += &format!("DESCRIPTION: {}\n", outline.description);
        }
        text.push('\n');
    }
    let args = outline.args.iter();
    let args = args.map(|arg| vec![arg.name.as_str(), &arg.value, &arg.description]);
    let tables = [
        (vec!["BUILD ARG", "VALUE", "DESCRIPTION"], args.collect()),
        (vec!["SECRET", "REQUIRED"], mounts(&outline.secrets)),
        (vec!["SSH", "REQUIRED"], mounts(&outline.ssh)),
    ];
    for (head, rows) in tables.into_iter().filter(|(_, rows)| !rows.is_empty()) {
        text += &table(head, rows);
        text.push('\n');
    }
    text
}

fn mounts(mounts: &[OutlineMount]) -> Vec<Vec<&str>> {
    let required = |mount: &OutlineMount| if mount.required { "true" } else { "" };
    let rows = mounts.iter();
    rows.map(|mount| vec![mount.id.as_str(), required(mount)])
        .collect()
}

/// Writes the list of targets.
pub(super) fn targets_text(targets: &[Target]) -> String {
    let names: Vec<String> = targets
        .iter()
        .map(|target| match (target.name.as_str(), target.is_default) {
            ("", true) => "(default)".to_owned(),
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_owned(),
        })
        .collect();
    let rows = names.iter().zip(targets);
    let rows = rows.map(|(name, target)| vec![name.as_str(), target.description.as_str()]);
    table(vec!["TARGET", "DESCRIPTION"], rows.collect())
}

/// Columns as wide as their widest cell, three blanks apart.
fn table<'t>(head: Vec<&'t str>, rows: Vec<Vec<&'t str>>) -> String {
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            let cells = std::iter::once(&head).chain(&rows);
            let widths = cells.map(|row| row.get(column).map_or(0, |cell| cell.chars().count()));
            widths.max().unwrap_or_default()
        })
        .collect();
    let line = |row: &Vec<&str>| {
        let cells = row.iter().zip(&widths);
        let line: String = cells
            .map(|(cell, width)| format!("{cell:width$}   "))
            .collect();
        format!("{}\n", line.trim_end())
    };
    std::iter::once(&head).chain(&rows).map(line).collect()
}

fn at(lines: Lines) -> Value {
    location(lines.first, lines.last)
}

/// Makes an object of the fields that say something.
fn object(fields: Vec<(&str, Value)>) -> Value {
    let says = |value: &Value| {
        !matches!(value, Value::Null | Value::Bool(false))
            && value.as_str() != Some("")
            && value.as_array().is_none_or(|list| !list.is_empty())
    };
    let fields = fields.into_iter().filter(|(_, value)| says(value));
    let fields = fields.map(|(name, value)| (name.to_owned(), value));
    Value::Object(Map::from_iter(fields))
}

/// Gives the parameters of a target.
pub(super) fn json(found: &Found<Outline>) -> Value {
    let outline = &found.answer;
    let args = outline.args.iter().map(|arg| {
        object(vec![
            ("name", json!(arg.name)),
            ("description", json!(arg.description)),
            ("value", json!(arg.value)),
            ("location", at(arg.lines)),
        ])
    });
    let mounts = |mounts: &[OutlineMount], id: &str| {
        let objects = mounts.iter().map(|mount| {
            object(vec![
                (id, json!(mount.id)),
                ("required", json!(mount.required)),
                ("location", at(mount.lines)),
            ])
        });
        json!(Vec::from_iter(objects))
    };
    object(vec![
        ("name", json!(outline.name)),
        ("description", json!(outline.description)),
        ("args", json!(Vec::from_iter(args))),
        ("secrets", mounts(&outline.secrets, "name")),
        ("ssh", mounts(&outline.ssh, "name")),
        ("cache", mounts(&outline.caches, "ID")),
        ("sources", json!([base64(found.text.as_bytes())])),
    ])
}

/// Gives the list of targets.
pub(super) fn targets_json(found: &Found<Vec<Target>>) -> Value {
    let targets = found.answer.iter().map(|target| {
        object(vec![
            ("name", json!(target.name)),
            ("default", json!(target.is_default)),
            ("description", json!(target.description)),
            ("base", json!(target.base)),
            ("platform", json!(target.platform)),
            ("location", at(target.lines)),
        ])
    });
    json!({
        "targets": Vec::from_iter(targets),
        "sources": [base64(found.text.as_bytes())],
    })
}

/// Writes bytes as BuildKit's documents hold them (RFC 4648, section 4).
pub(super) fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
