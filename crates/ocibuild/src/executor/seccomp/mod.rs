//! The system call filter of a command: Docker's default profile, for the default
//! capabilities, as a BPF program.
//!
//! Enters: whether fsync reaches the disk. Leaves: instructions for the kernel, which
//! answer each call by the architecture and number it was made with. The numbers are
//! looked up by bisection, so a call costs about ten instructions.

use std::os::fd::OwnedFd;

mod bpf;
mod table;

use bpf::Range;
pub(super) use bpf::{Action, Test, Verdict};

use super::sys;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the table of system calls has x86-64 and arm64 only");

/// The machines whose programs the filter knows, by their AUDIT_ARCH value and their
/// column in the table. A kernel runs those of its own column pair only.
const MACHINES: &[(u32, usize)] = if cfg!(target_arch = "aarch64") {
    &[(0xc000_00b7, 2), (0x4000_0028, 3)]
} else {
    &[(0xc000_003e, 0), (0x4000_0003, 1)]
};

/// Calls that only make data safe against a crash of the machine.
const SYNC_FAMILY: &[&str] = &[
    "fdatasync",
    "fsync",
    "sync",
    "sync_file_range",
    "sync_file_range2",
    "syncfs",
];

/// Puts this process under the filter; see [`program`].
pub(super) fn confine(sync: bool) -> rustix::io::Result<()> {
    sys::install(&program(MACHINES, sync, &[]))
}

/// Puts this process under the filter with other actions for some calls, by name; gives
/// the descriptor at which calls wait. Programs for other machines than this one's own
/// find no system calls: nobody could answer them.
pub(super) fn confine_supervised(
    sync: bool,
    rules: &[(&str, Action)],
) -> rustix::io::Result<OwnedFd> {
    let own = MACHINES.get(..1).unwrap_or_default();
    sys::install_listened(&program(own, sync, rules))
}

/// The number of a call on this machine, if the filter lets it be made at all.
pub(super) fn number(name: &str) -> Option<u32> {
    let column = MACHINES.first()?.1;
    let row = table::ALLOWED.iter().find(|(known, _)| *known == name)?;
    row.1
        .get(column)
        .copied()
        .filter(|number| *number != table::NONE)
}

/// Makes the filter. Without `sync` the calls of [`SYNC_FAMILY`] succeed and do nothing.
fn program(
    machines: &[(u32, usize)],
    sync: bool,
    rules: &[(&str, Action)],
) -> Vec<sys::Instruction> {
    let machines: Vec<_> = machines
        .iter()
        .map(|&(arch, column)| (arch, ranges(column, sync, rules)))
        .collect();
    bpf::assemble(&machines)
}

/// Decides every number there is for one column of the table.
fn ranges(column: usize, sync: bool, rules: &[(&str, Action)]) -> Vec<Range> {
    let decide = |name: &str| {
        let rule = rules.iter().find(|(known, _)| *known == name);
        rule.map_or_else(|| action(name, sync), |(_, action)| *action)
    };
    let mut decided: Vec<(u32, Action)> = table::ALLOWED
        .iter()
        .filter(|(_, numbers)| numbers[column] != table::NONE)
        .map(|(name, numbers)| (numbers[column], decide(name)))
        .collect();
    decided.sort_by_key(|(number, _)| *number);

    let mut ranges = Vec::new();
    let mut next = 0;
    for (number, action) in decided {
        refuse(&mut ranges, next, number);
        push(&mut ranges, number, action);
        next = number + 1;
    }
    refuse(&mut ranges, next, u32::MAX);
    ranges
}

/// What is done with a call of the table.
fn action(name: &str, sync: bool) -> Action {
    match name {
        "clone" => Action::CloneWithoutNamespaces,
        // Its flags are behind a pointer; C libraries fall back to clone.
        "clone3" => Action::Errno(libc::ENOSYS as u16),
        "socket" => Action::SocketButVsock,
        "personality" => Action::HarmlessPersonality,
        name if !sync && SYNC_FAMILY.contains(&name) => Action::Errno(0),
        _ => Action::Allow,
    }
}

/// Refuses the numbers from `from` up to, without, `end`.
fn refuse(ranges: &mut Vec<Range>, from: u32, end: u32) {
    if from < end.min(table::FIRST_NEW) {
        push(ranges, from, Action::Errno(libc::EPERM as u16));
    }
    if end > table::FIRST_NEW && from.max(table::FIRST_NEW) < end {
        push(
            ranges,
            from.max(table::FIRST_NEW),
            Action::Errno(libc::ENOSYS as u16),
        );
    }
}

/// Begins a range, unless the one before does the same.
fn push(ranges: &mut Vec<Range>, first: u32, action: Action) {
    if ranges
        .last()
        .is_none_or(|last: &Range| last.action != action)
    {
        ranges.push(Range { first, action });
    }
}

#[cfg(test)]
mod tests;
