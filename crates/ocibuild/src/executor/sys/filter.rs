//! seccomp(2): hands a filter program to the kernel.

use super::process::last_errno;

/// One instruction of the kernel's classic BPF machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(in super::super) struct Instruction {
    /// What to do.
    pub(in super::super) code: u16,
    /// How many instructions to skip if a comparison holds.
    pub(in super::super) jump_true: u8,
    /// How many to skip if it does not.
    pub(in super::super) jump_false: u8,
    /// The operand.
    pub(in super::super) value: u32,
}

/// Puts this process and all that it starts under a filter, for good. Without
/// CAP_SYS_ADMIN in the user namespace the kernel wants `no_new_privs` first.
pub(in super::super) fn install(program: &[Instruction]) -> rustix::io::Result<()> {
    // Without SPEC_ALLOW kernels before 5.16 slow the process down by turning off
    // speculative stores.
    match set_filter(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW, program) {
        Err(rustix::io::Errno::INVAL) => set_filter(0, program),
        other => other,
    }
    .map(drop)
}

pub(super) fn set_filter(flags: libc::c_ulong, program: &[Instruction]) -> rustix::io::Result<i32> {
    let length = u16::try_from(program.len()).map_err(|_| rustix::io::Errno::INVAL)?;
    let program = libc::sock_fprog {
        len: length,
        // `Instruction` has the layout of `sock_filter`; the kernel only reads it.
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    // SAFETY: `program` points to `len` instructions that outlive the call; the kernel
    // copies and checks them.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    if done < 0 {
        Err(last_errno())
    } else {
        Ok(done as i32)
    }
}
