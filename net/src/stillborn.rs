//! A stream that could not be made: the system refused a socket, or there was no memory for it.

use core::net::SocketAddr;

use engine::{Instant, Progress, Segment};

use crate::stream::{CloseReason, Stream, StreamStatus};

/// See the module.
pub(crate) struct Stillborn {
    pub(crate) peer: SocketAddr,
    pub(crate) reason: CloseReason,
}

impl Stream for Stillborn {
    fn status(&self) -> StreamStatus {
        StreamStatus::Closed(self.reason.clone())
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        None
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        Some(self.peer)
    }

    fn receive(&mut self, _reader: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        0
    }

    fn free_segments(&self) -> usize {
        1
    }

    fn push(&mut self, _segment: Segment) {}

    fn is_sending(&self) -> bool {
        false
    }

    fn sent(&self) -> u64 {
        0
    }

    fn poll(&mut self, _now: Instant) -> Progress {
        Progress::Idle
    }

    fn close(&mut self) {}

    fn abort(&mut self) {}
}
