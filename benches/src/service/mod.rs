//! Measures the build service as its users meet it: the real `ocibuild serve`, a process of
//! its own, asked over HTTP, with a Git server and a registry on this machine.
//!
//! `site` is what stands around the service, `replica` is one process of it, `gate` holds a
//! build where it is wanted, and each figure has a file. Clients, Git server and service share
//! the processors of the machine, so a figure is what is left beside them.

mod burst;
mod first_line;
mod followers;
mod gate;
mod memory;
mod options;
mod post;
mod recovery;
mod replica;
mod site;
mod start;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

pub(crate) use self::options::Options;
use self::options::{Database, Figure};
use self::site::Site;

/// Takes every wanted figure on every wanted database, and prints it.
pub(crate) fn run(options: &Options) -> Result<()> {
    for database in options.databases() {
        let site = Site::prepare(database, options)?;
        for figure in options.figures() {
            let name = figure.name();
            let measured = measure(figure, &site);
            let measured = measured.with_context(|| format!("{name} on {}", database.name()))?;
            for fields in measured {
                let line = line(name, database, fields);
                if !options.json {
                    show(&line);
                }
                println!("{line}");
            }
        }
    }
    Ok(())
}

/// Gives the fields of one or more lines.
fn measure(figure: Figure, site: &Site) -> Result<Vec<Value>> {
    site.runtime.block_on(async {
        Ok(match figure {
            Figure::Start => vec![start::measure(site).await?],
            Figure::FirstLine => vec![first_line::measure(site).await?],
            Figure::Post => vec![post::measure(site).await?],
            Figure::Burst => burst::measure(site).await?,
            Figure::Followers => vec![followers::measure(site).await?],
            Figure::Memory => vec![memory::measure(site).await?],
            Figure::Recovery => vec![recovery::measure(site).await?],
        })
    })
}

/// Adds to the fields of a figure what it was measured on.
fn line(figure: &str, database: Database, fields: Value) -> Value {
    let mut line = Map::new();
    line.insert("figure".to_owned(), json!(figure));
    line.insert("database".to_owned(), json!(database.name()));
    line.extend(fields.as_object().cloned().unwrap_or_default());
    line.insert("load_1m".to_owned(), json!(load()));
    line.insert("commit".to_owned(), json!(commit()));
    Value::Object(line)
}

/// Gives the load of the last minute, in which this program has its part.
fn load() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// Gives the commit of the sources, where there is a repository.
fn commit() -> Option<String> {
    let output = std::process::Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=10"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success()).then(|| text.trim().to_owned())
}

/// Shows a line to people: one field below the other.
fn show(line: &Value) {
    let text = |name| line[name].as_str().unwrap_or_default();
    eprintln!("{} on {}", text("figure"), text("database"));
    for (name, value) in line.as_object().into_iter().flatten().skip(2) {
        match value.as_object() {
            Some(fields) => {
                let fields = fields.iter().map(|(name, value)| format!("{name} {value}"));
                eprintln!("  {name:<28} {}", fields.collect::<Vec<_>>().join("  "));
            }
            None => eprintln!("  {name:<28} {value}"),
        }
    }
}
