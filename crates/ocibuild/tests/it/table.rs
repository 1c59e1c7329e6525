//! Reads line tables of `testdata`: fields between ` | `, comments from `#`, sections
//! in brackets. A middle dot stands for a blank that would get lost at a border, and
//! `<empty>` for nothing.

use std::path::{Path, PathBuf};

/// A line of a table.
pub(crate) struct Row {
    /// What a failing test names.
    pub(crate) place: String,
    /// The name of the section.
    pub(crate) section: String,
    /// The fields.
    pub(crate) fields: Vec<String>,
}

/// Gives a path below `testdata`.
pub(crate) fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../testdata")
        .join(name)
}

/// Reads a table.
pub(crate) fn rows(name: &str) -> Vec<Row> {
    let text = std::fs::read_to_string(testdata(name)).unwrap();
    let mut section = String::new();
    let mut rows = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with("# ") {
            continue;
        }
        if let Some(title) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            && !line.contains('|')
        {
            section = title.to_owned();
            continue;
        }
        let fields = line.split(" | ").map(field).collect();
        rows.push(Row {
            place: format!("{name}:{}", index + 1),
            section: section.clone(),
            fields,
        });
    }
    rows
}

fn field(text: &str) -> String {
    match text.trim() {
        "<empty>" => String::new(),
        text => text
            .replace('·', " ")
            .replace("<tab>", "\t")
            .replace("<newline>", "\n"),
    }
}
