//! At which calls the kernel stops a traced command.

use crate::executor::seccomp::{Action, Test, Verdict};

/// What the filter of a traced command does with the calls that are attended to here,
/// in addition to what a supervisor answers.
pub(in crate::executor) const RULES: &[(&str, Action)] = &[
    ("execve", Action::Always(Verdict::Trace)),
    ("execveat", Action::Always(Verdict::Trace)),
    ("chdir", Action::Always(Verdict::Trace)),
    ("open", opening_path(1)),
    ("openat", opening_path(2)),
    ("inotify_add_watch", Action::Always(Verdict::Trace)),
    ("bind", Action::Always(Verdict::Trace)),
    ("connect", Action::Always(Verdict::Trace)),
    ("sendto", unless(&[has(4, u32::MAX, &[0])])),
    ("sendmsg", Action::Always(Verdict::Trace)),
    ("sendmmsg", Action::Always(Verdict::Trace)),
    ("recvfrom", unless(&[has(4, u32::MAX, &[0])])),
    ("recvmsg", Action::Always(Verdict::Trace)),
    ("accept", unless(&[has(1, u32::MAX, &[0])])),
    ("accept4", unless(&[has(1, u32::MAX, &[0])])),
    ("getsockname", Action::Always(Verdict::Trace)),
    ("getpeername", Action::Always(Verdict::Trace)),
    (
        "getsockopt",
        Action::When {
            tests: &[
                has(1, u32::MAX, &[libc::SOL_SOCKET as u32]),
                has(2, u32::MAX, &[libc::SO_PEERCRED as u32]),
            ],
            met: Verdict::Trace,
            otherwise: Verdict::Allow,
        },
    ),
];

const O_PATH: u32 = libc::O_PATH as u32;

const fn has(argument: u8, mask: u32, values: &'static [u32]) -> Test {
    Test {
        argument,
        mask,
        values,
    }
}

const fn unless(tests: &'static [Test]) -> Action {
    Action::When {
        tests,
        met: Verdict::Allow,
        otherwise: Verdict::Trace,
    }
}

/// Nobody can hand over a descriptor of this kind, so the thread has to open it itself.
const fn opening_path(flags: u8) -> Action {
    const OF_OPEN: &[Test] = &[has(1, O_PATH, &[O_PATH])];
    const OF_OPENAT: &[Test] = &[has(2, O_PATH, &[O_PATH])];
    Action::When {
        tests: if flags == 1 { OF_OPEN } else { OF_OPENAT },
        met: Verdict::Trace,
        otherwise: Verdict::Notify,
    }
}
