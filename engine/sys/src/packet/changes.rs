//! News of network interfaces, as the kernel tells them (rtnetlink(7)): nobody has to look at an interface to see that it changed.

use std::io;
use std::os::fd::AsRawFd;

use crate::socket::{Socket, descriptor};

/// `RTMGRP_LINK`: interfaces come, go, and change.
const LINKS: u32 = 1;
/// Messages read at once at the most; what is left makes the descriptor readable again.
const READS_MAX: usize = 64;

/// Is readable when an interface of this network namespace has changed.
#[derive(Debug)]
pub struct InterfaceChanges {
    socket: Socket,
}

impl InterfaceChanges {
    /// From now on.
    ///
    /// # Errors
    /// The system's: no descriptors left, or no netlink.
    pub fn open() -> io::Result<Self> {
        let fd = descriptor(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_NONBLOCK)?;
        // SAFETY: all-zero is a valid `sockaddr_nl`.
        let mut address: libc::sockaddr_nl = unsafe { core::mem::zeroed() };
        address.nl_family = libc::sa_family_t::try_from(libc::AF_NETLINK).expect("a small constant");
        address.nl_groups = LINKS;
        let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_nl>()).expect("an address is short");
        // SAFETY: the pointer and length are of one address, which is only read during the call.
        let result = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) };
        if result == 0 { Ok(Self { socket: Socket::from_fd(fd) }) } else { Err(io::Error::last_os_error()) }
    }

    /// The descriptor, to wait on in a ring.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Takes the messages: which interface it was, and how it is now, is asked for.
    pub fn clear(&self) {
        for _ in 0..READS_MAX {
            // SAFETY: no buffer is passed: a message is cut to nothing, and is gone.
            let read = unsafe { libc::recv(self.socket.raw(), core::ptr::null_mut(), 0, libc::MSG_DONTWAIT) };
            // More came than there was room for: that is said once, and is news as well.
            let overrun = || io::Error::last_os_error().raw_os_error() == Some(libc::ENOBUFS);
            if read < 0 && !overrun() {
                return;
            }
        }
    }
}
