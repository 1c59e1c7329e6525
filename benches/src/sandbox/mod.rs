//! Measures RUN in every engine that works here, in turns with a native chroot: what a
//! command costs that does nothing, several at once, package managers, and the layer of a
//! small change in a large tree. It runs as root.
//!
//! `ground` makes the trees, `engine` runs a command in one of the ways.

mod engine;
mod ground;
mod options;
mod workload;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use self::engine::Engine;
pub(crate) use self::engine::time_native;
use self::ground::Ground;
use self::options::Figure;
pub(crate) use self::options::Options;
use crate::spread::{Spread, milliseconds};

/// What this program is told to time a chroot.
pub(crate) const NATIVE: &str = "time-native";
/// How often nothing is done.
const TRIVIAL: u32 = 100;
/// Files of the large tree, and how many of them a command touches.
const FILES: u32 = 50_000;

/// Takes every wanted figure and prints it.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "a native chroot takes root"
    );
    let folder = match &options.work {
        Some(parent) => TempDir::new_in(parent),
        None => TempDir::new(),
    };
    let folder = folder.context("make a working folder")?;
    let engines = Engine::all(folder.path(), &options.engine)?;
    for figure in options.figures() {
        let place = folder.path().join(figure.name());
        std::fs::create_dir(&place)?;
        let lines = match figure {
            Figure::Trivial => trivial(&engines, &place, options)?,
            Figure::Parallel => parallel(&engines, &place, options)?,
            Figure::Diff => diff(&engines, &place, options)?,
            // They take long, and what is done is not lost if a later one fails.
            Figure::Packages => {
                workload::measure(&engines, &place, options, |line| println!("{line}"))?;
                Vec::new()
            }
        };
        for line in lines {
            println!("{line}");
        }
        std::fs::remove_dir_all(&place)?;
    }
    Ok(())
}

/// A command that does nothing.
fn trivial(engines: &[Engine], place: &Path, options: &Options) -> Result<Vec<Value>> {
    let ground = Ground::busybox(engines, place)?;
    let runs = if options.small { 5 } else { TRIVIAL };
    let mut times = vec![Vec::new(); engines.len()];
    for _ in 0..runs {
        for (engine, times) in engines.iter().zip(&mut times) {
            // As in the middle of a stage.
            let step = ground.second_step(engine)?;
            times.push(engine.run(&step, &["/bin/true"])?);
        }
    }
    let native = median(&times[0]);
    Ok(engines
        .iter()
        .zip(times)
        .map(|(engine, times)| {
            let over = median(&times).saturating_sub(native);
            json!({
                "figure": "trivial",
                "engine": engine.name(),
                "over_native_ms": milliseconds(over),
                "times": Spread::of(times).report(),
            })
        })
        .collect())
}

/// The same by several threads at once.
fn parallel(engines: &[Engine], place: &Path, options: &Options) -> Result<Vec<Value>> {
    let ground = Ground::busybox(engines, place)?;
    let each = if options.small { 2 } else { 25 };
    let mut lines = Vec::new();
    for threads in [1_u32, 2, 4] {
        for engine in engines {
            let begun = Instant::now();
            std::thread::scope(|scope| {
                let workers: Vec<_> = (0..threads)
                    .map(|_| {
                        scope.spawn(|| {
                            (0..each).try_for_each(|_| {
                                let step = ground.step(engine)?;
                                engine.run(&step, &["/bin/true"]).map(drop)
                            })
                        })
                    })
                    .collect();
                workers
                    .into_iter()
                    .try_for_each(|worker| match worker.join() {
                        Ok(done) => done,
                        Err(_) => anyhow::bail!("a thread has panicked"),
                    })
            })?;
            let seconds = begun.elapsed().as_secs_f64();
            lines.push(json!({
                "figure": "parallel",
                "engine": engine.name(),
                "threads": threads,
                "commands_per_second": (f64::from(threads * each) / seconds).round(),
            }));
        }
    }
    Ok(lines)
}

/// A command that touches ten files of a large tree, and the layer of it.
fn diff(engines: &[Engine], place: &Path, options: &Options) -> Result<Vec<Value>> {
    let files = if options.small { 500 } else { FILES };
    let ground = Ground::of_files(engines, place, files)?;
    let script = "n=0; while [ $n -lt 10 ]; do echo changed > /files/$n/7; n=$((n+1)); done";
    let mut lines = Vec::new();
    for engine in engines.iter().filter(|engine| !engine.is_native()) {
        let (mut commands, mut layers) = (Vec::new(), Vec::new());
        for _ in 0..options.runs {
            // As the step before has left it.
            let step = ground.second_step(engine)?;
            commands.push(engine.run(&step, &["/bin/sh", "-c", script])?);
            layers.push(engine.layer(&step)?);
        }
        lines.push(json!({
            "figure": "diff",
            "engine": engine.name(),
            "files": files,
            "command": Spread::of(commands).report(),
            "layer": Spread::of(layers).report(),
        }));
    }
    Ok(lines)
}

/// The time in the middle.
fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
