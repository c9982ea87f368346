//! The sockets of a link: made once, handed out and taken back.

use core::time::Duration;

use engine::Instant;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};

use super::clock::Clock;
use super::config::{Congestion, LinkConfig};

/// How long a socket may take to end in order before it is reset.
const LINGER: Duration = Duration::from_secs(1);

/// A socket that nobody uses any more and that is not over yet.
#[derive(Clone, Copy, Debug)]
struct Ending {
    handle: SocketHandle,
    until: Instant,
}

/// See the module.
pub(super) struct Sockets {
    pub(super) set: SocketSet<'static>,
    free: Vec<SocketHandle>,
    ending: Vec<Ending>,
}

impl Sockets {
    pub(super) fn new(config: &LinkConfig, clock: Clock) -> Self {
        let mut set = SocketSet::new(Vec::with_capacity(config.sockets + 1));
        let free = (0..config.sockets).map(|_| set.add(socket(config, clock))).collect();
        Self { set, free, ending: Vec::with_capacity(config.sockets) }
    }

    pub(super) fn get(&self, handle: SocketHandle) -> &Socket<'static> {
        self.set.get(handle)
    }

    pub(super) fn get_mut(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.set.get_mut(handle)
    }

    /// A socket for a new connection: a closed one, or one that only waits for strays of its last connection; `None` when all are
    /// in use.
    pub(super) fn take(&mut self) -> Option<SocketHandle> {
        let Self { set, free, ending } = self;
        free.pop().or_else(|| {
            let waits = |one: &Ending| set.get::<Socket<'static>>(one.handle).state() == State::TimeWait;
            let handle = ending.swap_remove(ending.iter().position(waits)?).handle;
            set.get_mut::<Socket<'static>>(handle).abort();
            Some(handle)
        })
    }

    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// Nobody uses the socket any more: what it was given to send is sent, and it ends. Bytes that nobody read make it a reset.
    pub(super) fn give_back(&mut self, handle: SocketHandle, now: Instant) {
        let socket: &mut Socket<'static> = self.set.get_mut(handle);
        if socket.recv_queue() > 0 {
            socket.abort();
        } else {
            socket.close();
        }
        self.ending.push(Ending { handle, until: now + LINGER });
    }

    /// Resets what takes too long to end, and frees what has.
    pub(super) fn tidy(&mut self, now: Instant) {
        let Self { set, free, ending } = self;
        ending.retain(|one| {
            let socket: &mut Socket<'static> = set.get_mut(one.handle);
            if socket.state() != State::Closed && now >= one.until {
                socket.abort();
            }
            // A closed socket with an end to talk to has a reset to send; a link that is down never will.
            let over = socket.state() == State::Closed
                && (socket.remote_endpoint().is_none() || now >= one.until + LINGER);
            if over {
                free.push(one.handle);
            }
            !over
        });
    }

    /// When [`Sockets::tidy`] has something to do next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.ending.iter().map(|one| one.until).min()
    }
}

fn socket(config: &LinkConfig, clock: Clock) -> Socket<'static> {
    // Touched here, not on the data path.
    let buffer = || {
        let mut bytes = vec![0_u8; config.buffer];
        bytes.chunks_mut(4096).for_each(|page| page[0] = 1);
        SocketBuffer::new(bytes)
    };
    let mut socket = Socket::new(buffer(), buffer());
    socket.set_nagle_enabled(false);
    socket.set_ack_delay(Some(clock.duration(config.ack_delay)));
    socket.set_congestion_control(match config.congestion {
        Congestion::None => CongestionControl::None,
        Congestion::Reno => CongestionControl::Reno,
    });
    socket
}
