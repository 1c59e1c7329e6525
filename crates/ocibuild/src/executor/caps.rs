//! The capabilities of a command: Docker's fourteen, and no way to get more.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use super::error::{Attempt, Failure};

/// What root has in a container unless more or less was asked for; `0xa80425fb`.
pub(super) const DEFAULT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::AUDIT_WRITE)
    .union(CapabilitySet::SETFCAP);

/// Takes all others out of the bounding set, so that no setuid program or file
/// capability brings them back.
pub(super) fn limit_bounding_set() -> Result<(), Failure> {
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if DEFAULT.contains(one) {
            continue;
        }
        match remove_capability_from_bounding_set(one) {
            // Beyond the last one that this kernel knows.
            Err(Errno::INVAL) => break,
            other => other.attempt("prctl", format_args!("PR_CAPBSET_DROP {number}"))?,
        }
    }
    Ok(())
}

/// Leaves this process, whose ids are final, what those ids may have: root the
/// default set, anybody else nothing. Inheritable and ambient sets are empty, as in
/// Docker since CVE-2022-24769.
pub(super) fn keep(is_root: bool) -> Result<(), Failure> {
    let held = if is_root {
        DEFAULT
    } else {
        CapabilitySet::empty()
    };
    clear_ambient_capability_set().attempt("prctl", "PR_CAP_AMBIENT_CLEAR_ALL")?;
    let sets = CapabilitySets {
        effective: held,
        permitted: held,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).attempt("capset", "the default capabilities")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_default_set_is_dockers() {
        assert_eq!(super::DEFAULT.bits(), 0xa804_25fb);
    }
}
