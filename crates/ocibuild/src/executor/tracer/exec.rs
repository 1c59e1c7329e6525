//! What a thread executes: the path that it gives is looked up in its root, a script's
//! program in front of it, and the kernel is told a path of ours. See execve(2).

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;
use rustix::process::Pid;

use super::calls::{Decision, c_string, directory};
use super::elf::{self, Program};
use super::memory::Memory;
use super::programs::Programs;
use super::rewrite::{Pointer, Rewrite, Value};
use super::state::{After, Executed};
use crate::executor::supervisor::Supervisor;
use crate::executor::sys::Registers;

/// How many scripts may name each other.
const MAX_SCRIPTS: usize = 5;

/// What a thread asks for.
struct Request {
    at: i32,
    path: Vec<u8>,
    flags: i32,
    argv: u64,
    environment: u64,
}

impl Request {
    fn read(memory: &Memory, registers: &Registers) -> Result<Self, Errno> {
        let argument = |index| registers.argument(index);
        Ok(if registers.number() == libc::SYS_execveat {
            Self {
                at: directory(argument(0)),
                path: memory.path(argument(1))?,
                argv: argument(2),
                environment: argument(3),
                flags: argument(4) as u32 as i32,
            }
        } else {
            Self {
                at: libc::AT_FDCWD,
                path: memory.path(argument(0))?,
                argv: argument(1),
                environment: argument(2),
                flags: 0,
            }
        })
    }

    /// The name that the program gets to know, and that a script's program opens.
    fn name(&self) -> Vec<u8> {
        if self.at == libc::AT_FDCWD || self.path.starts_with(b"/") {
            return self.path.clone();
        }
        let mut name = format!("/dev/fd/{}", self.at).into_bytes();
        if !self.path.is_empty() {
            name.push(b'/');
            name.extend(&self.path);
        }
        name
    }
}

/// Decides what a call of execve or execveat becomes.
pub(super) fn decide(
    thread: Pid,
    registers: &Registers,
    supervisor: &Supervisor,
    programs: &mut Programs,
) -> Result<Decision, Errno> {
    let memory = Memory::of(thread).map_err(|_| Errno::SRCH)?;
    let request = Request::read(&memory, registers)?;
    let name = request.name();

    let mut found = supervisor.program(thread, request.at, &request.path, request.flags)?;
    let mut path = name.clone();
    // What comes before the arguments beginning with the second.
    let mut front: Vec<Vec<u8>> = Vec::new();
    let mut scripts = 0;
    let host = loop {
        match elf::examine(&found.file).map_err(errno)? {
            Program::Script {
                interpreter,
                argument,
            } => {
                scripts += 1;
                if scripts > MAX_SCRIPTS {
                    return Err(Errno::LOOP);
                }
                found = supervisor.program(thread, libc::AT_FDCWD, &interpreter, 0)?;
                // The script is called by its path from here on.
                let rest = front.drain(..).skip(1);
                front = std::iter::once(interpreter.clone())
                    .chain(argument)
                    .chain([path])
                    .chain(rest.collect::<Vec<_>>())
                    .collect();
                path = interpreter;
            }
            Program::Dynamic(place) => {
                let loader = supervisor.program(thread, libc::AT_FDCWD, &place.name, 0)?;
                let loader = loader.path.ok_or(Errno::NOENT)?;
                let (file, original) = (&found.file, found.path.as_deref());
                let made = programs.dynamic(file, original, &place, &loader, base_name(&name));
                break made.map_err(errno)?;
            }
            Program::Narrow => return Err(Errno::NOEXEC),
            Program::Plain => {
                let made = match &found.path {
                    Some(path) => programs.plain(path, base_name(&name)),
                    None => programs.nameless(&found.file, base_name(&name)),
                };
                break made.map_err(errno)?;
            }
        }
    };

    let mut arguments = vec![
        (0, Value::Bytes(c_string(&host))),
        (1, Value::Number(request.argv)),
        (2, Value::Number(request.environment)),
    ];
    if !front.is_empty() {
        let argv = with_front(front, &memory, request.argv)?;
        arguments.retain(|(index, _)| *index != 1);
        arguments.push((1, Value::Pointers(argv)));
    }
    let number = libc::SYS_execve;
    let executed = Executed {
        name,
        program: found,
    };
    let rewrite = Rewrite { number, arguments };
    Ok(Decision::Rewrite(rewrite, After::Program(executed)))
}

/// Puts other arguments in the place of the first.
fn with_front(front: Vec<Vec<u8>>, memory: &Memory, argv: u64) -> Result<Vec<Pointer>, Errno> {
    let given = match argv {
        0 => Vec::new(),
        argv => memory.pointers(argv)?,
    };
    let front = front.into_iter().map(|mut text| {
        text.push(0);
        Pointer::Bytes(text)
    });
    let given = given.into_iter().skip(1).map(Pointer::There);
    Ok(front.chain(given).collect())
}

fn base_name(path: &[u8]) -> &OsStr {
    let name = path
        .rsplit(|byte| *byte == b'/')
        .find(|name| !name.is_empty());
    OsStr::from_bytes(name.unwrap_or(b"program"))
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
