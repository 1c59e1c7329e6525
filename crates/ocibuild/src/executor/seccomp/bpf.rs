//! A small assembler for the kernel's classic BPF machine (linux/filter.h), which can
//! load words of `struct seccomp_data`, compare, and return. Jumps only go forward.

use crate::executor::sys::Instruction;

const LOAD_WORD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

const RETURN_ALLOW: u32 = 0x7fff_0000;
const RETURN_ERRNO: u32 = 0x0005_0000;
const RETURN_USER_NOTIF: u32 = 0x7fc0_0000;
const RETURN_TRACE: u32 = 0x7ff0_0000;

// Offsets in `struct seccomp_data`; of an argument, its low word (little-endian).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENT_0: u32 = 16;

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const NAMESPACE_FLAGS: u32 = 0x7e02_0000;
const AF_VSOCK: u32 = 40;
/// PER_LINUX, PER_LINUX32, both with UNAME26, and the value that only asks.
const PERSONALITIES: [u32; 5] = [0, 8, 0x2_0000, 0x2_0008, u32::MAX];

/// What is done with a call in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Verdict {
    /// The call is made.
    Allow,
    /// It is not made and fails with this error; with 0 it seems to succeed.
    Errno(u16),
    /// It waits for who listens.
    Notify,
    /// It stops for the tracer.
    Trace,
}

/// Asks whether some bits of an argument, of its low word, have one of these values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Test {
    /// Which argument, from 0 on.
    pub(in super::super) argument: u8,
    /// Which of its bits.
    pub(in super::super) mask: u32,
    /// What they may be.
    pub(in super::super) values: &'static [u32],
}

/// What the filter answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Action {
    /// The call is made.
    Allow,
    /// The call is not made and fails with this error; with 0 it seems to succeed.
    Errno(u16),
    /// Made unless its first argument asks for a namespace.
    CloneWithoutNamespaces,
    /// Made unless it is for a machine's channel to its hypervisor.
    SocketButVsock,
    /// Made for the personalities that change little.
    HarmlessPersonality,
    /// Always this.
    Always(Verdict),
    /// One thing if all tests hold, another if not.
    When {
        /// What is asked.
        tests: &'static [Test],
        /// What is done if all hold.
        met: Verdict,
        /// What is done if not.
        otherwise: Verdict,
    },
}

/// The numbers from `first` up to the next range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    /// The lowest number.
    pub(super) first: u32,
    /// What is done with them.
    pub(super) action: Action,
}

/// Makes a program that looks for the caller's architecture, then for the number in
/// the ranges of that. Calls of any other architecture do not exist.
pub(super) fn assemble(machines: &[(u32, Vec<Range>)]) -> Vec<Instruction> {
    let mut program = vec![load(ARCHITECTURE)];
    for (architecture, ranges) in machines {
        let mut body = vec![load(NUMBER)];
        body.extend(bisect(ranges));
        program.push(jump(JUMP_IF_EQUAL, *architecture, 1, 0));
        program.push(skip(body.len()));
        program.extend(body);
    }
    program.push(fail(libc::ENOSYS as u16));
    program
}

/// Finds the number, which is loaded, among the ranges.
fn bisect(ranges: &[Range]) -> Vec<Instruction> {
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let Some(pivot) = high.first() else {
        return vec![fail(libc::ENOSYS as u16)];
    };
    if low.is_empty() {
        return decide(pivot.action);
    }
    let first = pivot.first;
    let (low, high) = (bisect(low), bisect(high));
    let mut code = match u8::try_from(low.len()) {
        Ok(length) => vec![jump(JUMP_IF_AT_LEAST, first, length, 0)],
        // Too far for a comparison, which has one byte for the distance.
        Err(_) => vec![jump(JUMP_IF_AT_LEAST, first, 0, 1), skip(low.len())],
    };
    code.extend(low);
    code.extend(high);
    code
}

/// Answers a call.
fn decide(action: Action) -> Vec<Instruction> {
    let refuse = fail(libc::EPERM as u16);
    match action {
        Action::Allow => vec![allow()],
        Action::Errno(errno) => vec![fail(errno)],
        Action::CloneWithoutNamespaces => vec![
            load(ARGUMENT_0),
            Instruction {
                code: AND,
                jump_true: 0,
                jump_false: 0,
                value: NAMESPACE_FLAGS,
            },
            jump(JUMP_IF_EQUAL, 0, 0, 1),
            allow(),
            refuse,
        ],
        Action::SocketButVsock => {
            vec![
                load(ARGUMENT_0),
                jump(JUMP_IF_EQUAL, AF_VSOCK, 1, 0),
                allow(),
                refuse,
            ]
        }
        Action::HarmlessPersonality => {
            let mut code = vec![load(ARGUMENT_0)];
            for (after, value) in PERSONALITIES.iter().rev().enumerate().rev() {
                // Over the comparisons that follow and the refusal.
                code.push(jump(JUMP_IF_EQUAL, *value, after as u8 + 1, 0));
            }
            code.extend([refuse, allow()]);
            code
        }
        Action::Always(verdict) => vec![answer(verdict)],
        Action::When {
            tests,
            met,
            otherwise,
        } => choose(tests, met, otherwise),
    }
}

fn choose(tests: &[Test], met: Verdict, otherwise: Verdict) -> Vec<Instruction> {
    let Some((test, others)) = tests.split_first() else {
        return vec![answer(met)];
    };
    let mut code = vec![
        load(ARGUMENT_0 + u32::from(test.argument) * 8),
        Instruction {
            code: AND,
            jump_true: 0,
            jump_false: 0,
            value: test.mask,
        },
    ];
    for (after, value) in test.values.iter().rev().enumerate().rev() {
        // Over the comparisons that follow and the answer if none held.
        code.push(jump(JUMP_IF_EQUAL, *value, after as u8 + 1, 0));
    }
    code.push(answer(otherwise));
    code.extend(choose(others, met, otherwise));
    code
}

fn answer(verdict: Verdict) -> Instruction {
    let value = match verdict {
        Verdict::Allow => return allow(),
        Verdict::Errno(errno) => return fail(errno),
        Verdict::Notify => RETURN_USER_NOTIF,
        Verdict::Trace => RETURN_TRACE,
    };
    Instruction {
        code: RETURN,
        jump_true: 0,
        jump_false: 0,
        value,
    }
}

fn load(offset: u32) -> Instruction {
    Instruction {
        code: LOAD_WORD,
        jump_true: 0,
        jump_false: 0,
        value: offset,
    }
}

fn jump(code: u16, value: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction {
        code,
        jump_true,
        jump_false,
        value,
    }
}

fn skip(count: usize) -> Instruction {
    // The kernel takes 4096 instructions at most, so a length always fits.
    Instruction {
        code: JUMP,
        jump_true: 0,
        jump_false: 0,
        value: count as u32,
    }
}

fn allow() -> Instruction {
    Instruction {
        code: RETURN,
        jump_true: 0,
        jump_false: 0,
        value: RETURN_ALLOW,
    }
}

fn fail(errno: u16) -> Instruction {
    Instruction {
        code: RETURN,
        jump_true: 0,
        jump_false: 0,
        value: RETURN_ERRNO | u32::from(errno),
    }
}
