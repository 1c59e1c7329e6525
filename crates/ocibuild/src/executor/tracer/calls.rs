//! What is done about a call at which a thread stops: which of its arguments name files,
//! and what they become.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::Pid;

use super::exec;
use super::memory::Memory;
use super::message;
use super::programs::Programs;
use super::rewrite::{Rewrite, Value};
use super::socket::{self, Use};
use super::state::After;
use crate::executor::supervisor::Supervisor;
use crate::executor::sys::Registers;

/// What is done about a call.
pub(super) enum Decision {
    /// It is made as it is.
    Pass,
    /// It was made in place of the thread, and succeeded.
    Made,
    /// It is made as it is, and there is something to do then.
    Ask(After),
    /// It is made with other arguments.
    Rewrite(Rewrite, After),
}

/// Decides about a call of a thread.
pub(super) fn decide(
    thread: Pid,
    registers: &Registers,
    supervisor: &Supervisor,
    programs: &mut Programs,
) -> Result<Decision, Errno> {
    let path = |at, path, no_follow| {
        let call = PathCall {
            at,
            path,
            no_follow,
        };
        call.decide(thread, registers, supervisor)
    };
    match registers.number() {
        libc::SYS_execve | libc::SYS_execveat => {
            exec::decide(thread, registers, supervisor, programs)
        }
        libc::SYS_chdir => enter(thread, registers, supervisor),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => path(None, 0, (1, libc::O_NOFOLLOW as u64)),
        libc::SYS_openat => path(Some(0), 1, (2, libc::O_NOFOLLOW as u64)),
        libc::SYS_inotify_add_watch => path(None, 1, (2, libc::IN_DONT_FOLLOW as u64)),
        libc::SYS_connect => socket::decide(thread, registers, supervisor, 1, Use::Reach),
        libc::SYS_sendto => socket::decide(thread, registers, supervisor, 4, Use::Reach),
        libc::SYS_bind => socket::decide(thread, registers, supervisor, 1, Use::Bind),
        libc::SYS_sendmsg => message::send(thread, registers, supervisor),
        libc::SYS_sendmmsg => message::send_many(thread, registers, supervisor),
        libc::SYS_recvmsg => message::receive(thread, registers),
        libc::SYS_getsockname
        | libc::SYS_getpeername
        | libc::SYS_accept
        | libc::SYS_accept4
        | libc::SYS_recvfrom => socket::ask_name(thread, registers),
        libc::SYS_getsockopt => Ok(Decision::Ask(After::Peer)),
        _ => Ok(Decision::Pass),
    }
}

/// A call with the path of something that is there, and that the thread has to open itself.
struct PathCall {
    /// Argument with the directory that the path begins at.
    at: Option<usize>,
    /// Argument with the path.
    path: usize,
    /// Argument with flags, and the flag that keeps a link at the end from being followed.
    no_follow: (usize, u64),
}

impl PathCall {
    fn decide(
        &self,
        thread: Pid,
        registers: &Registers,
        supervisor: &Supervisor,
    ) -> Result<Decision, Errno> {
        let memory = Memory::of(thread).map_err(|_| Errno::SRCH)?;
        let path = memory.path(registers.argument(self.path))?;
        let at = self.at.map(|index| directory(registers.argument(index)));
        let (flags, flag) = self.no_follow;
        let follow = registers.argument(flags) & flag == 0;
        let at = at.unwrap_or(libc::AT_FDCWD);
        let host = supervisor.existing(thread, at, &path, follow, 0)?;
        Ok(with_path(registers, self.path, &host))
    }
}

/// chdir(2).
fn enter(thread: Pid, registers: &Registers, supervisor: &Supervisor) -> Result<Decision, Errno> {
    let memory = Memory::of(thread).map_err(|_| Errno::SRCH)?;
    let path = memory.path(registers.argument(0))?;
    let host = supervisor.directory(thread, &path)?;
    Ok(with_path(registers, 0, &host))
}

fn with_path(registers: &Registers, argument: usize, path: &Path) -> Decision {
    let rewrite = Rewrite {
        number: registers.number(),
        arguments: vec![(argument, Value::Bytes(c_string(path)))],
    };
    Decision::Rewrite(rewrite, After::Nothing)
}

/// The descriptor in an argument, of which the kernel takes the lower half.
pub(super) fn directory(argument: u64) -> i32 {
    argument as u32 as i32
}

/// The path with its end.
pub(super) fn c_string(path: &Path) -> Vec<u8> {
    let mut bytes = path.as_os_str().as_bytes().to_vec();
    bytes.push(0);
    bytes
}
