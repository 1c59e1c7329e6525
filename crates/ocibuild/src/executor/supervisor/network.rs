//! The calls about sockets: who is at the other end, and where a step is to have no network
//! and no namespace could be made, which sockets there are at all.

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::super::{Network, sys};
use super::Supervisor;
use super::call::{Answer, Call, DONE, Outcome};
use super::guest::Guest;
use super::loopback::{self, Served};

/// socket(2), where there is no network and it is not one of Unix.
pub(super) fn socket(call: &Call<'_>) -> Outcome {
    let family = call.int(0);
    match family {
        // What interfaces there are; changing them takes more rights than a step has.
        libc::AF_NETLINK if call.int(2) == libc::NETLINK_ROUTE => Ok(Answer::Continue),
        libc::AF_INET | libc::AF_INET6 => {
            let Some(sockets) = &call.guest.shared.sockets else {
                return Err(Errno::AFNOSUPPORT.into());
            };
            let kind = call.int(1);
            Ok(Answer::Descriptor {
                file: sockets.make(&call.guest, family, kind, call.int(2))?,
                close_on_exec: kind & libc::SOCK_CLOEXEC != 0,
            })
        }
        _ => Err(Errno::AFNOSUPPORT.into()),
    }
}

/// connect(2).
pub(super) fn connect(call: &Call<'_>) -> Outcome {
    let served = loopback::connect(&call.guest, call.int(0), call.long(1), call.word(2))?;
    Ok(answer(served))
}

/// listen(2).
pub(super) fn listen(call: &Call<'_>) -> Outcome {
    Ok(answer(loopback::listen(
        &call.guest,
        call.int(0),
        call.int(1),
    )?))
}

fn answer(served: Served) -> Answer {
    match served {
        Served::Done => Answer::Value(0),
        Served::NotOurs => Answer::Continue,
    }
}

impl Supervisor {
    /// Serves connect(2) of a thread as far as it is about the internet and there is no
    /// network.
    pub(in super::super) fn connect(
        &self,
        thread: Pid,
        descriptor: i32,
        address: u64,
        length: u32,
    ) -> Result<Served, Errno> {
        let guest = Guest::of(&self.shared, thread.as_raw_nonzero().get())?;
        loopback::connect(&guest, descriptor, address, length)
    }

    /// The same for bind(2).
    pub(in super::super) fn bind(
        &self,
        thread: Pid,
        descriptor: i32,
        address: u64,
        length: u32,
    ) -> Result<Served, Errno> {
        let guest = Guest::of(&self.shared, thread.as_raw_nonzero().get())?;
        loopback::bind(&guest, descriptor, address, length)
    }

    /// Whether the step is to have a network.
    pub(in super::super) fn has_network(&self) -> bool {
        self.shared.plan.network == Network::Host
    }
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
