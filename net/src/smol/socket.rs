//! The sockets of a link: made once, handed out and taken back.

use core::time::Duration;

use engine::Instant;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};

use super::clock::Clock;
use super::config::{Congestion, LinkConfig};

/// How long a socket may take to end in order before it is reset, and then its reset to leave.
const LINGER: Duration = Duration::from_secs(1);

/// What a socket does that nobody uses any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    /// It sends what it was given, and ends.
    InOrder,
    /// It is closed, and has a reset to send. A link that is down, or a host that answers no question for it, never takes that.
    Reset,
}

/// A socket that nobody uses any more and that is not over yet.
#[derive(Clone, Copy, Debug)]
struct Ending {
    handle: SocketHandle,
    leave: Leave,
    until: Instant,
}

/// Whether something was done to sockets that makes the stack look at them again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Touched {
    No,
    Yes,
}

/// See the module.
pub(super) struct Sockets {
    pub(super) set: SocketSet<'static>,
    free: Vec<SocketHandle>,
    ending: Vec<Ending>,
    touched: Touched,
}

impl Sockets {
    pub(super) fn new(config: &LinkConfig, clock: Clock) -> Self {
        let mut set = SocketSet::new(Vec::with_capacity(config.sockets + 1));
        let mut free: Vec<_> = (0..config.sockets).map(|_| set.add(socket(config, clock))).collect();
        // The first ones are handed out first: that is the order in which the stack looks for a frame's.
        free.reverse();
        Self { set, free, ending: Vec::with_capacity(config.sockets), touched: Touched::Yes }
    }

    pub(super) fn get(&self, handle: SocketHandle) -> &Socket<'static> {
        self.set.get(handle)
    }

    /// To do something with it: see [`Touched`].
    pub(super) fn get_mut(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.touched = Touched::Yes;
        self.set.get_mut(handle)
    }

    /// A socket that is not this module's was used, or frames came in.
    pub(super) fn touch(&mut self) {
        self.touched = Touched::Yes;
    }

    /// Whether anything was done since the last call.
    pub(super) fn take_touched(&mut self) -> Touched {
        core::mem::replace(&mut self.touched, Touched::No)
    }

    /// A socket for a new connection: a closed one, or one that only waits for strays of its last connection; `None` when all are
    /// in use.
    pub(super) fn take(&mut self) -> Option<SocketHandle> {
        self.free.pop().or_else(|| {
            let waits = |one: &Ending| self.get(one.handle).state() == State::TimeWait;
            let index = self.ending.iter().position(waits)?;
            let handle = self.ending.swap_remove(index).handle;
            self.get_mut(handle).abort();
            Some(handle)
        })
    }

    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// Nobody uses the socket any more: what it was given to send is sent, and it ends. Bytes that nobody read make it a reset.
    pub(super) fn give_back(&mut self, handle: SocketHandle, now: Instant) {
        let socket = self.get_mut(handle);
        if socket.recv_queue() > 0 {
            socket.abort();
        } else {
            socket.close();
        }
        self.ending.push(Ending { handle, leave: Leave::InOrder, until: now + LINGER });
    }

    /// Ends every connection at once: no frame passes.
    pub(super) fn abort_all(&mut self) {
        self.touch();
        for (_, socket) in self.set.iter_mut() {
            if let smoltcp::socket::Socket::Tcp(socket) = socket
                && !socket.is_listening()
            {
                socket.abort();
            }
        }
    }

    /// Resets what takes too long to end, and frees what has.
    pub(super) fn tidy(&mut self, now: Instant) {
        let mut ending = core::mem::take(&mut self.ending);
        ending.retain_mut(|one| self.goes_on(one, now));
        self.ending = ending;
    }

    /// False once the socket is free.
    fn goes_on(&mut self, one: &mut Ending, now: Instant) -> bool {
        let (socket, due) = (self.get(one.handle), now >= one.until);
        let is_closed = socket.state() == State::Closed;
        let has_reset = is_closed && socket.remote_endpoint().is_some();
        match one.leave {
            Leave::InOrder if is_closed && !has_reset => self.free.push(one.handle),
            Leave::InOrder if has_reset || due => {
                if !is_closed {
                    self.get_mut(one.handle).abort();
                }
                (one.leave, one.until) = (Leave::Reset, now + LINGER);
                return true;
            }
            Leave::Reset if !has_reset => self.free.push(one.handle),
            Leave::Reset if due => {
                forget_peer(self.get_mut(one.handle));
                self.free.push(one.handle);
            }
            Leave::InOrder | Leave::Reset => return true,
        }
        false
    }

    /// When [`Sockets::tidy`] has something to do next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.ending.iter().map(|one| one.until).min()
    }
}

/// A closed socket has nothing to send any more: it would ask for its peer's Ethernet address as long as the link is there.
fn forget_peer(socket: &mut Socket<'static>) {
    // Whatever listens forgets; the port is never heard of. A closed socket may listen on any but 0.
    let forgot = socket.listen(1);
    assert!(forgot.is_ok(), "it was closed");
    socket.close();
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
