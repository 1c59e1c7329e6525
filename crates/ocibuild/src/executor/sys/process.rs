//! Processes: fork, exec, signals, namespaces.

use std::ffi::{CString, c_char};
use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;
use std::ptr;

use rustix::process::Pid;
use rustix::thread::UnshareFlags;

/// Which side of a fork this is.
pub(in super::super) enum Forked {
    /// The new process.
    Child,
    /// The old process; the other one has this id.
    Parent(Pid),
}

/// Makes a second process of this one. Must be called in a program with one thread
/// only, which is what the helper is: it takes over in `main` before anything else.
pub(in super::super) fn fork() -> io::Result<Forked> {
    // SAFETY: the helper has a single thread (see above), so no lock of the allocator
    // or of the standard library can be held by a thread that the child does not have.
    let raw = unsafe { libc::fork() };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(match Pid::from_raw(raw) {
        None => Forked::Child,
        Some(pid) => Forked::Parent(pid),
    })
}

/// Makes a second process of this one, the first of a process id namespace of its own.
///
/// Not by unshare and fork: who has unshared that namespace can start no threads any more.
/// Must be called in a program with one thread, as [`fork`].
pub(in super::super) fn fork_into_pid_namespace() -> io::Result<Forked> {
    let flags = libc::SIGCHLD | libc::CLONE_NEWPID;
    // SAFETY: without a stack and CLONE_VM the child goes on with a copy of this memory, as
    // after fork. It has one thread, as this process has, so no lock is held that nobody
    // would release; what libc's own fork does beside is for programs with threads.
    let raw = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(match Pid::from_raw(raw as i32) {
        None => Forked::Child,
        Some(pid) => Forked::Parent(pid),
    })
}

/// Takes descriptor 0 as the file that the parent put there.
pub(in super::super) fn adopt_stdin() -> File {
    // SAFETY: descriptor 0 is open, since the standard library opens /dev/null there
    // before `main` if nothing was; called once, and nothing else here uses stdin.
    unsafe { File::from_raw_fd(0) }
}

/// Leaves namespaces for new ones.
pub(in super::super) fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: unsafe only with FILES, for threads that share descriptors; no caller
    // passes it, and there is one thread.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Replaces this process by a program; returns only if that failed.
pub(in super::super) fn execve(
    path: &CString,
    argv: &[CString],
    env: &[CString],
) -> rustix::io::Errno {
    let argv = pointers(argv);
    let env = pointers(env);
    // SAFETY: all three are NUL-terminated, the arrays end with a null pointer, and
    // what they point to is borrowed by this function until the call returns.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    last_errno()
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    let ends = std::iter::once(ptr::null());
    strings.iter().map(|s| s.as_ptr()).chain(ends).collect()
}

/// Gives every signal its default action and blocks none. Ignored signals and the
/// mask would pass through exec: the standard library ignores SIGPIPE, a service
/// manager may have set more.
pub(in super::super) fn reset_signals() {
    // The highest number on Linux; a plain 64 because SIGRTMAX hides two from libc.
    const LAST_SIGNAL: i32 = 64;
    // The kernel's struct sigaction, at most this long: handler, flags, restorer, mask.
    let default = [0_u64; 4];
    for signal in 1..=LAST_SIGNAL {
        // Not by libc: it refuses the two that it uses itself, and its posix_spawn, with
        // which the standard library started this process, has left them ignored.
        // SAFETY: the pointer is to zeroes that live through the call and are all of the
        // struct; they are SIG_DFL, which installs no handler, so no code can run on a
        // signal. A null pointer for the old action is allowed. The call fails for KILL
        // and STOP, which stay as they are.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null::<u64>(),
                size_of::<u64>(),
            )
        };
    }
    // SAFETY: a zeroed sigset_t is a valid value; sigemptyset fills it before it is
    // read, and a null pointer for the old mask is allowed.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut());
    }
}

/// Lets exec close every descriptor but the three standard ones, whoever opened them.
pub(in super::super) fn close_others_on_exec() -> rustix::io::Result<()> {
    // SAFETY: sets a flag on descriptors and closes none, so no owned descriptor of
    // this process becomes invalid.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3_u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Leaves the builder's session keyring for an empty one of this process's own.
pub(in super::super) fn forget_session_keyring() -> rustix::io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: with a null name the call reads no memory of ours.
    let done = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_JOIN_SESSION_KEYRING,
            ptr::null::<c_char>(),
        )
    };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}

/// The error of the call just made.
pub(super) fn last_errno() -> rustix::io::Errno {
    let raw = io::Error::last_os_error().raw_os_error();
    rustix::io::Errno::from_raw_os_error(raw.unwrap_or(libc::EIO))
}
