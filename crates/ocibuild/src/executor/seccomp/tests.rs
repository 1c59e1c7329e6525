//! The filter, run by a BPF machine of a few lines, for all four kinds of program.

use super::*;

const X86_64: (u32, usize) = (0xc000_003e, 0);
const I386: (u32, usize) = (0x4000_0003, 1);
const ARM64: (u32, usize) = (0xc000_00b7, 2);
const ARM: (u32, usize) = (0x4000_0028, 3);

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Made,
    Fails(i32),
    Waits,
    Stops,
}
use Answer::{Fails, Made, Stops, Waits};

/// Runs a program as the kernel does, over the words of `struct seccomp_data`.
fn ask(program: &[sys::Instruction], architecture: u32, number: u32, argument: u32) -> Answer {
    ask_all(program, architecture, number, [argument, 0, 0])
}

fn ask_all(
    program: &[sys::Instruction],
    architecture: u32,
    number: u32,
    [first, second, third]: [u32; 3],
) -> Answer {
    let data = [number, architecture, 0, 0, first, 0, second, 0, third, 0];
    let (mut at, mut word) = (0, 0);
    loop {
        let step = program[at];
        at += 1;
        match step.code {
            0x20 => word = data[step.value as usize / 4],
            0x54 => word &= step.value,
            0x05 => at += step.value as usize,
            0x15 | 0x35 => {
                let holds = if step.code == 0x15 {
                    word == step.value
                } else {
                    word >= step.value
                };
                at += usize::from(if holds {
                    step.jump_true
                } else {
                    step.jump_false
                });
            }
            0x06 if step.value == 0x7fff_0000 => return Made,
            0x06 if step.value == 0x7fc0_0000 => return Waits,
            0x06 if step.value == 0x7ff0_0000 => return Stops,
            0x06 => return Fails((step.value & 0xffff) as i32),
            code => panic!("instruction {code:#x}"),
        }
    }
}

fn number(name: &str, column: usize) -> u32 {
    let row = table::ALLOWED.iter().find(|(known, _)| *known == name);
    row.unwrap_or_else(|| panic!("{name} is not in the table"))
        .1[column]
}

#[test]
fn calls_are_answered_by_name_on_every_machine() {
    let program = program(&[X86_64, I386, ARM64, ARM], false, &[]);
    assert!(program.len() < 4096, "{} instructions", program.len());
    for (architecture, column) in [X86_64, I386, ARM64, ARM] {
        let ask = |name, argument| ask(&program, architecture, number(name, column), argument);
        for name in [
            "read",
            "openat",
            "execve",
            "ptrace",
            "chroot",
            "fchmodat2",
            "mseal",
        ] {
            assert_eq!(ask(name, 0), Made, "{name} on {architecture:#x}");
        }
        assert_eq!(ask("clone3", 0), Fails(libc::ENOSYS));
        assert_eq!(ask("clone", libc::SIGCHLD as u32), Made);
        assert_eq!(ask("clone", libc::CLONE_NEWUSER as u32), Fails(libc::EPERM));
        assert_eq!(ask("clone", libc::CLONE_NEWNS as u32), Fails(libc::EPERM));
        assert_eq!(ask("socket", libc::AF_INET as u32), Made);
        assert_eq!(ask("socket", libc::AF_VSOCK as u32), Fails(libc::EPERM));
        for harmless in [0, 8, 0x2_0000, 0x2_0008, u32::MAX] {
            assert_eq!(ask("personality", harmless), Made, "{harmless:#x}");
        }
        assert_eq!(
            ask("personality", 0x4_0000),
            Fails(libc::EPERM),
            "ADDR_NO_RANDOMIZE"
        );
        assert_eq!(ask("fsync", 0), Fails(0));
        for (name, numbers) in table::ALLOWED {
            if numbers[column] != table::NONE {
                assert_ne!(
                    ask(name, 0),
                    Fails(libc::EPERM),
                    "{name} on {architecture:#x}"
                );
            }
        }
    }
}

#[test]
fn what_is_not_allowed_is_refused_or_unknown() {
    let program = program(&[X86_64, I386], false, &[]);
    for denied in [
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_bpf,
        libc::SYS_io_uring_setup,
        libc::SYS_open_by_handle_at,
        libc::SYS_reboot,
    ] {
        // The numbers are those of the machine that the test runs on.
        if cfg!(target_arch = "x86_64") {
            assert_eq!(
                ask(&program, X86_64.0, denied as u32, 0),
                Fails(libc::EPERM),
                "{denied}"
            );
        }
    }
    for i386 in [
        21,  /* mount */
        310, /* unshare */
        288, /* keyctl */
        357, /* bpf */
    ] {
        assert_eq!(ask(&program, I386.0, i386, 0), Fails(libc::EPERM), "{i386}");
    }
    for unknown in [460, 467, 9999, 0x4000_0000 /* x32 read */, u32::MAX] {
        assert_eq!(
            ask(&program, X86_64.0, unknown, 0),
            Fails(libc::ENOSYS),
            "{unknown:#x}"
        );
    }
    assert_eq!(
        ask(&program, 0x8000_0016, 1, 0),
        Fails(libc::ENOSYS),
        "s390x"
    );
}

#[test]
fn calls_wait_or_stop_as_the_rules_say() {
    const TESTS: &[Test] = &[
        Test {
            argument: 1,
            mask: u32::MAX,
            values: &[1, 6],
        },
        Test {
            argument: 2,
            mask: 0xf0,
            values: &[0x10],
        },
    ];
    let some = Action::When {
        tests: TESTS,
        met: Verdict::Notify,
        otherwise: Verdict::Allow,
    };
    let rules = [
        ("getsockopt", some),
        ("execve", Action::Always(Verdict::Trace)),
        // The first one for a name counts.
        ("getuid", Action::Always(Verdict::Notify)),
        ("getuid", Action::Always(Verdict::Allow)),
    ];
    let program = program(&[X86_64], false, &rules);
    let ask = |name, arguments| ask_all(&program, X86_64.0, number(name, 0), arguments);
    assert_eq!(ask("execve", [0; 3]), Stops);
    assert_eq!(ask("getuid", [0; 3]), Waits);
    assert_eq!(ask("geteuid", [0; 3]), Made);
    assert_eq!(ask("getsockopt", [9, 1, 0x1f]), Waits);
    assert_eq!(ask("getsockopt", [9, 6, 0x10]), Waits);
    assert_eq!(ask("getsockopt", [9, 6, 0x20]), Made);
    assert_eq!(ask("getsockopt", [9, 2, 0x10]), Made);
    assert_eq!(ask("fsync", [0; 3]), Fails(0));
}

#[test]
fn sync_calls_are_made_when_asked_for() {
    let program = program(&[X86_64], true, &[]);
    for name in ["fsync", "fdatasync", "sync", "syncfs", "sync_file_range"] {
        assert_eq!(ask(&program, X86_64.0, number(name, 0), 0), Made, "{name}");
    }
}

#[test]
fn numbers_are_those_of_libc() {
    let column = if cfg!(target_arch = "aarch64") { 2 } else { 0 };
    for (name, known) in [
        ("clone", libc::SYS_clone),
        ("clone3", libc::SYS_clone3),
        ("socket", libc::SYS_socket),
        ("personality", libc::SYS_personality),
        ("fsync", libc::SYS_fsync),
        ("statx", libc::SYS_statx),
        ("openat2", libc::SYS_openat2),
        ("futex_waitv", libc::SYS_futex_waitv),
    ] {
        assert_eq!(i64::from(number(name, column)), known, "{name}");
    }
}

#[test]
fn each_number_is_listed_once() {
    for column in 0..4 {
        let mut numbers: Vec<u32> = table::ALLOWED.iter().map(|(_, n)| n[column]).collect();
        numbers.retain(|n| *n != table::NONE);
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), count, "column {column}");
    }
}
