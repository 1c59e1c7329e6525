//! The capabilities of a command: Docker's fourteen, and no way to get more.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use super::Network;
use super::error::{Attempt, Failure};
use super::supervisor::Owners;

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
    limit_bounding_set_to(DEFAULT)
}

fn limit_bounding_set_to(kept: CapabilitySet) -> Result<(), Failure> {
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(one) {
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

/// What a command in a plain tree keeps in earnest. It is root to itself all the same:
/// what it may do to users and files its supervisor decides.
///
/// Without SYS_CHROOT it cannot leave the tree, without SETUID it stays a process that the
/// supervisor can reach, and without SETPCAP what it has is all that it gets. Without
/// NET_RAW its sockets stay on the interface that they were given.
pub(super) fn keep_for(owners: Owners, network: Network) -> Result<(), Failure> {
    let mut wanted = CapabilitySet::NET_BIND_SERVICE;
    if network == Network::Host {
        wanted |= CapabilitySet::NET_RAW;
    }
    if owners == Owners::Real {
        // Files belong to users that its processes are not.
        wanted |= CapabilitySet::CHOWN
            | CapabilitySet::DAC_OVERRIDE
            | CapabilitySet::FOWNER
            | CapabilitySet::FSETID
            | CapabilitySet::MKNOD
            | CapabilitySet::SETFCAP
            | CapabilitySet::KILL
            | CapabilitySet::AUDIT_WRITE;
    }
    let had = capabilities(None).attempt("capget", "this process")?;
    let held = had.permitted & wanted;
    if had.effective.contains(CapabilitySet::SETPCAP) {
        limit_bounding_set_to(held)?;
    }
    clear_ambient_capability_set().attempt("prctl", "PR_CAP_AMBIENT_CLEAR_ALL")?;
    let sets = CapabilitySets {
        effective: held,
        permitted: held,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).attempt("capset", "what is left")
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
