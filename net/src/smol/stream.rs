//! One connection over a link.

use core::net::SocketAddr;
use std::collections::VecDeque;

use engine::{Instant, Progress, Segment};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;

use super::Shared;
use super::stack::{ENETDOWN, Stack};
use crate::stream::{CloseReason, Stream, StreamStatus};

/// Segments that one stream holds at the most.
const SEGMENTS_MAX: usize = 256;

enum Phase {
    Connecting { deadline: Option<Instant> },
    Open,
    Closed(CloseReason),
}

/// See the module.
pub(super) struct SmolStream {
    stack: Shared,
    handle: SocketHandle,
    phase: Phase,
    queue: VecDeque<Segment>,
    /// Bytes of the first segment that the socket has already.
    skip: usize,
    /// Bytes that it was given so far.
    sent: u64,
    local: SocketAddr,
    peer: SocketAddr,
}

impl SmolStream {
    /// # Errors
    /// The number of the reason why no connection could be begun.
    pub(super) fn connecting(stack: &Shared, peer: SocketAddr) -> Result<Self, i32> {
        let (handle, local) = stack.borrow_mut().connect(peer)?;
        Ok(Self::new(stack, handle, Phase::Connecting { deadline: None }, local, peer))
    }

    pub(super) fn accepted(
        stack: &Shared,
        handle: SocketHandle,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> Self {
        Self::new(stack, handle, Phase::Open, local, peer)
    }

    fn new(stack: &Shared, handle: SocketHandle, phase: Phase, local: SocketAddr, peer: SocketAddr) -> Self {
        let queue = VecDeque::with_capacity(SEGMENTS_MAX);
        Self { stack: stack.clone(), handle, phase, queue, skip: 0, sent: 0, local, peer }
    }

    fn finish(&mut self, reason: CloseReason) {
        self.phase = Phase::Closed(reason);
        self.queue.clear();
        self.skip = 0;
    }

    /// What the socket has come to. True when that is news.
    fn follow(&mut self, stack: &mut Stack, now: Instant) -> bool {
        let state = stack.sockets.get(self.handle).state();
        let gone = |otherwise| if stack.is_up() { otherwise } else { CloseReason::Os(ENETDOWN) };
        match (&mut self.phase, state) {
            (Phase::Closed(_), _) => false,
            (Phase::Connecting { .. }, State::Closed) => {
                let reason = gone(CloseReason::Refused);
                self.finish(reason);
                true
            }
            (Phase::Connecting { deadline }, State::SynSent | State::SynReceived) => {
                let late = now >= *deadline.get_or_insert(now + stack.connect_timeout());
                if late {
                    stack.sockets.get_mut(self.handle).abort();
                    self.finish(CloseReason::TimedOut);
                }
                late
            }
            (Phase::Connecting { .. }, _) => {
                self.phase = Phase::Open;
                stack.on_established(self.peer.ip());
                true
            }
            (Phase::Open, State::Closed) => {
                let reason = gone(CloseReason::Reset);
                self.finish(reason);
                true
            }
            (Phase::Open, State::CloseWait) => {
                stack.sockets.get_mut(self.handle).close();
                self.finish(CloseReason::Peer);
                true
            }
            (Phase::Open, _) => false,
        }
    }

    /// Copies segments to the socket's buffer as far as there is room; the bytes copied.
    fn feed(&mut self, stack: &mut Stack) -> usize {
        if self.queue.is_empty() || !stack.sockets.get(self.handle).can_send() {
            return 0;
        }
        let socket = stack.sockets.get_mut(self.handle);
        let mut copied = 0;
        while let Some(segment) = self.queue.front() {
            let rest = &segment.as_bytes()[self.skip..];
            let count = socket.send_slice(rest).unwrap_or(0);
            copied += count;
            if count < rest.len() {
                self.skip += count;
                break;
            }
            self.queue.pop_front();
            self.skip = 0;
        }
        stack.counters.copied_out += copied as u64;
        self.sent += copied as u64;
        copied
    }
}

impl Stream for SmolStream {
    fn status(&self) -> StreamStatus {
        match &self.phase {
            Phase::Connecting { .. } => StreamStatus::Connecting,
            Phase::Open => StreamStatus::Open,
            Phase::Closed(reason) => StreamStatus::Closed(reason.clone()),
        }
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        Some(self.local)
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        Some(self.peer)
    }

    fn receive(&mut self, reader: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        let mut stack = self.stack.borrow_mut();
        if stack.sockets.get(self.handle).recv_queue() == 0 {
            return 0;
        }
        let read = stack.sockets.get_mut(self.handle).recv(|window| {
            let count = if window.is_empty() { 0 } else { reader(window) };
            assert!(count <= window.len(), "took more than was shown");
            (count, count)
        });
        // Nothing can be read before the connection is there, nor after its last byte.
        let count = read.unwrap_or(0);
        stack.counters.copied_in += count as u64;
        count
    }

    fn free_segments(&self) -> usize {
        SEGMENTS_MAX - self.queue.len()
    }

    fn push(&mut self, segment: Segment) {
        assert!(self.free_segments() > 0, "pushed a segment without room for it");
        if !matches!(self.phase, Phase::Closed(_)) && !segment.as_bytes().is_empty() {
            self.queue.push_back(segment);
        }
    }

    fn is_sending(&self) -> bool {
        !self.queue.is_empty()
    }

    fn sent(&self) -> u64 {
        self.sent
    }

    fn poll(&mut self, now: Instant) -> Progress {
        let shared = self.stack.clone();
        let mut stack = shared.borrow_mut();
        let news = self.follow(&mut stack, now);
        let fed = if matches!(self.phase, Phase::Open) { self.feed(&mut stack) } else { 0 };
        Progress::from_count(usize::from(news) + fed)
    }

    fn close(&mut self) {
        if matches!(self.phase, Phase::Closed(_)) {
            return;
        }
        self.finish(CloseReason::Local);
        self.stack.borrow_mut().sockets.get_mut(self.handle).close();
    }

    fn abort(&mut self) {
        self.finish(CloseReason::Local);
        self.stack.borrow_mut().sockets.get_mut(self.handle).abort();
    }
}

impl Drop for SmolStream {
    fn drop(&mut self) {
        self.stack.borrow_mut().release(self.handle);
    }
}
