//! ocibuild beside every other builder that is installed: each workload cold, unchanged,
//! edited and rebased, in turns, with one registry. Prints tables and the limits of the machine.

mod contender;
mod limits;
mod options;
mod place;
mod recipe;
mod table;
mod traffic;

use std::io::Write as _;

use anyhow::{Context as _, Result};

use self::contender::Contender;
pub(crate) use self::options::Options;
use self::place::Place;
use self::table::{HEAD, Row, Run};
use self::traffic::Log;
use crate::options::Mode;
use crate::workload::Workload;

/// In this order a round goes through them.
const MODES: [Mode; 4] = [Mode::Cold, Mode::Unchanged, Mode::Edited, Mode::Rebased];

/// Measures everything and prints it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let place = Place::prepare(options)?;
    let mut contenders = Vec::new();
    for recipe in options.recipes()? {
        contenders.push(Contender::start(recipe, &place.stores)?);
    }
    println!("{}\n", limits::machine());
    for contender in &contenders {
        println!("- {}: {}", contender.name(), contender.version());
    }
    println!("\n| limit of the machine | MB/s |\n|---|---|");
    for limit in limits::measure(&place.stores, options.full)? {
        println!("| {} | {:.0} |", limit.what, limit.megabytes_per_second);
    }
    println!("\n{HEAD}");
    let mut lines = Vec::new();
    for work in &place.workloads {
        let rows = measure(&place, &mut contenders, work, options.rounds)?;
        for group in rows.chunks(contenders.len()) {
            for row in group {
                println!("{}", row.line(&group[0]));
                lines.push(row.json(&group[0]));
            }
        }
    }
    if let Some(path) = &options.json {
        let mut file = std::fs::File::create(path).context("create the file for JSON")?;
        for line in lines {
            writeln!(file, "{line}")?;
        }
    }
    Ok(())
}

/// Gives the rows of a workload: those of a mode stand together, ocibuild first.
fn measure(
    place: &Place,
    contenders: &mut [Contender],
    work: &Workload,
    rounds: u32,
) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    for mode in MODES {
        rows.extend(contenders.iter().map(|contender| Row {
            workload: work.name.clone(),
            mode: mode.name(),
            builder: contender.name().to_owned(),
            runs: Vec::new(),
        }));
    }
    let mut log = Log::open(&place.registry)?;
    let count = contenders.len();
    for round in 1..=rounds {
        for (group, mode) in MODES.into_iter().enumerate() {
            if mode == Mode::Edited && !work.edit(round)? {
                continue;
            }
            place.rebase(work, mode == Mode::Rebased)?;
            for turn in 0..count {
                // Who begins changes, so that nobody always follows the same other one.
                let number = (turn + round as usize) % count;
                let contender = &mut contenders[number];
                let name = contender.name().to_owned();
                let run = once(place, contender, work, mode, round, &mut log);
                let run =
                    run.with_context(|| format!("{} {} by {name}", work.name, mode.name()))?;
                rows[group * count + number].runs.push(run);
            }
        }
        place.rebase(work, false)?;
    }
    rows.retain(|row| !row.runs.is_empty());
    Ok(rows)
}

fn once(
    place: &Place,
    contender: &mut Contender,
    work: &Workload,
    mode: Mode,
    round: u32,
    log: &mut Log,
) -> Result<Run> {
    if mode == Mode::Cold {
        contender.forget()?;
    }
    let (host, name) = (place.registry.host(), contender.name());
    let image = format!("{host}/bench/{}-{name}-{round}:1", work.name.to_lowercase());
    log.traffic(&place.registry)?;
    let cost = contender.build(&work.folder, &image)?;
    let traffic = log.traffic(&place.registry)?;
    Ok(Run { cost, traffic })
}
