//! Sockets, made for the ring.

use core::net::SocketAddr;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// A new socket of this family and type, which no program that is started inherits.
pub(crate) fn descriptor(family: libc::c_int, kind: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: no pointer is passed.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A socket, shared by every operation on it: it cannot close while one is in flight.
#[derive(Clone, Debug)]
pub struct Socket {
    fd: Arc<OwnedFd>,
}

impl Socket {
    /// A listening TCP socket at `address`; port 0 lets the system choose.
    ///
    /// # Errors
    /// The system's: address in use, not of this machine, not permitted.
    pub fn listen(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::from_fd(TcpListener::bind(address)?.into()))
    }

    /// An unconnected TCP socket of `address`'s family.
    ///
    /// # Errors
    /// The system's: no descriptors left.
    pub fn unconnected(address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        Ok(Self::from_fd(descriptor(family, libc::SOCK_STREAM)?))
    }

    /// # Safety
    /// `fd` is open and nobody else owns it.
    pub(crate) unsafe fn from_raw(fd: RawFd) -> Self {
        // SAFETY: the caller's promise.
        Self::from_fd(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self { fd: Arc::new(fd) }
    }

    /// Small writes leave at once (`TCP_NODELAY`).
    ///
    /// # Errors
    /// The system's.
    pub fn set_no_delay(&self) -> io::Result<()> {
        self.as_stream()?.set_nodelay(true)
    }

    /// When the last descriptor closes, what has not arrived is dropped and the peer is told of a reset (`SO_LINGER` of 0 s,
    /// socket(7)).
    ///
    /// # Errors
    /// The system's.
    pub fn set_abortive(&self) -> io::Result<()> {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let len = libc::socklen_t::try_from(size_of::<libc::linger>()).expect("a few bytes");
        // SAFETY: the pointer is to a linger of that length, which the call only reads.
        let result = unsafe {
            libc::setsockopt(self.raw(), libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), len)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// This end's address.
    ///
    /// # Errors
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.as_stream()?.local_addr()
    }

    /// The other end's address.
    ///
    /// # Errors
    /// The system's: not connected.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.as_stream()?.peer_addr()
    }

    /// Ends both directions; operations in flight complete. It takes no descriptor: where there are none left, connections end, too.
    /// Errors do not matter: the connection is over either way.
    pub fn shutdown(&self) {
        // SAFETY: no pointer is passed, and the descriptor is open as long as `self`. Not connected any more is what we want.
        let _ = unsafe { libc::shutdown(self.raw(), libc::SHUT_RDWR) };
    }

    /// A second descriptor as the standard library's type, for calls that are off the data path.
    fn as_stream(&self) -> io::Result<TcpStream> {
        Ok(TcpStream::from(self.fd.try_clone()?))
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
