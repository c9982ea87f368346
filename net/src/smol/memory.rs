//! Two devices and a wire between them, in memory: for tests, on any clock, the same run for the same seed.

use core::time::Duration;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use engine::packet::{ChecksumState, LinkState, PacketStats, Received, SendRequest};
use engine::{Instant, Prng};

use super::device::{ETHERNET, FrameDevice, Properties, Transmit};

/// Frames on the wire in one direction at the most.
const FRAMES_MAX: usize = 512;

struct Travelling {
    due: Instant,
    frame: Vec<u8>,
}

struct Wire {
    now: Instant,
    latency: Duration,
    prng: Prng,
    loss_permille: u64,
    late_permille: u64,
    corrupt_permille: u64,
    /// The longest packet that passes.
    mtu: usize,
    state: LinkState,
    /// By the end that they go to.
    ways: [VecDeque<Travelling>; 2],
    /// Whether anything gets there.
    cut: [bool; 2],
}

impl Wire {
    fn put(&mut self, to: usize, mut frame: Vec<u8>) {
        let too_long = frame.len() > self.mtu + ETHERNET;
        let lost = self.prng.below(1000) < self.loss_permille;
        let full = self.ways[to].len() >= FRAMES_MAX;
        if too_long || lost || full || self.cut[to] || self.state != LinkState::Up {
            return;
        }
        if self.prng.below(1000) < self.corrupt_permille {
            let at = self.prng.below(frame.len() as u64) as usize;
            frame[at] ^= 1 << self.prng.below(8);
        }
        let late = self.prng.below(1000) < self.late_permille;
        let due = self.now + if late { self.latency * 4 } else { self.latency };
        let way = &mut self.ways[to];
        let place = way.iter().rposition(|other| other.due <= due).map_or(0, |last| last + 1);
        way.insert(place, Travelling { due, frame });
    }

    fn take(&mut self, to: usize) -> Option<Vec<u8>> {
        let now = self.now;
        let way = &mut self.ways[to];
        way.front().filter(|first| first.due <= now)?;
        way.pop_front().map(|first| first.frame)
    }
}

/// The operator's hand on the wire.
#[derive(Clone)]
pub struct MemoryWire {
    wire: Rc<RefCell<Wire>>,
}

impl MemoryWire {
    /// A wire that takes `latency`, and whose faults `seed` decides.
    pub fn new(latency: Duration, seed: u64) -> Self {
        let wire = Wire {
            now: Instant::EPOCH,
            latency,
            prng: Prng::from_seed(seed),
            loss_permille: 0,
            late_permille: 0,
            corrupt_permille: 0,
            mtu: 9000,
            state: LinkState::Up,
            ways: [VecDeque::new(), VecDeque::new()],
            cut: [false; 2],
        };
        Self { wire: Rc::new(RefCell::new(wire)) }
    }

    /// The device at one of the two ends, 0 or 1.
    pub fn end(&self, end: usize) -> MemoryDevice {
        assert!(end < 2, "a wire has two ends");
        let address = [2, 0, 0, 0, 0, u8::try_from(end).unwrap_or(0)];
        let properties = Properties {
            kind: "memory",
            driver: String::new(),
            address,
            mtu: 9000,
            segmentation: None,
            offloads: Vec::new(),
            fallbacks: Vec::new(),
        };
        let sender =
            Sender { wire: self.wire.clone(), to: 1 - end, frame: Vec::new(), stats: PacketStats::default() };
        MemoryDevice { end, properties, sender, shown: Vec::new() }
    }

    /// The time is `now`.
    pub fn advance(&self, now: Instant) {
        self.wire.borrow_mut().now = now;
    }

    /// So many frames in a thousand are lost from now on.
    pub fn lose(&self, permille: u64) {
        self.wire.borrow_mut().loss_permille = permille;
    }

    /// So many frames in a thousand are overtaken by later ones.
    pub fn reorder(&self, permille: u64) {
        self.wire.borrow_mut().late_permille = permille;
    }

    /// So many frames in a thousand have one bit flipped.
    pub fn corrupt(&self, permille: u64) {
        self.wire.borrow_mut().corrupt_permille = permille;
    }

    /// Longer packets do not pass.
    pub fn limit(&self, mtu: usize) {
        self.wire.borrow_mut().mtu = mtu;
    }

    /// Nothing gets to these ends from now on, and nobody is told.
    pub fn cut(&self, ends: [bool; 2]) {
        self.wire.borrow_mut().cut = ends;
    }

    /// When the first frame that is on its way arrives.
    pub fn next_deadline(&self) -> Option<Instant> {
        let wire = self.wire.borrow();
        wire.ways.iter().filter_map(|way| way.front()).map(|first| first.due).min()
    }

    /// What both ends say of their carrier; nothing passes but when it is up.
    pub fn set_state(&self, state: LinkState) {
        self.wire.borrow_mut().state = state;
    }
}

struct Sender {
    wire: Rc<RefCell<Wire>>,
    to: usize,
    frame: Vec<u8>,
    stats: PacketStats,
}

/// One end of a [`MemoryWire`].
pub struct MemoryDevice {
    end: usize,
    properties: Properties,
    sender: Sender,
    shown: Vec<u8>,
}

impl Transmit for Sender {
    fn has_room(&self) -> bool {
        true
    }

    fn reserve(&mut self, len: usize) -> Option<&mut [u8]> {
        self.frame.clear();
        self.frame.resize(len, 0);
        Some(&mut self.frame)
    }

    fn commit(&mut self, len: usize, request: SendRequest) {
        assert_eq!(request, SendRequest::default(), "nothing is left to this device");
        self.frame.truncate(len);
        self.stats.sent += 1;
        self.stats.sent_bytes += len as u64;
        self.wire.borrow_mut().put(self.to, core::mem::take(&mut self.frame));
    }
}

impl FrameDevice for MemoryDevice {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn receive(&mut self) -> Option<(Received<'_>, &mut dyn Transmit)> {
        self.shown = self.sender.wire.borrow_mut().take(self.end)?;
        self.sender.stats.received += 1;
        self.sender.stats.received_bytes += self.shown.len() as u64;
        let received = Received { bytes: &self.shown, checksum: ChecksumState::Unverified };
        Some((received, &mut self.sender))
    }

    fn transmitter(&mut self) -> &mut dyn Transmit {
        &mut self.sender
    }

    fn flush(&mut self) {}

    fn is_pending(&self) -> bool {
        false
    }

    fn state(&mut self) -> LinkState {
        self.sender.wire.borrow().state
    }

    fn stats(&mut self) -> PacketStats {
        self.sender.stats
    }
}
