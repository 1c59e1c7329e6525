//! Calls that are about other processes, where the step shares their ids with the rest of
//! the machine: to the step there are its own and no others.

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::call::{Answer, Call, DONE, Outcome};
use super::credentials::{Credentials, cap};
use super::guest::{Guest, of_io};

const F_SETOWN: i32 = 8;
/// `PTRACE_TRACEME`, which is about the caller's parent.
const TRACE_ME: u64 = 0;
/// Of `struct f_owner_ex`: an owner that is a group.
const OWNER_GROUP: u32 = 2;
const PRIORITY_OF_GROUP: u32 = 1;
const PRIORITY_OF_USER: u32 = 2;

/// kill(2).
pub(super) fn kill(call: &Call<'_>) -> Outcome {
    let guest = &call.guest;
    match call.int(0) {
        // The caller's group; the step has a session of its own.
        0 => Ok(Answer::Continue),
        -1 => kill_all(guest, call.int(1)),
        pid if pid > 0 => signal(guest, pid, pid, call.int(1)),
        group if guest.has_group(-group)? => Ok(Answer::Continue),
        _ => Err(Errno::SRCH.into()),
    }
}

/// tkill(2).
pub(super) fn tkill(call: &Call<'_>) -> Outcome {
    signal(&call.guest, call.int(0), call.int(0), call.int(1))
}

/// tgkill(2).
pub(super) fn tgkill(call: &Call<'_>) -> Outcome {
    signal(&call.guest, call.int(0), call.int(1), call.int(2))
}

/// rt_sigqueueinfo(2), pidfd_open(2), process_vm_readv(2), process_vm_writev(2).
pub(super) fn to_first(call: &Call<'_>) -> Outcome {
    send(&call.guest, call.int(0))
}

/// rt_tgsigqueueinfo(2).
pub(super) fn to_second(call: &Call<'_>) -> Outcome {
    send(&call.guest, call.int(1))
}

/// Calls that change how another process is scheduled.
pub(super) fn schedule(call: &Call<'_>) -> Outcome {
    own(&call.guest, call.int(0))
}

/// setpriority(2).
pub(super) fn set_priority(call: &Call<'_>) -> Outcome {
    match (call.word(0), call.int(1)) {
        (_, 0) => Ok(Answer::Continue),
        (PRIORITY_OF_GROUP, group) if call.guest.has_group(group)? => Ok(Answer::Continue),
        // All processes of the one user that the kernel knows.
        (PRIORITY_OF_USER, _) => Err(Errno::PERM.into()),
        (_, pid) => own(&call.guest, pid),
    }
}

/// ptrace(2).
pub(super) fn trace(call: &Call<'_>) -> Outcome {
    if call.long(0) == TRACE_ME {
        return Ok(Answer::Continue);
    }
    own(&call.guest, call.int(1))
}

/// fcntl(2) that says who gets signals.
pub(super) fn set_owner(call: &Call<'_>) -> Outcome {
    let guest = &call.guest;
    let (kind, pid) = if call.int(1) == F_SETOWN {
        match call.int(2) {
            group if group < 0 => (OWNER_GROUP, group.wrapping_neg()),
            pid => (0, pid),
        }
    } else {
        let address = call.long(2);
        let pid = guest.read_u32(address.wrapping_add(4))? as i32;
        (guest.read_u32(address)?, pid)
    };
    let is_own = pid == 0
        || if kind == OWNER_GROUP {
            guest.has_group(pid)?
        } else {
            guest.shared.step.has(pid)
        };
    if is_own {
        Ok(Answer::Continue)
    } else {
        Err(Errno::SRCH.into())
    }
}

fn own(guest: &Guest<'_>, pid: i32) -> Outcome {
    if pid == 0 || guest.shared.step.has(pid) {
        Ok(Answer::Continue)
    } else {
        Err(Errno::SRCH.into())
    }
}

/// A signal for a thread. The first process gets only those that it handles, as one gets that
/// is the first of its own process ids.
fn signal(guest: &Guest<'_>, process: i32, thread: i32, number: i32) -> Outcome {
    let sent = send(guest, thread)?;
    let is_first = process == guest.shared.first && number > 0;
    if is_first && !guest.handles(process, number)? {
        return DONE;
    }
    Ok(sent)
}

fn send(guest: &Guest<'_>, pid: i32) -> Outcome {
    if !guest.shared.step.has(pid) {
        return Err(Errno::SRCH.into());
    }
    if pid != guest.pid {
        let target = guest.other(pid)?;
        if !may_signal(&guest.credentials(), &target) {
            return Err(Errno::PERM.into());
        }
    }
    Ok(Answer::Continue)
}

fn may_signal(sender: &Credentials, target: &Credentials) -> bool {
    let from = [sender.uid.real, sender.uid.effective];
    let to = [target.uid.real, target.uid.saved];
    sender.can(cap::KILL) || from.iter().any(|uid| to.contains(uid))
}

/// Signals everybody else in the step.
fn kill_all(guest: &Guest<'_>, signal: i32) -> Outcome {
    let (own, who) = (guest.process()?, guest.credentials());
    let mut count = 0;
    for pid in guest.processes()? {
        let is_allowed = guest
            .other(pid)
            .is_ok_and(|target| may_signal(&who, &target));
        if pid == own || !is_allowed {
            continue;
        }
        count += 1;
        if let (Some(pid), Some(signal)) = (Pid::from_raw(pid), named(signal)?) {
            // It may have ended meanwhile.
            let _ = kill_process(pid, signal);
        }
    }
    if count == 0 {
        return Err(Errno::SRCH.into());
    }
    DONE
}

/// The signal with a number, or none for the number that only asks.
fn named(number: i32) -> Result<Option<Signal>, Errno> {
    if number == 0 {
        return Ok(None);
    }
    Signal::from_named_raw(number).map(Some).ok_or(Errno::INVAL)
}

impl Guest<'_> {
    /// Who another process of the step is.
    fn other(&self, pid: i32) -> Result<std::sync::Arc<Credentials>, Errno> {
        Ok(Guest::of(self.shared, pid)?.credentials())
    }

    /// Whether a process has a function for a signal.
    fn handles(&self, pid: i32, number: i32) -> Result<bool, Errno> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(of_io)?;
        let mask = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .ok_or(Errno::SRCH)?;
        let bit = (number - 1).cast_unsigned();
        Ok(mask.checked_shr(bit).unwrap_or_default() & 1 == 1)
    }

    /// All processes of the step.
    pub(super) fn processes(&self) -> Result<Vec<i32>, Errno> {
        let names = std::fs::read_dir("/proc").map_err(of_io)?;
        let pids = names.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        Ok(pids.filter(|pid| self.shared.step.has(*pid)).collect())
    }

    /// Whether a process group is one of the step's, whose sessions are its own.
    fn has_group(&self, group: i32) -> Result<bool, Errno> {
        if self.shared.step.has(group) {
            return Ok(true);
        }
        let in_group = |pid: &i32| {
            let found = Pid::from_raw(*pid).map(|pid| rustix::process::getpgid(Some(pid)));
            matches!(found, Some(Ok(found)) if found.as_raw_nonzero().get() == group)
        };
        Ok(self.processes()?.iter().any(in_group))
    }
}
