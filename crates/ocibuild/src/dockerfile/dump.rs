//! The AST as text for people and tests: one line for each instruction, with the
//! lines and columns that it covers, as in `1:1-1:12 (from "alpine")`.

use std::fmt::Write;

use super::ast::{AddFlags, Command, CopyFlags, Dockerfile, From, Heredoc, Instruction, KeyValue};
use super::ast::{HealthCommand, Network, Origin, Run, Security};
use super::span::{SourceMap, Word};

/// Writes a Dockerfile as lines.
pub fn dump(file: &Dockerfile) -> String {
    let mut out = String::new();
    let directives = &file.directives;
    let named = [
        ("syntax", &directives.syntax),
        ("escape", &directives.escape),
        ("check", &directives.check),
    ];
    for (name, word) in named {
        if let Some(word) = word {
            push_line(&mut out, format_args!("(directive {name} {:?})", word.text));
        }
    }
    let map = SourceMap::new(&file.source);
    for arg in &file.global_args {
        push_instruction(&mut out, &map, &Instruction::Arg(arg.clone()));
    }
    for stage in &file.stages {
        push_origin(&mut out, &map, &stage.from.origin);
        push_line(
            &mut out,
            format_args!("{}", from(&stage.from, stage.description.as_deref())),
        );
        for instruction in &stage.instructions {
            push_instruction(&mut out, &map, instruction);
        }
    }
    out
}

/// Writes one instruction without its place.
pub fn dump_instruction(instruction: &Instruction) -> String {
    let mut list = List::new(instruction.keyword().name());
    add_arguments(&mut list, instruction);
    list.finish()
}

fn push_line(out: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{line}");
}

fn push_origin(out: &mut String, map: &SourceMap<'_>, origin: &Origin) {
    let (start, end) = (
        map.line_col(origin.span.start),
        map.line_col(origin.span.end),
    );
    let _ = write!(out, "{start}-{end} ");
}

fn push_instruction(out: &mut String, map: &SourceMap<'_>, instruction: &Instruction) {
    push_origin(out, map, instruction.origin());
    push_line(out, format_args!("{}", dump_instruction(instruction)));
}

/// A parenthesised list that grows.
struct List(String);

impl List {
    fn new(name: &str) -> Self {
        Self(format!("({}", name.to_lowercase()))
    }

    fn atom(&mut self, atom: &str) {
        self.0.push(' ');
        self.0.push_str(atom);
    }

    fn word(&mut self, word: &Word) {
        self.atom(&format!("{:?}", word.text));
    }

    fn words(&mut self, words: &[Word]) {
        words.iter().for_each(|word| self.word(word));
    }

    fn flag(&mut self, name: &str, value: Option<&Word>) {
        if let Some(word) = value {
            self.atom(&format!("[--{name}={:?}]", word.text));
        }
    }

    fn flags(&mut self, name: &str, values: &[Word]) {
        values.iter().for_each(|value| self.flag(name, Some(value)));
    }

    fn switch(&mut self, name: &str, value: Option<bool>) {
        if let Some(value) = value {
            self.atom(&format!("[--{name}={value}]"));
        }
    }

    fn finish(self) -> String {
        format!("{})", self.0)
    }
}

fn from(from: &From, description: Option<&str>) -> String {
    let mut list = List::new("from");
    list.flag("platform", from.platform.as_ref());
    list.word(&from.image);
    if let Some(name) = &from.name {
        list.atom("as");
        list.word(name);
    }
    if let Some(description) = description {
        list.atom(&format!("; {description:?}"));
    }
    list.finish()
}

fn add_arguments(list: &mut List, instruction: &Instruction) {
    match instruction {
        Instruction::Add(add) => {
            add_flags(list, &add.flags);
            add_transfer(list, &add.sources, &add.heredocs, &add.destination);
        }
        Instruction::Arg(arg) => arg.declarations.iter().for_each(|declaration| {
            let mut pair = declaration.name.text.clone();
            if let Some(default) = &declaration.default {
                pair = format!("{pair}={:?}", default.text);
            }
            if let Some(description) = &declaration.description {
                pair = format!("{pair} ; {description:?}");
            }
            list.atom(&pair);
        }),
        Instruction::Cmd(cmd) => add_command(list, &cmd.command),
        Instruction::Copy(copy) => {
            copy_flags(list, &copy.flags);
            add_transfer(list, &copy.sources, &copy.heredocs, &copy.destination);
        }
        Instruction::Entrypoint(entrypoint) => add_command(list, &entrypoint.command),
        Instruction::Env(env) => add_pairs(list, &env.pairs),
        Instruction::Expose(expose) => list.words(&expose.ports),
        Instruction::Healthcheck(health) => match &health.check {
            Some(check) => add_check(list, check),
            None => list.atom("none"),
        },
        Instruction::Label(label) => add_pairs(list, &label.pairs),
        Instruction::Maintainer(maintainer) => list.word(&maintainer.name),
        Instruction::Onbuild(onbuild) => list.word(&onbuild.trigger),
        Instruction::Run(run) => add_run(list, run),
        Instruction::Shell(shell) => list.words(&shell.command),
        Instruction::Stopsignal(stopsignal) => list.word(&stopsignal.signal),
        Instruction::User(user) => list.word(&user.user),
        Instruction::Volume(volume) => list.words(&volume.paths),
        Instruction::Workdir(workdir) => list.word(&workdir.path),
    }
}

fn copy_flags(list: &mut List, flags: &CopyFlags) {
    list.flag("from", flags.from.as_ref());
    list.flag("chown", flags.chown.as_ref());
    list.flag("chmod", flags.chmod.as_ref());
    list.switch("link", flags.link.then_some(true));
    list.switch("parents", flags.parents.then_some(true));
    list.flags("exclude", &flags.exclude);
}

fn add_flags(list: &mut List, flags: &AddFlags) {
    list.flag("chown", flags.chown.as_ref());
    list.flag("chmod", flags.chmod.as_ref());
    list.switch("link", flags.link.then_some(true));
    list.switch("keep-git-dir", flags.keep_git_dir);
    list.flag("checksum", flags.checksum.as_ref());
    list.switch("unpack", flags.unpack);
    list.flags("exclude", &flags.exclude);
}

fn add_transfer(list: &mut List, sources: &[Word], heredocs: &[Heredoc], destination: &Word) {
    list.words(sources);
    heredocs
        .iter()
        .for_each(|heredoc| add_heredoc(list, heredoc));
    list.word(destination);
}

fn add_heredoc(list: &mut List, heredoc: &Heredoc) {
    let mut inner = List::new("heredoc");
    if heredoc.file_descriptor != 0 {
        inner.atom(&heredoc.file_descriptor.to_string());
    }
    for (name, given) in [("tabs", heredoc.strips_tabs), ("quoted", !heredoc.expands)] {
        if given {
            inner.atom(name);
        }
    }
    inner.atom(&format!("{:?} {:?}", heredoc.name, heredoc.body.text));
    list.atom(&inner.finish());
}

fn add_command(list: &mut List, command: &Command) {
    match command {
        Command::Shell(text) => list.word(text),
        Command::Exec(words) => {
            let mut inner = List::new("exec");
            inner.words(words);
            list.atom(&inner.finish());
        }
    }
}

fn add_pairs(list: &mut List, pairs: &[KeyValue]) {
    for KeyValue {
        key,
        value,
        is_legacy,
    } in pairs
    {
        let equals = if *is_legacy { " " } else { "=" };
        list.atom(&format!("{}{equals}{:?}", key.text, value.text));
    }
}

fn add_run(list: &mut List, run: &Run) {
    list.flags("mount", &run.mounts);
    match run.network {
        Network::Default => {}
        Network::None => list.atom("[--network=none]"),
        Network::Host => list.atom("[--network=host]"),
    }
    match run.security {
        Security::Sandbox => {}
        Security::Insecure => list.atom("[--security=insecure]"),
    }
    list.flags("device", &run.devices);
    add_command(list, &run.command);
    run.heredocs
        .iter()
        .for_each(|heredoc| add_heredoc(list, heredoc));
}

fn add_check(list: &mut List, check: &HealthCommand) {
    let durations = [
        ("interval", check.interval),
        ("timeout", check.timeout),
        ("start-period", check.start_period),
        ("start-interval", check.start_interval),
    ];
    for (name, duration) in durations {
        if let Some(duration) = duration {
            list.atom(&format!("[--{name}={duration:?}]"));
        }
    }
    if let Some(retries) = check.retries {
        list.atom(&format!("[--retries={retries}]"));
    }
    add_command(list, &check.command);
}
