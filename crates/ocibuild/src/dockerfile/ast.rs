//! The Dockerfile as typed values: stages of instructions, one type for each.
//!
//! Text in the AST is as written: quotes and `$NAME` are still in it, because what
//! they become depends on the build. [`words`](super::words) expands them. Flags
//! have lost their quotes, and JSON strings are decoded.

use std::fmt;
use std::time::Duration;

use super::directive::{Directives, Escape};
use super::mount::Mount;
use super::span::{Span, Word};

/// A parsed Dockerfile together with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// The text that all spans point into.
    pub source: String,
    /// The parser directives at the head.
    pub directives: Directives,
    /// The `ARG`s before the first `FROM`.
    pub global_args: Vec<Arg>,
    /// The stages, in order; there is at least one.
    pub stages: Vec<Stage>,
    /// Blank lines inside continued instructions, which are deprecated: of each such
    /// instruction the first.
    pub blank_continuations: Vec<BlankContinuation>,
}

impl Dockerfile {
    /// Gives the escape character that words of this file are expanded with.
    pub fn escape(&self) -> Escape {
        self.directives.escape()
    }
}

/// A blank line inside a continued instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlankContinuation {
    /// The blank line.
    pub blank: Span,
    /// An offset in the last line of the instruction.
    pub last: usize,
}

/// A stage: its `FROM` and the instructions below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The `FROM` that begins the stage.
    pub from: From,
    /// The name after `AS`, in lower case.
    pub name: Option<Word>,
    /// What the comment above `FROM` says about the name.
    pub description: Option<String>,
    /// The instructions, in order.
    pub instructions: Vec<Instruction>,
}

/// What every instruction has: its place, its text and the comments above it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// From the keyword to the last line, here-documents included.
    pub span: Span,
    /// The keyword as it is written.
    pub keyword: Word,
    /// The instruction after continuation, on one line and without here-documents.
    pub line: String,
    /// The comments directly above, without `#`.
    pub comments: Vec<Word>,
}

/// The name of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the instructions")]
pub enum Keyword {
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
}

impl Keyword {
    /// Every keyword, with its name in upper case.
    pub const ALL: [(Self, &'static str); 18] = [
        (Self::Add, "ADD"),
        (Self::Arg, "ARG"),
        (Self::Cmd, "CMD"),
        (Self::Copy, "COPY"),
        (Self::Entrypoint, "ENTRYPOINT"),
        (Self::Env, "ENV"),
        (Self::Expose, "EXPOSE"),
        (Self::From, "FROM"),
        (Self::Healthcheck, "HEALTHCHECK"),
        (Self::Label, "LABEL"),
        (Self::Maintainer, "MAINTAINER"),
        (Self::Onbuild, "ONBUILD"),
        (Self::Run, "RUN"),
        (Self::Shell, "SHELL"),
        (Self::Stopsignal, "STOPSIGNAL"),
        (Self::User, "USER"),
        (Self::Volume, "VOLUME"),
        (Self::Workdir, "WORKDIR"),
    ];

    /// Finds a keyword by its name, in upper or lower case.
    pub fn parse(name: &str) -> Option<Self> {
        let found = Self::ALL
            .iter()
            .find(|(_, upper)| upper.eq_ignore_ascii_case(name));
        found.map(|(keyword, _)| *keyword)
    }

    /// Gives the name in upper case.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(keyword, _)| *keyword == self);
        found.map_or("", |(_, name)| name)
    }
}

impl fmt::Display for Keyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

macro_rules! instructions {
    ($($name:ident: $doc:literal),+ $(,)?) => {
        /// An instruction of a stage, or the trigger of an `ONBUILD`.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Instruction {
            $(#[doc = $doc] $name($name)),+
        }

        impl Instruction {
            /// Gives place, text and comments.
            pub fn origin(&self) -> &Origin {
                match self { $(Self::$name(it) => &it.origin),+ }
            }

            /// Gives the keyword.
            pub fn keyword(&self) -> Keyword {
                match self { $(Self::$name(_) => Keyword::$name),+ }
            }
        }
    };
}

instructions! {
    Add: "`ADD`",
    Arg: "`ARG`",
    Cmd: "`CMD`",
    Copy: "`COPY`",
    Entrypoint: "`ENTRYPOINT`",
    Env: "`ENV`",
    Expose: "`EXPOSE`",
    Healthcheck: "`HEALTHCHECK`",
    Label: "`LABEL`",
    Maintainer: "`MAINTAINER`",
    Onbuild: "`ONBUILD`",
    Run: "`RUN`",
    Shell: "`SHELL`",
    Stopsignal: "`STOPSIGNAL`",
    User: "`USER`",
    Volume: "`VOLUME`",
    Workdir: "`WORKDIR`",
}

/// `FROM [--platform=p] image [AS name]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// Place, text and comments.
    pub origin: Origin,
    /// `--platform`, not expanded.
    pub platform: Option<Word>,
    /// The image, the stage or `scratch`, not expanded.
    pub image: Word,
    /// The word `AS` as it is written, where there is one.
    pub as_keyword: Option<Word>,
    /// The name of the stage as it is written.
    pub name: Option<Word>,
}

/// `ARG name[=default] ...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arg {
    /// Place, text and comments.
    pub origin: Origin,
    /// The arguments, in order; each sees the ones before it.
    pub declarations: Vec<ArgDeclaration>,
}

/// One argument of an `ARG`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgDeclaration {
    /// The name, not expanded.
    pub name: Word,
    /// The default, not expanded.
    pub default: Option<Word>,
    /// What the comment above says about the name.
    pub description: Option<String>,
}

/// One `name=value` of `ENV` or `LABEL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The name, not expanded.
    pub key: Word,
    /// The value, not expanded.
    pub value: Word,
    /// Written in the old form `name value`, which has only one pair.
    pub is_legacy: bool,
}

/// `ENV name=value ...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Env {
    /// Place, text and comments.
    pub origin: Origin,
    /// The pairs, in order; none sees another.
    pub pairs: Vec<KeyValue>,
}

/// `LABEL name=value ...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Place, text and comments.
    pub origin: Origin,
    /// The pairs, in order.
    pub pairs: Vec<KeyValue>,
}

/// A command in one of its two forms; it is never expanded by the builder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Text for the shell; empty where nothing is written.
    Shell(Word),
    /// The words of a JSON array, to be run without a shell.
    Exec(Vec<Word>),
}

/// `RUN [--mount] [--network] [--security] [--device] command`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Place, text and comments.
    pub origin: Origin,
    /// The values of `--mount`; [`Mount::parse`] reads one once variables are known.
    pub mounts: Vec<Word>,
    /// `--network`.
    pub network: Network,
    /// `--security`.
    pub security: Security,
    /// The values of `--device`.
    pub devices: Vec<Word>,
    /// The command.
    pub command: Command,
    /// The here-documents that the command begins, in order.
    pub heredocs: Vec<Heredoc>,
}

impl Run {
    /// Reads all mounts as they are written, without expanding variables.
    pub fn parse_mounts(&self) -> Result<Vec<Mount>, super::mount::MountError> {
        self.mounts
            .iter()
            .map(|mount| super::mount::parse_mount(&mount.text))
            .collect()
    }
}

/// What a `RUN` really starts, once its here-documents are taken into account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation {
    /// A program with its arguments, without a shell.
    Exec(Vec<String>),
    /// Text for the shell.
    Shell(String),
    /// A file that is to be executed, because it begins with `#!`.
    Script {
        /// The name of the file.
        name: String,
        /// What it holds.
        content: String,
    },
}

/// Which network a command sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// The network that the builder gives to every command.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The builder's own network.
    Host,
}

/// How much a command is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Security {
    /// As every command.
    #[default]
    Sandbox,
    /// With all privileges.
    Insecure,
}

/// A here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The name, without quotes; a copied file is called so.
    pub name: String,
    /// The `<<NAME` in the instruction.
    pub redirect: Word,
    /// The file descriptor in front of `<<`, or 0.
    pub file_descriptor: u32,
    /// The body may be expanded: no part of the name is quoted.
    pub expands: bool,
    /// Written `<<-`: leading tabs do not count.
    pub strips_tabs: bool,
    /// The lines of the body as they are written, line ends included.
    pub body: Word,
}

/// `COPY [flags] source ... destination`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Place, text and comments.
    pub origin: Origin,
    /// The flags.
    pub flags: CopyFlags,
    /// The paths to copy, not expanded.
    pub sources: Vec<Word>,
    /// The files given in place; they are copied after `sources`.
    pub heredocs: Vec<Heredoc>,
    /// Where to copy to, not expanded.
    pub destination: Word,
}

/// The flags of `COPY`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyFlags {
    /// `--from`: a stage, a number of a stage, an image or a named context.
    pub from: Option<Word>,
    /// `--chown`, not expanded.
    pub chown: Option<Word>,
    /// `--chmod`, not expanded.
    pub chmod: Option<Word>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`, in order.
    pub exclude: Vec<Word>,
}

/// `ADD [flags] source ... destination`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    /// Place, text and comments.
    pub origin: Origin,
    /// The flags.
    pub flags: AddFlags,
    /// The paths and addresses to add, not expanded.
    pub sources: Vec<Word>,
    /// The files given in place; they are added after `sources`.
    pub heredocs: Vec<Heredoc>,
    /// Where to add to, not expanded.
    pub destination: Word,
}

/// The flags of `ADD`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddFlags {
    /// `--chown`, not expanded.
    pub chown: Option<Word>,
    /// `--chmod`, not expanded.
    pub chmod: Option<Word>,
    /// `--link`.
    pub link: bool,
    /// `--keep-git-dir`.
    pub keep_git_dir: Option<bool>,
    /// `--checksum`, not expanded.
    pub checksum: Option<Word>,
    /// `--unpack`; without it local archives are unpacked and downloads are not.
    pub unpack: Option<bool>,
    /// `--exclude`, in order.
    pub exclude: Vec<Word>,
}

/// `WORKDIR path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workdir {
    /// Place, text and comments.
    pub origin: Origin,
    /// The path, not expanded.
    pub path: Word,
}

/// `USER user[:group]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Place, text and comments.
    pub origin: Origin,
    /// User and group, not expanded.
    pub user: Word,
}

/// `EXPOSE port[-port][/protocol] ...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expose {
    /// Place, text and comments.
    pub origin: Origin,
    /// The ports as they are written; one may expand to several.
    pub ports: Vec<Word>,
}

impl Expose {
    /// Gives the ports in the order in which they take effect: sorted by their text.
    pub fn sorted_ports(&self) -> Vec<&Word> {
        let mut ports: Vec<&Word> = self.ports.iter().collect();
        ports.sort_by(|a, b| a.text.cmp(&b.text));
        ports
    }
}

/// `VOLUME path ...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Place, text and comments.
    pub origin: Origin,
    /// The paths, not expanded.
    pub paths: Vec<Word>,
}

/// `CMD command`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cmd {
    /// Place, text and comments.
    pub origin: Origin,
    /// The command.
    pub command: Command,
}

/// `ENTRYPOINT command`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entrypoint {
    /// Place, text and comments.
    pub origin: Origin,
    /// The command.
    pub command: Command,
}

/// `HEALTHCHECK [flags] CMD command` or `HEALTHCHECK NONE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthcheck {
    /// Place, text and comments.
    pub origin: Origin,
    /// The check, or nothing for `NONE`.
    pub check: Option<HealthCommand>,
}

/// The check of a `HEALTHCHECK`; a duration of zero and an absent one are the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCommand {
    /// The command; its shell form does not use the shell of `SHELL`.
    pub command: Command,
    /// `--interval`.
    pub interval: Option<Duration>,
    /// `--timeout`.
    pub timeout: Option<Duration>,
    /// `--start-period`.
    pub start_period: Option<Duration>,
    /// `--start-interval`.
    pub start_interval: Option<Duration>,
    /// `--retries`.
    pub retries: Option<u32>,
}

/// `SHELL ["program", "argument", ...]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shell {
    /// Place, text and comments.
    pub origin: Origin,
    /// The program and its arguments; never empty.
    pub command: Vec<Word>,
}

/// `STOPSIGNAL signal`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopsignal {
    /// Place, text and comments.
    pub origin: Origin,
    /// The name or number, not expanded.
    pub signal: Word,
}

/// `ONBUILD instruction`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Onbuild {
    /// Place, text and comments.
    pub origin: Origin,
    /// The instruction as the image stores it, here-documents included.
    /// [`parse_trigger`](super::parse_trigger) reads it when it fires.
    pub trigger: Word,
}

/// `MAINTAINER name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maintainer {
    /// Place, text and comments.
    pub origin: Origin,
    /// The name.
    pub name: Word,
}
