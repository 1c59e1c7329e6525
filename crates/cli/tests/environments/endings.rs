//! How a build ends that is interrupted, killed, or has no more room, in every environment:
//! nothing that its commands started lives on, and the next build works.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::case::{Job, why};
use crate::conformity::Pending;
use crate::environment::Environment;
use crate::place::Place;

/// What it is called in `testdata/sandbox/pending`.
const INTERRUPTED: &str = "ending-interrupted";
const KILLED: &str = "ending-killed";
const CROWDED: &str = "ending-crowded";
const FULL: &str = "ending-full";

#[test]
#[ignore = "`cargo xtask test` runs it in a step of its own: environments"]
fn privileged_an_interrupted_build_leaves_nothing() {
    everywhere(INTERRUPTED, |place, environment| {
        ended_by(place, environment, "INT", INTERRUPTED)
    });
}

#[test]
#[ignore = "`cargo xtask test` runs it in a step of its own: environments"]
fn privileged_a_killed_builder_leaves_no_process() {
    everywhere(KILLED, |place, environment| {
        ended_by(place, environment, "KILL", KILLED)
    });
}

#[test]
#[ignore = "`cargo xtask test` runs it in a step of its own: environments"]
fn privileged_too_many_processes_are_refused() {
    everywhere(CROWDED, |place, environment| {
        // Nothing limits the processes of root but a control group.
        if environment == Environment::E1 {
            return Vec::new();
        }
        let nap = nap();
        let script = format!("n=0; while [ $n -lt 3000 ]; do sleep {nap} & n=$((n+1)); done");
        let context = context(place, environment, CROWDED, &script);
        let job = Job {
            processes: Some(150),
            ..Job::new(environment, CROWDED, &context)
        };
        let ended = job.ended(place);
        let mut problems = refusal(&ended.said, ended.succeeded, &["fork", "processes"]);
        problems.extend(left(&nap));
        problems.extend(next(place, environment, CROWDED, None));
        problems
    });
}

#[test]
#[ignore = "`cargo xtask test` runs it in a step of its own: environments"]
fn privileged_a_full_disk_is_said() {
    everywhere(FULL, |place, environment| {
        let volume = SmallVolume::new(place, environment);
        let mut problems = Vec::new();
        // In the middle of the command, and when its layer is written.
        for (size, source) in [(200, "/dev/zero"), (36, "/dev/urandom")] {
            let script = format!("dd if={source} of=/big bs=1M count={size}");
            let context = context(place, environment, FULL, &script);
            let job = Job {
                volume: Some(volume.path.clone()),
                ..Job::new(environment, FULL, &context)
            };
            let ended = job.ended(place);
            problems.extend(refusal(
                &ended.said,
                ended.succeeded,
                &["No space left on device"],
            ));
            problems.extend(untidy(&volume.path));
        }
        problems.extend(next(place, environment, FULL, Some(volume.path.clone())));
        problems
    });
}

/// Judges every environment, and says all that is wrong.
fn everywhere(name: &str, problems: impl Fn(&Place, Environment) -> Vec<String>) {
    let Some(place) = Place::get() else { return };
    let there = Environment::ALL.into_iter();
    let there = there.filter(|environment| place.has(*environment));
    let verdicts = there.filter_map(|environment| {
        let problems = problems(&place, environment);
        let verdict = Pending::read(environment).verdict(name, &problems)?;
        Some(format!("{environment:?} {verdict}"))
    });
    let wrong: Vec<String> = verdicts.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Sends a signal to a builder whose command has begun, and looks what is left.
fn ended_by(place: &Place, environment: Environment, signal: &str, name: &str) -> Vec<String> {
    let nap = nap();
    let script = format!(
        "trap '' INT TERM HUP; (setsid sleep {nap} &); (sleep {nap} &); echo begun; sleep {nap}; sleep {nap}"
    );
    let context = context(place, environment, name, &script);
    // Other tests build in the other one at the same time.
    let volume = place.volume(environment).with_extension(name);
    fs::create_dir(&volume).unwrap();
    environment.own_volume(&volume);
    let job = Job {
        volume: Some(volume.clone()),
        ..Job::new(environment, name, &context)
    };
    let mut child = job
        .command(place)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let (mut log, mut line) = (String::new(), String::new());
    while said.read_line(&mut line).unwrap() > 0 && !line.trim_end().ends_with(" begun") {
        log.push_str(&std::mem::take(&mut line));
    }
    if line.is_empty() {
        child.wait().unwrap();
        return vec![format!("it did not begin: {}", why(&log))];
    }
    // The shell has forked them; they become what is looked for in a moment.
    let begun = Instant::now();
    while processes(&nap).is_empty() && begun.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut problems = match processes(&nap).is_empty() {
        true => vec!["its processes cannot be seen".to_owned()],
        false => Vec::new(),
    };
    send(place, environment, &job, &child, signal);
    let status = child.wait().unwrap();
    said.read_to_string(&mut log).unwrap();
    if signal == "INT" {
        if status.code() != Some(130) || !log.contains("the build was cancelled") {
            problems.push(format!("it ended with {status}: {}", why(&log)));
        }
        problems.extend(untidy(&volume));
    }
    problems.extend(left(&nap));
    problems.extend(next(place, environment, name, Some(volume)));
    problems
}

fn send(place: &Place, environment: Environment, job: &Job<'_>, child: &Child, signal: &str) {
    let mut command = match environment.is_container() {
        true => {
            let mut command = place.docker();
            command
                .args(["kill", "--signal", signal])
                .arg(job.container());
            command
        }
        false => {
            let mut command = Command::new("kill");
            command.args(["-s", signal, &child.id().to_string()]);
            command
        }
    };
    assert!(
        command.stdout(Stdio::null()).status().unwrap().success(),
        "{command:?}"
    );
}

/// A build of one command over busybox.
fn context(place: &Place, environment: Environment, name: &str, script: &str) -> PathBuf {
    let folder = place
        .data()
        .join("endings")
        .join(format!("{environment:?}-{name}"));
    fs::create_dir_all(&folder).unwrap();
    let text = format!("FROM busybox\nRUN {script}\n");
    fs::write(folder.join("Dockerfile"), text).unwrap();
    folder
}

/// Whether it failed as it should.
fn refusal(said: &str, succeeded: bool, words: &[&str]) -> Vec<String> {
    match succeeded || !words.iter().any(|word| said.contains(word)) {
        true => vec![format!("it says none of {words:?}: {}", why(said))],
        false => Vec::new(),
    }
}

/// The store takes the next build.
fn next(
    place: &Place,
    environment: Environment,
    name: &str,
    volume: Option<PathBuf>,
) -> Vec<String> {
    let context = context(
        place,
        environment,
        &format!("{name}-next"),
        "echo next > /next",
    );
    let job = Job {
        volume,
        ..Job::new(environment, name, &context)
    };
    let ended = job.ended(place);
    match ended.succeeded {
        true => Vec::new(),
        false => vec![format!("the next build fails: {}", why(&ended.said))],
    }
}

/// A number of seconds that no other process sleeps for.
fn nap() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}.{number:03}", 7_000_000 + std::process::id())
}

/// The command lines of the machine that have a text.
fn processes(text: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        // The commands themselves, not the builder that was told of them.
        .filter(|line| line.starts_with("sleep ") && line.contains(text))
        .collect()
}

/// What still sleeps after a while.
fn left(nap: &str) -> Vec<String> {
    let begun = Instant::now();
    while !processes(nap).is_empty() && begun.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let left = processes(nap);
    left.iter().map(|line| format!("it left {line}")).collect()
}

/// What lies half-done in a store; merged trees wait there for the next step.
fn untidy(volume: &Path) -> Vec<String> {
    let left = fs::read_dir(volume.join("store/tmp")).into_iter().flatten();
    left.map(|entry| entry.unwrap().path())
        .filter(|path| !path.ends_with("merged"))
        .map(|path| format!("{} is left", path.display()))
        .collect()
}

/// A volume with little room, in memory.
struct SmallVolume {
    path: PathBuf,
}

impl SmallVolume {
    fn new(place: &Place, environment: Environment) -> Self {
        let path = place.volume(environment).with_extension("small");
        fs::create_dir(&path).unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=56m", "small"])
            .arg(&path);
        assert!(mount.status().unwrap().success());
        let volume = Self { path };
        environment.own_volume(&volume.path);
        volume
    }
}

impl Drop for SmallVolume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.path).status();
    }
}
