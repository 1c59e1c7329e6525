//! Messages that name a socket: `struct msghdr`, and `struct mmsghdr`, which is one and the
//! number of bytes that were sent. See sendmsg(2).

use rustix::io::Errno;
use rustix::process::Pid;

use super::calls::Decision;
use super::memory::Memory;
use super::rewrite::{Rewrite, Value};
use super::socket::{self, Slot};
use super::state::After;
use crate::executor::supervisor::Supervisor;
use crate::executor::sys::Registers;

/// Sizes on machines of 64 bits.
const MESSAGE: usize = 56;
const COUNTED_MESSAGE: usize = 64;
/// As many messages as the kernel takes at once.
const MAX_MESSAGES: u32 = 1024;

/// Where the name of a message is, and how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name {
    pub(super) address: u64,
    pub(super) length: u32,
    /// Where the length is.
    pub(super) length_at: u64,
}

/// Reads that of the message at an address.
pub(super) fn name_of(memory: &Memory, message: u64) -> Result<Name, Errno> {
    let length_at = message.checked_add(8).ok_or(Errno::FAULT)?;
    let mut length = [0; 4];
    memory.read(length_at, &mut length)?;
    Ok(Name {
        address: memory.word(message)?,
        length: u32::from_ne_bytes(length),
        length_at,
    })
}

/// sendmsg(2).
pub(super) fn send(
    thread: Pid,
    registers: &Registers,
    supervisor: &Supervisor,
) -> Result<Decision, Errno> {
    let memory = Memory::of(thread).map_err(|_| Errno::SRCH)?;
    check_flags(registers, supervisor, 2)?;
    let header = read(&memory, registers.argument(1), MESSAGE)?;
    match path_of(&memory, registers.argument(1))? {
        None => Ok(Decision::Pass),
        Some(path) => {
            let slot = Slot::Message(header);
            socket::reach(thread, registers, supervisor, &path, slot, After::Nothing)
        }
    }
}

/// sendmmsg(2), which may send fewer than it was given: those before the first that has the
/// path of a socket, or that one alone.
pub(super) fn send_many(
    thread: Pid,
    registers: &Registers,
    supervisor: &Supervisor,
) -> Result<Decision, Errno> {
    let memory = Memory::of(thread).map_err(|_| Errno::SRCH)?;
    check_flags(registers, supervisor, 3)?;
    for number in 0..(registers.argument(2) as u32).min(MAX_MESSAGES) {
        let address = registers
            .argument(1)
            .checked_add(u64::from(number) * COUNTED_MESSAGE as u64)
            .ok_or(Errno::FAULT)?;
        let Some(path) = path_of(&memory, address)? else {
            continue;
        };
        if number > 0 {
            let rewrite = Rewrite {
                number: registers.number(),
                arguments: vec![(2, Value::Number(number.into()))],
            };
            return Ok(Decision::Rewrite(rewrite, After::Nothing));
        }
        let slot = Slot::FirstMessage(read(&memory, address, COUNTED_MESSAGE)?);
        return socket::reach(thread, registers, supervisor, &path, slot, After::Sent);
    }
    Ok(Decision::Pass)
}

/// recvmsg(2).
pub(super) fn receive(thread: Pid, registers: &Registers) -> Result<Decision, Errno> {
    let memory = Memory::of(thread).map_err(|_| Errno::SRCH)?;
    // The kernel says what is wrong with the message.
    let name = name_of(&memory, registers.argument(1));
    Ok(match name {
        Ok(name) if name.address != 0 => Decision::Ask(After::Name(name.length)),
        _ => Decision::Pass,
    })
}

/// Says how much was sent of a message, in the one that it was a copy of.
pub(super) fn count(thread: Pid, asked: &Registers, made: &Registers) -> Result<(), Errno> {
    let memory = Memory::of(thread).map_err(|_| Errno::SRCH)?;
    let place = |message: u64| message.checked_add(MESSAGE as u64).ok_or(Errno::FAULT);
    let mut length = [0; 4];
    memory.read(place(made.argument(1))?, &mut length)?;
    memory.write(place(asked.argument(1))?, &length)
}

/// Without a network nothing is connected in sending.
fn check_flags(
    registers: &Registers,
    supervisor: &Supervisor,
    argument: usize,
) -> Result<(), Errno> {
    let connects = registers.argument(argument) & libc::MSG_FASTOPEN as u64 != 0;
    match connects && !supervisor.has_network() {
        true => Err(Errno::OPNOTSUPP),
        false => Ok(()),
    }
}

fn path_of(memory: &Memory, message: u64) -> Result<Option<Vec<u8>>, Errno> {
    let name = name_of(memory, message)?;
    socket::read_path(memory, name.address, name.length as usize)
}

fn read(memory: &Memory, address: u64, length: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; length];
    memory.read(address, &mut bytes)?;
    Ok(bytes)
}
