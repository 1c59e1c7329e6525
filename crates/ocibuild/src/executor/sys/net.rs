//! The loopback interface: of a new network namespace, and sockets that cannot leave it.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

use super::process::last_errno;

/// Brings up `lo`, which gives it its addresses too.
pub(in super::super) fn bring_up_loopback() -> rustix::io::Result<()> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: all zero is a valid value of this plain C structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(*b"lo") {
        *place = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the socket is open, and SIOCSIFFLAGS reads one `ifreq` whose name is
    // NUL-terminated because the rest of it is zero.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Binds a new socket to the loopback interface for good, as far as the step has no rights
/// over interfaces: the kernel sends nothing of it elsewhere and takes nothing from there.
pub(in super::super) fn keep_on_loopback(socket: &OwnedFd) -> rustix::io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"lo\0")
}

/// Binds a socket of the internet to an address. A port it has not yet; it can be bound
/// once more for that.
pub(in super::super) fn bind_without_port(socket: &OwnedFd, ip: IpAddr) -> rustix::io::Result<()> {
    let address_only = |on: i32| {
        let option = libc::IP_BIND_ADDRESS_NO_PORT;
        set_option(socket, libc::IPPROTO_IP, option, &on.to_ne_bytes())
    };
    address_only(1)?;
    bind(socket, &SocketAddr::new(ip, 0))?;
    address_only(0)
}

fn set_option(socket: &OwnedFd, level: i32, option: i32, value: &[u8]) -> rustix::io::Result<()> {
    // SAFETY: the socket is open, and the kernel reads as many bytes as there are.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    };
    if done < 0 { Err(last_errno()) } else { Ok(()) }
}
