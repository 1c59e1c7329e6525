//! Sockets of the internet where a step is to have no network and no namespace could be
//! made. Its processes can connect to each other by TCP, and to nobody else.
//!
//! What a call says may be changed by another thread before the kernel reads it, the
//! descriptor too. So nothing is left to the kernel that it would not refuse:
//!
//! - A socket is made here, bound to the loopback interface and its address, and given to
//!   the step. The kernel sends nothing of it elsewhere.
//! - The kernel forbids the step to bind and connect sockets of TCP at all (Landlock). The
//!   supervisor does it, with a copy of the address, and keeps the socket for that until it
//!   is connected or listens.
//! - A port can be connected to if who listens there belongs to the step.
//! - Those for datagrams cannot send. They are there for programs that only ask them things.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, Shutdown, SocketFlags, SocketType, ipproto, sockopt};

use super::super::sys;
use super::credentials::cap;
use super::guest::{Guest, of_io};

/// What sockets of IPv6 have for the address of IPv4.
const MAPPED: Ipv6Addr = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
/// The longest address (`struct sockaddr_storage`).
const MAX_ADDRESS: usize = 128;
/// Ports below are for services.
const FIRST_FREE_PORT: u16 = 1024;
/// How many sockets are held before those are looked for that nobody has any more.
const MANY: usize = 64;
/// How long somebody who wants to wait does so for another who takes no connections. He
/// waits on in sending and receiving.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

/// Whether a call was made in place of the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Served {
    /// It was.
    Done,
    /// It is not about the internet, or there is a network.
    NotOurs,
}

/// The sockets that are neither connected nor listen, by inode.
#[derive(Debug, Default)]
pub(super) struct Sockets(Mutex<HashMap<u64, Arc<OwnedFd>>>);

impl Sockets {
    /// Makes one for the step.
    pub(super) fn make(
        &self,
        guest: &Guest<'_>,
        family: i32,
        kind: i32,
        protocol: i32,
    ) -> Result<OwnedFd, Errno> {
        let nonblocking = kind & libc::SOCK_NONBLOCK != 0;
        let kind = kind & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
        let (kind, protocol) = match (kind, protocol) {
            (libc::SOCK_STREAM, 0 | libc::IPPROTO_TCP) => (SocketType::STREAM, ipproto::TCP),
            (libc::SOCK_DGRAM, 0 | libc::IPPROTO_UDP) => (SocketType::DGRAM, ipproto::UDP),
            _ => return Err(Errno::PROTONOSUPPORT),
        };
        let family = AddressFamily::from_raw(family as u16);
        let socket = make(family, kind, protocol, nonblocking)?;
        let inode = rustix::fs::fstat(&socket)?.st_ino;
        let held = socket.try_clone().map_err(of_io)?;
        if self.held().len() >= MANY {
            self.forget_lost(guest);
        }
        self.held().insert(inode, Arc::new(held));
        Ok(socket)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<u64, Arc<OwnedFd>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, inode: u64) -> Option<Arc<OwnedFd>> {
        self.held().get(&inode).cloned()
    }

    /// Lets the step alone have a socket.
    fn release(&self, inode: u64) {
        self.held().remove(&inode);
    }

    /// Closes those that no process of the step has any more.
    fn forget_lost(&self, guest: &Guest<'_>) {
        if let Ok(used) = guest.sockets_of_step() {
            self.held().retain(|inode, _| used.contains(inode));
        }
    }
}

fn make(
    family: AddressFamily,
    kind: SocketType,
    protocol: Protocol,
    nonblocking: bool,
) -> Result<OwnedFd, Errno> {
    let mut flags = SocketFlags::CLOEXEC;
    if nonblocking {
        flags |= SocketFlags::NONBLOCK;
    }
    let socket = rustix::net::socket_with(family, kind, flags, Some(protocol))?;
    sys::keep_on_loopback(&socket)?;
    let own = match family {
        // The other one would make it a socket of IPv6 alone.
        AddressFamily::INET6 => MAPPED.into(),
        _ => Ipv4Addr::LOCALHOST.into(),
    };
    match sys::bind_without_port(&socket, own) {
        // The machine has the protocol, but no such address.
        Err(Errno::ADDRNOTAVAIL) => return Err(Errno::AFNOSUPPORT),
        other => other?,
    }
    if kind == SocketType::DGRAM {
        match rustix::net::shutdown(&socket, Shutdown::Write) {
            // That of one that is not connected takes effect all the same.
            Ok(()) | Err(Errno::NOTCONN) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(socket)
}

/// Binds a socket to a port of loopback; all addresses are that one.
pub(super) fn bind(
    guest: &Guest<'_>,
    descriptor: i32,
    address: u64,
    length: u32,
) -> Result<Served, Errno> {
    let Some((sockets, address)) = wanted(guest, address, length)? else {
        return Ok(Served::NotOurs);
    };
    let Some((_, socket)) = known(guest, sockets, descriptor) else {
        return Ok(Served::NotOurs);
    };
    let port = address.port();
    let is_of_service = (1..FIRST_FREE_PORT).contains(&port);
    if is_of_service && !guest.credentials().can(cap::NET_BIND_SERVICE) {
        return Err(Errno::ACCESS);
    }
    let ip = match address.ip() {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) if !sockopt::ipv6_v6only(&socket)? => MAPPED.into(),
        ip => near(ip).ok_or(Errno::ADDRNOTAVAIL)?,
    };
    let address = SocketAddr::new(ip, port);
    match rustix::net::bind(&socket, &address) {
        // Perhaps by a socket of the step's that has been closed.
        Err(Errno::ADDRINUSE) => {
            sockets.forget_lost(guest);
            rustix::net::bind(&socket, &address)?;
        }
        other => other?,
    }
    Ok(Served::Done)
}

/// Lets a socket listen.
pub(super) fn listen(guest: &Guest<'_>, descriptor: i32, backlog: i32) -> Result<Served, Errno> {
    let Some(sockets) = &guest.shared.sockets else {
        return Ok(Served::NotOurs);
    };
    let Some((inode, socket)) = known(guest, sockets, descriptor) else {
        return Ok(Served::NotOurs);
    };
    rustix::net::listen(&socket, backlog)?;
    sockets.release(inode);
    Ok(Served::Done)
}

/// Connects a socket to another one of the step's.
pub(super) fn connect(
    guest: &Guest<'_>,
    descriptor: i32,
    address: u64,
    length: u32,
) -> Result<Served, Errno> {
    let Some((sockets, address)) = wanted(guest, address, length)? else {
        return Ok(Served::NotOurs);
    };
    let Some((inode, socket)) = known(guest, sockets, descriptor) else {
        return match guest.socket(descriptor).map(connections_of) {
            Some(Ok(true)) => Err(Errno::ISCONN),
            _ => Ok(Served::NotOurs),
        };
    };
    let ip = near(address.ip()).ok_or(Errno::NETUNREACH)?;
    let address = SocketAddr::new(ip, address.port());
    if sockopt::socket_type(&socket)? == SocketType::STREAM {
        if !guest.listens_at(address)? {
            return Err(Errno::CONNREFUSED);
        }
        if ip == Ipv6Addr::LOCALHOST && port_of(&socket)? == 0 {
            sys::bind_without_port(&socket, ip)?;
        }
        connect_stream(&socket, address).inspect(|()| sockets.release(inode))?;
    } else {
        rustix::net::connect(&socket, &address)?;
    }
    Ok(Served::Done)
}

/// Connects without waiting for long: whoever is to take the connection may be waiting
/// for an answer from here.
fn connect_stream(socket: &OwnedFd, address: SocketAddr) -> Result<(), Errno> {
    let flags = fcntl_getfl(socket)?;
    if flags.contains(OFlags::NONBLOCK) {
        return rustix::net::connect(socket, &address);
    }
    fcntl_setfl(socket, flags | OFlags::NONBLOCK)?;
    let begun = rustix::net::connect(socket, &address);
    fcntl_setfl(socket, flags)?;
    if begun != Err(Errno::INPROGRESS) {
        return begun;
    }
    let mut polled = [PollFd::new(socket, PollFlags::OUT)];
    poll(&mut polled, Some(&PATIENCE))?;
    sockopt::socket_error(socket)?
}

/// The address that a call names, if it is one of the internet and there is no network.
fn wanted<'a>(
    guest: &Guest<'a>,
    address: u64,
    length: u32,
) -> Result<Option<(&'a Sockets, SocketAddr)>, Errno> {
    let Some(sockets) = &guest.shared.sockets else {
        return Ok(None);
    };
    let mut bytes = vec![0; (length as usize).min(MAX_ADDRESS)];
    guest.read(address, &mut bytes)?;
    Ok(parse(&bytes).map(|address| (sockets, address)))
}

/// The socket that a descriptor of the step's is.
fn known(guest: &Guest<'_>, sockets: &Sockets, descriptor: i32) -> Option<(u64, Arc<OwnedFd>)> {
    let inode = guest.socket(descriptor)?;
    Some((inode, sockets.get(inode)?))
}

/// Reads `struct sockaddr_in` and `struct sockaddr_in6`.
fn parse(address: &[u8]) -> Option<SocketAddr> {
    let (family, rest) = address.split_first_chunk()?;
    let (port, rest) = rest.split_first_chunk()?;
    let ip: IpAddr = match i32::from(u16::from_ne_bytes(*family)) {
        libc::AF_INET => Ipv4Addr::from(*rest.first_chunk()?).into(),
        // After the flow.
        libc::AF_INET6 => Ipv6Addr::from(*rest.get(4..)?.first_chunk()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

/// The loopback address that is meant, if one is.
fn near(ip: IpAddr) -> Option<IpAddr> {
    match ip {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Some(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Some(Ipv6Addr::LOCALHOST.into()),
        ip => ip.to_canonical().is_loopback().then_some(ip),
    }
}

fn port_of(socket: &OwnedFd) -> Result<u16, Errno> {
    let own = SocketAddr::try_from(rustix::net::getsockname(socket)?);
    Ok(own.map_or(0, |own| own.port()))
}

/// A socket in the kernel's list.
#[derive(Debug, PartialEq, Eq)]
struct Listed {
    local: SocketAddr,
    listens: bool,
    inode: u64,
}

/// The sockets of TCP in this network. See proc_pid_net(5).
fn listed() -> Result<Vec<Listed>, Errno> {
    let mut all = Vec::new();
    for name in ["tcp", "tcp6"] {
        match std::fs::read_to_string(format!("/proc/thread-self/net/{name}")) {
            Ok(table) => all.extend(table.lines().filter_map(listed_in)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(of_io(error)),
        }
    }
    Ok(all)
}

fn listed_in(line: &str) -> Option<Listed> {
    const LISTENS: &str = "0A";
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (ip, port) = fields.get(1)?.split_once(':')?;
    // Words as they lie in memory.
    let words: Vec<u8> = (0..ip.len() / 8)
        .map(|word| u32::from_str_radix(ip.get(word * 8..word * 8 + 8)?, 16).ok())
        .collect::<Option<Vec<_>>>()?
        .into_iter()
        .flat_map(u32::to_ne_bytes)
        .collect();
    let ip: IpAddr = match words.as_slice().try_into() {
        Ok(bytes) => Ipv4Addr::from_octets(bytes).into(),
        Err(_) => Ipv6Addr::from_octets(words.as_slice().try_into().ok()?).into(),
    };
    Some(Listed {
        local: SocketAddr::new(ip.to_canonical(), u16::from_str_radix(port, 16).ok()?),
        listens: *fields.get(3)? == LISTENS,
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// Whether a socket is one of TCP that is connected or being so.
fn connections_of(inode: u64) -> Result<bool, Errno> {
    let all = listed()?;
    Ok(all
        .iter()
        .any(|socket| socket.inode == inode && !socket.listens))
}

impl Guest<'_> {
    /// The inode of a descriptor that is a socket.
    fn socket(&self, descriptor: i32) -> Option<u64> {
        let shown = self.own_path(&format!("fd/{descriptor}")).ok()?;
        inode_of(shown.as_bytes())
    }

    /// Whether the step itself listens at an address.
    fn listens_at(&self, address: SocketAddr) -> Result<bool, Errno> {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let listed = listed()?;
        let mut there = listed
            .iter()
            .filter(|socket| socket.listens && socket.local == address)
            .peekable();
        if there.peek().is_none() {
            return Ok(false);
        }
        let own = self.sockets_of_step()?;
        Ok(there.all(|socket| own.contains(&socket.inode)))
    }

    /// The inodes of all sockets that processes of the step have.
    fn sockets_of_step(&self) -> Result<Vec<u64>, Errno> {
        let mut found = Vec::new();
        for pid in self.processes()? {
            // It may have ended meanwhile.
            let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"));
            let links = descriptors.into_iter().flatten().flatten();
            let shown = links.filter_map(|link| std::fs::read_link(link.path()).ok());
            found.extend(shown.filter_map(|shown| inode_of(shown.as_os_str().as_bytes())));
        }
        Ok(found)
    }
}

/// The inode in what the kernel shows for a descriptor that is a socket.
fn inode_of(shown: &[u8]) -> Option<u64> {
    let number = shown.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    str::from_utf8(number).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(ip: [u8; 4]) -> Vec<u8> {
        let family = (libc::AF_INET as u16).to_ne_bytes();
        [&family[..], &[0, 80], &ip, &[0; 8]].concat()
    }

    fn v6(ip: &str) -> Vec<u8> {
        let ip: Ipv6Addr = ip.parse().expect("an address");
        let family = (libc::AF_INET6 as u16).to_ne_bytes();
        [&family[..], &[0, 80, 0, 0, 0, 0], &ip.octets(), &[0; 4]].concat()
    }

    #[test]
    fn only_loopback_is_near() {
        let meant = |bytes: &[u8]| parse(bytes).map(|address| near(address.ip()));
        let ip = |text: &str| text.parse::<IpAddr>().ok();
        assert_eq!(meant(&v4([127, 0, 0, 53])), Some(ip("127.0.0.53")));
        assert_eq!(meant(&v4([0, 0, 0, 0])), Some(ip("127.0.0.1")));
        assert_eq!(meant(&v6("::1")), Some(ip("::1")));
        assert_eq!(meant(&v6("::ffff:127.0.0.1")), Some(ip("::ffff:127.0.0.1")));
        for far in [v4([10, 0, 0, 1]), v4([224, 0, 0, 1])] {
            assert_eq!(meant(&far), Some(None));
        }
        for far in ["2001:db8::1", "::ffff:10.0.0.1"] {
            assert_eq!(meant(&v6(far)), Some(None));
        }
        for other in [&b"\x01\x00/run/socket"[..], b"\x02", b"", &[17, 0, 0, 0]] {
            assert_eq!(meant(other), None);
        }
    }

    #[test]
    fn the_kernels_list_is_read() {
        let line = "  0: 0100007F:20EF 00000000:0000 0A 00000000:00000000 00:00000000 00000000     \
                    0        0 4711 1 0000000000000000 100 0 0 10 0";
        let expected = Listed {
            local: "127.0.0.1:8431".parse().expect("an address"),
            listens: true,
            inode: 4711,
        };
        assert_eq!(listed_in(line), Some(expected));
        let line = "  1: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 \
                    01 00000000:00000000 00:00000000 00000000 0 0 12 1 0000000000000000";
        let found = listed_in(line).expect("a socket");
        assert_eq!(
            (found.local, found.listens),
            ("[::1]:80".parse().expect("one"), false)
        );
        for other in [
            "",
            "  sl  local_address rem_address   st tx_queue",
            "0: x:y",
        ] {
            assert_eq!(listed_in(other), None, "{other}");
        }
    }
}
