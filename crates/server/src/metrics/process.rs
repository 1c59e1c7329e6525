//! What the process of the service uses, from /proc (proc(5)).

use std::fs;

use super::names::{MEMORY, Name, OPEN_FILES};

/// Gives what the kernel tells. Files of /proc do not block.
pub(super) fn numbers() -> impl Iterator<Item = (&'static Name, u64)> {
    let memory = resident_memory().map(|bytes| (&MEMORY, bytes));
    let files = open_files().map(|count| (&OPEN_FILES, count));
    memory.into_iter().chain(files)
}

fn resident_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let field = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = field.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}

fn open_files() -> Option<u64> {
    // One of them is what reads the folder.
    let count = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    Some(count.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells() {
        let numbers: Vec<_> = numbers().collect();
        assert_eq!(numbers.len(), 2);
        assert!(numbers.iter().all(|(_, value)| *value > 0), "{numbers:?}");
    }
}
