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
mod filter;
mod memory;
mod message;
mod programs;
mod rewrite;
mod socket;
mod start;
mod state;
mod supervised;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::error::{Attempt, Failure};
use super::supervise::Ended;
use super::sys::{self, Registers, Resume, Stop};
use calls::Decision;
pub(super) use filter::RULES;
use memory::{Lease, Memory, Room};
pub(super) use programs::Originals;
use programs::Programs;
use rewrite::Rewrite;
use socket::{LongName, Names};
use state::{After, Executed, Phase, Thread};
pub(super) use supervised::Supervised;

/// A part of a thread's memory that is mapped for arguments is a multiple of this.
const MAPPED: u64 = 64 << 10;

/// How many threads a command may have at once. A machine has room for more, and the
/// builder and other commands for some of it.
const MAX_THREADS: usize = 16 << 10;

/// The kernel's own ERESTARTSYS and ERESTARTNOINTR, as results of a call.
const RESTART_IF_WANTED: i64 = -512;
const RESTART_ALWAYS: i64 = -513;

/// Attends to the stops of a command's threads.
pub(super) struct Tracer {
    supervised: Supervised,
    programs: Programs,
    names: Names,
    first: Pid,
    threads: HashMap<Pid, Thread>,
    /// New threads of which their makers have not told yet.
    unborn: HashSet<Pid>,
    /// How the first process ended.
    ended: Option<Ended>,
    /// Whether there were more threads than a command may have.
    overrun: bool,
}

impl Tracer {
    /// Begins to trace a child of this thread, which stands still. `folder` is an empty
    /// one for programs.
    pub(super) fn seize(
        first: Pid,
        supervised: Supervised,
        folder: PathBuf,
        originals: Originals,
    ) -> Result<Self, Errno> {
        sys::seize(first)?;
        Ok(Self {
            supervised,
            programs: Programs::new(folder, originals),
            names: Names::default(),
            first,
            threads: HashMap::from([(first, Thread::new(Room::default()))]),
            unborn: HashSet::new(),
            ended: None,
            overrun: false,
        })
    }

    /// Attends until the first process has ended, and all that it started, which is
    /// killed then.
    pub(super) fn attend(mut self) -> Result<Ended, Failure> {
        while let Some((thread, stop)) = sys::wait_for_stop().attempt("waitpid", "the command")? {
            match self.handle(thread, stop) {
                // Killed while it was attended to; its end will be told.
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(errno).attempt("ptrace", "the command"),
            }
        }
        if self.overrun {
            return Err(Failure::TooManyProcesses { limit: MAX_THREADS });
        }
        // There was one, or the first process could not have been seized.
        self.ended
            .ok_or(Errno::CHILD)
            .attempt("waitpid", "the command")
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
            Stop::Halted => sys::resume(thread, Resume::Listen),
            Stop::Signal(signal) => self.signal(thread, signal),
        }
    }

    fn forget(&mut self, thread: Pid, ended: Ended) -> Result<(), Errno> {
        self.threads.remove(&thread);
        self.unborn.remove(&thread);
        if thread == self.first {
            self.ended = Some(ended);
            self.kill_all();
        }
        Ok(())
    }

    fn kill_all(&self) {
        for left in self.threads.keys().chain(&self.unborn) {
            kill(*left);
        }
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
        if self.threads.len() > MAX_THREADS && !self.overrun {
            self.overrun = true;
            self.kill_all();
        }
        if self.ended.is_some() || self.overrun {
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
        let state = self.threads.get(&thread);
        if state.is_some_and(|state| matches!(state.phase, Phase::Again(..))) {
            return self.call_again(thread);
        }
        let registers = sys::registers(thread)?;
        if registers.number() == libc::SYS_sendmsg && !self.supervised.has_come() {
            return sys::resume(thread, Resume::Run(None));
        }
        let decided = self.supervised.get().and_then(|supervisor| {
            calls::decide(thread, &registers, supervisor, &mut self.programs)
        });
        match decided {
            Ok(Decision::Pass) => sys::resume(thread, Resume::Run(None)),
            Ok(Decision::Made) => answer(thread, registers, 0),
            Ok(Decision::Ask(after)) => {
                self.set_phase(thread, Phase::Asked(registers, after));
                sys::resume(thread, Resume::ToEndOfCall)
            }
            Ok(Decision::Rewrite(rewrite, after)) => self.apply(thread, registers, rewrite, after),
            Err(errno) => answer(thread, registers, -i64::from(errno.raw_os_error())),
        }
    }

    /// A thread makes the call for which memory was mapped.
    fn call_again(&mut self, thread: Pid) -> Result<(), Errno> {
        if let Phase::Again(saved, lease, after) = self.set_phase(thread, Phase::Idle) {
            self.set_phase(thread, Phase::Rewritten(saved, lease, after));
        }
        sys::resume(thread, Resume::ToEndOfCall)
    }

    /// Lets a call be made with other arguments; before it, where there is no room for
    /// them, one that maps memory.
    fn apply(
        &mut self,
        thread: Pid,
        saved: Registers,
        rewrite: Rewrite,
        after: After,
    ) -> Result<(), Errno> {
        let mut registers = saved;
        let lease = self.place(thread, &rewrite, &mut registers);
        let phase = match lease {
            Some(lease) => {
                registers.set_number(rewrite.number);
                Phase::Rewritten(saved, lease, after)
            }
            None => {
                registers.set_number(libc::SYS_mmap);
                for (index, value) in mapping(&rewrite).into_iter().enumerate() {
                    registers.set_argument(index, value);
                }
                Phase::Mapping(saved, rewrite, after)
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
            Phase::Rewritten(saved, _, After::Open(long)) if result >= 0 => {
                return self.opened(thread, saved, &long, result);
            }
            Phase::Rewritten(mut saved, _, after) => {
                if result >= 0 {
                    self.look_after(thread, &saved, &registers, &after);
                }
                saved.set_result(result);
                if let After::Close(descriptor, _) = after {
                    return self.close(thread, saved, descriptor);
                }
                sys::set_registers(thread, &saved)?;
            }
            // The thread goes into the call now, and stops at its end again.
            Phase::Closing(saved, false) => {
                self.set_phase(thread, Phase::Closing(saved, true));
                return sys::resume(thread, Resume::ToEndOfCall);
            }
            Phase::Closing(saved, true) => sys::set_registers(thread, &saved)?,
            Phase::Mapping(saved, rewrite, after) => {
                return self.mapped(thread, saved, rewrite, after, result);
            }
            Phase::Asked(asked, after) if result >= 0 => {
                self.look_after(thread, &asked, &registers, &after);
            }
            Phase::Idle | Phase::Again(..) | Phase::Asked(..) => {}
        }
        sys::resume(thread, Resume::Run(None))
    }

    /// Goes back to make the call for which memory was mapped.
    fn mapped(
        &mut self,
        thread: Pid,
        mut saved: Registers,
        rewrite: Rewrite,
        after: After,
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
                self.set_phase(thread, Phase::Again(saved, lease, after));
                sys::set_registers(thread, &registers)?;
            }
            None => {
                saved.set_result(-i64::from(Errno::NOMEM.raw_os_error()));
                sys::set_registers(thread, &saved)?;
            }
        }
        sys::resume(thread, Resume::Run(None))
    }

    /// Goes back to make the call for which a directory was opened.
    fn opened(
        &mut self,
        thread: Pid,
        mut saved: Registers,
        long: &LongName,
        directory: i64,
    ) -> Result<(), Errno> {
        let Some(rewrite) = long.call(saved.number(), directory, &mut self.names) else {
            saved.set_result(-i64::from(Errno::NAMETOOLONG.raw_os_error()));
            return self.close(thread, saved, directory);
        };
        let after = match &*long.after {
            After::Socket(path) => After::Socket(path.clone()),
            After::Sent => After::Sent,
            _ => After::Nothing,
        };
        let after = After::Close(directory, Box::new(after));
        self.mapped(thread, saved, rewrite, after, 0)
    }

    /// Lets a thread close a descriptor before it goes on with what it has got.
    fn close(&mut self, thread: Pid, saved: Registers, descriptor: i64) -> Result<(), Errno> {
        let mut registers = saved;
        registers.rewind(libc::SYS_close);
        registers.set_argument(0, descriptor.cast_unsigned());
        self.set_phase(thread, Phase::Closing(saved, false));
        sys::set_registers(thread, &registers)?;
        sys::resume(thread, Resume::ToEndOfCall)
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
        } else if let Some(state) = self.threads.get_mut(&thread)
            && let Phase::Closing(saved, _) = &state.phase
        {
            // The descriptor stays open until the next program.
            sys::set_registers(thread, saved)?;
            state.phase = Phase::Idle;
        } else {
            self.restart_answered(thread)?;
        }
        sys::resume(thread, Resume::Run(Some(signal)))
    }

    /// A signal that comes before the supervisor has taken a call up ends its waiting. The
    /// kernel itself cannot be interrupted in these calls, and programs do not expect it:
    /// they are made again after the handler, whatever it asks for.
    fn restart_answered(&self, thread: Pid) -> Result<(), Errno> {
        let mut registers = sys::registers(thread)?;
        if registers.result() == RESTART_IF_WANTED
            && let Ok(supervisor) = self.supervised.get()
            && supervisor.answers(registers.number())
        {
            registers.set_result(RESTART_ALWAYS);
            sys::set_registers(thread, &registers)?;
        }
        Ok(())
    }

    /// A thread has become another program, and with that the first of its process: the
    /// others are gone.
    fn became(&mut self, thread: Pid, before: Pid) -> Result<(), Errno> {
        let state = self.threads.remove(&before);
        self.threads.remove(&thread);
        let mut room = Room::default();
        if let Some(Phase::Rewritten(_, _, After::Program(executed))) =
            state.map(|state| state.phase)
        {
            let Executed { name, program } = executed;
            if self.supervised.get()?.became(thread, &program).is_err() {
                // It must not go on with rights that it should not have.
                kill(thread);
            }
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

    /// Does what there is to do when a call is done, which was made as `made` has it. What
    /// cannot be done any more, since memory or processes are gone, is left as the kernel did it.
    fn look_after(&self, thread: Pid, call: &Registers, made: &Registers, after: &After) {
        let Ok(supervisor) = self.supervised.get() else {
            return;
        };
        let _: Result<(), Errno> = match after {
            After::Nothing | After::Program(_) | After::Open(_) => Ok(()),
            After::Close(_, after) => {
                self.look_after(thread, call, made, after);
                Ok(())
            }
            After::Socket(path) => supervisor.made_socket(thread, path),
            After::Peer => socket::name_peer(thread, call, supervisor),
            After::Name(room) => socket::correct_name(thread, call, *room, &self.names, supervisor),
            After::Sent => message::count(thread, call, made),
        };
    }

    fn set_phase(&mut self, thread: Pid, phase: Phase) -> Phase {
        match self.threads.get_mut(&thread) {
            Some(state) => std::mem::replace(&mut state.phase, phase),
            None => Phase::Idle,
        }
    }
}

/// Lets a thread go on as if its call had given this.
fn answer(thread: Pid, mut registers: Registers, result: i64) -> Result<(), Errno> {
    registers.skip(result);
    sys::set_registers(thread, &registers)?;
    sys::resume(thread, Resume::Run(None))
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
