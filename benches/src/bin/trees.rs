//! Speed of plain trees in place of overlays: the copy of a tree, the walk that looks for
//! changes, and what a step pays that goes on with the tree of the last one.
//!
//! `trees <directory of a root file system> <scratch directory> [entries]` prints one
//! line per figure: for a copy of the directory, for 50,000 files of which ten are
//! touched, and for a tree of many entries (800,000 where nothing is said, none for 0).

#![expect(clippy::print_stdout, reason = "a program that prints its figures")]

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ocibuild::executor::{Identity, Notes};
use ocibuild::snapshot::merge::{Merged, Options};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// How many files a directory of a made tree has.
const FILES: usize = 100;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, scratch, rest @ ..] = &arguments[..] else {
        return Err("want: trees <directory> <scratch directory> [entries]".into());
    };
    let entries = rest.first().map_or(Ok(800_000), |text| text.parse())?;
    let scratch = tempfile::tempdir_in(scratch)?;
    Site::new(scratch.path(), "root")?.measure(Path::new(directory))?;
    for (name, entries) in [("touched", entries.min(50_000)), ("large", entries)] {
        if entries == 0 {
            continue;
        }
        let site = Site::new(scratch.path(), name)?;
        let tree = site.folder.join("layer");
        make(&tree, entries)?;
        site.measure(&tree)?;
    }
    Ok(())
}

/// Makes small files in directories of directories.
fn make(tree: &Path, entries: usize) -> Outcome<()> {
    let folders = entries / (FILES + 1);
    for folder in 0..folders {
        let folder = tree.join(format!("{}/{}", folder / FILES, folder % FILES));
        fs::create_dir_all(&folder)?;
        for file in 0..FILES {
            fs::write(folder.join(format!("file-{file}")), "text")?;
        }
    }
    Ok(())
}

struct Site {
    folder: PathBuf,
    options: Options,
}

impl Site {
    fn new(scratch: &Path, name: &str) -> Outcome<Self> {
        let folder = scratch.join(name);
        fs::create_dir(&folder)?;
        let identity = match rustix::process::geteuid().is_root() {
            true => Identity::Real,
            false => Identity::Recorded,
        };
        println!("{name}:");
        Ok(Self {
            options: Options {
                identity,
                notes: Notes::User,
                pool: Some(folder.join("pool")),
            },
            folder,
        })
    }

    fn measure(&self, layer: &Path) -> Outcome<()> {
        let mut lowers = vec![layer.to_owned()];
        for step in ["copied", "first step", "second step"] {
            let place = self.folder.join("place");
            let mut merged = timed(&format!("{step}: take"), || {
                Ok(Merged::take(&place, &lowers, &self.options)?)
            })?;
            println!("    {} entries", merged.entries());
            if step != "copied" {
                touch(merged.path(), 10)?;
            }
            let upper = self.folder.join(step.replace(' ', "-"));
            fs::create_dir(&upper)?;
            let changes = timed(&format!("{step}: changes"), || {
                Ok(merged.changes_into(&upper, &BTreeSet::new())?)
            })?;
            println!("    {changes} changes");
            timed(&format!("{step}: give back"), || Ok(merged.give_back()?))?;
            lowers.push(upper);
        }
        Ok(())
    }
}

/// Appends to the first files that are found.
fn touch(tree: &Path, count: usize) -> Outcome<()> {
    let mut todo = vec![tree.to_owned()];
    let mut left = count;
    while let Some(path) = todo.pop() {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                todo.push(entry.path());
            } else if kind.is_file() {
                fs::write(entry.path(), "touched")?;
                left -= 1;
                if left == 0 {
                    return Ok(());
                }
            }
        }
    }
    Err("there are too few files".into())
}

fn timed<T>(what: &str, run: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let started = Instant::now();
    let value = run()?;
    println!(
        "  {what:<24} {:>8.1} ms",
        started.elapsed().as_secs_f64() * 1e3
    );
    Ok(value)
}
