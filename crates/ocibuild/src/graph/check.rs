//! Build checks that need more than the text: what arguments and base images make of
//! FROM, and which variables, directories and shells an instruction finds.
//!
//! Messages are BuildKit's (frontend/dockerfile/linter/ruleset.go). The rules of FROM
//! look at every stage, the others at the stages that are walked.

use std::collections::BTreeMap;

use crate::context::ignore::IgnoreMatcher;
use crate::dockerfile::ast::{
    Arg, Command, Heredoc, Instruction, KeyValue, Keyword, Origin, Stage,
};
use crate::dockerfile::lint::{Linter, Rule};
use crate::dockerfile::path::clean;
use crate::dockerfile::quote::quote;
use crate::dockerfile::{Span, Word, suggest, words};
use crate::registry::{Platform, Reference};

use super::scope::SILENT;
use super::walk::Visit;
use super::{Plan, Scope, ports};

/// Applies the rules about FROM to every stage.
pub fn check_bases(plan: &Plan, linter: &mut Linter<'_>) {
    let declared = plan.dockerfile.global_args.iter();
    let declared = declared.flat_map(|arg| &arg.declarations);
    let mut known: Vec<&str> = declared.map(|it| it.name.as_str()).collect();
    known.extend(plan.globals.names());
    known.sort_unstable();
    let defaults = plan.global_scope(&BTreeMap::new());
    for stage in &plan.dockerfile.stages {
        let image = &stage.from.image;
        if let Ok(defaults) = &defaults {
            check_default(stage, defaults, linter);
        }
        check_declared(plan, stage, image, &known, linter);
        if let Some(platform) = &stage.from.platform {
            check_declared(plan, stage, platform, &known, linter);
            check_platform(plan, stage, platform, linter);
        }
    }
}

/// The name of a base should be one without any `--build-arg`, too.
fn check_default(stage: &Stage, defaults: &Scope, linter: &mut Linter<'_>) {
    let image = &stage.from.image;
    let is_name = |name: String| name.parse::<Reference>().is_ok();
    if defaults
        .expand(&image.text)
        .is_ok_and(|name| !is_name(name))
    {
        let message = format!(
            "Default value for ARG {} results in empty or invalid base image name",
            image.text
        );
        linter.warn(
            Rule::InvalidDefaultArgInFrom,
            &stage.from.origin,
            image.span,
            message,
        );
    }
}

fn check_declared(
    plan: &Plan,
    stage: &Stage,
    word: &Word,
    known: &[&str],
    linter: &mut Linter<'_>,
) {
    let Ok(expanded) = plan.globals.trace(&word.text) else {
        return;
    };
    let unset = expanded.unset.iter().map(String::as_str);
    for name in unset.filter(|name| !known.contains(name)) {
        let mut message = format!("FROM argument '{name}' is not declared");
        if let Some(meant) = suggest::search(name, known) {
            message += &format!(" (did you mean {meant}?)");
        }
        linter.warn(
            Rule::UndefinedArgInFrom,
            &stage.from.origin,
            word.span,
            message,
        );
    }
}

fn check_platform(plan: &Plan, stage: &Stage, platform: &Word, linter: &mut Linter<'_>) {
    const TARGET: &str = "TARGETPLATFORM";
    let Ok(expanded) = plan.globals.trace(&platform.text) else {
        return;
    };
    let origin = &stage.from.origin;
    let is_target = expanded.used.iter().eq([TARGET]) && expanded.unset.is_empty();
    if is_target && plan.globals.get(TARGET) == Some(&expanded.text) {
        let message = format!(
            "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
            platform.text
        );
        linter.warn(
            Rule::RedundantTargetPlatform,
            origin,
            platform.span,
            message,
        );
    }
    if !expanded.used.is_empty() || !expanded.unset.is_empty() {
        return;
    }
    let Ok(parsed) = expanded.text.parse::<Platform>() else {
        return;
    };
    let name = stage.name.as_ref().map_or("", |name| name.text.as_str());
    // A stage that is named for its platform means it.
    if !name.contains(&parsed.os) && !name.contains(&parsed.architecture) {
        let constant = quote(&expanded.text);
        let message = format!("FROM --platform flag should not use constant value {constant}");
        let rule = Rule::FromPlatformFlagConstDisallowed;
        linter.warn(rule, origin, platform.span, message);
    }
}

/// Warns where a base image is for another machine than the stage asks for.
pub fn check_base_platform(
    stage: &Stage,
    base_name: &str,
    expected: &Platform,
    actual: &Platform,
    linter: &mut Linter<'_>,
) {
    if expected.os != actual.os || expected.architecture != actual.architecture {
        let (actual, expected) = (quote(&actual.to_string()), quote(&expected.to_string()));
        let message = format!(
            "Base image {base_name} was pulled with platform {actual}, expected {expected} for current build"
        );
        let from = &stage.from;
        linter.warn(
            Rule::InvalidBaseImagePlatform,
            &from.origin,
            from.image.span,
            message,
        );
    }
}

/// Applies the rules about instructions, stage by stage.
#[derive(Debug, Default)]
pub struct StageRules<'a> {
    ignored: Option<&'a IgnoreMatcher>,
    stage: usize,
    /// The last CMD, ENTRYPOINT and HEALTHCHECK of the stage.
    last: BTreeMap<Keyword, Origin>,
}

impl<'a> StageRules<'a> {
    /// Begins, with what the context leaves out.
    pub fn new(ignored: Option<&'a IgnoreMatcher>) -> Self {
        Self {
            ignored,
            ..Self::default()
        }
    }

    /// Looks at an instruction before it is taken.
    pub fn visit(&mut self, plan: &Plan, visit: Visit<'_>, linter: &mut Linter<'_>) {
        if visit.stage != self.stage {
            self.stage = visit.stage;
            self.last.clear();
        }
        let (origin, scope) = (visit.origin, &visit.config.scope);
        linter.shows_whole = !std::ptr::eq(origin, visit.instruction.origin());
        check_variables(plan, visit, linter);
        match visit.instruction {
            Instruction::Arg(arg) => {
                let names = arg
                    .declarations
                    .iter()
                    .map(|it| (it.name.as_str(), it.name.span));
                check_secrets("ARG", names, origin, linter);
            }
            Instruction::Env(env) => {
                check_legacy(&env.pairs, origin, linter);
                check_secrets("ENV", expanded_keys(scope, &env.pairs), origin, linter);
            }
            Instruction::Label(label) => check_legacy(&label.pairs, origin, linter),
            Instruction::Cmd(cmd) => self.check_command(visit, &cmd.command, linter),
            Instruction::Entrypoint(it) => self.check_command(visit, &it.command, linter),
            Instruction::Healthcheck(_) => self.check_repeated(visit, linter),
            Instruction::Expose(expose) => check_ports(scope, &expose.ports, origin, linter),
            Instruction::Workdir(workdir) => {
                let path = scope.expand(&workdir.path.text).unwrap_or_default();
                if !visit.config.has_workdir && !path.starts_with('/') {
                    let path = quote(&path);
                    let message = format!(
                        "Relative workdir {path} can have unexpected results if the base image changes"
                    );
                    linter.warn(
                        Rule::WorkdirRelativePath,
                        origin,
                        workdir.path.span,
                        message,
                    );
                }
            }
            Instruction::Copy(copy) if copy.flags.from.is_none() => {
                self.check_ignored("Copy", scope, &copy.sources, origin, linter);
            }
            Instruction::Add(add) => {
                self.check_ignored("Add", scope, &add.sources, origin, linter);
            }
            _ => {}
        }
    }

    /// A stage that says which shell it wants also wants it for these.
    fn check_command(&mut self, visit: Visit<'_>, command: &Command, linter: &mut Linter<'_>) {
        self.check_repeated(visit, linter);
        let has_shell = visit
            .config
            .image
            .config
            .shell
            .as_ref()
            .is_some_and(|it| !it.is_empty());
        if matches!(command, Command::Shell(_)) && !has_shell {
            let message = format!(
                "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
                visit.instruction.origin().keyword.text
            );
            let span = visit.origin.span;
            linter.warn(Rule::JSONArgsRecommended, visit.origin, span, message);
        }
    }

    /// The earlier one is reported: it is the one without an effect.
    fn check_repeated(&mut self, visit: Visit<'_>, linter: &mut Linter<'_>) {
        let keyword = visit.instruction.keyword();
        if let Some(earlier) = self.last.insert(keyword, visit.origin.clone()) {
            let message = format!(
                "Multiple {} instructions should not be used in the same stage because only the last one will be used",
                visit.instruction.origin().keyword.text
            );
            let rule = Rule::MultipleInstructionsDisallowed;
            linter.warn(rule, &earlier, earlier.span, message);
        }
    }

    /// Rules that take something back make it hard to say, so nothing is said then.
    fn check_ignored(
        &self,
        keyword: &str,
        scope: &Scope,
        sources: &[Word],
        origin: &Origin,
        linter: &mut Linter<'_>,
    ) {
        let Some(ignored) = self.ignored.filter(|rules| !rules.has_exceptions()) else {
            return;
        };
        for source in sources {
            let path = clean(&scope.expand(&source.text).unwrap_or_default());
            if !path.contains("://") && path != "." && ignored.matches(&path) {
                let message = format!(
                    "Attempting to {keyword} file {} that is excluded by .dockerignore",
                    quote(&path)
                );
                linter.warn(Rule::CopyIgnoredFile, origin, source.span, message);
            }
        }
    }
}

/// Reports the variables that an instruction asks for and nobody has set.
fn check_variables(plan: &Plan, visit: Visit<'_>, linter: &mut Linter<'_>) {
    if !visit.is_known {
        return;
    }
    let mut scope = visit.config.scope.clone();
    let mut look = |scope: &Scope, unset: Vec<String>, span: Span| {
        for name in unset {
            if scope.is_declared(&name) || SILENT.contains(&name.as_str()) {
                continue;
            }
            let mut message = format!("Usage of undefined variable '${name}'");
            if let Some(meant) = suggest::search(&name, &scope.names()) {
                message += &format!(" (did you mean ${meant}?)");
            }
            linter.warn(Rule::UndefinedVar, visit.origin, span, message);
        }
    };
    if let Instruction::Arg(arg) = visit.instruction {
        check_defaults(plan, arg, &mut scope, &mut look);
        return;
    }
    let mut seen = Vec::new();
    let mut once = |unset: Vec<String>, span| {
        let new: Vec<_> = unset
            .into_iter()
            .filter(|name| !seen.contains(name))
            .collect();
        seen.extend(new.iter().cloned());
        look(&scope, new, span);
    };
    for word in expanded_words(visit.instruction) {
        if let Ok(found) = scope.trace(&word.text) {
            once(found.unset.into_iter().collect(), word.span);
        }
    }
    for heredoc in heredocs(visit.instruction).iter().filter(|it| it.expands) {
        let lookup = |name: &str| scope.get(name).map(str::to_owned);
        if let Ok(found) = words::trace_heredoc(&heredoc.body.text, &lookup) {
            once(found.unset.into_iter().collect(), heredoc.redirect.span);
        }
    }
}

/// Each argument of an ARG sees the ones before it.
fn check_defaults(
    plan: &Plan,
    arg: &Arg,
    scope: &mut Scope,
    look: &mut dyn FnMut(&Scope, Vec<String>, Span),
) {
    for declaration in &arg.declarations {
        let name = declaration.name.as_str();
        let given = plan.request.args.get(name).map(String::as_str);
        let Some(default) = declaration.default.as_ref().filter(|_| given.is_none()) else {
            scope.declare(name, given.or_else(|| plan.globals.get(name)));
            continue;
        };
        if let Ok(found) = scope.trace(&default.text) {
            look(scope, found.unset.into_iter().collect(), default.span);
            scope.declare(name, Some(&found.text));
        }
    }
}

/// The words of an instruction that variables are replaced in, one by one.
fn expanded_words(instruction: &Instruction) -> Vec<&Word> {
    match instruction {
        Instruction::Env(env) => pair_words(&env.pairs),
        Instruction::Label(label) => pair_words(&label.pairs),
        Instruction::Copy(copy) => {
            let flags = [&copy.flags.chown, &copy.flags.chmod].into_iter().flatten();
            flags
                .chain(&copy.sources)
                .chain([&copy.destination])
                .collect()
        }
        Instruction::Add(add) => {
            let flags = [&add.flags.chown, &add.flags.chmod, &add.flags.checksum];
            let flags = flags.into_iter().flatten();
            flags
                .chain(&add.sources)
                .chain([&add.destination])
                .collect()
        }
        Instruction::Run(run) => run.mounts.iter().collect(),
        Instruction::Stopsignal(signal) => vec![&signal.signal],
        Instruction::User(user) => vec![&user.user],
        Instruction::Volume(volume) => volume.paths.iter().collect(),
        Instruction::Workdir(workdir) => vec![&workdir.path],
        _ => Vec::new(),
    }
}

fn pair_words(pairs: &[KeyValue]) -> Vec<&Word> {
    pairs
        .iter()
        .flat_map(|pair| [&pair.key, &pair.value])
        .collect()
}

fn heredocs(instruction: &Instruction) -> &[Heredoc] {
    match instruction {
        Instruction::Copy(copy) => &copy.heredocs,
        Instruction::Add(add) => &add.heredocs,
        _ => &[],
    }
}

fn expanded_keys<'w>(
    scope: &Scope,
    pairs: &'w [KeyValue],
) -> impl Iterator<Item = (String, Span)> + use<'w> {
    let keys: Vec<_> = pairs
        .iter()
        .map(|pair| {
            (
                scope.expand(&pair.key.text).unwrap_or_default(),
                pair.key.span,
            )
        })
        .collect();
    keys.into_iter()
}

fn check_legacy(pairs: &[KeyValue], origin: &Origin, linter: &mut Linter<'_>) {
    let keyword = &origin.keyword.text;
    for pair in pairs.iter().filter(|pair| pair.is_legacy) {
        let message = format!(
            "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
        );
        linter.warn(Rule::LegacyKeyValueFormat, origin, pair.key.span, message);
    }
}

fn check_secrets<T: AsRef<str>>(
    keyword: &str,
    names: impl Iterator<Item = (T, Span)>,
    origin: &Origin,
    linter: &mut Linter<'_>,
) {
    for (name, span) in names.filter(|(name, _)| looks_secret(name.as_ref())) {
        let name = quote(name.as_ref());
        let message =
            format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {name})");
        linter.warn(Rule::SecretsUsedInArgOrEnv, origin, span, message);
    }
}

/// Tells whether a name speaks of something that should not end up in an image.
fn looks_secret(name: &str) -> bool {
    const WORDS: [&str; 10] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "passwd",
        "password",
        "pword",
        "secret",
        "token",
    ];
    const HARMLESS: [&str; 3] = ["public", "file", "version"];
    let name = name.to_lowercase();
    let has = |word: &&str| name.split('_').any(|part| part == *word);
    WORDS.iter().any(has) && !HARMLESS.iter().any(has)
}

fn check_ports(scope: &Scope, words: &[Word], origin: &Origin, linter: &mut Linter<'_>) {
    for word in words {
        for port in scope.expand_words(&word.text).unwrap_or_default() {
            let protocol = ports::protocol(&port);
            if protocol != protocol.to_lowercase() {
                let message =
                    format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
                linter.warn(Rule::ExposeProtoCasing, origin, word.span, message);
            }
            if ports::names_the_host(&port) {
                let message = format!(
                    "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
                );
                linter.warn(Rule::ExposeInvalidFormat, origin, word.span, message);
            }
        }
    }
}
