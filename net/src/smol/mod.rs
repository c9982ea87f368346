//! TCP/IP in user space: smoltcp over a network interface that this process polls itself.
//!
//! Owner: one reactor. A [`Link`] has the interface, and is polled twice a turn: [`Link::receive`] before those who use its
//! streams, [`Link::transmit`] after them, so that what they pushed leaves in the same turn and in one call. Between the two,
//! streams share it by a `RefCell`: no call of a stream calls another.
//!
//! Invariants:
//! - sockets and their buffers are made when the link is, and used again; there is no allocation for a connection but its
//!   queue's;
//! - a payload byte is copied once from a socket's buffer to its reader, and once from its segment to a socket's buffer;
//! - the stack takes frames and a time and gives frames: no clock, no random source, no descriptor is inside (`device.rs` is
//!   the seam);
//! - the kernel has none of the link's addresses: both would answer.
//!
//! smoltcp's retransmission timeout is never below one second (RFC 6298, 2.4), which no storage link can wait for. So its
//! clock runs faster than the world's (`clock.rs`), and what is set in its time is set in proportion.

mod clock;
mod config;
mod device;
mod kernel;
mod listener;
mod memory;
mod neighbours;
mod offload;
mod path;
mod socket;
mod stack;
mod status;
mod stream;
mod watch;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use engine::packet::PacketError;
use engine::{Core, Instant, Progress};

use crate::stillborn::Stillborn;
use crate::stream::{CloseReason, Listener, Network, Stream};
use stack::Stack;

pub use config::{Congestion, IpNet, LinkConfig, LinkError, UnknownCongestion, UnknownNet};
pub use device::{FrameDevice, Properties, Transmit, Watches};
pub use kernel::{DeviceKind, UnknownDevice};
pub use memory::{MemoryDevice, MemoryWire};
pub use offload::{Direction, See, Tap};
pub use path::PathCheck;
pub use status::{LinkCounters, LinkNews, LinkStatus};

type Shared = Rc<RefCell<Stack>>;

/// A link: the interface with its stack. See the module.
pub struct Link {
    stack: Shared,
    /// How its device is had again when its interface has gone; `None` for one that was given.
    again: Option<Again>,
}

/// What a device is opened by, and when next.
struct Again {
    config: LinkConfig,
    core: Core,
    next: Instant,
}

/// How often an interface that has gone is looked for.
const SEARCH: Duration = Duration::from_millis(500);

impl Link {
    /// Opens the configured device on the interface.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub fn open(config: &LinkConfig, core: &Core, now: Instant) -> Result<Self, LinkError> {
        config.check()?;
        let device = kernel::open(config, core)?;
        let again = Again { config: config.clone(), core: core.clone(), next: now };
        Ok(Self { again: Some(again), ..Self::over(config, device, now)? })
    }

    /// The same over a given device.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub fn over(config: &LinkConfig, device: Box<dyn FrameDevice>, now: Instant) -> Result<Self, LinkError> {
        config.check()?;
        Ok(Self { stack: Rc::new(RefCell::new(Stack::new(config, device, now))), again: None })
    }

    /// The first half of a turn: takes what arrived, lets timers fire, looks after the interface.
    pub fn receive(&mut self, now: Instant) -> Progress {
        self.search(now);
        self.stack.borrow_mut().receive(now)
    }

    /// An interface of the same name takes the place of one that has gone.
    fn search(&mut self, now: Instant) {
        let Some(again) = self.again.as_mut().filter(|again| now >= again.next) else { return };
        again.next = now + SEARCH;
        let mut stack = self.stack.borrow_mut();
        if !stack.is_gone() {
            return;
        }
        match kernel::open(&again.config, &again.core) {
            Ok(device) => stack.replace(device),
            // It is away still: nothing new.
            Err(LinkError::Device(PacketError::NoInterface(_))) => {}
            Err(why) => stack.watch.not_replaced(why.to_string()),
        }
    }

    /// Shows each frame from now on to `tap`, until that has seen enough. It replaces one that is there.
    pub fn set_tap(&mut self, tap: Tap) {
        self.stack.borrow_mut().set_tap(tap);
    }

    /// The second half of a turn: sends what there is to send.
    pub fn transmit(&mut self, now: Instant) -> Progress {
        self.stack.borrow_mut().transmit(now)
    }

    /// When it has to be polled next, if nothing arrives.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.stack.borrow_mut().next_deadline()
    }

    /// The reactor is about to sleep: a frame that arrives has to wake it.
    pub fn prepare_sleep(&mut self) {
        self.stack.borrow_mut().prepare_sleep();
    }

    /// The network as its users see it.
    pub fn network(&self) -> SmolNetwork {
        SmolNetwork { stack: self.stack.clone() }
    }

    /// What it is and does.
    pub fn status(&self) -> LinkStatus {
        self.stack.borrow_mut().status()
    }

    /// What happened since the last call.
    pub fn take_news(&mut self) -> Vec<LinkNews> {
        self.stack.borrow_mut().watch.take_news()
    }

    /// Listeners and streams that use it.
    pub fn users(&self) -> usize {
        self.stack.borrow().users()
    }
}

/// A link as those who listen and connect see it.
#[derive(Clone)]
pub struct SmolNetwork {
    stack: Shared,
}

impl SmolNetwork {
    /// True when the address is the link's own.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.stack.borrow().has_address(address)
    }

    /// True when the address is in a network of the link, so that packets to it leave through it.
    pub fn reaches(&self, address: IpAddr) -> bool {
        self.stack.borrow().is_near(address)
    }
}

impl Network for SmolNetwork {
    fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(listener::SmolListener::bind(&self.stack, address)?))
    }

    fn connect(&self, address: SocketAddr) -> Box<dyn Stream> {
        match stream::SmolStream::connecting(&self.stack, address) {
            Ok(stream) => Box::new(stream),
            Err(errno) => Box::new(Stillborn { peer: address, reason: CloseReason::Os(errno) }),
        }
    }
}

#[cfg(test)]
mod tests;
