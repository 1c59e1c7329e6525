//! The command line of the figures of the service, after the `--` of `cargo bench`.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Measures the build service; one line of JSON per figure and database.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Only on these databases
    #[arg(long, value_enum, value_name = "DATABASE")]
    database: Vec<Database>,
    /// Only these figures
    #[arg(long, value_enum, value_name = "NAME")]
    figure: Vec<Figure>,
    /// Print nothing but the lines of JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Try everything with small numbers: what comes out says nothing
    #[arg(long)]
    pub(crate) small: bool,
    /// Measure this command in place of the `ocibuild` beside this program
    #[arg(long, value_name = "PATH")]
    pub(crate) command: Option<PathBuf>,
    /// Make data folders below this folder, not in the temporary folder
    #[arg(long, value_name = "DIR")]
    pub(crate) work: Option<PathBuf>,
    /// What `cargo bench` says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Gives the databases to measure on.
    pub(crate) fn databases(&self) -> Vec<Database> {
        chosen(&self.database)
    }

    /// Gives the figures to take.
    pub(crate) fn figures(&self) -> Vec<Figure> {
        chosen(&self.figure)
    }

    /// Gives the numbers that the figures are taken with.
    pub(crate) fn counts(&self) -> &'static Counts {
        if self.small { &SMALL } else { &FULL }
    }
}

/// No choice is every choice.
fn chosen<T: ValueEnum + Copy>(wanted: &[T]) -> Vec<T> {
    match wanted {
        [] => T::value_variants().to_vec(),
        wanted => wanted.to_vec(),
    }
}

/// Where the task table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Database {
    /// In a file of the data folder
    Sqlite,
    /// On a server that is started for this
    Mariadb,
}

impl Database {
    /// Gives the name that reports use.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Mariadb => "mariadb",
        }
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Figure {
    /// From the start of the program to its first healthy answer
    Start,
    /// From a request to the first line of the build in its log, on an idle service
    FirstLine,
    /// Answers to requests at a fixed rate, while the queue only grows
    Post,
    /// Many builds at once: how long they wait, and whether all complete
    Burst,
    /// Many followers of one log: what they miss, how late they are, what they cost
    Followers,
    /// Memory of the service at its start and after many builds
    Memory,
    /// From the kill of a replica to the end of its build elsewhere
    Recovery,
}

impl Figure {
    /// Gives the name that reports use.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::FirstLine => "first-line",
            Self::Post => "post",
            Self::Burst => "burst",
            Self::Followers => "followers",
            Self::Memory => "memory",
            Self::Recovery => "recovery",
        }
    }
}

/// The numbers that figures are taken with.
#[derive(Debug)]
pub(crate) struct Counts {
    /// Repetitions of a start.
    pub(crate) starts: usize,
    /// Builds one after the other, each on an idle service.
    pub(crate) first_lines: usize,
    /// Requests in a second, and seconds.
    pub(crate) rate: u32,
    pub(crate) seconds: u32,
    /// Builds at once.
    pub(crate) burst: usize,
    /// Followers of one log, and its lines.
    pub(crate) followers: usize,
    pub(crate) lines: usize,
    /// Lots of builds, and builds in a lot.
    pub(crate) lots: usize,
    pub(crate) lot: usize,
    /// Kills of a replica.
    pub(crate) kills: usize,
}

const FULL: Counts = Counts {
    starts: 10,
    first_lines: 20,
    rate: 200,
    seconds: 10,
    burst: 50,
    followers: 500,
    lines: 10_000,
    lots: 4,
    lot: 50,
    kills: 3,
};
const SMALL: Counts = Counts {
    starts: 1,
    first_lines: 2,
    rate: 50,
    seconds: 1,
    burst: 4,
    followers: 5,
    lines: 300,
    lots: 2,
    lot: 2,
    kills: 1,
};
