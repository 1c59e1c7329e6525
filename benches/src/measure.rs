//! Runs a command and says what it cost: wall time, processor time, memory.
//!
//! The kernel's accounts in /proc (proc(5)) are read, not `getrusage`, because a builder
//! with a daemon spends most in processes that are not our children.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How often the memory of a running build is looked at. The kernel keeps the peak of
/// each process, so what is missed is only what a process takes in its last moment.
const LOOK_EVERY: Duration = Duration::from_millis(3);

/// What one run cost.
#[derive(Debug, Clone)]
pub(crate) struct Cost {
    /// From the start of the command to its end.
    pub(crate) wall_seconds: f64,
    /// User and system time of the command, of all that it started, and of the daemons.
    /// The kernel counts in hundredths.
    pub(crate) cpu_seconds: f64,
    /// The most that any one process of them had resident; a daemon's since its start.
    pub(crate) peak_memory_bytes: u64,
    /// Bytes of blobs that were sent to the registry, where that is known.
    pub(crate) sent_bytes: Option<u64>,
}

/// The processes that work for a command and are not below it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Daemons<'a> {
    None,
    /// All that have one of these names.
    Named(&'a [&'a str]),
    /// This one, and all that it has started.
    Below(u32),
}

impl Daemons<'_> {
    fn processes(&self) -> Vec<u32> {
        match self {
            Self::None => Vec::new(),
            Self::Named(names) => named_processes(names),
            Self::Below(process) => {
                let mut found = vec![*process];
                let mut next = 0;
                while let Some(process) = found.get(next) {
                    found.extend(children(*process));
                    next += 1;
                }
                found
            }
        }
    }

    /// Lets the kernel count the peaks of their memory anew.
    pub(crate) fn forget_peaks(&self) {
        for process in self.processes() {
            // One that has ended has no peak; another user's keeps its own.
            let _ = fs::write(format!("/proc/{process}/clear_refs"), "5");
        }
    }
}

/// Runs a command to its end; an error shows what it wrote.
pub(crate) fn run(command: &mut Command, daemons: &Daemons<'_>) -> Result<Cost> {
    let log = tempfile::tempfile().context("make a file for the output of a build")?;
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?);
    let ticks_before = spent_ticks(daemons);
    let start = Instant::now();
    let mut child = command
        .spawn()
        .with_context(|| format!("start {}", command.get_program().display()))?;
    let watch = watch_memory(&child);
    let status = child.wait().context("wait for a build")?;
    let wall_seconds = start.elapsed().as_secs_f64();
    let ticks = spent_ticks(daemons).saturating_sub(ticks_before);
    let daemon_peak = daemons.processes().into_iter().map(peak_memory).max();
    let peak = watch.join().unwrap_or(0).max(daemon_peak.unwrap_or(0));
    if !status.success() {
        bail!("{command:?}: {status}\n{}", text_of(log)?);
    }
    Ok(Cost {
        wall_seconds,
        cpu_seconds: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
        peak_memory_bytes: peak,
        sent_bytes: None,
    })
}

fn text_of(mut log: fs::File) -> Result<String> {
    use std::io::{Read as _, Seek as _};
    let mut text = String::new();
    log.rewind()?;
    log.read_to_string(&mut text)?;
    Ok(text)
}

/// Follows a child and its descendants until the child is gone; gives the largest peak.
fn watch_memory(child: &Child) -> std::thread::JoinHandle<u64> {
    let child = child.id();
    std::thread::spawn(move || {
        let mut peak = 0;
        loop {
            // A zombie has no memory any more; it stays until we wait for it.
            let now = peak_memory(child);
            if now == 0 && peak > 0 || !fs::exists(format!("/proc/{child}")).unwrap_or(false) {
                return peak;
            }
            peak = peak.max(now).max(peak_below(child));
            std::thread::sleep(LOOK_EVERY);
        }
    })
}

fn peak_below(process: u32) -> u64 {
    let children = children(process).into_iter();
    let peaks = children.map(|child| peak_memory(child).max(peak_below(child)));
    peaks.max().unwrap_or(0)
}

fn children(process: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{process}/task"));
    let threads = threads.into_iter().flatten().flatten();
    let children = threads.flat_map(|thread| {
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        let numbers = children.split_ascii_whitespace();
        numbers.flat_map(str::parse).collect::<Vec<u32>>()
    });
    children.collect()
}

/// Gives the peak of a process's resident memory, 0 where it has none.
pub(crate) fn peak_memory(process: u32) -> u64 {
    memory_of(process, "VmHWM:")
}

/// Gives what a process has resident now, 0 where it has nothing.
pub(crate) fn resident_memory(process: u32) -> u64 {
    memory_of(process, "VmRSS:")
}

fn memory_of(process: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_suffix("kB"))
        .and_then(|kilobytes| kilobytes.trim().parse::<u64>().ok())
        .map_or(0, |kilobytes| kilobytes * 1024)
}

/// Gives the processor time that a process itself has spent, without its children.
pub(crate) fn own_cpu_seconds(process: u32) -> f64 {
    let [user, system, _, _] = ticks_of(&process.to_string());
    (user + system) as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// Gives what our children that have ended, and the daemons with theirs, have spent so far.
fn spent_ticks(daemons: &Daemons<'_>) -> u64 {
    let [_, _, child_user, child_system] = ticks_of("self");
    let processes = daemons.processes().into_iter();
    let of_daemons: u64 = processes
        .map(|process| ticks_of(&process.to_string()).iter().sum::<u64>())
        .sum();
    child_user + child_system + of_daemons
}

/// Gives `utime`, `stime`, `cutime` and `cstime` of a process, zeros where it has ended.
fn ticks_of(process: &str) -> [u64; 4] {
    const UTIME: usize = 11; // counted from the state, the first field after the name
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name is in parentheses and may contain anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut fields = fields.split_ascii_whitespace().skip(UTIME);
    std::array::from_fn(|_| {
        let field = fields.next().unwrap_or_default();
        field.parse().unwrap_or(0)
    })
}

fn named_processes(names: &[&str]) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let named = processes.filter_map(|entry| {
        let process = entry.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        names.contains(&name.trim_end()).then_some(process)
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_works_costs_time_and_memory() {
        let script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let cost =
            run(Command::new("sh").args(["-c", script]), &Daemons::None).expect("a loop in sh");
        assert!(cost.wall_seconds > 0.0, "{cost:?}");
        assert!(cost.cpu_seconds > 0.0, "{cost:?}");
        assert!(cost.peak_memory_bytes > 100_000, "{cost:?}");
    }

    #[test]
    fn a_command_that_fails_is_an_error_with_its_output() {
        let failed = run(
            Command::new("sh").args(["-c", "echo why >&2; exit 3"]),
            &Daemons::None,
        );
        let text = failed.expect_err("status 3").to_string();
        assert!(
            text.contains("exit status: 3") && text.contains("why"),
            "{text}"
        );
    }
}
