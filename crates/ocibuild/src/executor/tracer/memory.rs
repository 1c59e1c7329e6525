//! The memory of a traced thread: reading what a call points to, and room of our own in
//! it for what the kernel is to read instead.
//!
//! The room is never on the stack of the thread: below it may be anything, as with
//! programs that have many small stacks. When a program starts, its stack is moved down a
//! little (see [`super::start`]) and the gap belongs to us; where that is too small, the
//! thread is made to map more. Processes that share their memory share the room.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use rustix::io::Errno;
use rustix::process::Pid;

/// The longest string that is read as a path, with its end (PATH_MAX).
const MAX_PATH: usize = 4096;
/// The most arguments of a program that are read; the kernel takes no more (MAX_ARG_STRINGS
/// would be, but they fill its limit of bytes before).
const MAX_POINTERS: usize = 1 << 22;
/// Strings are read up to the next multiple of this, which never ends in other memory.
const PAGE: u64 = 4096;

/// The memory of one stopped thread.
pub(super) struct Memory(File);

impl Memory {
    /// Opens it, as long as the thread does not become another program.
    pub(super) fn of(thread: Pid) -> io::Result<Self> {
        let path = format!("/proc/{}/mem", thread.as_raw_nonzero());
        File::options().read(true).write(true).open(path).map(Self)
    }

    /// Reads as many bytes.
    pub(super) fn read(&self, address: u64, space: &mut [u8]) -> Result<(), Errno> {
        self.0
            .read_exact_at(space, address)
            .map_err(|_| Errno::FAULT)
    }

    /// Reads a word.
    pub(super) fn word(&self, address: u64) -> Result<u64, Errno> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// Writes, also where the thread itself may only read.
    pub(super) fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.0
            .write_all_at(bytes, address)
            .map_err(|_| Errno::FAULT)
    }

    /// Reads a path, without its end.
    pub(super) fn path(&self, address: u64) -> Result<Vec<u8>, Errno> {
        let mut path = Vec::new();
        while path.len() < MAX_PATH {
            let here = address.checked_add(path.len() as u64).ok_or(Errno::FAULT)?;
            let mut chunk = vec![0; (PAGE - here % PAGE).min(256) as usize];
            self.read(here, &mut chunk)?;
            if let Some(end) = chunk.iter().position(|byte| *byte == 0) {
                path.extend(chunk.get(..end).unwrap_or_default());
                return if path.len() < MAX_PATH {
                    Ok(path)
                } else {
                    Err(Errno::NAMETOOLONG)
                };
            }
            path.extend(chunk);
        }
        Err(Errno::NAMETOOLONG)
    }

    /// Reads pointers up to a null pointer, which is not among them.
    pub(super) fn pointers(&self, address: u64) -> Result<Vec<u64>, Errno> {
        let mut pointers = Vec::new();
        while pointers.len() < MAX_POINTERS {
            let here = address
                .checked_add(8 * pointers.len() as u64)
                .ok_or(Errno::FAULT)?;
            // To the end of the page; a pointer that lies across it is read by itself.
            let mut chunk = vec![0; ((PAGE - here % PAGE) & !7).max(8) as usize];
            self.read(here, &mut chunk)?;
            for bytes in chunk.chunks_exact(8) {
                match u64::from_ne_bytes(bytes.try_into().map_err(|_| Errno::FAULT)?) {
                    0 => return Ok(pointers),
                    pointer => pointers.push(pointer),
                }
            }
        }
        Err(Errno::TOOBIG)
    }
}

/// A part of the room.
#[derive(Debug, Clone, Copy)]
struct Region {
    start: u64,
    length: u64,
    lent: bool,
}

/// The room in the memory of one process, or of several that share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Room(Rc<RefCell<Vec<Region>>>);

/// A part of the room that is in use until it is given back.
#[derive(Debug)]
pub(super) struct Lease {
    room: Room,
    /// Where it begins.
    pub(super) start: u64,
}

impl Room {
    /// The room of a process that got a copy of the memory.
    pub(super) fn copied(&self) -> Self {
        let mut regions = self.0.borrow().clone();
        regions.iter_mut().for_each(|region| region.lent = false);
        Self(Rc::new(RefCell::new(regions)))
    }

    /// Adds to it.
    pub(super) fn add(&self, start: u64, length: u64) {
        self.0.borrow_mut().push(Region {
            start,
            length,
            lent: false,
        });
    }

    /// Takes a part that is large enough, if there is one.
    pub(super) fn lend(&self, length: u64) -> Option<Lease> {
        let mut regions = self.0.borrow_mut();
        let fits = |region: &&mut Region| !region.lent && region.length >= length;
        let region = regions
            .iter_mut()
            .filter(fits)
            .min_by_key(|region| region.length)?;
        region.lent = true;
        Some(Lease {
            room: self.clone(),
            start: region.start,
        })
    }

    /// Forgets a part that turned out not to be there: the program unmapped it.
    pub(super) fn forget(&self, lease: &Lease) {
        self.0
            .borrow_mut()
            .retain(|region| region.start != lease.start);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut regions = self.room.0.borrow_mut();
        if let Some(region) = regions.iter_mut().find(|region| region.start == self.start) {
            region.lent = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_lent_once_and_copied_whole() {
        let room = Room::default();
        assert!(room.lend(1).is_none());
        room.add(0x1000, 64);
        room.add(0x2000, 8);
        let small = room.lend(8).unwrap();
        assert_eq!(small.start, 0x2000);
        let large = room.lend(8).unwrap();
        assert_eq!(large.start, 0x1000);
        assert!(room.lend(1).is_none());
        let copy = room.copied();
        assert_eq!(copy.lend(64).unwrap().start, 0x1000);
        drop(large);
        assert_eq!(room.lend(64).unwrap().start, 0x1000);
        room.forget(&small);
        drop(small);
        assert!(room.lend(65).is_none());
    }

    #[test]
    fn strings_and_pointers_end_where_they_end() {
        let text = c"/some/path".to_bytes_with_nul().to_vec();
        let pointers = [text.as_ptr() as u64, 7, 0, 9];
        let memory = Memory::of(rustix::process::getpid()).unwrap();
        let address = text.as_ptr() as u64;
        assert_eq!(memory.path(address).unwrap(), b"/some/path");
        assert_eq!(
            memory.pointers(pointers.as_ptr() as u64).unwrap(),
            [address, 7]
        );
        assert_eq!(memory.word(pointers.as_ptr() as u64 + 8), Ok(7));
        assert_eq!(memory.path(8), Err(Errno::FAULT));
        assert_eq!(memory.pointers(u64::MAX - 7), Err(Errno::FAULT));
        let long = vec![b'a'; MAX_PATH + 1];
        assert_eq!(memory.path(long.as_ptr() as u64), Err(Errno::NAMETOOLONG));
    }
}
