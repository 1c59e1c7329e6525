//! The stack of a program before its first instruction: it is told the name by which it
//! was called instead of that of our copy (AT_EXECFN), and a gap is made for our use.
//!
//! ```text
//! high   strings, among them the name of the copy
//!        the gap: the right name, room for rewritten arguments
//!        auxiliary vector, environment, arguments, their number   moved down, as they are
//! low    stack pointer
//! ```
//!
//! All that is moved are numbers and addresses of what stays.

use rustix::io::Errno;
use rustix::process::Pid;

use super::memory::{Memory, Room};
use crate::executor::sys;

/// Sizes of the parts of the room. Most calls need one path; a script's arguments more.
const PARTS: &[u64] = &[24 << 10, 4224, 4224];
/// The most that is moved: the kernel allows a quarter of the stack for arguments.
const MAX_BLOCK: usize = 16 << 20;
const AT_NULL: u64 = 0;
const AT_EXECFN: u64 = 31;

/// Prepares the stack of a thread that has just become a program; gives its room.
pub(super) fn settle(thread: Pid, name: &[u8]) -> Result<Room, Errno> {
    let memory = Memory::of(thread).map_err(|_| Errno::SRCH)?;
    let mut registers = sys::registers(thread)?;
    let block = Block::read(&memory, registers.stack())?;

    let mut text = name.to_vec();
    text.push(0);
    let text_size = (text.len() as u64).next_multiple_of(16);
    // The stack stays aligned to 16 as the kernel made it; so is the name, after words.
    let gap = (text_size + PARTS.iter().sum::<u64>()).next_multiple_of(16) + 16;
    let stack = registers.stack().checked_sub(gap).ok_or(Errno::FAULT)?;
    let name_at = (stack + block.words.len() as u64 * 8).next_multiple_of(16);

    memory.write(name_at, &text)?;
    memory.write(stack, &block.with_name_at(name_at))?;
    registers.set_stack(stack);
    sys::set_registers(thread, &registers)?;

    let room = Room::default();
    let mut start = name_at + text_size;
    for part in PARTS {
        room.add(start, *part);
        start += part;
    }
    Ok(room)
}

/// Arguments, environment and auxiliary vector, as words.
struct Block {
    words: Vec<u64>,
    /// Where the value of AT_EXECFN is.
    name: Option<usize>,
}

impl Block {
    fn read(memory: &Memory, start: u64) -> Result<Self, Errno> {
        let count = memory.word(start)?;
        let arguments = memory.pointers(start + 8)?;
        if arguments.len() as u64 != count {
            return Err(Errno::INVAL);
        }
        let environment = memory.pointers(start + 8 * (2 + count))?;
        let mut words = vec![count];
        words.extend(arguments);
        words.push(0);
        words.extend(environment);
        words.push(0);
        let mut name = None;
        loop {
            let at = start + 8 * words.len() as u64;
            let (kind, value) = (memory.word(at)?, memory.word(at + 8)?);
            words.extend([kind, value]);
            match kind {
                AT_NULL => return Ok(Self { words, name }),
                AT_EXECFN => name = Some(words.len() - 1),
                _ if words.len() > MAX_BLOCK / 8 => return Err(Errno::TOOBIG),
                _ => {}
            }
        }
    }

    fn with_name_at(mut self, address: u64) -> Vec<u8> {
        if let Some(value) = self.name.and_then(|index| self.words.get_mut(index)) {
            *value = address;
        }
        self.words.into_iter().flat_map(u64::to_ne_bytes).collect()
    }
}
