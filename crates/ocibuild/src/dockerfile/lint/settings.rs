//! What a file says about its checks: `# check=skip=Rule,Rule;error=true;experimental=all`
//! at its head, or as a comment above one instruction.

use super::Rule;
use crate::dockerfile::span::Word;

/// Settings of checks that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid check option {0:?}: want skip=…, experimental=… or error=true|false")]
pub struct InvalidSetting(String);

/// Rules by name, or all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Names {
    all: bool,
    names: Vec<String>,
}

impl Names {
    fn read(&mut self, value: &str) {
        match value.trim() {
            "all" => self.all = true,
            names => {
                let names = names.split(',').map(|name| name.trim().to_owned());
                self.names.extend(names);
            }
        }
    }

    fn names(&self, rule: Rule) -> bool {
        let name = rule.name();
        self.names
            .iter()
            .any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// The settings in force for a file or an instruction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    skipped: Names,
    experimental: Names,
    /// Warnings stop the build.
    pub is_error: bool,
}

impl Settings {
    /// Reads settings such as `skip=JSONArgsRecommended;error=true`.
    pub fn parse(text: &str) -> Result<Self, InvalidSetting> {
        let mut settings = Self::default();
        let options = text.split(';').map(str::trim);
        for option in options.filter(|option| !option.is_empty()) {
            let invalid = || InvalidSetting(option.to_owned());
            let (name, value) = option.split_once('=').ok_or_else(invalid)?;
            match name.trim() {
                "skip" => settings.skipped.read(value),
                "experimental" => settings.experimental.read(value),
                "error" => settings.is_error = boolean(value.trim()).ok_or_else(invalid)?,
                _ => return Err(invalid()),
            }
        }
        Ok(settings)
    }

    /// Reads the comments above an instruction; what is wrong in them is only a comment.
    fn of_comments(comments: &[Word]) -> Option<Self> {
        let check = |comment: &Word| {
            let (name, settings) = comment.text.split_once('=')?;
            let is_check = name.trim().eq_ignore_ascii_case("check");
            is_check.then(|| Self::parse(settings).ok()).flatten()
        };
        comments.iter().find_map(check)
    }

    /// Tells whether a rule is in force for an instruction with these comments above it.
    pub fn applies(&self, rule: Rule, comments: &[Word]) -> bool {
        let own = Self::of_comments(comments).unwrap_or_default();
        let any = |holds: &dyn Fn(&Self) -> bool| holds(self) || holds(&own);
        if any(&|settings| settings.skipped.names(rule)) {
            return false;
        }
        match rule.is_experimental() {
            true => any(&|it| it.experimental.all || it.experimental.names(rule)),
            false => !any(&|it| it.skipped.all),
        }
    }
}

/// Reads a truth value in the spellings of Go's `strconv.ParseBool`.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_checked() {
        let settings = Settings::parse(" skip = JSONArgsRecommended, undefinedvar ; error=1 ");
        let settings = settings.unwrap();
        assert!(settings.is_error);
        for (rule, applies) in [
            (Rule::UndefinedVar, false),
            (Rule::JSONArgsRecommended, false),
            (Rule::StageNameCasing, true),
            (Rule::InvalidDefinitionDescription, false),
        ] {
            assert_eq!(settings.applies(rule, &[]), applies, "{rule:?}");
        }
        for text in ["x", "skip", "error=maybe", "warn=true"] {
            assert!(Settings::parse(text).is_err(), "{text}");
        }
        assert_eq!(Settings::parse(""), Ok(Settings::default()));
    }

    #[test]
    fn skipping_all_leaves_what_was_asked_for() {
        let settings = Settings::parse("skip=all;experimental=InvalidDefinitionDescription");
        let settings = settings.unwrap();
        assert!(settings.applies(Rule::InvalidDefinitionDescription, &[]));
        assert!(!settings.applies(Rule::UndefinedVar, &[]));
        let comment = |text: &str| [Word::new(text, Default::default())];
        let none = Settings::default();
        assert!(!none.applies(Rule::UndefinedVar, &comment("check=skip=UndefinedVar")));
        assert!(none.applies(Rule::UndefinedVar, &comment("check=skip=")));
        assert!(none.applies(Rule::UndefinedVar, &comment("check=nonsense")));
    }
}
