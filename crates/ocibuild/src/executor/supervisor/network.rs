//! Connections where a step is to have no network and no namespace could be made: only
//! the machine's own loopback addresses and Unix sockets can be reached.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::super::{Network, sys};
use super::Supervisor;
use super::call::{Answer, Call, DONE, Outcome};
use super::guest::Guest;

const MAX_ADDRESS: usize = 128;
const INET: u16 = libc::AF_INET as u16;
const INET6: u16 = libc::AF_INET6 as u16;
const UNIX: u16 = libc::AF_UNIX as u16;
const UNSPECIFIED: u16 = libc::AF_UNSPEC as u16;
/// Size of `struct msghdr` and of `struct mmsghdr` on 64-bit machines.
const MESSAGE: u64 = 56;
const COUNTED_MESSAGE: u64 = 64;
/// As many messages as the kernel takes at once.
const MAX_MESSAGES: u32 = 1024;

/// connect(2).
pub(super) fn connect(call: &Call<'_>) -> Outcome {
    check(&call.guest, call.long(1), call.word(2))?;
    Ok(Answer::Continue)
}

/// sendto(2).
pub(super) fn send_to(call: &Call<'_>) -> Outcome {
    if call.long(4) != 0 {
        check(&call.guest, call.long(4), call.word(5))?;
    }
    Ok(Answer::Continue)
}

/// sendmsg(2).
pub(super) fn send_message(call: &Call<'_>) -> Outcome {
    check_message(&call.guest, call.long(1))?;
    Ok(Answer::Continue)
}

/// sendmmsg(2).
pub(super) fn send_messages(call: &Call<'_>) -> Outcome {
    for number in 0..call.word(2).min(MAX_MESSAGES) {
        let address = call
            .long(1)
            .wrapping_add(u64::from(number) * COUNTED_MESSAGE);
        check_message(&call.guest, address)?;
    }
    Ok(Answer::Continue)
}

/// getsockopt(2) that asks who is at the other end of a Unix socket: a process that believes
/// to be somebody else than the kernel does.
pub(super) fn peer(call: &Call<'_>) -> Outcome {
    let guest = &call.guest;
    let process = Pid::from_raw(guest.process()?).ok_or(Errno::SRCH)?;
    let pidfd = pidfd_open(process, PidfdFlags::empty())?;
    let socket = match sys::copy_descriptor(pidfd, call.int(0)) {
        // A container's own filter may refuse it; the kernel tells what it knows.
        Err(Errno::PERM | Errno::NOSYS) => return Ok(Answer::Continue),
        other => other?,
    };
    let peer = match sys::peer_of(&socket) {
        Ok(peer) if peer.pid > 0 => peer,
        _ => return Ok(Answer::Continue),
    };
    let Ok(other) = Guest::of(guest.shared, peer.pid) else {
        return Ok(Answer::Continue);
    };
    let who = other.credentials();
    let shown = [
        other.own_id()?.cast_unsigned(),
        who.uid.effective,
        who.gid.effective,
    ];
    let bytes: Vec<u8> = shown.iter().flat_map(|id| id.to_ne_bytes()).collect();
    let room = guest.read_u32(call.long(4))?;
    let length = bytes.len().min(room as usize);
    guest.write(call.long(3), bytes.get(..length).unwrap_or_default())?;
    guest.write(call.long(4), &(length as u32).to_ne_bytes())?;
    DONE
}

fn check_message(guest: &Guest<'_>, address: u64) -> Result<(), Errno> {
    let mut message = [0; MESSAGE as usize];
    guest.read(address, &mut message)?;
    let (name, rest) = message.split_first_chunk().ok_or(Errno::FAULT)?;
    let length = rest.first_chunk().ok_or(Errno::FAULT)?;
    match u64::from_le_bytes(*name) {
        0 => Ok(()),
        name => check(guest, name, u32::from_le_bytes(*length)),
    }
}

impl Supervisor {
    /// Fails if a thread is to have no network and an address is not on this machine.
    pub(in super::super) fn check_address(
        &self,
        thread: Pid,
        address: u64,
        length: u32,
    ) -> Result<(), Errno> {
        if self.shared.plan.network == Network::Host || address == 0 {
            return Ok(());
        }
        let guest = Guest::of(&self.shared, thread.as_raw_nonzero().get())?;
        check(&guest, address, length)
    }
}

fn check(guest: &Guest<'_>, address: u64, length: u32) -> Result<(), Errno> {
    let mut bytes = vec![0; (length as usize).min(MAX_ADDRESS)];
    guest.read(address, &mut bytes)?;
    if is_near(&bytes) {
        Ok(())
    } else {
        Err(Errno::NETUNREACH)
    }
}

/// Whether an address is on this machine.
fn is_near(address: &[u8]) -> bool {
    let Some((family, rest)) = address.split_first_chunk() else {
        // The kernel says what is wrong with it.
        return true;
    };
    let ip: Option<IpAddr> = match u16::from_ne_bytes(*family) {
        UNIX | UNSPECIFIED => return true,
        // After the port.
        INET => rest
            .get(2..)
            .and_then(|rest| rest.first_chunk::<4>())
            .map(|bytes| Ipv4Addr::from(*bytes).into()),
        // After the port and the flow.
        INET6 => rest
            .get(6..)
            .and_then(|rest| rest.first_chunk::<16>())
            .map(|bytes| Ipv6Addr::from(*bytes).into()),
        family => return family == libc::AF_NETLINK as u16,
    };
    // None: too short, which the kernel refuses. The unspecified address is this machine.
    ip.is_none_or(|ip| {
        let ip = ip.to_canonical();
        ip.is_loopback() || ip.is_unspecified()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(ip: [u8; 4]) -> Vec<u8> {
        [&INET.to_ne_bytes()[..], &[0, 80], &ip, &[0; 8]].concat()
    }

    fn v6(ip: &str) -> Vec<u8> {
        let ip: Ipv6Addr = ip.parse().expect("an address");
        [
            &INET6.to_ne_bytes()[..],
            &[0, 80, 0, 0, 0, 0],
            &ip.octets(),
            &[0; 4],
        ]
        .concat()
    }

    #[test]
    fn only_this_machine_is_near() {
        assert!(is_near(&v4([127, 0, 0, 53])) && is_near(&v4([0, 0, 0, 0])));
        assert!(!is_near(&v4([10, 0, 0, 1])) && !is_near(&v4([224, 0, 0, 1])));
        assert!(is_near(&v6("::1")) && is_near(&v6("::ffff:127.0.0.1")));
        assert!(!is_near(&v6("2001:db8::1")) && !is_near(&v6("::ffff:10.0.0.1")));
        assert!(is_near(b"\x01\x00/run/socket") && is_near(b"\x02"));
        assert!(!is_near(&[17, 0, 0, 0]), "packets to the wire");
    }
}
