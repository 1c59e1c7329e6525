//! Telling a kill for want of memory from any other: the kernel's counters of this
//! process's control group before the command and after it.

use std::fs;
use std::path::Path;

use super::Exit;

/// Status of a shell whose command was killed.
const KILLED_CHILD: i32 = 128 + libc::SIGKILL;

/// A count of kills taken before a command runs.
pub(super) struct Watch {
    before: Option<u64>,
}

impl Watch {
    /// Begins to watch.
    pub(super) fn begin() -> Self {
        Self {
            before: memory_kills(),
        }
    }

    /// Looks again whether a command that was killed was killed for its memory.
    pub(super) fn explain(&self, exit: Exit) -> Exit {
        let killed = matches!(exit, Exit::Signal(libc::SIGKILL) | Exit::Code(KILLED_CHILD));
        match (self.before, killed.then(memory_kills).flatten()) {
            (Some(before), Some(after)) if after > before => Exit::OutOfMemory,
            _ => exit,
        }
    }
}

/// Tells how many processes of this control group were killed for want of memory; of the
/// whole machine where the group does not tell, as the root group does not.
pub fn memory_kills() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    groups
        .lines()
        .filter_map(counter_file)
        .find_map(|path| field(&fs::read_to_string(path).ok()?, "oom_kill"))
        .or_else(|| field(&fs::read_to_string("/proc/vmstat").ok()?, "oom_kill"))
}

/// The file of a group's counters, for a line `id:controllers:path` of /proc/self/cgroup.
fn counter_file(line: &str) -> Option<std::path::PathBuf> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    let path = path.trim_start_matches('/');
    if controllers.is_empty() {
        Some(Path::new("/sys/fs/cgroup").join(path).join("memory.events"))
    } else if controllers
        .split(',')
        .any(|controller| controller == "memory")
    {
        Some(
            Path::new("/sys/fs/cgroup/memory")
                .join(path)
                .join("memory.oom_control"),
        )
    } else {
        None
    }
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| match line.split_once(' ') {
        Some((key, value)) if key == name => value.trim().parse().ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_version() {
        let file = |line| counter_file(line).map(|path| path.to_string_lossy().into_owned());
        assert_eq!(
            file("0::/a/b"),
            Some("/sys/fs/cgroup/a/b/memory.events".into())
        );
        let first = "/sys/fs/cgroup/memory/a/memory.oom_control";
        assert_eq!(file("4:cpu,memory:/a"), Some(first.into()));
        assert_eq!(file("4:cpu:/a"), None);
        assert_eq!(field("oom 3\noom_kill 2\n", "oom_kill"), Some(2));
    }

    #[test]
    fn only_a_kill_with_a_count_is_for_memory() {
        let watch = Watch { before: Some(0) };
        assert_eq!(watch.explain(Exit::Code(1)), Exit::Code(1));
        assert_eq!(
            Watch { before: None }.explain(Exit::Signal(9)),
            Exit::Signal(9)
        );
        assert_eq!(
            Watch {
                before: Some(u64::MAX)
            }
            .explain(Exit::Signal(9)),
            Exit::Signal(9)
        );
    }
}
