//! ptrace(2) and the waiting that belongs to it. All calls must come from the thread that
//! seized the process.

use rustix::io::Errno;
use rustix::process::Pid;

use super::process::last_errno;
use super::registers::{Frame, Registers};

/// What the kernel stops the traced processes for: events of their life, and calls that a
/// filter answers with RET_TRACE. All die with the tracer.
const OPTIONS: libc::c_int = libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACESECCOMP
    | libc::PTRACE_O_EXITKILL;

/// PTRACE_EVENT_STOP of linux/ptrace.h.
const EVENT_STOP: i32 = 128;

/// How a stopped thread goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Resume {
    /// To the next event; a signal may be delivered to it.
    Run(Option<i32>),
    /// To the end of the call that it is in.
    ToEndOfCall,
    /// Not at all, until a signal continues its group.
    Listen,
}

/// Something that happened to a traced thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Stop {
    /// It ended with this status.
    Exited(i32),
    /// This signal ended it.
    Killed(i32),
    /// It is about to make a call that the filter wants to be looked at.
    Call,
    /// The call that it went to the end of is done.
    EndOfCall,
    /// It made a thread or process, which has this id.
    Made(Pid),
    /// It is another program now; the id is the one that it had before.
    Program(Pid),
    /// A new thread or process stands still before its first instruction.
    Born,
    /// A signal stopped its whole group.
    Halted,
    /// A signal is about to be delivered to it.
    Signal(i32),
}

/// Begins to trace a child of this process.
pub(in super::super) fn seize(pid: Pid) -> rustix::io::Result<()> {
    request(libc::PTRACE_SEIZE, pid, 0, OPTIONS as usize)
}

/// Lets a stopped thread go on.
pub(in super::super) fn resume(pid: Pid, how: Resume) -> rustix::io::Result<()> {
    match how {
        Resume::Run(signal) => {
            let signal = signal.unwrap_or(0) as usize;
            request(libc::PTRACE_CONT, pid, 0, signal)
        }
        Resume::ToEndOfCall => request(libc::PTRACE_SYSCALL, pid, 0, 0),
        Resume::Listen => request(libc::PTRACE_LISTEN, pid, 0, 0),
    }
}

/// Waits for any child, traced or not; gives nothing when there is none left.
pub(in super::super) fn wait_for_stop() -> rustix::io::Result<Option<(Pid, Stop)>> {
    loop {
        let mut status = 0;
        // SAFETY: the pointer is to an integer that lives through the call.
        let raw = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) };
        if raw < 0 {
            match last_errno() {
                Errno::INTR => continue,
                Errno::CHILD => return Ok(None),
                errno => return Err(errno),
            }
        }
        let Some(pid) = Pid::from_raw(raw) else {
            continue;
        };
        match explain(pid, status) {
            // Killed in the meantime: another status will say so.
            Err(Errno::SRCH) => {}
            other => return other.map(|stop| Some((pid, stop))),
        }
    }
}

/// Says what a status of waitpid means.
fn explain(pid: Pid, status: i32) -> rustix::io::Result<Stop> {
    if libc::WIFEXITED(status) {
        return Ok(Stop::Exited(libc::WEXITSTATUS(status)));
    }
    if libc::WIFSIGNALED(status) {
        return Ok(Stop::Killed(libc::WTERMSIG(status)));
    }
    let signal = libc::WSTOPSIG(status);
    Ok(match status >> 16 {
        0 if signal == libc::SIGTRAP | 0x80 => Stop::EndOfCall,
        0 => Stop::Signal(signal),
        libc::PTRACE_EVENT_SECCOMP => Stop::Call,
        libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
            Stop::Made(event_process(pid)?)
        }
        libc::PTRACE_EVENT_EXEC => Stop::Program(event_process(pid)?),
        EVENT_STOP if signal == libc::SIGTRAP => Stop::Born,
        EVENT_STOP => Stop::Halted,
        _ => Stop::Signal(0),
    })
}

/// The process that an event is about.
fn event_process(pid: Pid) -> rustix::io::Result<Pid> {
    let mut message: libc::c_ulong = 0;
    request(libc::PTRACE_GETEVENTMSG, pid, 0, (&raw mut message).addr())?;
    Pid::from_raw(message as i32).ok_or(Errno::SRCH)
}

/// Reads the registers of a stopped thread.
pub(in super::super) fn registers(pid: Pid) -> rustix::io::Result<Registers> {
    let mut frame = Frame::default();
    transfer(libc::PTRACE_GETREGSET, pid, GENERAL, &mut frame)?;
    Ok(Registers::from(frame))
}

/// Writes the registers of a stopped thread.
pub(in super::super) fn set_registers(pid: Pid, registers: &Registers) -> rustix::io::Result<()> {
    let mut frame = registers.frame();
    transfer(libc::PTRACE_SETREGSET, pid, GENERAL, &mut frame)?;
    // On arm64 the number of the call that is under way is a register set of its own.
    #[cfg(target_arch = "aarch64")]
    transfer(
        libc::PTRACE_SETREGSET,
        pid,
        NT_ARM_SYSTEM_CALL,
        &mut (registers.number() as i32),
    )?;
    Ok(())
}

const GENERAL: usize = libc::NT_PRSTATUS as usize;
#[cfg(target_arch = "aarch64")]
const NT_ARM_SYSTEM_CALL: usize = 0x404;

/// Reads or writes a set of registers.
fn transfer<T>(
    number: libc::c_uint,
    pid: Pid,
    set: usize,
    registers: &mut T,
) -> rustix::io::Result<()> {
    let mut space = libc::iovec {
        iov_base: std::ptr::from_mut(registers).cast(),
        iov_len: size_of::<T>(),
    };
    request(number, pid, set, (&raw mut space).addr())
}

/// Makes a request; `data` is a number, or the address of what the request reads or fills.
fn request(number: libc::c_uint, pid: Pid, address: usize, data: usize) -> rustix::io::Result<()> {
    // SAFETY: the callers above pass numbers, or addresses of values that live through
    // the call and have the size that the request expects: a `c_ulong` for GETEVENTMSG, an
    // iovec that tells the length of its buffer for the register sets. No request used
    // here changes memory of this process besides.
    let done = unsafe {
        libc::syscall(
            libc::SYS_ptrace,
            number as libc::c_long,
            libc::c_long::from(pid.as_raw_nonzero().get()),
            address,
            data,
        )
    };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}
