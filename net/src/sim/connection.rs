//! One simulated connection: two ends and the two pipes between them.

use core::net::SocketAddr;
use std::collections::VecDeque;

use engine::{Instant, Segment};

use crate::stream::{CloseReason, StreamStatus};

/// Names one end of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EndId {
    pub(super) connection: u64,
    /// 0 connected, 1 accepted. The pipe of the same number leads away from the end.
    pub(super) side: usize,
}

impl EndId {
    pub(super) fn other(self) -> Self {
        Self { side: 1 - self.side, ..self }
    }
}

/// Whether an end still has a program behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Accepted by the system, not yet by a program; or used by one.
    Present,
    /// Closed, dropped, or its host ended.
    Gone,
}

#[derive(Debug)]
pub(super) struct End {
    pub(super) address: SocketAddr,
    pub(super) status: StreamStatus,
    pub(super) owner: Owner,
    /// Arrived pieces that the program has not taken.
    pub(super) inbox: VecDeque<Vec<u8>>,
    pub(super) outbox: VecDeque<Segment>,
    /// Bytes of the first segment that left.
    pub(super) skip: usize,
    /// Bytes that left so far.
    pub(super) sent: u64,
}

impl End {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            status: StreamStatus::Connecting,
            owner: Owner::Present,
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            skip: 0,
            sent: 0,
        }
    }

    /// Ends the stream; bytes that arrived stay readable.
    pub(super) fn close(&mut self, reason: CloseReason) {
        if !matches!(self.status, StreamStatus::Closed(_)) {
            self.status = StreamStatus::Closed(reason);
        }
        self.outbox.clear();
        self.skip = 0;
    }

    pub(super) fn is_open(&self) -> bool {
        self.status == StreamStatus::Open
    }

    /// Takes up to `count` bytes off the outbox, across segments.
    pub(super) fn take_bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count);
        while bytes.len() < count {
            let Some(segment) = self.outbox.front() else { break };
            let rest = &segment.as_bytes()[self.skip..];
            let part = rest.len().min(count - bytes.len());
            bytes.extend_from_slice(&rest[..part]);
            self.skip += part;
            if part == rest.len() {
                self.outbox.pop_front();
                self.skip = 0;
            }
        }
        self.sent += bytes.len() as u64;
        bytes
    }
}

/// What travels through a pipe.
#[derive(Debug)]
pub(super) enum Parcel {
    Connect,
    Accepted,
    Refused,
    Data(Vec<u8>),
    Finished,
    Reset,
}

#[derive(Debug)]
pub(super) struct Travelling {
    pub(super) parcel: Parcel,
    pub(super) sent: Instant,
    pub(super) due: Instant,
}

/// One direction: parcels arrive in the order they were sent.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    pub(super) parcels: VecDeque<Travelling>,
    /// Bytes sent that the receiver has not consumed, or whose consumption the sender does not know.
    pub(super) unacknowledged: usize,
    /// Bytes consumed whose acknowledgement cannot travel because the way back is cut.
    pub(super) owed: usize,
}

impl Pipe {
    /// Loses everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) ends: [End; 2],
    pub(super) pipes: [Pipe; 2],
}

impl Connection {
    /// True when nobody can notice it any more.
    pub(super) fn is_over(&self) -> bool {
        self.ends.iter().all(|end| end.owner == Owner::Gone)
            && self.pipes.iter().all(|pipe| pipe.parcels.is_empty())
    }
}
