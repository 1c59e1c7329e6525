//! What it costs to move a large layer: in time beside curl, in bytes over bad lines and
//! narrow proxies, in memory.
//!
//! Each measured client is a process of its own, so that its memory is its own; so is our
//! registry. curl moves the same bytes to and from the same servers, in turns.

pub(crate) mod child;
mod line;
mod sink;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use ocibuild_registry::testing::{DebianRegistry, Nginx};
use ocibuild_registry::{Descriptor, Digest, Hasher, Repository, media_type};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::measure::{self, Cost, Daemons};
use crate::report::{median, rounded};
use child::Served;
use line::{Direction, Line};

/// The first argument of a process that this program starts as itself.
pub(crate) const CHILD: &str = "registry-child";

/// Measures transfers; one line of JSON for each figure and server.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Bytes of the layer whose transfer is timed and counted
    #[arg(long, default_value_t = 64 << 20)]
    size: u64,
    /// Bytes of the layer whose transfer's memory is measured
    #[arg(long, default_value_t = 256 << 20)]
    memory_size: u64,
    /// The same of the layer that is loaded, which takes room here
    #[arg(long, default_value_t = 256 << 20)]
    memory_down_size: u64,
    /// Make the timed and counted layer of zeros, which take no room here
    #[arg(long)]
    zeros: bool,
    /// Reset a connection whenever so many bytes have passed
    #[arg(long, default_value_t = 16 << 20)]
    every: u64,
    /// Runs of each figure that is a time
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Only these figures
    #[arg(long, value_enum)]
    figure: Vec<Figure>,
    /// Keep files below this folder
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// What `cargo bench` says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Figure {
    /// Times beside curl
    Rate,
    /// Bytes over a line that breaks
    Breaks,
    /// Bytes through nginx with a limit of bodies
    Proxy,
    /// Memory of a client, against a server that keeps nothing
    Memory,
}

/// The layer, its name and the folder of everything.
struct Ground {
    folder: TempDir,
    blob: Descriptor,
    file: PathBuf,
    runs: u32,
}

/// Measures what the options ask for.
pub(crate) fn run(options: &Options) -> Result<()> {
    let wanted = |figure| options.figure.is_empty() || options.figure.contains(&figure);
    let say = |line: Value| println!("{line}");
    let folder = || match &options.work {
        Some(parent) => TempDir::new_in(parent),
        None => TempDir::new(),
    };
    let zeros = |size| Ground::new(folder()?, size, 1, Content::Zeros);
    if wanted(Figure::Memory) {
        say(memory(Direction::Up, &zeros(options.memory_size)?)?);
        say(memory(Direction::Down, &zeros(options.memory_down_size)?)?);
    }
    let content = match options.zeros {
        true => Content::Zeros,
        false => Content::Noise,
    };
    let ground = Ground::new(folder()?, options.size, options.runs, content)?;
    if wanted(Figure::Rate) {
        for server in Server::all(&ground)? {
            say(up(&ground, &server)?);
            say(down(&ground, &server)?);
        }
    }
    if wanted(Figure::Breaks) {
        for direction in [Direction::Up, Direction::Down] {
            say(breaks(&ground, direction, options.every)?);
        }
    }
    if wanted(Figure::Proxy) {
        for limit in ["1m", "100m"] {
            if let Some(line) = proxy(&ground, limit)? {
                say(line);
            }
        }
    }
    Ok(())
}

/// What a layer is made of.
#[derive(Clone, Copy)]
enum Content {
    /// What takes no room on the disk.
    Zeros,
    /// What nothing on the way can make smaller.
    Noise,
}

impl Ground {
    fn new(folder: TempDir, size: u64, runs: u32, content: Content) -> Result<Self> {
        let file = folder.path().join("layer");
        let digest = write(&file, size, content).context("make a layer")?;
        Ok(Self {
            blob: Descriptor::new(media_type::LAYER_TAR, digest, size),
            folder,
            file,
            runs,
        })
    }

    /// Gives the command of a client of ours.
    fn client(&self, verb: &str, repository: &Repository, file: &Path) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([CHILD, verb]);
        command.arg(repository.to_string());
        command.arg(self.blob.digest.to_string());
        command.arg(self.blob.size.to_string()).arg(file);
        Ok(command)
    }

    fn push(&self, repository: &Repository) -> Result<Cost> {
        measure::run(
            &mut self.client("push", repository, &self.file)?,
            &Daemons::None,
        )
    }

    fn pull(&self, repository: &Repository) -> Result<Cost> {
        let file = self.folder.path().join("pulled");
        let cost = measure::run(&mut self.client("pull", repository, &file)?, &Daemons::None);
        std::fs::remove_file(file).context("remove what was pulled")?;
        cost
    }
}

fn write(path: &Path, size: u64, content: Content) -> Result<Digest> {
    const STEP: usize = 1 << 20;
    let mut file = File::create(path)?;
    let mut hasher = Hasher::sha256();
    let (mut left, mut state) = (size, 0x9e37_79b9_7f4a_7c15_u64);
    let mut bytes = vec![0; STEP];
    while left > 0 {
        let count = usize::try_from(left).map_or(STEP, |left| left.min(STEP));
        if let Content::Noise = content {
            for word in bytes.chunks_exact_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                word.copy_from_slice(&state.to_le_bytes());
            }
            file.write_all(&bytes[..count])?;
        }
        hasher.update(&bytes[..count]);
        left -= count as u64;
    }
    file.set_len(size)?;
    Ok(hasher.finish())
}

/// A registry that transfers are timed against.
enum Server {
    Ours(Served),
    Debians(DebianRegistry),
}

impl Server {
    fn all(ground: &Ground) -> Result<Vec<Self>> {
        let folder = ground.folder.path().join("registry");
        let mut all = vec![Self::Ours(Served::start("serve", &folder)?)];
        match DebianRegistry::start() {
            Ok(registry) => all.push(Self::Debians(registry)),
            Err(error) => eprintln!("skipped: {error}"),
        }
        Ok(all)
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Ours(_) => "ours",
            Self::Debians(_) => "docker-registry",
        }
    }

    fn host(&self) -> String {
        match self {
            Self::Ours(served) => served.host.clone(),
            Self::Debians(registry) => registry.host(),
        }
    }

    fn repository(&self, path: &str) -> Result<Repository> {
        Ok(Repository::new(&self.host(), path)?)
    }
}

/// Sends the layer, in turns with curl.
fn up(ground: &Ground, server: &Server) -> Result<Value> {
    let (mut ours, mut curls) = (Vec::new(), Vec::new());
    for run in 0..ground.runs {
        ours.push(ground.push(&server.repository(&format!("ours/{run}"))?)?);
        let repository = server.repository(&format!("curl/{run}"))?;
        let url = child::begin(&repository, &ground.blob.digest)?;
        let mut curl = curl();
        curl.args(["-X", "PUT", "-H", "Content-Type: application/octet-stream"]);
        curl.arg("-T").arg(&ground.file).arg(url);
        curls.push(measure::run(&mut curl, &Daemons::None)?);
    }
    Ok(beside_curl("up", ground, server, &ours, &curls))
}

/// Loads the layer, in turns with curl.
fn down(ground: &Ground, server: &Server) -> Result<Value> {
    let (mut ours, mut curls) = (Vec::new(), Vec::new());
    let repository = server.repository("ours/0")?;
    for _ in 0..ground.runs {
        ours.push(ground.pull(&repository)?);
        let path = repository.path();
        let (host, digest) = (server.host(), ground.blob.digest);
        let file = ground.folder.path().join("curled");
        let mut curl = curl();
        curl.arg("-o").arg(&file);
        curl.arg(format!("http://{host}/v2/{path}/blobs/{digest}"));
        curls.push(measure::run(&mut curl, &Daemons::None)?);
        std::fs::remove_file(file)?;
    }
    Ok(beside_curl("down", ground, server, &ours, &curls))
}

fn curl() -> Command {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--fail", "--noproxy", "*"]);
    curl
}

fn beside_curl(
    figure: &str,
    ground: &Ground,
    server: &Server,
    ours: &[Cost],
    curls: &[Cost],
) -> Value {
    let times = |costs: &[Cost]| {
        let mut walls: Vec<f64> = costs.iter().map(|cost| cost.wall_seconds).collect();
        let middle = median(&mut walls);
        let ends = [walls.first(), walls.last()].map(|end| rounded(end.copied()));
        (
            middle,
            json!({"median": rounded(middle), "min": ends[0], "max": ends[1]}),
        )
    };
    let ((our_time, ours_shown), (curl_time, curl_shown)) = (times(ours), times(curls));
    let ratio = our_time.zip(curl_time).map(|(ours, curl)| curl / ours);
    json!({
        "figure": figure,
        "server": server.name(),
        "bytes": ground.blob.size,
        "runs": ours.len(),
        "wall_seconds": ours_shown,
        "curl_wall_seconds": curl_shown,
        "rate_beside_curl": rounded(ratio),
        "peak_memory_bytes": ours.iter().map(|cost| cost.peak_memory_bytes).max(),
    })
}

/// Moves the layer over a line that breaks.
fn breaks(ground: &Ground, direction: Direction, every: u64) -> Result<Value> {
    let folder = ground.folder.path().join("behind-the-line");
    let served = Served::start("serve", &folder)?;
    let line = Line::start(&served.host, direction, every)?;
    let repository = Repository::new(&line.address, "app")?;
    let cost = match direction {
        Direction::Up => ground.push(&repository)?,
        Direction::Down => {
            ground.push(&Repository::new(&served.host, "app")?)?;
            ground.pull(&repository)?
        }
    };
    let moved = line.carried();
    let line = json!({
        "figure": match direction { Direction::Up => "breaks up", Direction::Down => "breaks down" },
        "bytes": ground.blob.size,
        "break_every_bytes": every,
        "breaks": line.breaks(),
        "moved_bytes": moved,
        "extra_percent": rounded(Some(extra(moved, ground.blob.size))),
        "wall_seconds": rounded(Some(cost.wall_seconds)),
        "peak_memory_bytes": cost.peak_memory_bytes,
    });
    std::fs::remove_dir_all(folder).context("remove the registry")?;
    Ok(line)
}

fn extra(moved: u64, size: u64) -> f64 {
    (moved as f64 / size as f64 - 1.0) * 100.0
}

/// Sends the layer through nginx, which takes no larger body and waits for no more than a
/// minute.
fn proxy(ground: &Ground, limit: &str) -> Result<Option<Value>> {
    let folder = ground.folder.path().join("behind-nginx");
    let served = Served::start("serve", &folder)?;
    let settings = format!(
        "client_max_body_size {limit}; client_body_timeout 60s;
         proxy_read_timeout 60s; proxy_send_timeout 60s;"
    );
    let Some(nginx) = Nginx::before(&served.host, &settings)? else {
        eprintln!("skipped: nginx is not installed");
        return Ok(None);
    };
    let line = Line::start(nginx.host(), Direction::Up, u64::MAX)?;
    let cost = ground.push(&Repository::new(&line.address, "app")?)?;
    let there = Repository::new(&served.host, "app")?;
    if !child::has(&there, &ground.blob.digest)? {
        bail!("the registry behind nginx does not have the layer");
    }
    let moved = line.carried();
    let line = json!({
        "figure": "proxy",
        "client_max_body_size": limit,
        "bytes": ground.blob.size,
        "moved_bytes": moved,
        "extra_percent": rounded(Some(extra(moved, ground.blob.size))),
        "wall_seconds": rounded(Some(cost.wall_seconds)),
        "peak_memory_bytes": cost.peak_memory_bytes,
    });
    std::fs::remove_dir_all(folder).context("remove the registry")?;
    Ok(Some(line))
}

/// Sends the layer to a server that keeps nothing, or loads it from there.
fn memory(direction: Direction, ground: &Ground) -> Result<Value> {
    let served = Served::start("sink", Path::new("-"))?;
    let repository = Repository::new(&served.host, "app")?;
    let pushed = ground.push(&repository)?;
    let (figure, cost) = match direction {
        Direction::Up => ("memory up", pushed),
        Direction::Down => ("memory down", ground.pull(&repository)?),
    };
    Ok(json!({
        "figure": figure,
        "bytes": ground.blob.size,
        "wall_seconds": rounded(Some(cost.wall_seconds)),
        "peak_memory_bytes": cost.peak_memory_bytes,
    }))
}
