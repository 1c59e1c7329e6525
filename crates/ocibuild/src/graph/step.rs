//! What one instruction asks for, once the configuration below it is known: a change of
//! the configuration, and perhaps a step that makes a layer.

use crate::dockerfile::Mount;
use crate::dockerfile::ast::{
    Arg, Command, Instruction, Invocation, Network, Run, Security, Workdir,
};
use crate::executor;
use crate::image::{History, ImageConfig};

use super::{CopyStep, Error, Plan, Scope, metadata, mounts};

/// Where a command finds scripts that are here-documents with a `#!` line.
pub const SCRIPTS: &str = "/dev/pipes";

/// What makes a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing: only the configuration changed.
    Config,
    /// A command.
    Run(RunStep),
    /// Files.
    Copy(CopyStep),
    /// A directory, absolute and clean, that is made where it is missing.
    Workdir(String),
}

/// RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunStep {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The environment that decides over the result.
    pub env: Vec<(String, String)>,
    /// Proxies: seen by the command, not part of what it depends on.
    pub silent_env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: String,
    /// `USER`.
    pub user: String,
    /// Network.
    pub network: executor::Network,
    /// `--security=insecure`.
    pub privileged: bool,
    /// Name and text of a script that is run as a program.
    pub script: Option<(String, String)>,
    /// What it sees beside its root, in the order in which that is mounted.
    pub mounts: Vec<Mount>,
}

/// What an instruction came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// What is to be done.
    pub step: Step,
    /// Its entry in the history; ONBUILD has none.
    pub history: Option<History>,
}

impl Applied {
    pub(super) fn config(text: impl Into<String>) -> Self {
        Self {
            step: Step::Config,
            history: Some(History::of(text, false)),
        }
    }

    pub(super) fn layer(step: Step, text: impl Into<String>) -> Self {
        Self {
            step,
            history: Some(History::of(text, true)),
        }
    }
}

/// The configuration of a stage between two instructions.
#[derive(Debug, Clone)]
pub struct StageConfig {
    /// The image configuration so far.
    pub image: ImageConfig,
    /// The variables so far.
    pub scope: Scope,
    /// Whether this stage has had a CMD, which ENTRYPOINT then keeps.
    pub has_cmd: bool,
    /// Whether this Dockerfile has set the directory, here or in a stage below.
    pub has_workdir: bool,
}

impl StageConfig {
    /// Begins with an image; gives what its ONBUILD asks for, too.
    pub fn of_image(plan: &Plan, mut image: ImageConfig) -> (Self, Vec<String>) {
        image.created = None;
        let triggers = std::mem::take(&mut image.config.on_build);
        image.config.ensure_path();
        let scope = Scope::from_env(&image.config.env, plan.dockerfile.escape());
        let config = Self {
            image,
            scope,
            has_cmd: false,
            has_workdir: false,
        };
        (config, triggers)
    }

    /// Begins a stage on the result of this one; gives what its ONBUILD asks for, too.
    pub fn child(&self) -> (Self, Vec<String>) {
        let mut child = self.clone();
        child.has_cmd = false;
        let triggers = std::mem::take(&mut child.image.config.on_build);
        (child, triggers)
    }

    /// Takes one instruction.
    pub fn apply(&mut self, plan: &Plan, instruction: &Instruction) -> Result<Applied, Error> {
        match instruction {
            Instruction::Run(run) => self.run(plan, run),
            Instruction::Copy(copy) => self.copy(copy),
            Instruction::Add(add) => self.add(add),
            Instruction::Workdir(workdir) => self.workdir(workdir),
            Instruction::Arg(arg) => self.arg(plan, arg),
            other => metadata::apply(self, other),
        }
    }

    /// Gives the shell of shell forms.
    pub(super) fn shell(&self) -> Vec<String> {
        match &self.image.config.shell {
            Some(shell) => shell.clone(),
            None => vec!["/bin/sh".to_owned(), "-c".to_owned()],
        }
    }

    /// Gives the words that a command runs as.
    pub(super) fn words_of(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Shell(text) => {
                let mut words = self.shell();
                words.push(text.text.clone());
                words
            }
            Command::Exec(words) => words.iter().map(|word| word.text.clone()).collect(),
        }
    }

    fn arg(&mut self, plan: &Plan, arg: &Arg) -> Result<Applied, Error> {
        let mut shown = Vec::new();
        for declaration in &arg.declarations {
            // Unlike a default, a name is taken as it is written.
            let name = declaration.name.text.clone();
            let given = plan.request.args.get(&name).cloned();
            let value = match (given, &declaration.default) {
                (Some(given), _) => Some(given),
                (None, Some(default)) => Some(self.scope.expand(&default.text)?),
                (None, None) => plan.globals.get(&name).map(str::to_owned),
            };
            self.scope.declare(&name, value.as_deref());
            shown.push(match value {
                Some(value) => format!("{name}={value}"),
                None => name,
            });
        }
        Ok(Applied::config(format!("ARG {}", shown.join(" "))))
    }

    fn run(&mut self, plan: &Plan, run: &Run) -> Result<Applied, Error> {
        let (argv, script) = self.run_argv(run);
        let text = run_text(&self.scope, &argv);
        let config = &self.image.config;
        let mut mounts = mounts::of(run, &self.scope, &config.working_dir)?;
        let env = mounts::environment(&self.scope, &mounts);
        mounts::sort(&mut mounts);
        let step = Step::Run(RunStep {
            argv,
            env,
            silent_env: proxies(plan),
            cwd: absolute(&config.working_dir, ""),
            user: config.user.clone(),
            network: match run.network {
                Network::None => executor::Network::None,
                Network::Default | Network::Host => executor::Network::Host,
            },
            privileged: run.security == Security::Insecure,
            script,
            mounts,
        });
        Ok(Applied::layer(step, format!("RUN {text} # buildkit")))
    }

    /// Gives what runs, and the name and text of a script that has to be there for it.
    fn run_argv(&self, run: &Run) -> (Vec<String>, Option<(String, String)>) {
        match run.invocation() {
            Invocation::Exec(words) => (words, None),
            Invocation::Shell(text) => (self.with_shell(text), None),
            Invocation::Script { name, content } => {
                let argv = self.with_shell(format!("{SCRIPTS}/{name}"));
                (argv, Some((name, content)))
            }
        }
    }

    fn with_shell(&self, text: String) -> Vec<String> {
        let mut words = self.shell();
        words.push(text);
        words
    }

    /// An absolute path is stored as it is written; a relative one is joined and cleaned.
    fn workdir(&mut self, workdir: &Workdir) -> Result<Applied, Error> {
        let path = self.scope.expand(&workdir.path.text)?;
        self.has_workdir = true;
        let config = &mut self.image.config;
        if path.starts_with('/') {
            config.working_dir.clone_from(&path);
        } else if !path.is_empty() {
            config.working_dir = absolute(&config.working_dir, &path);
        }
        let folder = absolute(&config.working_dir, "");
        let text = format!("WORKDIR {}", config.working_dir);
        if folder == "/" {
            return Ok(Applied::config(text));
        }
        Ok(Applied::layer(Step::Workdir(folder), text))
    }
}

/// The words of RUN as the history shows them: the declared arguments come first.
fn run_text(scope: &Scope, argv: &[String]) -> String {
    let args: Vec<String> = scope
        .arguments()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mut words = Vec::new();
    if !args.is_empty() {
        words.push(format!("|{}", args.len()));
        words.extend(args);
    }
    words.extend_from_slice(argv);
    words.join(" ")
}

/// Proxy arguments reach RUN without ARG, in both spellings, and leave no trace.
fn proxies(plan: &Plan) -> Vec<(String, String)> {
    let names = [
        "http_proxy",
        "https_proxy",
        "ftp_proxy",
        "no_proxy",
        "all_proxy",
    ];
    let args = &plan.request.args;
    let mut found = Vec::new();
    for lower in names {
        let upper = lower.to_ascii_uppercase();
        // Whatever the case; of several spellings the one in lower case wins.
        let given = args
            .iter()
            .rfind(|(name, _)| name.eq_ignore_ascii_case(lower));
        let Some((_, value)) = given else {
            continue;
        };
        found.push((lower.to_owned(), value.clone()));
        found.push((upper, value.clone()));
    }
    found
}

/// Joins a path to a directory and cleans it: always absolute, no `.`, `..`, `//`.
pub fn absolute(folder: &str, path: &str) -> String {
    let joined = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{folder}/{path}")
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}
