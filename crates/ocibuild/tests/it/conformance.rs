//! The cases of `testdata/conformance`, built here and by the BuildKit of a Docker daemon:
//! every path, the configuration and the shape of the history are to be the same. It runs
//! when it is asked for (`-- --ignored conformance`), and `OCIBUILD_TEST_DOCKER` names a daemon, as
//! `unix:///run/docker.sock`, that keeps images as containerd does (`containerd-snapshotter`); `docker` with its buildx and
//! `skopeo` are to be in the path. `OCIBUILD_TEST_CASES` takes the beginning of names.
//!
//! A case has a `Dockerfile` and, as it needs, the files of `context` (and of `shared`, which
//! several have), a `dockerignore`, the shell script `prepare.sh` for what Git cannot hold,
//! and `options` for both command lines. `differences.txt` names those that are known to differ.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use ocibuild::layer::{Kind, TreePath};
use ocibuild::{Build, ContextSource, Output, Secret};
use serde_json::Value;

use crate::built::{Built, Workshop, only_image, skopeo, wait};

/// How many cases are built side by side.
const AT_ONCE: usize = 3;

#[test]
#[ignore = "it compares with the Docker daemon that OCIBUILD_TEST_DOCKER names"]
fn images_are_those_of_buildkit() {
    let daemon = std::env::var("OCIBUILD_TEST_DOCKER").expect("the address of a Docker daemon");
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/conformance");
    let known = known_differences(&corpus);
    let wanted = std::env::var("OCIBUILD_TEST_CASES").unwrap_or_default();
    let bench = Bench::new(daemon);
    let cases = names(&corpus.join("cases"));
    let cases: Vec<_> = cases
        .iter()
        .filter(|case| case.starts_with(&wanted))
        .collect();
    let (next, unexpected) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let differences = bench.compare(&corpus.join("cases").join(case));
            if !differences.is_empty() && !known.contains_key(*case) {
                let told = format!("{case}:\n  {}", differences.join("\n  "));
                unexpected.lock().unwrap().push(told);
            }
        }
    };
    std::thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(work))));
    let mut unexpected = unexpected.into_inner().unwrap();
    unexpected.sort();
    let gone = known
        .keys()
        .find(|case| !corpus.join("cases").join(case).exists());
    assert_eq!(gone, None, "differences.txt names a case that is not there");
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
}

/// Case and reason, from lines of `reason:` with indented cases below.
fn known_differences(corpus: &Path) -> BTreeMap<String, String> {
    let mut reason = String::new();
    let mut known = BTreeMap::new();
    for line in fs::read_to_string(corpus.join("differences.txt"))
        .unwrap()
        .lines()
    {
        match line.strip_prefix("  ") {
            Some(case) => drop(known.insert(case.to_owned(), reason.clone())),
            None => reason = line.to_owned(),
        }
    }
    known
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

struct Bench {
    daemon: String,
    workshop: Workshop,
    start: i64,
}

impl Bench {
    /// Gives the daemon the base image of the workshop.
    fn new(daemon: String) -> Self {
        let workshop = Workshop::new();
        let base = format!("oci:{}", workshop.path("base").display());
        let archive = workshop.path("base.tar").display().to_string();
        let to = format!("docker-archive:{archive}:busybox:latest");
        skopeo(&["copy", &base, &to]).expect("skopeo is needed");
        let mut load = Command::new("docker");
        load.args(["load", "--input", &archive]);
        done(load.env("DOCKER_HOST", &daemon)).unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let start = now.unwrap().as_secs() as i64;
        Self {
            daemon,
            workshop,
            start,
        }
    }

    /// Builds a case with both and tells what differs.
    fn compare(&self, case: &Path) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let context = folder.path().join("context");
        lay_out(case, &context);
        let options = options(case);
        let theirs = self.docker(&context, &options, folder.path());
        let layout = folder.path().join("ours");
        let source = ContextSource::Directory(context.clone());
        let ours = with_options(
            self.workshop.build_from("store", source),
            &context,
            &options,
        );
        let ours = wait(ours.output(Output::OciDirectory(layout.clone())).run());
        match (theirs, ours) {
            (Ok(theirs), Ok(image)) => {
                let ours = Built::read(&layout, image.digest);
                let (theirs, ours) = (self.describe(&theirs), self.describe(&ours));
                let sides = [("BuildKit", &theirs, &ours), ("here", &ours, &theirs)];
                let only = sides.map(|(side, one, other)| {
                    let lines = one.iter().filter(|line| !other.contains(line));
                    lines
                        .map(|line| format!("{side}: {line}"))
                        .collect::<Vec<_>>()
                });
                only.concat()
            }
            (Err(_), Err(_)) => Vec::new(),
            (Err(theirs), Ok(_)) => vec![format!("BuildKit alone fails: {theirs}")],
            (Ok(_), Err(ours)) => vec![format!("only this fails: {ours}")],
        }
    }

    fn docker(
        &self,
        context: &Path,
        options: &[(String, String)],
        folder: &Path,
    ) -> Result<Built, String> {
        let docker = |arguments: &[&str]| {
            let mut command = Command::new("docker");
            command
                .args(arguments)
                .current_dir(context)
                .env("DOCKER_HOST", &self.daemon);
            done(&mut command)
        };
        let layout = folder.join("theirs");
        let output = format!(
            "type=oci,tar=false,compression=gzip,force-compression=true,dest={}",
            layout.display()
        );
        let mut arguments = vec!["buildx", "build", "--no-cache", "--network=host"];
        arguments.extend(["--provenance=false", "--output", &output]);
        for (name, value) in options {
            arguments.extend([name.as_str(), value.as_str()]);
        }
        arguments.push(".");
        docker(&arguments)?;
        Ok(Built::read_foreign(&layout, only_image(&layout)))
    }

    /// One line for every path and every value of the configuration.
    fn describe(&self, image: &Built) -> Vec<String> {
        let mut names: BTreeMap<_, String> = BTreeMap::new();
        let mut lines = Vec::new();
        for found in image.view.walk(&TreePath::root()) {
            let entry = found.entry;
            let (path, content) = (&entry.path, image.view.content_of(&entry.path));
            let kind = match (&entry.kind, content) {
                (_, Some(content)) => {
                    let file = (content.layer, content.path);
                    let first = names.entry(file).or_insert_with(|| path.to_string());
                    format!("file {} = {first}", content.content.digest)
                }
                (Kind::Symlink { target }, _) => format!("-> {}", String::from_utf8_lossy(target)),
                (kind, _) => format!("{kind:?}"),
            };
            // Directories that a step makes have times of their own (decision 0004).
            let time = match entry.kind {
                Kind::Dir => 0,
                _ => entry.mtime.min(self.start),
            };
            let (mode, uid, gid, attributes) = (entry.mode, entry.uid, entry.gid, &entry.xattrs);
            lines.push(format!(
                "{path} {mode:04o} {uid}:{gid} {kind} {time} {attributes:?}"
            ));
        }
        let config = serde_json::to_value(&image.config.config).unwrap();
        let values = config.as_object().unwrap().iter();
        let told = values.filter(|(name, value)| *name != "Image" && !is_nothing(value));
        lines.extend(told.map(|(name, value)| format!("{name} {value}")));
        lines.push(format!("author {:?}", image.config.author));
        let steps = image.config.history.iter().enumerate();
        lines.extend(steps.map(|(number, entry)| {
            let (text, empty) = (entry.created_by.as_deref(), entry.empty_layer);
            let text = text.unwrap_or_default();
            // Versions of BuildKit print the fields of a health check in different ways.
            let text = if text.starts_with("HEALTHCHECK ") {
                "HEALTHCHECK"
            } else {
                text
            };
            format!("history {number} {text:?} {empty}")
        }));
        lines
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Makes the context of a case.
fn lay_out(case: &Path, context: &Path) {
    fs::create_dir(context).unwrap();
    for part in ["shared", "context"].map(|part| case.join(part)) {
        if part.exists() {
            let mut command = Command::new("cp");
            command.arg("-a").arg(part.join(".")).arg(context);
            done(&mut command).unwrap();
        }
    }
    for (from, to) in [
        ("Dockerfile", "Dockerfile"),
        ("dockerignore", ".dockerignore"),
    ] {
        if case.join(from).exists() {
            fs::copy(case.join(from), context.join(to)).unwrap();
        }
    }
    if case.join("prepare.sh").exists() {
        let mut command = Command::new("sh");
        command
            .arg("-e")
            .arg(fs::canonicalize(case.join("prepare.sh")).unwrap());
        done(command.current_dir(context)).unwrap();
    }
}

/// Reads lines of a flag and its value.
fn options(case: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(case.join("options")).unwrap_or_default();
    let pairs = text.lines().map(|line| line.split_once(' ').unwrap());
    pairs
        .map(|(flag, value)| (flag.to_owned(), value.to_owned()))
        .collect()
}

/// Begins the build of a context with the options of a command line.
fn with_options(mut build: Build, context: &Path, options: &[(String, String)]) -> Build {
    for (flag, text) in options {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        build = match flag.as_str() {
            "--build-arg" => build.build_arg(name, value),
            "--label" => build.label(name, value),
            "--target" => build.target(text),
            "--secret" => {
                let fields = text.split(',').filter_map(|field| field.split_once('='));
                let fields: BTreeMap<&str, &str> = fields.collect();
                build.secret(fields["id"], Secret::file(context.join(fields["src"])))
            }
            other => panic!("option {other}"),
        };
    }
    build.no_cache()
}

/// Runs a program, which tells why it fails with the last line of its errors.
fn done(command: &mut Command) -> Result<(), String> {
    let ended = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    match ended.status.success() {
        true => Ok(()),
        false => {
            let errors = String::from_utf8_lossy(&ended.stderr).into_owned();
            Err(errors.lines().last().unwrap_or("no reason").to_owned())
        }
    }
}
