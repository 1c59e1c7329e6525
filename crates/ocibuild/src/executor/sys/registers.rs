//! The registers of a stopped thread, as far as system calls use them: the one place that
//! knows how the machine passes numbers, arguments and results.

type Raw = libc::user_regs_struct;

/// The registers as the kernel gives them.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Frame(Raw);

impl Default for Frame {
    fn default() -> Self {
        // SAFETY: all zero is a valid value of this structure of integers.
        unsafe { std::mem::zeroed() }
    }
}

/// The registers of a thread that is in a system call or returns from one.
#[derive(Clone, Copy)]
pub(in super::super) struct Registers {
    frame: Raw,
    /// The number of the call; on some machines not in the frame, or not to be changed there.
    number: i64,
}

impl Registers {
    /// The number of the call.
    pub(in super::super) fn number(&self) -> i64 {
        self.number
    }

    /// Makes it another call. Only before the call is made.
    pub(in super::super) fn set_number(&mut self, number: i64) {
        self.number = number;
    }

    /// One of the six arguments.
    pub(in super::super) fn argument(&self, index: usize) -> u64 {
        machine::argument(&self.frame, index)
    }

    /// Changes one of the six arguments.
    pub(in super::super) fn set_argument(&mut self, index: usize, value: u64) {
        if let Some(argument) = machine::argument_mut(&mut self.frame, index) {
            *argument = value as _;
        }
    }

    /// What the call gave: a value, or an error number below zero.
    pub(in super::super) fn result(&self) -> i64 {
        machine::result(&self.frame)
    }

    /// Lets the call give something else; before the call is made, together with
    /// [`Registers::skip`] only.
    pub(in super::super) fn set_result(&mut self, result: i64) {
        machine::set_result(&mut self.frame, result);
    }

    /// Keeps the call from being made; it seems to give this.
    pub(in super::super) fn skip(&mut self, result: i64) {
        self.number = -1;
        self.set_result(result);
    }

    /// The stack pointer.
    pub(in super::super) fn stack(&self) -> u64 {
        machine::stack(&self.frame)
    }

    /// Changes the stack pointer.
    pub(in super::super) fn set_stack(&mut self, address: u64) {
        machine::set_stack(&mut self.frame, address);
    }

    /// After a call: goes back before it, to make call `number` with the arguments that are set.
    pub(in super::super) fn rewind(&mut self, number: i64) {
        machine::rewind(&mut self.frame, number);
        self.number = number;
    }

    pub(super) fn frame(&self) -> Frame {
        machine::frame(&self.frame, self.number)
    }
}

impl From<Frame> for Registers {
    fn from(frame: Frame) -> Self {
        let number = machine::number(&frame);
        Self {
            frame: frame.0,
            number,
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod machine {
    use super::{Frame, Raw};

    pub(super) fn number(frame: &Frame) -> i64 {
        frame.0.orig_rax.cast_signed()
    }

    pub(super) fn frame(raw: &Raw, number: i64) -> Frame {
        Frame(Raw {
            orig_rax: number.cast_unsigned(),
            ..*raw
        })
    }

    pub(super) fn argument(raw: &Raw, index: usize) -> u64 {
        let arguments = [raw.rdi, raw.rsi, raw.rdx, raw.r10, raw.r8, raw.r9];
        arguments.get(index).copied().unwrap_or(0)
    }

    pub(super) fn argument_mut(raw: &mut Raw, index: usize) -> Option<&mut libc::c_ulonglong> {
        Some(match index {
            0 => &mut raw.rdi,
            1 => &mut raw.rsi,
            2 => &mut raw.rdx,
            3 => &mut raw.r10,
            4 => &mut raw.r8,
            5 => &mut raw.r9,
            _ => return None,
        })
    }

    pub(super) fn result(raw: &Raw) -> i64 {
        raw.rax.cast_signed()
    }

    pub(super) fn set_result(raw: &mut Raw, result: i64) {
        raw.rax = result.cast_unsigned();
    }

    pub(super) fn stack(raw: &Raw) -> u64 {
        raw.rsp
    }

    pub(super) fn set_stack(raw: &mut Raw, address: u64) {
        raw.rsp = address;
    }

    pub(super) fn rewind(raw: &mut Raw, number: i64) {
        // The instruction `syscall` is two bytes long.
        raw.rip = raw.rip.wrapping_sub(2);
        raw.rax = number.cast_unsigned();
    }
}

#[cfg(target_arch = "aarch64")]
mod machine {
    use super::{Frame, Raw};

    pub(super) fn number(frame: &Frame) -> i64 {
        i64::from(frame.0.regs[8] as i32)
    }

    pub(super) fn frame(raw: &Raw, _number: i64) -> Frame {
        Frame(*raw)
    }

    pub(super) fn argument(raw: &Raw, index: usize) -> u64 {
        raw.regs.iter().take(6).nth(index).copied().unwrap_or(0)
    }

    pub(super) fn argument_mut(raw: &mut Raw, index: usize) -> Option<&mut libc::c_ulonglong> {
        raw.regs.iter_mut().take(6).nth(index)
    }

    pub(super) fn result(raw: &Raw) -> i64 {
        raw.regs[0].cast_signed()
    }

    pub(super) fn set_result(raw: &mut Raw, result: i64) {
        raw.regs[0] = result.cast_unsigned();
    }

    pub(super) fn stack(raw: &Raw) -> u64 {
        raw.sp
    }

    pub(super) fn set_stack(raw: &mut Raw, address: u64) {
        raw.sp = address;
    }

    pub(super) fn rewind(raw: &mut Raw, number: i64) {
        raw.pc = raw.pc.wrapping_sub(4);
        raw.regs[8] = number.cast_unsigned();
    }
}
