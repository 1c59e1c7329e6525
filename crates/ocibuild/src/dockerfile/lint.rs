//! Build checks: what is legal in a Dockerfile and probably not meant.
//!
//! The rules that the text alone decides are here, in [`lint`]; those that need
//! arguments and base images are in [`graph::check`](crate::graph::check). Both fill
//! one [`Linter`].

mod rule;
mod settings;

use std::collections::BTreeSet;

use super::ast::{Dockerfile, Instruction, Origin, Stage};
use super::quote::quote;
use super::span::{LineStarts, Span, Word};

pub use rule::Rule;
pub use settings::{InvalidSetting, Settings};

/// Something that is legal and probably not meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The rule that found it.
    pub rule: Rule,
    /// What is wrong, in BuildKit's words.
    pub message: String,
    /// The part of the text that it is about.
    pub span: Span,
    /// The first and last line of the instruction, from one: the place that BuildKit names.
    pub lines: (usize, usize),
}

/// Collects warnings that the settings of a file let through.
#[derive(Debug)]
pub struct Linter<'a> {
    lines: &'a LineStarts,
    settings: Settings,
    found: Vec<Warning>,
    /// Spans belong to another text, so that only the instruction can be shown.
    pub(crate) shows_whole: bool,
}

impl<'a> Linter<'a> {
    /// Begins with the lines of a file and the settings in force for it.
    pub fn new(lines: &'a LineStarts, settings: Settings) -> Self {
        Self {
            lines,
            settings,
            found: Vec::new(),
            shows_whole: false,
        }
    }

    /// Adds a warning about an instruction; `span` is the part of it that is meant.
    pub fn warn(&mut self, rule: Rule, origin: &Origin, span: Span, message: impl Into<String>) {
        if self.settings.applies(rule, &origin.comments) {
            let lines = self.lines.lines(origin.span);
            let span = if self.shows_whole { origin.span } else { span };
            self.push(rule, span, (*lines.start(), *lines.end()), message.into());
        }
    }

    fn push(&mut self, rule: Rule, span: Span, lines: (usize, usize), message: String) {
        self.found.push(Warning {
            rule,
            message,
            span,
            lines,
        });
    }

    /// Gives the warnings in the order of the file.
    pub fn finish(self) -> Vec<Warning> {
        let mut found = self.found;
        found.sort_by(|a, b| (a.lines.0, &a.message).cmp(&(b.lines.0, &b.message)));
        found
    }
}

/// Gives the settings at the head of a file.
pub fn settings_of(file: &Dockerfile) -> Result<Settings, InvalidSetting> {
    match &file.directives.check {
        Some(check) => Settings::parse(&check.text),
        None => Ok(Settings::default()),
    }
}

/// Applies the rules that the text alone decides.
pub fn lint(file: &Dockerfile, linter: &mut Linter<'_>) {
    for found in &file.blank_continuations {
        let rule = Rule::NoEmptyContinuation;
        if linter.settings.applies(rule, &[]) {
            let line = linter.lines.line(found.last);
            linter.push(
                rule,
                found.blank,
                (line, line),
                "Empty continuation line".to_owned(),
            );
        }
    }
    check_casing(file, linter);
    for arg in &file.global_args {
        let names = arg.declarations.iter().map(|it| it.name.as_str());
        check_description(linter, &arg.origin, "ARG", &names.collect::<Vec<_>>());
    }
    let mut names = BTreeSet::new();
    for stage in &file.stages {
        check_from(stage, &mut names, linter);
        for instruction in &stage.instructions {
            check_instruction(instruction, linter);
        }
    }
}

/// The case that most keywords have is taken for the one that is meant.
fn check_casing(file: &Dockerfile, linter: &mut Linter<'_>) {
    let origins = || {
        file.stages.iter().flat_map(|stage| {
            let instructions = stage.instructions.iter().map(Instruction::origin);
            std::iter::once(&stage.from.origin).chain(instructions)
        })
    };
    let is_lower = |origin: &&Origin| !origin.keyword.text.contains(char::is_uppercase);
    let is_upper = |origin: &&Origin| !origin.keyword.text.contains(char::is_lowercase);
    let wants_lower = origins().filter(is_lower).count() > origins().filter(is_upper).count();
    let (is_right, case): (&dyn Fn(&&Origin) -> bool, _) = match wants_lower {
        true => (&is_lower, "lowercase"),
        false => (&is_upper, "uppercase"),
    };
    for origin in origins().filter(|origin| !is_right(origin)) {
        let keyword = &origin.keyword;
        let message = format!(
            "Command '{}' should match the case of the command majority ({case})",
            keyword.text
        );
        linter.warn(
            Rule::ConsistentInstructionCasing,
            origin,
            keyword.span,
            message,
        );
    }
}

fn check_from<'s>(stage: &'s Stage, earlier: &mut BTreeSet<&'s str>, linter: &mut Linter<'_>) {
    let from = &stage.from;
    let origin = &from.origin;
    if let Some(keyword) = &from.as_keyword {
        check_as(origin, keyword, linter);
    }
    let (Some(name), Some(written)) = (&stage.name, &from.name) else {
        return;
    };
    let mut warn = |rule, message: String| linter.warn(rule, origin, written.span, message);
    if name.text != written.text {
        let message = format!("Stage name '{}' should be lowercase", written.text);
        warn(Rule::StageNameCasing, message);
    }
    if matches!(name.text.as_str(), "scratch" | "context") {
        let name = quote(&name.text);
        let message = format!("Stage name should not use the same name as reserved stage {name}");
        warn(Rule::ReservedStageName, message);
    }
    if !earlier.insert(&name.text) {
        let name = quote(&name.text);
        let message = format!("Duplicate stage name {name}, stage names should be unique");
        warn(Rule::DuplicateStageName, message);
    }
    check_description(linter, origin, "FROM", &[&name.text]);
}

/// Mixed case is not what this rule is about.
fn check_as(origin: &Origin, keyword: &Word, linter: &mut Linter<'_>) {
    let is_lower = |text: &str| text == text.to_lowercase();
    let is_upper = |text: &str| text == text.to_uppercase();
    let (written, from) = (&keyword.text, &origin.keyword.text);
    let is_right = match (is_lower(from), is_upper(from)) {
        (true, _) => is_lower(written),
        (_, true) => is_upper(written),
        _ => true,
    };
    if !is_right {
        let message = format!("'{written}' and '{from}' keywords' casing do not match");
        linter.warn(Rule::FromAsCasing, origin, keyword.span, message);
    }
}

/// The last comment above a stage or an argument describes it, or seems to.
fn check_description(linter: &mut Linter<'_>, origin: &Origin, keyword: &str, names: &[&str]) {
    let Some(comment) = origin.comments.last() else {
        return;
    };
    let first = comment.text.split(' ').next().unwrap_or_default();
    if names.is_empty() || names.contains(&first) {
        return;
    }
    let name = match names {
        [name] => name,
        _ => "<arg_key>",
    };
    let message =
        format!("Comment for {keyword} should follow the format: `# {name} <description>`");
    linter.warn(
        Rule::InvalidDefinitionDescription,
        origin,
        comment.span,
        message,
    );
}

fn check_instruction(instruction: &Instruction, linter: &mut Linter<'_>) {
    let origin = instruction.origin();
    match instruction {
        Instruction::Maintainer(_) => linter.warn(
            Rule::MaintainerDeprecated,
            origin,
            origin.span,
            "Maintainer instruction is deprecated in favor of using label",
        ),
        Instruction::Arg(arg) => {
            let names = arg.declarations.iter().map(|it| it.name.as_str());
            check_description(linter, origin, "ARG", &names.collect::<Vec<_>>());
        }
        _ => {}
    }
}
