//! Connections within one thread: what is pushed at one end is there at once at the other, as one piece. No latency, no loss, no system
//! call and, once made, no memory: what is counted over it is what both ends do themselves.
//!
//! Owner: the ratchet's world.

use core::cell::RefCell;
use core::net::SocketAddr;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;

use engine::{Instant, Progress, Segment};
use net::stream::{CloseReason, StreamStatus};
use net::{Listener, Network, Stream};

/// Bytes that one direction holds before its sender has to wait.
const PIPE_LEN: usize = 1 << 20;
/// Segments that are taken at once while there is room.
const SEGMENTS_MAX: usize = 256;

/// One direction.
struct Pipe {
    bytes: Vec<u8>,
    start: usize,
    moved: u64,
    state: PipeState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PipeState {
    Open,
    Closed,
}

type Shared = Rc<RefCell<Pipe>>;

impl Pipe {
    fn new() -> Shared {
        // Twice: what was begun to be read stays where it is.
        let bytes = Vec::with_capacity(2 * PIPE_LEN);
        Rc::new(RefCell::new(Self { bytes, start: 0, moved: 0, state: PipeState::Open }))
    }

    fn has_room(&self) -> bool {
        self.bytes.len() < PIPE_LEN - Segment::INLINE_MAX
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.moved += bytes.len() as u64;
    }

    fn take(&mut self, reader: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        let window = &self.bytes[self.start..];
        if window.is_empty() {
            return 0;
        }
        let count = reader(window);
        assert!(count <= window.len(), "took more than was shown");
        self.start += count;
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
        count
    }
}

/// All connections and who listens.
#[derive(Clone, Default)]
pub(super) struct Wire {
    listening: Rc<RefCell<BTreeMap<SocketAddr, VecDeque<WireStream>>>>,
}

struct WireStream {
    local: SocketAddr,
    peer: SocketAddr,
    incoming: Shared,
    outgoing: Shared,
}

impl Stream for WireStream {
    fn status(&self) -> StreamStatus {
        match (self.outgoing.borrow().state, self.incoming.borrow().state) {
            (PipeState::Open, PipeState::Open) => StreamStatus::Open,
            (PipeState::Closed, _) => StreamStatus::Closed(CloseReason::Local),
            (_, PipeState::Closed) => StreamStatus::Closed(CloseReason::Peer),
        }
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        Some(self.local)
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        Some(self.peer)
    }

    fn receive(&mut self, reader: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        self.incoming.borrow_mut().take(reader)
    }

    fn free_segments(&self) -> usize {
        if self.outgoing.borrow().has_room() { SEGMENTS_MAX } else { 0 }
    }

    fn push(&mut self, segment: Segment) {
        self.outgoing.borrow_mut().push(segment.as_bytes());
    }

    fn is_sending(&self) -> bool {
        false
    }

    fn sent(&self) -> u64 {
        self.outgoing.borrow().moved
    }

    fn poll(&mut self, _: Instant) -> Progress {
        Progress::Idle
    }

    fn close(&mut self) {
        self.outgoing.borrow_mut().state = PipeState::Closed;
    }

    fn abort(&mut self) {
        self.close();
    }
}

struct WireListener {
    wire: Wire,
    address: SocketAddr,
}

impl Listener for WireListener {
    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    fn accept(&mut self, _: Instant) -> Option<Box<dyn Stream>> {
        let stream = self.wire.listening.borrow_mut().get_mut(&self.address)?.pop_front()?;
        Some(Box::new(stream))
    }
}

impl Network for Wire {
    fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        self.listening.borrow_mut().insert(address, VecDeque::new());
        Ok(Box::new(WireListener { wire: self.clone(), address }))
    }

    fn connect(&self, address: SocketAddr) -> Box<dyn Stream> {
        let local = SocketAddr::from(([127, 0, 0, 1], 1));
        let (there, back) = (Pipe::new(), Pipe::new());
        let far = WireStream { local: address, peer: local, incoming: there.clone(), outgoing: back.clone() };
        match self.listening.borrow_mut().get_mut(&address) {
            Some(waiting) => waiting.push_back(far),
            None => back.borrow_mut().state = PipeState::Closed,
        }
        Box::new(WireStream { local, peer: address, incoming: back, outgoing: there })
    }
}
