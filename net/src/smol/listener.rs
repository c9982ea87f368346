//! A listening address: a few sockets listen at once, for smoltcp's take one connection each.

use core::net::SocketAddr;
use core::time::Duration;
use std::io;

use engine::Instant;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;

use super::Shared;
use super::stack::Stack;
use super::stream::SmolStream;
use crate::stream::{Listener, Stream};

/// Connections that may come about at once.
const BACKLOG: usize = 4;
/// How long one may take.
const HALF_OPEN_MAX: Duration = Duration::from_secs(3);

/// A socket that listens, and since when it is half open.
struct Waiting {
    handle: SocketHandle,
    half_open: Option<Instant>,
}

/// See the module.
pub(super) struct SmolListener {
    stack: Shared,
    address: SocketAddr,
    waiting: Vec<Waiting>,
}

impl SmolListener {
    pub(super) fn bind(stack: &Shared, address: SocketAddr) -> io::Result<Self> {
        let address = stack.borrow_mut().reserve(address).map_err(io::Error::from_raw_os_error)?;
        let mut listener = Self { stack: stack.clone(), address, waiting: Vec::with_capacity(BACKLOG) };
        listener.refill();
        Ok(listener)
    }

    fn refill(&mut self) {
        let mut stack = self.stack.borrow_mut();
        while self.waiting.len() < BACKLOG {
            // More when connections have ended.
            let Some(handle) = stack.listening(self.address) else { return };
            self.waiting.push(Waiting { handle, half_open: None });
        }
    }

    /// Ends what takes too long, and what ended before anybody took it.
    fn weed(&mut self, now: Instant) {
        let mut stack = self.stack.borrow_mut();
        self.waiting.retain_mut(|one| {
            let keep = match stack.sockets.get(one.handle).state() {
                State::Listen => {
                    one.half_open = None;
                    true
                }
                State::SynReceived => now < *one.half_open.get_or_insert(now) + HALF_OPEN_MAX,
                State::Established | State::CloseWait => true,
                _ => false,
            };
            if !keep {
                stack.sockets.get_mut(one.handle).abort();
                stack.sockets.give_back(one.handle, now);
            }
            keep
        });
    }
}

/// True when a connection has come about.
fn is_complete(stack: &Stack, handle: SocketHandle) -> bool {
    matches!(stack.sockets.get(handle).state(), State::Established | State::CloseWait)
}

impl Listener for SmolListener {
    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    fn accept(&mut self, now: Instant) -> Option<Box<dyn Stream>> {
        self.weed(now);
        let shared = self.stack.clone();
        let mut stack = shared.borrow_mut();
        let complete = self.waiting.iter().position(|one| is_complete(&stack, one.handle));
        let accepted = complete.and_then(|index| {
            let handle = self.waiting.swap_remove(index).handle;
            let peer = stack.sockets.get(handle).remote_endpoint()?;
            let peer = SocketAddr::new(peer.addr.into(), peer.port);
            stack.on_accepted();
            stack.on_established(peer.ip());
            Some(SmolStream::accepted(&shared, handle, self.address, peer))
        });
        drop(stack);
        self.refill();
        accepted.map(|stream| Box::new(stream) as Box<dyn Stream>)
    }
}

impl Drop for SmolListener {
    fn drop(&mut self) {
        let waiting: Vec<SocketHandle> = self.waiting.iter().map(|one| one.handle).collect();
        self.stack.borrow_mut().unlisten(self.address, &waiting);
    }
}
