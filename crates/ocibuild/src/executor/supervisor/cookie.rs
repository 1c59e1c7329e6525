//! What a process carries along without knowing: a number of 64 bits in its unused limit
//! on file locks. The kernel itself hands it to children and through exec, so there is no
//! table of processes that could be late or wrong.
//!
//! ```text
//! bits 0-19   number of its credentials
//! bits 20-28  umask
//! bits 29-40  number of its root directory, 0 is the step's
//! bits 41-60  number of its program file, where the kernel runs a copy
//! ```
//!
//! A process that has no such number (the limit is infinite) is root with umask 022.

use super::super::sys;

/// The program's own limit that is never reached, which is how each process begins.
const INFINITE: u64 = u64::MAX;

const CREDENTIALS: Field = Field { shift: 0, bits: 20 };
const UMASK: Field = Field { shift: 20, bits: 9 };
const ROOT: Field = Field {
    shift: 29,
    bits: 12,
};
const PROGRAM: Field = Field {
    shift: 41,
    bits: 20,
};

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
    pub(in super::super) fn of(pid: i32) -> rustix::io::Result<Self> {
        Ok(match sys::lock_limit(pid)?.0 {
            INFINITE => Self::default(),
            value => Self(value),
        })
    }

    /// Gives it to a process.
    pub(in super::super) fn give(self, pid: i32) -> rustix::io::Result<()> {
        sys::set_lock_limit(pid, self.0, INFINITE)
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

    /// Number of the program file.
    pub(in super::super) fn program(self) -> u32 {
        PROGRAM.get(self.0)
    }

    /// The same with another program file.
    pub(in super::super) fn with_program(self, number: u32) -> Self {
        Self(PROGRAM.put(self.0, number))
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
            .with_root(0xfff)
            .with_program(0xf_fffe);
        assert_eq!(cookie.umask(), 0o022);
        let cookie = cookie.with_umask(0o177).with_credentials(7);
        let fields = (cookie.credentials(), cookie.umask(), cookie.root());
        assert_eq!(fields, (7, 0o177, 0xfff));
        assert_eq!(cookie.program(), 0xf_fffe);
        assert_ne!(cookie.0, INFINITE);
    }

    #[test]
    fn a_child_has_that_of_its_parent() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .expect("a child");
        let pid = child.id() as i32;
        assert_eq!(Cookie::of(pid), Ok(Cookie::default()));
        let cookie = Cookie::default().with_credentials(3);
        assert_eq!(cookie.give(pid), Ok(()));
        assert_eq!(Cookie::of(pid), Ok(cookie));
        child.kill().expect("it ends");
        child.wait().expect("it is gone");
    }
}
