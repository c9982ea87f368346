//! One TCP connection.
//!
//! At most one receive and one send are with the kernel. The connection's end is learnt from the receive, which comes
//! after the last byte; a send that fails ends it too.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::io;

use engine::{
    Completion, Instant, Operation, Pool, Progress, Registered, RingClient, RingHandle, Segment, Socket,
};

use super::receive::Window;
use super::send::Queue;
use super::{ENOBUFS, close_reason};
use crate::stream::{CloseReason, Stream, StreamStatus};

const CONNECT: u64 = 1;
const RECEIVE: u64 = 2;
const SEND: u64 = 3;

/// Whether the kernel has the connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connect {
    Waiting,
    InFlight,
}

enum Phase {
    Connecting { connect: Connect, timeout: Duration, deadline: Option<Instant> },
    Open,
    Closed(CloseReason),
}

/// Whether the kernel has a receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receive {
    Idle,
    InFlight,
}

pub(super) struct TcpStream {
    client: RingClient,
    /// Where the kernel has room for it.
    _registered: Option<Registered>,
    socket: Socket,
    phase: Phase,
    receive: Receive,
    window: Window,
    queue: Queue,
    local: Option<SocketAddr>,
    peer: Option<SocketAddr>,
}

impl TcpStream {
    pub(super) fn connecting(
        pool: &Pool,
        ring: &RingHandle,
        address: SocketAddr,
        timeout: Duration,
    ) -> io::Result<Self> {
        let phase = Phase::Connecting { connect: Connect::Waiting, timeout, deadline: None };
        let window = Window::new(pool).ok_or_else(|| io::Error::from_raw_os_error(ENOBUFS))?;
        let mut stream = Self::new(window, ring, Socket::unconnected(address)?, phase);
        stream.peer = Some(address);
        stream.start_connect();
        Ok(stream)
    }

    pub(super) fn accepted(window: Window, ring: &RingHandle, socket: Socket) -> Self {
        // An error means that the peer is gone again: the first receive says so in order.
        let peer = socket.peer_addr().ok();
        let mut stream = Self::new(window, ring, socket, Phase::Open);
        stream.peer = peer;
        stream.on_established();
        stream
    }

    fn new(window: Window, ring: &RingHandle, socket: Socket, phase: Phase) -> Self {
        Self {
            client: ring.attach(),
            _registered: ring.register_socket(&socket),
            socket,
            phase,
            receive: Receive::Idle,
            window,
            queue: Queue::new(),
            local: None,
            peer: None,
        }
    }

    fn start_connect(&mut self) {
        let (Phase::Connecting { connect, .. }, Some(address)) = (&mut self.phase, self.peer) else { return };
        let operation = Operation::Connect { socket: self.socket.clone(), address };
        if *connect == Connect::Waiting && self.client.submit(CONNECT, operation).is_ok() {
            *connect = Connect::InFlight;
        }
    }

    fn on_established(&mut self) {
        self.phase = Phase::Open;
        self.local = self.socket.local_addr().ok();
        // Latency alone would suffer, and a dead connection shows in the first receive.
        let _ = self.socket.set_no_delay();
    }

    fn check_deadline(&mut self, now: Instant) {
        let Phase::Connecting { timeout, deadline, .. } = &mut self.phase else { return };
        if now >= *deadline.get_or_insert(now + *timeout) {
            self.finish(CloseReason::TimedOut);
        }
    }

    fn start_receive(&mut self) {
        if self.receive == Receive::InFlight {
            return;
        }
        let Some(into) = self.window.take_spare() else { return };
        let operation = Operation::Receive { socket: self.socket.clone(), into };
        match self.client.submit(RECEIVE, operation) {
            Ok(()) => self.receive = Receive::InFlight,
            Err(Operation::Receive { into, .. }) => self.window.put(into, 0),
            Err(_) => unreachable!("a ring gives back what it was given"),
        }
    }

    fn start_send(&mut self) {
        let Some(operation) = self.queue.start(&self.socket) else { return };
        match self.client.submit(SEND, operation) {
            Ok(()) => {}
            Err(Operation::Send { segments, skip, .. }) => self.queue.finish(segments, skip, 0),
            Err(_) => unreachable!("a ring gives back what it was given"),
        }
    }

    fn land(&mut self, completion: Completion) {
        match completion.operation {
            Operation::Connect { .. } => self.land_connect(completion.result),
            Operation::Receive { into, .. } => {
                self.receive = Receive::Idle;
                let count = completion.result.as_ref().map_or(0, |count| *count as usize);
                self.window.put(into, count);
                match completion.result {
                    Ok(0) => self.finish(CloseReason::Peer),
                    Ok(_) => {}
                    Err(error) => self.on_error(&error),
                }
            }
            Operation::Send { segments, skip, .. } => {
                let sent = completion.result.as_ref().map_or(0, |count| *count as usize);
                self.queue.finish(segments, skip, sent);
                if let Err(error) = completion.result {
                    self.on_error(&error);
                }
                if matches!(self.phase, Phase::Closed(_)) {
                    self.queue.clear();
                }
            }
            other => unreachable!("a stream does not {other:?}"),
        }
    }

    fn land_connect(&mut self, result: io::Result<u32>) {
        match (result, &self.phase) {
            (_, Phase::Closed(_)) => {}
            (Ok(_), _) => self.on_established(),
            (Err(error), _) => self.finish(close_reason(&error)),
        }
    }

    fn on_error(&mut self, error: &io::Error) {
        // Interrupted: the reactor asks again at the end of this poll.
        if error.kind() != io::ErrorKind::Interrupted {
            self.finish(close_reason(error));
        }
    }

    fn finish(&mut self, reason: CloseReason) {
        if matches!(self.phase, Phase::Closed(_)) {
            return;
        }
        self.phase = Phase::Closed(reason);
        self.queue.clear();
        self.client.cancel(CONNECT);
        // What is in flight ends now and gives the socket free.
        self.socket.shutdown();
    }
}

/// An IPv4 host that came through an IPv6 socket is the same host: its address is told as one of IPv4.
fn plain(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        // It may have a scope.
        IpAddr::V6(_) => address,
    }
}

impl Stream for TcpStream {
    fn status(&self) -> StreamStatus {
        match &self.phase {
            Phase::Connecting { .. } => StreamStatus::Connecting,
            Phase::Open => StreamStatus::Open,
            Phase::Closed(reason) => StreamStatus::Closed(reason.clone()),
        }
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        self.local.map(plain)
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer.map(plain)
    }

    fn receive(&mut self, reader: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        let window = self.window.readable();
        if window.is_empty() {
            return 0;
        }
        let count = reader(window);
        self.window.consume(count);
        if matches!(self.phase, Phase::Open) {
            self.start_receive();
        }
        count
    }

    fn free_segments(&self) -> usize {
        self.queue.free()
    }

    fn push(&mut self, segment: Segment) {
        if !matches!(self.phase, Phase::Closed(_)) {
            self.queue.push(segment);
        }
    }

    fn is_sending(&self) -> bool {
        !self.queue.is_empty()
    }

    fn sent(&self) -> u64 {
        self.queue.sent()
    }

    fn poll(&mut self, now: Instant) -> Progress {
        let mut completions = 0;
        while let Some(completion) = self.client.take() {
            self.land(completion);
            completions += 1;
        }
        self.start_connect();
        self.check_deadline(now);
        if matches!(self.phase, Phase::Open) {
            self.start_receive();
            self.start_send();
        }
        Progress::from_count(completions)
    }

    fn close(&mut self) {
        self.finish(CloseReason::Local);
    }

    fn abort(&mut self) {
        // Where it cannot be had, an orderly end is the next best.
        let _ = self.socket.set_abortive();
        self.finish(CloseReason::Local);
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        self.finish(CloseReason::Local);
    }
}
