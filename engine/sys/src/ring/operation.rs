//! What a ring can be asked to do. Each operation owns everything that the kernel touches while it is in flight.

use core::net::SocketAddr;
use std::io;

use crate::file::File;
use crate::pool::{Buf, BufMut};
use crate::segment::Segment;
use crate::socket::Socket;
use crate::waker::Waker;

/// When a write completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// When the kernel has the data.
    Accepted,
    /// When the data is on stable storage (`RWF_DSYNC`).
    Durable,
}

/// What to do to a range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeMode {
    /// Give the blocks back; they read as zeroes (`FALLOC_FL_PUNCH_HOLE`).
    PunchHole,
    /// Make the blocks read as zeroes, keeping them allocated where the file system can (`FALLOC_FL_ZERO_RANGE`).
    Zero,
}

/// One operation with everything that it needs.
#[derive(Debug)]
pub enum Operation {
    /// Read `into.len()` bytes at `offset`.
    Read {
        /// From where.
        file: File,
        /// Byte offset.
        offset: u64,
        /// Where to.
        into: BufMut,
    },
    /// Write all of `from` at `offset`.
    Write {
        /// Where to.
        file: File,
        /// Byte offset.
        offset: u64,
        /// What.
        from: Buf,
        /// When it completes.
        mode: WriteMode,
    },
    /// Make everything completed before stable (`fdatasync`).
    Sync {
        /// Of which file.
        file: File,
    },
    /// Change a range without data.
    Range {
        /// Of which file.
        file: File,
        /// Byte offset.
        offset: u64,
        /// Length in bytes.
        len: u64,
        /// How.
        mode: RangeMode,
    },
    /// Take one connection of a listening socket.
    Accept {
        /// The listening socket.
        socket: Socket,
    },
    /// Connect a socket.
    Connect {
        /// The socket.
        socket: Socket,
        /// Where to.
        address: SocketAddr,
    },
    /// Receive whatever is there, at most `into.len()` bytes; waits for at least one.
    Receive {
        /// From where.
        socket: Socket,
        /// Where to.
        into: BufMut,
    },
    /// Wake the reactor that sleeps in another ring; what it is to look at is in place.
    Wake {
        /// Whom.
        sleeper: Waker,
    },
    /// Wait until a socket has something to read, without reading it. Completes at once when it has, or is broken.
    Readable {
        /// Which.
        socket: Socket,
    },
    /// Send segments in order, as many bytes as the socket takes, starting `skip` bytes into the first.
    Send {
        /// Where to.
        socket: Socket,
        /// What, at most [`Operation::SEND_SEGMENTS_MAX`].
        segments: Vec<Segment>,
        /// Bytes of the first segment that are sent already.
        skip: usize,
    },
}

impl Operation {
    /// The most segments in one send.
    pub const SEND_SEGMENTS_MAX: usize = 64;
}

/// An operation that ended: exactly one for each that was accepted.
#[derive(Debug)]
pub struct Completion {
    /// The submitter's name for it.
    pub token: u64,
    /// The operation with its buffers.
    pub operation: Operation,
    /// Bytes moved (zero where none are), or the error.
    pub result: io::Result<u32>,
    /// The connection that an accept took.
    pub accepted: Option<Socket>,
}
