//! Simulated links: in memory, on virtual time, the same run for the same seed.
//!
//! Owner: the simulator, on one thread. Each host has one address and a [`SimNetwork`]; the [`SimNet`] is the operator's
//! hand on all of them. The model is TCP as a program sees it: bytes arrive in order or not at all, in other pieces than
//! they were sent in, after a latency; a bounded window stops a sender whose peer does not read; a path that is cut holds
//! bytes back until it heals or the sender gives up.
//!
//! Time moves when anything is polled (unless [`Pace::Owner`] says otherwise) or [`SimNet::advance`] is called;
//! [`SimNet::next_deadline`] says where to leap.

mod connection;
mod stream;
mod world;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use engine::{Instant, Progress};

use crate::stream::{Listener, Network, Stream};
use stream::{SimListener, SimStream};
use world::World;

/// Who moves time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Whoever polls a stream or listener.
    Polls,
    /// [`SimNet::advance`] alone: the hosts' clocks may differ.
    Owner,
}

/// How simulated links behave.
#[derive(Clone, Copy, Debug)]
pub struct SimConfig {
    /// Decides latencies and how bytes are split.
    pub seed: u64,
    /// The shortest latency of one direction.
    pub latency_min: Duration,
    /// The longest latency of one direction.
    pub latency_max: Duration,
    /// Bytes that travel together at the most; each piece has a random length up to this.
    pub piece_max: usize,
    /// Bytes that one direction holds before the sender must wait: on the way, or not consumed by the receiver.
    pub window: usize,
    /// How long a sender waits for a path before its stream is closed as timed out; connecting too.
    pub give_up: Duration,
    /// Who moves time on.
    pub pace: Pace,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            latency_min: Duration::from_micros(20),
            latency_max: Duration::from_micros(200),
            piece_max: 8960,
            window: 256 << 10,
            give_up: Duration::from_secs(60),
            pace: Pace::Polls,
        }
    }
}

/// How a host ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// The process dies, the system lives: peers are told by resets.
    Kill,
    /// The power fails: peers hear nothing, until the host is up again and resets what it does not know.
    PowerOff,
}

/// The links between all hosts.
#[derive(Clone)]
pub struct SimNet {
    world: Rc<RefCell<World>>,
}

impl SimNet {
    /// A network of perfect links.
    pub fn new(config: SimConfig) -> Self {
        Self { world: Rc::new(RefCell::new(World::new(config))) }
    }

    /// The network as the host with this address sees it.
    pub fn host(&self, ip: IpAddr) -> SimNetwork {
        SimNetwork { world: self.world.clone(), ip }
    }

    /// Cuts both directions between two hosts. Bytes on the way are held back.
    pub fn partition(&self, a: IpAddr, b: IpAddr) {
        self.partition_one_way(a, b);
        self.partition_one_way(b, a);
    }

    /// Cuts one direction. What arrives in the other is not acknowledged: its sender stops when the window is full.
    pub fn partition_one_way(&self, from: IpAddr, to: IpAddr) {
        self.world.borrow_mut().cut(from, to);
    }

    /// Restores both directions; held bytes arrive within a retransmission time.
    pub fn heal(&self, a: IpAddr, b: IpAddr) {
        let mut world = self.world.borrow_mut();
        world.mend(a, b);
        world.mend(b, a);
    }

    /// Stops everything from and to a host, as if its machine were paused.
    pub fn freeze(&self, host: IpAddr) {
        self.world.borrow_mut().freeze(host);
    }

    /// Ends [`SimNet::freeze`].
    pub fn thaw(&self, host: IpAddr) {
        self.world.borrow_mut().thaw(host);
    }

    /// Resets the connection that delivers the `bytes`th byte from now in this direction, right after that byte.
    pub fn reset_after(&self, from: IpAddr, to: IpAddr, bytes: u64) {
        self.world.borrow_mut().reset_after(from, to, bytes);
    }

    /// Damages one byte of what is delivered next in this direction, as no TCP checksum notices: a digest may.
    pub fn corrupt_next(&self, from: IpAddr, to: IpAddr) {
        self.world.borrow_mut().corrupt_next(from, to);
    }

    /// Everything sent in this direction from now on takes so much longer.
    pub fn slow_down(&self, from: IpAddr, to: IpAddr, extra: Duration) {
        self.world.borrow_mut().slow_down(from, to, extra);
    }

    /// What `from` has sent to `to` on connections that it has closed since, and what still travels, is lost: `from` has gone
    /// without a word.
    pub fn vanish(&self, from: IpAddr, to: IpAddr) {
        self.world.borrow_mut().vanish(from, to);
    }

    /// Resets every connection between two hosts now.
    pub fn reset(&self, a: IpAddr, b: IpAddr) {
        self.world.borrow_mut().reset_between(a, b);
    }

    /// Ends a host's streams and listeners. Drop what runs on it too.
    pub fn halt(&self, host: IpAddr, how: Halt) {
        self.world.borrow_mut().halt(host, how);
    }

    /// The power is back: the host may listen and connect again.
    pub fn power_on(&self, host: IpAddr) {
        self.world.borrow_mut().power_on(host);
    }

    /// Delivers what is due.
    pub fn advance(&self, now: Instant) -> Progress {
        self.world.borrow_mut().advance(now)
    }

    /// The hosts that something arrived at since this was last asked.
    pub fn take_woken(&self) -> Vec<IpAddr> {
        self.world.borrow_mut().take_woken()
    }

    /// When something is due next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.world.borrow().next_deadline()
    }
}

/// The simulated network as one host reaches it.
#[derive(Clone)]
pub struct SimNetwork {
    world: Rc<RefCell<World>>,
    ip: IpAddr,
}

impl Network for SimNetwork {
    fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let address = self.world.borrow_mut().listen(self.ip, address)?;
        Ok(Box::new(SimListener::new(self.world.clone(), address)))
    }

    fn connect(&self, address: SocketAddr) -> Box<dyn Stream> {
        let end = self.world.borrow_mut().connect(self.ip, address);
        Box::new(SimStream::new(self.world.clone(), end))
    }
}

#[cfg(test)]
mod tests;
