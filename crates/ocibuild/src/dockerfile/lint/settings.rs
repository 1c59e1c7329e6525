//! What a file says about its checks: `# check=skip=Rule,Rule;error=true` at its head,
//! or as a comment above one instruction.

use super::Rule;
use crate::dockerfile::ast::{Dockerfile, Origin};

/// The settings in force for a file or an instruction.
#[derive(Default)]
pub(super) struct Settings {
    skips_all: bool,
    skipped: Vec<String>,
    /// Warnings stop the build.
    pub(super) is_error: bool,
}

impl Settings {
    /// Reads the directive of a file.
    pub(super) fn of_file(file: &Dockerfile) -> Self {
        let check = file.directives.check.as_ref();
        check
            .map(|check| Self::parse(&check.text))
            .unwrap_or_default()
    }

    /// Reads the comments above an instruction.
    pub(super) fn of(origin: &Origin) -> Self {
        let check = |text: &str| {
            let (name, settings) = text.split_once('=')?;
            name.trim()
                .eq_ignore_ascii_case("check")
                .then(|| Self::parse(settings))
        };
        origin
            .comments
            .iter()
            .find_map(|comment| check(&comment.text))
            .unwrap_or_default()
    }

    /// Reads settings; what is not known means nothing, as it may be newer than we are.
    fn parse(text: &str) -> Self {
        let mut settings = Self::default();
        for setting in text.split(';') {
            let Some((name, value)) = setting.split_once('=') else {
                continue;
            };
            match name.trim() {
                "skip" if value.trim() == "all" => settings.skips_all = true,
                "skip" => {
                    let names = value.split(',').map(|name| name.trim().to_owned());
                    settings.skipped.extend(names);
                }
                "error" => settings.is_error = value.trim() == "true",
                _ => {}
            }
        }
        settings
    }

    /// Tells whether a rule is switched off.
    pub(super) fn skips(&self, rule: Rule) -> bool {
        self.skips_all
            || self
                .skipped
                .iter()
                .any(|name| name.eq_ignore_ascii_case(rule.name()))
    }
}
