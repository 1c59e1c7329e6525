//! What a process carries along without knowing: a number of 64 bits in its unused limit
//! on file locks. The kernel itself hands it to children and through exec, so there is no
//! table of processes that could be late or wrong.
//!
//! ```text
//! soft limit   bits 0-19   number of its credentials
//!              bits 20-28  umask
//!              bits 29-40  number of its root directory, 0 is the step's
//! hard limit   the step that it belongs to
//! ```
//!
//! A program that changes it by other means than the calls that are answered here becomes
//! somebody else in its own eyes, and nothing more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};

use super::super::sys;

const CREDENTIALS: Field = Field { shift: 0, bits: 20 };
const UMASK: Field = Field { shift: 20, bits: 9 };
const ROOT: Field = Field {
    shift: 29,
    bits: 12,
};
/// Every hard limit has this bit and not the one above, and is thus above all soft ones and
/// not infinite.
const STEP_BIT: u64 = 1 << 62;

/// How many bits a process id has at most.
const PID_BITS: u32 = 22;

/// Kills the processes of a step whose supervisor has ended, where they can be seen from here.
pub(in super::super) fn kill_orphans(supervisor: u32) {
    // One may be making another meanwhile.
    loop {
        let names = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = names.filter_map(|name| name.file_name().to_str()?.parse().ok());
        let alive = pids.filter(|pid| StepId::is_of(*pid, supervisor) && !has_ended(*pid));
        let alive: Vec<Pid> = alive.filter_map(Pid::from_raw).collect();
        if alive.is_empty() {
            return;
        }
        for pid in alive {
            // It may have ended.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Whether nothing is left of a process but its status.
fn has_ended(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    let state = stat.ok().and_then(|stat| {
        let (_, rest) = stat.rsplit_once(") ")?;
        rest.chars().next()
    });
    matches!(state, None | Some('Z' | 'X'))
}

/// Which step a process belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StepId(u64);

impl StepId {
    /// One that no other step on the machine has at this time.
    pub(super) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let time = SystemTime::now().duration_since(UNIX_EPOCH);
        let time = time.unwrap_or_default().as_micros() as u64;
        let pid = u64::from(std::process::id());
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(STEP_BIT | (time << 26 ^ count << PID_BITS ^ pid) & (STEP_BIT - 1))
    }

    /// Tells whether a process belongs to a step that this process supervises.
    fn is_of(pid: i32, supervisor: u32) -> bool {
        let of_pid = (1 << PID_BITS) - 1;
        sys::lock_limit(pid).is_ok_and(|(_, hard)| {
            let is_step = hard & STEP_BIT != 0 && hard < STEP_BIT * 2;
            is_step && hard & of_pid == u64::from(supervisor) & of_pid
        })
    }

    /// Tells whether a process belongs to the step.
    pub(super) fn has(self, pid: i32) -> bool {
        sys::lock_limit(pid).is_ok_and(|(_, hard)| hard == self.0)
    }
}

/// The value carried by one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Cookie(u64);

impl Default for Cookie {
    fn default() -> Self {
        Self(UMASK.put(0, 0o022))
    }
}

impl Cookie {
    /// Reads that of a process.
    pub(super) fn of(pid: i32) -> rustix::io::Result<Self> {
        Ok(match sys::lock_limit(pid)? {
            (_, hard) if hard & STEP_BIT == 0 || hard > STEP_BIT * 2 => Self::default(),
            (soft, _) => Self(soft),
        })
    }

    /// Gives it to a process.
    pub(super) fn give(self, pid: i32, step: StepId) -> rustix::io::Result<()> {
        sys::set_lock_limit(pid, self.0, step.0)
    }

    /// Number of the credentials.
    pub(in super::super) fn credentials(self) -> u32 {
        CREDENTIALS.get(self.0)
    }

    /// The same with other credentials.
    pub(in super::super) fn with_credentials(self, number: u32) -> Self {
        Self(CREDENTIALS.put(self.0, number))
    }

    /// Permission bits that new files do not get.
    pub(in super::super) fn umask(self) -> u32 {
        UMASK.get(self.0)
    }

    /// The same with another umask.
    pub(in super::super) fn with_umask(self, mask: u32) -> Self {
        Self(UMASK.put(self.0, mask & 0o777))
    }

    /// Number of the root directory.
    pub(in super::super) fn root(self) -> u32 {
        ROOT.get(self.0)
    }

    /// The same with another root directory.
    pub(in super::super) fn with_root(self, number: u32) -> Self {
        Self(ROOT.put(self.0, number))
    }
}

/// Some bits of the number.
struct Field {
    shift: u32,
    bits: u32,
}

impl Field {
    fn mask(&self) -> u64 {
        (1 << self.bits) - 1
    }

    fn get(&self, all: u64) -> u32 {
        (all >> self.shift & self.mask()) as u32
    }

    fn put(&self, all: u64, value: u32) -> u64 {
        all & !(self.mask() << self.shift) | (u64::from(value) & self.mask()) << self.shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_touch_each_other() {
        let cookie = Cookie::default()
            .with_credentials(0xf_ffff)
            .with_root(0xfff);
        assert_eq!(cookie.umask(), 0o022);
        let cookie = cookie.with_umask(0o177).with_credentials(7);
        let fields = (cookie.credentials(), cookie.umask(), cookie.root());
        assert_eq!(fields, (7, 0o177, 0xfff));
        assert!(cookie.0 < STEP_BIT);
    }

    #[test]
    fn steps_are_told_apart() {
        let ids = [StepId::new(), StepId::new(), StepId::new()];
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
        assert!(
            ids.iter()
                .all(|id| (STEP_BIT..STEP_BIT * 2).contains(&id.0))
        );
    }

    #[test]
    fn a_process_carries_what_it_was_given() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .expect("a child");
        let (pid, step) = (child.id() as i32, StepId::new());
        assert_eq!(Cookie::of(pid), Ok(Cookie::default()));
        assert!(!step.has(pid));
        let cookie = Cookie::default().with_credentials(3);
        assert_eq!(cookie.give(pid, step), Ok(()));
        assert_eq!(Cookie::of(pid), Ok(cookie));
        assert!(step.has(pid) && !StepId::new().has(pid));
        child.kill().expect("it ends");
        child.wait().expect("it is gone");
    }
}
