//! A listening socket: a few accepts are always with the kernel.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::VecDeque;
use std::io;

use engine::{Core, Instant, Operation, Pool, RingClient, RingHandle, Socket};

use super::receive::Window;
use super::stream::TcpStream;
use crate::stream::{Listener, Stream};

const ACCEPT: u64 = 1;
/// Accepts with the kernel at once, and accepted connections that wait here; more wait in the kernel's backlog.
const ACCEPTS_MAX: usize = 4;
/// How long to leave the kernel alone after an accept failed (no descriptor left): it would fail again at once.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) struct TcpListener {
    ring: RingHandle,
    client: RingClient,
    pool: Pool,
    socket: Socket,
    address: SocketAddr,
    armed: usize,
    ready: VecDeque<Socket>,
    paused_until: Instant,
}

impl TcpListener {
    pub(super) fn bind(core: &Core, ring: &RingHandle, address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::listen(address)?;
        let mut listener = Self {
            address: socket.local_addr()?,
            ring: ring.clone(),
            client: ring.attach(),
            pool: core.pool().clone(),
            socket,
            armed: 0,
            ready: VecDeque::with_capacity(ACCEPTS_MAX),
            paused_until: Instant::EPOCH,
        };
        listener.arm();
        Ok(listener)
    }

    fn arm(&mut self) {
        while self.armed + self.ready.len() < ACCEPTS_MAX {
            let accept = Operation::Accept { socket: self.socket.clone() };
            if self.client.submit(ACCEPT, accept).is_err() {
                return;
            }
            self.armed += 1;
        }
    }

    fn take_completions(&mut self, now: Instant) {
        while let Some(completion) = self.client.take() {
            self.armed -= 1;
            match completion.accepted {
                Some(socket) => self.ready.push_back(socket),
                None => self.paused_until = now + PAUSE,
            }
        }
    }
}

impl Listener for TcpListener {
    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    fn accept(&mut self, now: Instant) -> Option<Box<dyn Stream>> {
        self.take_completions(now);
        if now >= self.paused_until {
            self.arm();
        }
        // A connection for which there are no frames waits until there are.
        if self.ready.is_empty() {
            return None;
        }
        let window = Window::new(&self.pool)?;
        let socket = self.ready.pop_front()?;
        Some(Box::new(TcpStream::accepted(window, &self.ring, socket)))
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        // An accept in flight would keep the socket listening.
        self.client.cancel(ACCEPT);
    }
}
