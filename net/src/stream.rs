//! The seam between a transport and whoever speaks a protocol on it.
//!
//! All of it is polled from one reactor and never blocks. Receiving is a window: [`Stream::receive`] shows bytes that the
//! transport holds and takes back what was read; the reader copies each payload byte once, into its own frame.
//! Sending is a queue of owned [`Segment`]s: a frame stays alive until its last byte left.

use core::fmt;
use core::net::SocketAddr;

pub use engine::Segment;
use engine::{Instant, Progress};

/// Why a stream is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The owner called [`Stream::close`].
    Local,
    /// The peer closed its sending side in order.
    Peer,
    /// The peer reset the connection.
    Reset,
    /// Nobody listens at the address.
    Refused,
    /// The peer did not answer in time (connecting, or unacknowledged data).
    TimedOut,
    /// The operating system's error number.
    Os(i32),
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("closed by this node"),
            Self::Peer => f.write_str("closed by the peer"),
            Self::Reset => f.write_str("reset by the peer"),
            Self::Refused => f.write_str("connection refused"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Os(errno) => write!(f, "{}", std::io::Error::from_raw_os_error(*errno)),
        }
    }
}

/// Where a stream is in its life: `Connecting -> Open -> Closed`, never back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamStatus {
    /// Not yet established; pushed segments wait.
    Connecting,
    /// Established.
    Open,
    /// Over. Bytes that arrived before may still be received; segments not yet sent are gone.
    Closed(CloseReason),
}

/// One reliable, ordered byte stream.
pub trait Stream {
    /// Where the stream is in its life.
    fn status(&self) -> StreamStatus;

    /// This end's address, once known. An IPv4 address is never told in the form that IPv6 sockets have for it.
    fn local_addr(&self) -> Option<SocketAddr>;

    /// The other end's address, in the same form.
    fn peer_addr(&self) -> Option<SocketAddr>;

    /// Shows the oldest received bytes to `reader`, which says how many of them it takes for good; returns that. Without any,
    /// `reader` is not called and the answer is 0. Not necessarily all that arrived: look again. `reader` must not touch
    /// another stream.
    ///
    /// # Panics
    /// When more is taken than was shown.
    fn receive(&mut self, reader: &mut dyn FnMut(&[u8]) -> usize) -> usize;

    /// How many bytes [`Stream::receive`] would show now.
    fn readable(&mut self) -> usize {
        let mut len = 0;
        self.receive(&mut |window| {
            len = window.len();
            0
        });
        len
    }

    /// How many more segments [`Stream::push`] takes now. Zero is back-pressure: poll and try later.
    fn free_segments(&self) -> usize;

    /// Queues a segment behind all earlier ones. On a closed stream the segment is dropped.
    ///
    /// # Panics
    /// When [`Stream::free_segments`] is zero: the caller lost count.
    fn push(&mut self, segment: Segment);

    /// True while pushed bytes have not all been handed to the transport.
    fn is_sending(&self) -> bool;

    /// Bytes that were handed to the transport so far: a number that stands still while [`Stream::is_sending`] is that of a peer that
    /// takes nothing.
    fn sent(&self) -> u64;

    /// Takes completions and starts what was pushed. Call once a turn.
    fn poll(&mut self, now: Instant) -> Progress;

    /// Closes at once; nothing more is sent. What the transport has taken still goes to the peer, in order.
    fn close(&mut self);

    /// Closes at once, and takes back what the transport has taken and the peer has not got: it is told of a reset (RFC 9293
    /// section 3.5.2). What is on the wire arrives, if it does, before that.
    fn abort(&mut self);
}

/// A passive socket.
pub trait Listener {
    /// The bound address, with the port that the system chose where 0 was asked.
    fn local_addr(&self) -> SocketAddr;

    /// The next accepted connection.
    fn accept(&mut self, now: Instant) -> Option<Box<dyn Stream>>;
}

/// A way to reach other nodes from one reactor.
pub trait Network {
    /// Binds and listens.
    ///
    /// # Errors
    /// The operating system's, with the address in the text of whoever reports it.
    fn listen(&self, address: SocketAddr) -> std::io::Result<Box<dyn Listener>>;

    /// Starts to connect; the outcome shows in [`Stream::status`].
    fn connect(&self, address: SocketAddr) -> Box<dyn Stream>;
}
