//! Warnings about a Dockerfile that parses: what is legal and probably not meant.
//!
//! Only rules that the text alone decides are here; those that need arguments, a base
//! image or a context belong to the rooms that have them. Names of rules are those
//! of BuildKit's checks, so that existing `# check=skip=` comments keep working.

mod settings;

use std::collections::BTreeSet;

use super::ast::{Command, Dockerfile, Instruction, KeyValue, Keyword, Origin, Stage};
use super::span::{Span, Word};
use settings::Settings;

/// Something that is legal and probably not meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The rule that found it.
    pub rule: Rule,
    /// Where it is.
    pub span: Span,
    /// What is wrong there.
    pub message: String,
}

/// The warnings of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// The warnings, in the order of the file.
    pub warnings: Vec<Warning>,
    /// The file asks that warnings stop the build (`# check=error=true`), and has some.
    pub is_error: bool,
}

macro_rules! rules {
    ($($name:ident: $doc:literal),+ $(,)?) => {
        /// The rules.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Rule {
            $(#[doc = $doc] $name),+
        }

        impl Rule {
            /// Every rule.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Gives the name, by which a file can switch the rule off.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),+ }
            }

            /// Says in a sentence what the rule is about.
            pub fn description(self) -> &'static str {
                match self { $(Self::$name => $doc),+ }
            }
        }
    };
}

rules! {
    NoEmptyContinuation: "Blank lines inside an instruction are deprecated.",
    ConsistentInstructionCasing: "All instructions of a file should be in the same case.",
    StageNameCasing: "Names of stages should be in lower case.",
    FromAsCasing: "`FROM` and `AS` should be in the same case.",
    DuplicateStageName: "A name should belong to one stage only.",
    ReservedStageName: "A stage should not have a name that means something else.",
    RedundantTargetPlatform: "`--platform=$TARGETPLATFORM` is what `FROM` does anyway.",
    FromPlatformFlagConstDisallowed: "`FROM --platform` should not be a constant.",
    MaintainerDeprecated: "`MAINTAINER` is deprecated in favour of a label.",
    JSONArgsRecommended: "`CMD` and `ENTRYPOINT` without a shell get signals.",
    MultipleInstructionsDisallowed: "Only the last of several has an effect.",
    LegacyKeyValueFormat: "`name=value` is clearer than `name value`.",
    SecretsUsedInArgOrEnv: "`ARG` and `ENV` stay visible in the image.",
    ExposeProtoCasing: "Protocols should be in lower case.",
    ExposeInvalidFormat: "`EXPOSE` has no use for addresses and host ports.",
}

/// Finds everything that the rules object to and that the file does not allow.
pub fn lint(file: &Dockerfile) -> Report {
    let mut linter = Linter {
        file: Settings::of_file(file),
        found: Vec::new(),
    };
    for span in &file.blank_continuations {
        linter.warn(
            None,
            Rule::NoEmptyContinuation,
            *span,
            "blank line inside an instruction",
        );
    }
    linter.check_casing(file);
    for arg in &file.global_args {
        let names = arg.declarations.iter().map(|declaration| &declaration.name);
        linter.check_secrets(&arg.origin, names);
    }
    let mut names = BTreeSet::new();
    for stage in &file.stages {
        linter.check_from(stage, &mut names);
        linter.check_repeated(stage);
        let has_shell = stage
            .instructions
            .iter()
            .any(|it| it.keyword() == Keyword::Shell);
        for instruction in &stage.instructions {
            linter.check_instruction(instruction, has_shell);
        }
    }
    let mut warnings = linter.found;
    warnings.sort_by_key(|warning| (warning.span, warning.rule));
    Report {
        is_error: linter.file.is_error && !warnings.is_empty(),
        warnings,
    }
}

struct Linter {
    file: Settings,
    found: Vec<Warning>,
}

impl Linter {
    fn warn(&mut self, origin: Option<&Origin>, rule: Rule, span: Span, message: &str) {
        let is_skipped_here = origin.is_some_and(|origin| Settings::of(origin).skips(rule));
        if !self.file.skips(rule) && !is_skipped_here {
            self.found.push(Warning {
                rule,
                span,
                message: message.to_owned(),
            });
        }
    }

    /// The case that most keywords have is taken for the one that is meant.
    fn check_casing(&mut self, file: &Dockerfile) {
        let origins: Vec<&Origin> = file.origins().collect();
        let is_lower = |origin: &&Origin| !origin.keyword.text.contains(char::is_uppercase);
        let is_upper = |origin: &&Origin| !origin.keyword.text.contains(char::is_lowercase);
        let lower = origins.iter().filter(|origin| is_lower(origin)).count();
        let upper = origins.iter().filter(|origin| is_upper(origin)).count();
        let wants_lower = lower > upper;
        for origin in &origins {
            let is_right = if wants_lower {
                is_lower(origin)
            } else {
                is_upper(origin)
            };
            if !is_right {
                let case = if wants_lower { "lower" } else { "upper" };
                let message = format!("{} should be in {case} case", origin.keyword.text);
                let rule = Rule::ConsistentInstructionCasing;
                self.warn(Some(origin), rule, origin.keyword.span, &message);
            }
        }
    }

    fn check_from<'a>(&mut self, stage: &'a Stage, earlier: &mut BTreeSet<&'a str>) {
        let from = &stage.from;
        let origin = Some(&from.origin);
        if let Some(platform) = &from.platform {
            self.check_platform(&from.origin, platform);
        }
        if let Some(keyword) = &from.as_keyword {
            let is_lower = |word: &Word| !word.text.contains(char::is_uppercase);
            if is_lower(keyword) != is_lower(&from.origin.keyword) {
                let message = format!("{} beside {}", keyword.text, from.origin.keyword.text);
                self.warn(origin, Rule::FromAsCasing, keyword.span, &message);
            }
        }
        let (Some(name), Some(written)) = (&stage.name, &from.name) else {
            return;
        };
        if name.text != written.text {
            let message = format!("stage {} is called {}", written.text, name.text);
            self.warn(origin, Rule::StageNameCasing, written.span, &message);
        }
        if !earlier.insert(&name.text) {
            let message = format!("an earlier stage is called {} as well", name.text);
            self.warn(origin, Rule::DuplicateStageName, written.span, &message);
        }
        if matches!(name.text.as_str(), "scratch" | "context") {
            let message = format!("{} no longer means what it says", name.text);
            self.warn(origin, Rule::ReservedStageName, written.span, &message);
        }
    }

    fn check_platform(&mut self, origin: &Origin, platform: &Word) {
        if matches!(
            platform.text.as_str(),
            "$TARGETPLATFORM" | "${TARGETPLATFORM}"
        ) {
            let rule = Rule::RedundantTargetPlatform;
            self.warn(Some(origin), rule, platform.span, "this is the default");
        } else if !platform.text.contains('$') {
            let message = format!("the stage is always for {}", platform.text);
            let rule = Rule::FromPlatformFlagConstDisallowed;
            self.warn(Some(origin), rule, platform.span, &message);
        }
    }

    /// `CMD`, `ENTRYPOINT` and `HEALTHCHECK` replace what was said before.
    fn check_repeated(&mut self, stage: &Stage) {
        for keyword in [Keyword::Cmd, Keyword::Entrypoint, Keyword::Healthcheck] {
            let all = stage
                .instructions
                .iter()
                .filter(|it| it.keyword() == keyword);
            let all: Vec<&Instruction> = all.collect();
            for replaced in all.iter().rev().skip(1) {
                let origin = replaced.origin();
                let message = format!("a later {keyword} of the stage replaces this one");
                let rule = Rule::MultipleInstructionsDisallowed;
                self.warn(Some(origin), rule, origin.span, &message);
            }
        }
    }

    fn check_instruction(&mut self, instruction: &Instruction, has_shell: bool) {
        let origin = instruction.origin();
        match instruction {
            Instruction::Arg(arg) => {
                let names = arg.declarations.iter().map(|declaration| &declaration.name);
                self.check_secrets(origin, names);
            }
            Instruction::Env(env) => {
                self.check_secrets(origin, env.pairs.iter().map(|pair| &pair.key));
                self.check_legacy(origin, &env.pairs);
            }
            Instruction::Label(label) => self.check_legacy(origin, &label.pairs),
            Instruction::Cmd(cmd) => self.check_shell_form(has_shell, origin, &cmd.command),
            Instruction::Entrypoint(entrypoint) => {
                self.check_shell_form(has_shell, origin, &entrypoint.command);
            }
            Instruction::Expose(expose) => self.check_ports(origin, &expose.ports),
            Instruction::Maintainer(_) => {
                let message = "use LABEL org.opencontainers.image.authors instead";
                self.warn(
                    Some(origin),
                    Rule::MaintainerDeprecated,
                    origin.span,
                    message,
                );
            }
            _ => {}
        }
    }

    /// A stage that says which shell it wants also wants it for these.
    fn check_shell_form(&mut self, has_shell: bool, origin: &Origin, command: &Command) {
        if matches!(command, Command::Shell(_)) && !has_shell {
            let message = "a shell stands between the command and its signals";
            self.warn(
                Some(origin),
                Rule::JSONArgsRecommended,
                origin.span,
                message,
            );
        }
    }

    fn check_legacy(&mut self, origin: &Origin, pairs: &[KeyValue]) {
        for pair in pairs.iter().filter(|pair| pair.is_legacy) {
            let message = format!("write {}=value", pair.key.text);
            self.warn(
                Some(origin),
                Rule::LegacyKeyValueFormat,
                pair.key.span,
                &message,
            );
        }
    }

    fn check_secrets<'a>(&mut self, origin: &Origin, names: impl Iterator<Item = &'a Word>) {
        for name in names.filter(|name| looks_secret(&name.text)) {
            let message = format!("use a secret mount for {}", name.text);
            self.warn(
                Some(origin),
                Rule::SecretsUsedInArgOrEnv,
                name.span,
                &message,
            );
        }
    }

    fn check_ports(&mut self, origin: &Origin, ports: &[Word]) {
        for port in ports.iter().filter(|port| !port.text.contains('$')) {
            let (numbers, protocol) = port.text.split_once('/').unwrap_or((&port.text, ""));
            if protocol.contains(char::is_uppercase) {
                let message = format!("write {}", protocol.to_lowercase());
                self.warn(Some(origin), Rule::ExposeProtoCasing, port.span, &message);
            }
            if numbers.contains(':') {
                let message = "only the port behind the last colon counts";
                self.warn(Some(origin), Rule::ExposeInvalidFormat, port.span, message);
            }
        }
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
    let name = name.to_lowercase();
    let has = |word: &str| name.split('_').any(|part| part == word);
    WORDS.iter().any(|word| has(word)) && !has("public")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::parse;

    /// Gives the rules that object, each with the text that it objects to.
    fn found(source: &str) -> Vec<(&'static str, String)> {
        let file = parse(source).unwrap();
        let warnings = lint(&file).warnings.into_iter();
        warnings
            .map(|it| (it.rule.name(), it.span.slice(source).to_owned()))
            .collect()
    }

    #[test]
    fn each_rule_finds_its_case_and_leaves_the_good_one_alone() {
        let table = [
            ("FROM a\nRUN b \\\n\n c\n", "NoEmptyContinuation", ""),
            (
                "FROM a\nrun b\nRUN c\n",
                "ConsistentInstructionCasing",
                "run",
            ),
            (
                "from a\nrun b\nRun c\n",
                "ConsistentInstructionCasing",
                "Run",
            ),
            ("FROM a AS Bc\n", "StageNameCasing", "Bc"),
            ("FROM a as b\n", "FromAsCasing", "as"),
            ("FROM a AS b\nFROM c AS b\n", "DuplicateStageName", "b"),
            ("FROM a AS scratch\n", "ReservedStageName", "scratch"),
            (
                "FROM --platform=$TARGETPLATFORM a\n",
                "RedundantTargetPlatform",
                "$TARGETPLATFORM",
            ),
            (
                "FROM --platform=linux a\n",
                "FromPlatformFlagConstDisallowed",
                "linux",
            ),
            (
                "FROM a\nMAINTAINER me\n",
                "MaintainerDeprecated",
                "MAINTAINER me",
            ),
            ("FROM a\nCMD b\n", "JSONArgsRecommended", "CMD b"),
            (
                "FROM a\nENTRYPOINT b\n",
                "JSONArgsRecommended",
                "ENTRYPOINT b",
            ),
            (
                "FROM a\nCMD [\"b\"]\nCMD []\n",
                "MultipleInstructionsDisallowed",
                "CMD [\"b\"]",
            ),
            ("FROM a\nENV b c\n", "LegacyKeyValueFormat", "b"),
            ("FROM a\nLABEL b c\n", "LegacyKeyValueFormat", "b"),
            (
                "ARG API_TOKEN\nFROM a\n",
                "SecretsUsedInArgOrEnv",
                "API_TOKEN",
            ),
            (
                "FROM a\nENV a=1 Secret=2\n",
                "SecretsUsedInArgOrEnv",
                "Secret",
            ),
            ("FROM a\nEXPOSE 80/TCP\n", "ExposeProtoCasing", "80/TCP"),
            ("FROM a\nEXPOSE 8080:80\n", "ExposeInvalidFormat", "8080:80"),
        ];
        for (source, rule, place) in table {
            assert_eq!(found(source), [(rule, place.to_owned())], "{source:?}");
        }
        let good = [
            "FROM --platform=$BUILDPLATFORM a AS b\nFROM b\nCMD [\"x\"]\nEXPOSE 80/tcp $P\n",
            "from a as b\nfrom c as d\nenv PUBLIC_KEY=1 MONKEY=2\ncmd [\"x\"]\n",
            "FROM a\nSHELL [\"sh\"]\nCMD b\nFROM a\nENTRYPOINT []\nCMD [\"c\"]\n",
        ];
        for source in good {
            assert_eq!(found(source), [], "{source:?}");
        }
    }

    #[test]
    fn a_file_switches_rules_off_or_makes_them_fatal() {
        let body = "FROM a\nCMD b\nMAINTAINER c\n";
        let rules = |head: &str| {
            let found = found(&format!("{head}{body}")).into_iter();
            found.map(|(rule, _)| rule).collect::<Vec<_>>()
        };
        assert_eq!(rules("# check=skip=all\n"), [""; 0]);
        assert_eq!(
            rules("# check=skip=JSONArgsRecommended\n"),
            ["MaintainerDeprecated"]
        );
        assert_eq!(
            rules("# check=error=true;skip=a, jsonargsrecommended\n").len(),
            1
        );
        assert_eq!(rules("# check=error=true\n").len(), 2);

        let is_error = |head: &str| lint(&parse(&format!("{head}{body}")).unwrap()).is_error;
        assert!(is_error("# check=error=true\n"));
        assert!(!is_error("# check=error=true;skip=all\n"));
        assert!(!is_error(""));

        let one = "FROM a\n# check=skip=JSONArgsRecommended\nCMD b\nENTRYPOINT c\n";
        assert_eq!(
            found(one),
            [("JSONArgsRecommended", "ENTRYPOINT c".to_owned())]
        );
    }
}
