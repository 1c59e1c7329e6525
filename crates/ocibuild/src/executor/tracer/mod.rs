//! Running programs that are not where the kernel looks for them: the calls that a thread
//! has to make itself, with the paths of its root replaced by those of the machine.
//!
//! The filter of the command lets the kernel stop its threads at these calls and at no
//! others: programs are executed, directories entered, sockets named. One thread of the
//! helper, the one that made the command's first process, attends to all stops, one after
//! the other. With it the whole tree dies.
//!
//! ```text
//! call      registers saved, other arguments laid out in the thread's memory, call made
//! its end   registers as they were, but for the result
//! program   the new stack is prepared; nothing is left of the rest
//! ```
//!
//! This is translation and not confinement: another thread can change an argument after
//! it was looked at. What must not be reached has to be out of reach by other means.

mod calls;
mod elf;
mod exec;
mod memory;
mod programs;
mod rewrite;
mod start;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::supervise::Ended;
use super::sys::{self, Registers, Resume, Stop};
use calls::Decision;
use memory::{Lease, Memory, Room};
pub(super) use programs::Originals;
use programs::Programs;
use rewrite::Rewrite;

/// A part of a thread's memory that is mapped for arguments is a multiple of this.
const MAPPED: u64 = 64 << 10;

/// Whoever knows what a thread means by a path, and who it is.
pub(super) trait Guest {
    /// Where something is on the machine. All but the end of the path must be there; a
    /// link at the end is followed or not.
    fn locate(&self, thread: Pid, at: i32, path: &[u8], follow: bool) -> Result<PathBuf, Errno>;

    /// Opens a program for reading; `flags` are those of execveat.
    fn program(&self, thread: Pid, at: i32, path: &[u8], flags: i32) -> Result<Found, Errno>;

    /// A thread is another program now and has not run an instruction of it.
    fn became(&self, thread: Pid, program: &File);

    /// User and group of another process, as the command sees them.
    fn ids_of(&self, process: Pid) -> Option<(u32, u32)>;
}

/// A program.
#[derive(Debug)]
pub(super) struct Found {
    /// The file, open for reading.
    pub(super) file: File,
    /// Where it is on the machine, if it has a place.
    pub(super) path: Option<PathBuf>,
}

/// A program that a thread is about to become.
struct Executed {
    /// The name by which it was called.
    name: Vec<u8>,
    /// The file, which is not the script.
    file: File,
}

/// A traced thread.
struct Thread {
    room: Room,
    phase: Phase,
}

impl Thread {
    fn new(room: Room) -> Self {
        let phase = Phase::Idle;
        Self { room, phase }
    }
}

/// What of ours is going on in a thread. The registers are those that it came with.
enum Phase {
    /// Nothing.
    Idle,
    /// Memory is being mapped for the arguments of a call, which comes after that.
    Mapping(Registers, Rewrite, Option<Executed>),
    /// The call after that is about to be made.
    Again(Registers, Lease, Option<Executed>),
    /// A call is made with other arguments.
    Rewritten(Registers, Lease, Option<Executed>),
    /// A socket is asked who is at its other end.
    Peer(Registers),
}

/// Attends to the stops of a command's threads.
pub(super) struct Tracer<G> {
    guest: G,
    programs: Programs,
    first: Pid,
    threads: HashMap<Pid, Thread>,
    /// New threads of which their makers have not told yet.
    unborn: HashSet<Pid>,
    /// How the first process ended.
    ended: Option<Ended>,
}

impl<G: Guest> Tracer<G> {
    /// Begins to trace a child of this thread, which stands still. `folder` is an empty
    /// one for programs.
    pub(super) fn seize(
        first: Pid,
        guest: G,
        folder: PathBuf,
        originals: Originals,
    ) -> Result<Self, Errno> {
        sys::seize(first)?;
        Ok(Self {
            guest,
            programs: Programs::new(folder, originals),
            first,
            threads: HashMap::from([(first, Thread::new(Room::default()))]),
            unborn: HashSet::new(),
            ended: None,
        })
    }

    /// Attends until the first process has ended, and all that it started, which is
    /// killed then.
    pub(super) fn attend(mut self) -> Result<Ended, Errno> {
        while let Some((thread, stop)) = sys::wait_for_stop()? {
            match self.handle(thread, stop) {
                // Killed while it was attended to; its end will be told.
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(errno),
            }
        }
        // There was one, or the first process could not have been seized.
        self.ended.ok_or(Errno::CHILD)
    }

    fn handle(&mut self, thread: Pid, stop: Stop) -> Result<(), Errno> {
        match stop {
            Stop::Exited(status) => self.forget(thread, Ended::Exited(status)),
            Stop::Killed(signal) => self.forget(thread, Ended::Killed(signal)),
            Stop::Call => self.call(thread),
            Stop::EndOfCall => self.end_of_call(thread),
            Stop::Made(child) => self.made(thread, child),
            Stop::Program(before) => self.became(thread, before),
            Stop::Born if !self.threads.contains_key(&thread) => {
                self.unborn.insert(thread);
                Ok(())
            }
            Stop::Born => sys::resume(thread, Resume::Run(None)),
            Stop::GroupStop => sys::resume(thread, Resume::Listen),
            Stop::Signal(signal) => self.signal(thread, signal),
        }
    }

    fn forget(&mut self, thread: Pid, ended: Ended) -> Result<(), Errno> {
        self.threads.remove(&thread);
        self.unborn.remove(&thread);
        if thread == self.first {
            self.ended = Some(ended);
            for left in self.threads.keys().chain(&self.unborn) {
                kill(*left);
            }
        }
        Ok(())
    }

    /// A thread has made another, which may have been seen already.
    fn made(&mut self, maker: Pid, child: Pid) -> Result<(), Errno> {
        let room = match self.threads.get(&maker) {
            Some(maker_thread) if shares_memory(&sys::registers(maker)?) => {
                maker_thread.room.clone()
            }
            Some(maker_thread) => maker_thread.room.copied(),
            None => Room::default(),
        };
        self.threads.insert(child, Thread::new(room));
        if self.ended.is_some() {
            kill(child);
        }
        if self.unborn.remove(&child) {
            match sys::resume(child, Resume::Run(None)) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(errno),
            }
        }
        sys::resume(maker, Resume::Run(None))
    }

    /// A thread stops at a call.
    fn call(&mut self, thread: Pid) -> Result<(), Errno> {
        let Some(state) = self.threads.get_mut(&thread) else {
            return sys::resume(thread, Resume::Run(None));
        };
        if let Phase::Again(..) = state.phase {
            let Phase::Again(saved, lease, executed) =
                std::mem::replace(&mut state.phase, Phase::Idle)
            else {
                return Ok(());
            };
            state.phase = Phase::Rewritten(saved, lease, executed);
            return sys::resume(thread, Resume::ToEndOfCall);
        }
        let mut registers = sys::registers(thread)?;
        let decided = match registers.number() {
            libc::SYS_execve | libc::SYS_execveat => {
                exec::decide(thread, &registers, &self.guest, &mut self.programs)
            }
            _ => calls::decide(thread, &registers, &self.guest),
        };
        match decided {
            Ok(Decision::Pass) => sys::resume(thread, Resume::Run(None)),
            Ok(Decision::Peer) => {
                self.set_phase(thread, Phase::Peer(registers));
                sys::resume(thread, Resume::ToEndOfCall)
            }
            Ok(Decision::Rewrite(rewrite)) => self.apply(thread, registers, rewrite, None),
            Ok(Decision::Execute(rewrite, executed)) => {
                self.apply(thread, registers, rewrite, Some(executed))
            }
            Err(errno) => {
                registers.skip(-i64::from(errno.raw_os_error()));
                sys::set_registers(thread, &registers)?;
                sys::resume(thread, Resume::Run(None))
            }
        }
    }

    /// Lets a call be made with other arguments; before it, where there is no room for
    /// them, one that maps memory.
    fn apply(
        &mut self,
        thread: Pid,
        saved: Registers,
        rewrite: Rewrite,
        executed: Option<Executed>,
    ) -> Result<(), Errno> {
        let mut registers = saved;
        let lease = self.place(thread, &rewrite, &mut registers);
        let phase = match lease {
            Some(lease) => {
                registers.set_number(rewrite.number);
                Phase::Rewritten(saved, lease, executed)
            }
            None => {
                registers.set_number(libc::SYS_mmap);
                for (index, value) in mapping(&rewrite).into_iter().enumerate() {
                    registers.set_argument(index, value);
                }
                Phase::Mapping(saved, rewrite, executed)
            }
        };
        self.set_phase(thread, phase);
        sys::set_registers(thread, &registers)?;
        sys::resume(thread, Resume::ToEndOfCall)
    }

    /// Writes arguments into the room of a thread, if it is large enough.
    fn place(&self, thread: Pid, rewrite: &Rewrite, registers: &mut Registers) -> Option<Lease> {
        let room = &self.threads.get(&thread)?.room;
        let lease = room.lend(rewrite.size())?;
        let placed = rewrite.place(lease.start);
        let memory = Memory::of(thread).ok()?;
        if memory.write(lease.start, &placed.bytes).is_err() {
            room.forget(&lease);
            return None;
        }
        for (index, value) in placed.arguments {
            registers.set_argument(index, value);
        }
        Some(lease)
    }

    fn end_of_call(&mut self, thread: Pid) -> Result<(), Errno> {
        let registers = sys::registers(thread)?;
        let result = registers.result();
        match self.set_phase(thread, Phase::Idle) {
            Phase::Rewritten(mut saved, ..) => {
                saved.set_result(result);
                sys::set_registers(thread, &saved)?;
            }
            Phase::Mapping(saved, rewrite, executed) => {
                return self.mapped(thread, saved, rewrite, executed, result);
            }
            Phase::Peer(asked) if result == 0 => self.name_peer(thread, &asked),
            Phase::Idle | Phase::Again(..) | Phase::Peer(_) => {}
        }
        sys::resume(thread, Resume::Run(None))
    }

    /// Goes back to make the call for which memory was mapped.
    fn mapped(
        &mut self,
        thread: Pid,
        mut saved: Registers,
        rewrite: Rewrite,
        executed: Option<Executed>,
        result: i64,
    ) -> Result<(), Errno> {
        let mut registers = saved;
        registers.rewind(rewrite.number);
        if result > 0
            && let Some(state) = self.threads.get(&thread)
        {
            let [_, length, ..] = mapping(&rewrite);
            state.room.add(result.cast_unsigned(), length);
        }
        match self.place(thread, &rewrite, &mut registers) {
            Some(lease) => {
                self.set_phase(thread, Phase::Again(saved, lease, executed));
                sys::set_registers(thread, &registers)?;
            }
            None => {
                saved.set_result(-i64::from(Errno::NOMEM.raw_os_error()));
                sys::set_registers(thread, &saved)?;
            }
        }
        sys::resume(thread, Resume::Run(None))
    }

    /// Delivers a signal. Its handler must not see a call half made: the thread comes
    /// back to the call as it was.
    fn signal(&mut self, thread: Pid, signal: i32) -> Result<(), Errno> {
        if let Some(state) = self.threads.get_mut(&thread)
            && let Phase::Again(saved, ..) = &mut state.phase
        {
            saved.rewind(saved.number());
            sys::set_registers(thread, saved)?;
            state.phase = Phase::Idle;
        }
        sys::resume(thread, Resume::Run(Some(signal)))
    }

    /// A thread has become another program, and with that the first of its process: the
    /// others are gone.
    fn became(&mut self, thread: Pid, before: Pid) -> Result<(), Errno> {
        let state = self.threads.remove(&before);
        self.threads.remove(&thread);
        let executed = match state.map(|state| state.phase) {
            Some(Phase::Rewritten(_, _, executed)) => executed,
            _ => None,
        };
        let mut room = Room::default();
        if let Some(Executed { name, file }) = executed {
            self.guest.became(thread, &file);
            match start::settle(thread, &name) {
                Ok(made) => room = made,
                Err(Errno::SRCH) => return Err(Errno::SRCH),
                // A small stack: memory is mapped when it is needed, and the program
                // takes the copy's name for its own.
                Err(_) => {}
            }
        }
        self.threads.insert(thread, Thread::new(room));
        sys::resume(thread, Resume::Run(None))
    }

    /// Corrects who is at the other end of a socket (`struct ucred`: process, user, group).
    fn name_peer(&self, thread: Pid, asked: &Registers) {
        let address = asked.argument(3);
        let name = || {
            let memory = Memory::of(thread).ok()?;
            let mut process = [0; 4];
            memory.read(address, &mut process).ok()?;
            let process = Pid::from_raw(i32::from_ne_bytes(process))?;
            let (user, group) = self.guest.ids_of(process)?;
            let ids = [user.to_ne_bytes(), group.to_ne_bytes()].concat();
            memory.write(address.checked_add(4)?, &ids).ok()
        };
        // Somebody outside of the command, or memory that is gone: the kernel's answer
        // stays.
        let _: Option<()> = name();
    }

    fn set_phase(&mut self, thread: Pid, phase: Phase) -> Phase {
        match self.threads.get_mut(&thread) {
            Some(state) => std::mem::replace(&mut state.phase, phase),
            None => Phase::Idle,
        }
    }
}

/// Arguments of the call that maps memory for those of another.
fn mapping(rewrite: &Rewrite) -> [u64; 6] {
    let length = rewrite.size().next_multiple_of(MAPPED);
    let protection = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
    [0, length, protection, flags, u64::MAX, 0]
}

/// Tells of a thread that is in the call that makes another whether both use the same memory.
fn shares_memory(registers: &Registers) -> bool {
    match registers.number() {
        libc::SYS_clone => registers.argument(0) & libc::CLONE_VM as u64 != 0,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_vfork => true,
        _ => false,
    }
}

fn kill(process: Pid) {
    // It may have ended, or be a thread of a process that is killed as a whole.
    let _ = kill_process(process, Signal::KILL);
}
