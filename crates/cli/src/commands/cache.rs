//! `ocibuild cache`: what the store keeps, what may go, and why a step was not known.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use ocibuild::Cancel;
use ocibuild::cache::why::{self, BuildTrace, History, Outcome};
use ocibuild::content::ContentStore;
use ocibuild::content::prune::Prune;
use ocibuild::content::usage::{Item, Kind};
use ocibuild::executor::{Helper, REMOVE_TREE, probe};
use serde_json::json;

use super::surroundings::store_root;
use crate::args::{CacheCommand, CacheKind, DuArgs, PruneArgs, WhyArgs};
use crate::error::Error;
use crate::sizes::size;

/// Runs the command.
pub(crate) fn run(command: CacheCommand) -> Result<ExitCode, Error> {
    let text = match command {
        CacheCommand::Du(args) => du(&args)?,
        CacheCommand::Prune(args) => return prune(&args),
        CacheCommand::Why(args) => why(&args)?,
    };
    print(&text);
    Ok(ExitCode::SUCCESS)
}

fn print(text: &str) {
    // A reader that went away has seen what it wanted.
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

fn open(root: &Path) -> Result<ContentStore, Error> {
    ContentStore::open(root)
        .map_err(|error| Error::failed(format!("open the store {}", root.display()), error))
}

fn du(args: &DuArgs) -> Result<String, Error> {
    let store = open(&store_root(&args.store)?)?;
    let mut items = store.items();
    let mut kinds: BTreeMap<Kind, (usize, u64)> = BTreeMap::new();
    for item in &items {
        let (count, bytes) = kinds.entry(item.kind).or_default();
        *count += 1;
        *bytes += item.bytes;
    }
    let total: u64 = items.iter().map(|item| item.bytes).sum();
    if args.json {
        let kinds = kinds
            .iter()
            .map(|(kind, (count, bytes))| json!({"kind": kind, "count": count, "bytes": bytes}));
        let kinds: Vec<_> = kinds.collect();
        let document = json!({"root": store.root(), "kinds": kinds, "total_bytes": total});
        return Ok(format!("{document:#}\n"));
    }
    let mut text = String::new();
    if args.verbose {
        items.sort_by_key(|item| item.used);
        for item in &items {
            line(&mut text, item, store.root());
        }
        text.push('\n');
    }
    let _ = writeln!(text, "{:<18}{:>8}{:>12}", "KIND", "COUNT", "SIZE");
    for kind in Kind::ALL {
        let (count, bytes) = kinds.get(&kind).copied().unwrap_or_default();
        let _ = writeln!(text, "{:<18}{count:>8}{:>12}", kind.name(), size(bytes));
    }
    let _ = writeln!(text, "{:<18}{:>8}{:>12}", "total", items.len(), size(total));
    Ok(text)
}

fn line(text: &mut String, item: &Item, root: &Path) {
    let path = item.path.strip_prefix(root).unwrap_or(&item.path).display();
    let age = age(item.used);
    let _ = writeln!(text, "{:>10}  {age:>8} ago  {path}", size(item.bytes));
}

fn age(used: SystemTime) -> String {
    let seconds = SystemTime::now()
        .duration_since(used)
        .map_or(0, |age| age.as_secs());
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn prune(args: &PruneArgs) -> Result<ExitCode, Error> {
    let root = store_root(&args.store)?;
    let store = open(&root)?;
    let prune = Prune {
        images: args.all,
        unused_since: args.older_than.map(|age| {
            SystemTime::now()
                .checked_sub(age)
                .unwrap_or(SystemTime::UNIX_EPOCH)
        }),
        keep_bytes: args.keep_storage,
        kinds: args.kind.iter().copied().map(kind).collect(),
    };
    let pruned = store
        .prune(&prune, &|path| remove_with_sandbox(&root, path))
        .map_err(|error| Error::failed("prune the store", error))?;
    let mut text = String::new();
    for (kind, (count, bytes)) in &pruned.kinds {
        let _ = writeln!(text, "{:<18}{count:>8}{:>12}", kind.name(), size(*bytes));
    }
    let _ = writeln!(text, "freed {}", size(pruned.bytes()));
    print(&text);
    if pruned.problems.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let problems = pruned.problems.join("; ");
    Err(Error::failed("remove everything", problems))
}

fn kind(kind: CacheKind) -> Kind {
    match kind {
        CacheKind::Blobs => Kind::Blobs,
        CacheKind::Trees => Kind::Trees,
        CacheKind::Tables => Kind::Tables,
        CacheKind::Steps => Kind::Steps,
        CacheKind::CacheMounts => Kind::CacheMounts,
        CacheKind::Git => Kind::Git,
    }
}

/// Trees can hold files of ids that only the sandbox may touch.
fn remove_with_sandbox(root: &Path, path: &Path) -> io::Result<()> {
    let sandbox = probe::select(&Helper::CurrentExe, &root.join("tmp"))
        .map_err(|refusals| io::Error::other(refusals.to_string()))?;
    let path = path.as_os_str().as_encoded_bytes();
    sandbox
        .call(REMOVE_TREE, path, &Cancel::new())
        .map(drop)
        .map_err(io::Error::other)
}

fn why(args: &WhyArgs) -> Result<String, Error> {
    let store = open(&store_root(&args.store)?)?;
    let builds = why::builds(&store);
    let Some(build) = builds.iter().rev().nth(args.back) else {
        let known = builds.len();
        let problem = format!("the store remembers {known} builds, not {}", args.back + 1);
        return Err(Error::Usage(problem));
    };
    let history = History::of(&store);
    if args.json {
        return Ok(format!("{:#}\n", as_json(build, &history)));
    }
    let mut text = String::new();
    for step in &build.steps {
        let _ = writeln!(text, "{}", step.step);
        let _ = match &step.outcome {
            Outcome::Known => writeln!(text, "    hit: the store has it"),
            Outcome::Imported(source) => writeln!(text, "    hit: {source} has it"),
            Outcome::Shared => writeln!(text, "    hit: done for another platform"),
            Outcome::Forced => writeln!(text, "    done: told to do every step"),
            Outcome::Missed => match history.why_traced(step, build) {
                Some(why) => writeln!(text, "    done: {why}"),
                None => writeln!(text, "    done: nothing is known of its key any more"),
            },
        };
    }
    Ok(text)
}

fn as_json(build: &BuildTrace, history: &History) -> serde_json::Value {
    let steps = build.steps.iter().map(|step| {
        json!({
            "step": step.step,
            "key": step.key,
            "outcome": step.outcome,
            "why": history.why_traced(step, build),
        })
    });
    json!({"began": build.began, "steps": steps.collect::<Vec<_>>()})
}
