//! What a build uses of the machine, from /proc: the memory of a process and of everything
//! that descends from it.

use std::collections::HashMap;
use std::fs;

/// Gives the memory that a process and its descendants have in use, in bytes. What several
/// of them share is counted for each.
pub(super) fn memory(root: u32) -> u64 {
    let processes = processes();
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for process in processes.values() {
        children.entry(process.parent).or_default().push(process.id);
    }
    let (mut bytes, mut open) = (0, vec![root]);
    while let Some(id) = open.pop() {
        bytes += processes.get(&id).map_or(0, |process| process.memory);
        open.extend(children.remove(&id).unwrap_or_default());
    }
    bytes
}

struct Process {
    id: u32,
    parent: u32,
    /// What is resident, in bytes.
    memory: u64,
}

fn processes() -> HashMap<u32, Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return HashMap::new();
    };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter_map(|id| Some((id, process(id)?))).collect()
}

/// Reads `/proc/ID/status` (proc(5)). What has no memory is a thread of the kernel, or dead.
fn process(id: u32) -> Option<Process> {
    let text = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        value.split_ascii_whitespace().next()
    };
    let kilobytes: u64 = field("VmRSS:")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    Some(Process {
        id,
        parent: field("PPid:")?.parse().ok()?,
        memory: kilobytes << 10,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_descendants_counts() {
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "sleep 100 & read _; kill $!"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let me = std::process::id();
        let own = process(me).unwrap();
        assert!(own.memory > 0);
        let family = memory(child.id());
        assert!(family > 0);
        assert!(memory(me) > family);
        assert_eq!(process(child.id()).unwrap().parent, me);
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
