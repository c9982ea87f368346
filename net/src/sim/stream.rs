//! One end of a simulated connection, and a simulated listener.

use core::net::SocketAddr;
use std::cell::RefCell;
use std::rc::Rc;

use engine::{Instant, Progress, Segment};

use super::connection::EndId;
use super::world::World;
use crate::stream::{CloseReason, Listener, Stream, StreamStatus};

/// Segments that a stream holds at the most.
const SEGMENTS_MAX: usize = 256;

pub(super) struct SimStream {
    world: Rc<RefCell<World>>,
    end: EndId,
    local: SocketAddr,
    peer: SocketAddr,
    window: Vec<u8>,
    start: usize,
    seen: StreamStatus,
}

impl SimStream {
    pub(super) fn new(world: Rc<RefCell<World>>, end: EndId) -> Self {
        let (local, peer, seen) = {
            let world = world.borrow();
            (world.end(end).address, world.end(end.other()).address, world.end(end).status.clone())
        };
        Self { world, end, local, peer, window: Vec::new(), start: 0, seen }
    }

    /// False when the stream's host was halted under it: then everything is over.
    fn is_present(&self) -> bool {
        self.world.borrow().is_present(self.end)
    }
}

impl Stream for SimStream {
    fn status(&self) -> StreamStatus {
        if self.is_present() {
            self.world.borrow().end(self.end).status.clone()
        } else {
            StreamStatus::Closed(CloseReason::Local)
        }
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        Some(self.local)
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        Some(self.peer)
    }

    fn receive(&mut self, reader: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        let window = &self.window[self.start..];
        if window.is_empty() {
            return 0;
        }
        let count = reader(window);
        assert!(count <= window.len(), "took more than was shown");
        self.start += count;
        if self.is_present() {
            self.world.borrow_mut().acknowledge(self.end, count);
        }
        count
    }

    fn free_segments(&self) -> usize {
        if self.is_present() {
            SEGMENTS_MAX - self.world.borrow().end(self.end).outbox.len()
        } else {
            SEGMENTS_MAX
        }
    }

    fn push(&mut self, segment: Segment) {
        assert!(self.free_segments() > 0, "pushed a segment without room for it");
        if self.is_present() {
            self.world.borrow_mut().push(self.end, segment);
        }
    }

    fn is_sending(&self) -> bool {
        self.is_present() && !self.world.borrow().end(self.end).outbox.is_empty()
    }

    fn sent(&self) -> u64 {
        if self.is_present() { self.world.borrow().end(self.end).sent } else { 0 }
    }

    fn poll(&mut self, now: Instant) -> Progress {
        let mut world = self.world.borrow_mut();
        world.on_poll(now);
        if !world.is_present(self.end) {
            return Progress::Idle;
        }
        self.window.drain(..self.start);
        self.start = 0;
        let mut progress = world.transmit(self.end) | world.take_arrived(self.end, &mut self.window);
        let status = &world.end(self.end).status;
        if *status != self.seen {
            self.seen = status.clone();
            progress = Progress::Busy;
        }
        progress
    }

    fn close(&mut self) {
        if self.is_present() {
            self.world.borrow_mut().close(self.end);
        }
    }

    /// What was sent is on the wire here, and arrives.
    fn abort(&mut self) {
        self.close();
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.world.borrow_mut().release(self.end);
    }
}

pub(super) struct SimListener {
    world: Rc<RefCell<World>>,
    address: SocketAddr,
}

impl SimListener {
    pub(super) fn new(world: Rc<RefCell<World>>, address: SocketAddr) -> Self {
        Self { world, address }
    }
}

impl Listener for SimListener {
    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    fn accept(&mut self, now: Instant) -> Option<Box<dyn Stream>> {
        let mut world = self.world.borrow_mut();
        world.on_poll(now);
        let end = world.accept(self.address)?;
        drop(world);
        Some(Box::new(SimStream::new(self.world.clone(), end)))
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.world.borrow_mut().unlisten(self.address);
    }
}
