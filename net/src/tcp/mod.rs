//! Kernel TCP on the reactor's io_uring.
//!
//! Owner: one reactor; nothing here is `Send`. Everything is bounded when a stream is made: it owns its receive frames
//! for life (a reader that does not consume closes the TCP window) and queues a fixed number of segments. `TCP_NODELAY`
//! is on, because whole messages are sent in one gathered call; keep-alive is off, because the protocols above have
//! their own.

mod listener;
mod receive;
mod send;
mod stream;

use core::net::SocketAddr;
use core::time::Duration;
use std::io;

use engine::{Core, RingHandle};

use crate::stillborn::Stillborn;
use crate::stream::{CloseReason, Listener, Network, Stream};
use listener::TcpListener;
use stream::TcpStream;

/// Limits of kernel TCP streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpConfig {
    /// How long a connection may take to be established.
    pub connect_timeout: Duration,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(5) }
    }
}

/// Kernel TCP as one reactor reaches it.
#[derive(Clone, Debug)]
pub struct TcpNetwork {
    core: Core,
    config: TcpConfig,
}

impl TcpNetwork {
    /// The network of `core`'s reactor. On a core without a ring every call fails as unsupported.
    pub fn new(core: &Core, config: TcpConfig) -> Self {
        Self { core: core.clone(), config }
    }

    fn ring(&self) -> io::Result<&RingHandle> {
        let absent = || io::Error::new(io::ErrorKind::Unsupported, "this core has no io_uring");
        self.core.ring().ok_or_else(absent)
    }
}

impl Network for TcpNetwork {
    fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(TcpListener::bind(&self.core, self.ring()?, address)?))
    }

    fn connect(&self, address: SocketAddr) -> Box<dyn Stream> {
        match self.ring().and_then(|ring| {
            TcpStream::connecting(self.core.pool(), ring, address, self.config.connect_timeout)
        }) {
            Ok(stream) => Box::new(stream),
            Err(error) => Box::new(Stillborn { peer: address, reason: close_reason(&error) }),
        }
    }
}

/// What the system's error says about a connection.
fn close_reason(error: &io::Error) -> CloseReason {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
            CloseReason::Reset
        }
        io::ErrorKind::ConnectionRefused => CloseReason::Refused,
        io::ErrorKind::TimedOut => CloseReason::TimedOut,
        _ => CloseReason::Os(error.raw_os_error().unwrap_or(EIO)),
    }
}

/// For errors that did not come from the system.
const EIO: i32 = 5;
/// No frame for a receive window.
const ENOBUFS: i32 = 105;

#[cfg(test)]
mod tests;
