//! Whether the longest packets reach a host: it is asked for echoes (RFC 792; RFC 4443, section 4), a short one and the
//! longest that the link sends. A path that carries the one and not the other would carry handshakes and no data.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::VecDeque;

use engine::Instant;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::icmp::{Endpoint, PacketBuffer, PacketMetadata, Socket};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress};

/// What the echoes said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathCheck {
    /// Not yet known.
    Asking,
    /// The longest packets reach it.
    Whole,
    /// Short packets reach it, the longest do not.
    TooNarrow,
    /// It answers no echo.
    Silent,
}

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(100);
/// How often each is asked for.
const TRIES: u16 = 5;
/// Hosts that are remembered.
const HOSTS_MAX: usize = 16;
/// Payload of the short question.
const SHORT: usize = 56;

/// Answers so far, of one host.
#[derive(Clone, Copy, Debug)]
struct Question {
    host: IpAddr,
    tries: u16,
    due: Instant,
    short_came: bool,
    long_came: bool,
}

/// See the module.
pub(super) struct Paths {
    handle: SocketHandle,
    ident: u16,
    /// The longest packet.
    mtu: usize,
    known: VecDeque<(IpAddr, PathCheck)>,
    asking: Option<Question>,
    payload: Vec<u8>,
}

impl Paths {
    pub(super) fn new(set: &mut SocketSet<'static>, mtu: u32, ident: u16) -> Self {
        let mtu = mtu as usize;
        let buffer = || PacketBuffer::new(vec![PacketMetadata::EMPTY; 4], vec![0; 4 * mtu]);
        let mut socket = Socket::new(buffer(), buffer());
        // A new socket is bound to nothing.
        let _ = socket.bind(Endpoint::Ident(ident));
        let handle = set.add(socket);
        Self { handle, ident, mtu, known: VecDeque::new(), asking: None, payload: vec![0; mtu] }
    }

    pub(super) fn known(&self) -> impl Iterator<Item = (IpAddr, PathCheck)> + '_ {
        self.known.iter().copied()
    }

    /// A connection with the host came about: is the path to it whole?
    pub(super) fn ask(&mut self, host: IpAddr) {
        match self.known.iter_mut().find(|(known, _)| *known == host) {
            // Whoever came back may have come back by another way.
            Some((_, check)) => *check = PathCheck::Asking,
            None => {
                if self.known.len() == HOSTS_MAX {
                    self.known.pop_front();
                }
                self.known.push_back((host, PathCheck::Asking));
            }
        }
    }

    /// Takes answers and asks again. Returns what has become known.
    pub(super) fn poll(&mut self, set: &mut SocketSet<'static>, now: Instant) -> Option<(IpAddr, PathCheck)> {
        let socket: &mut Socket<'static> = set.get_mut(self.handle);
        while let Ok((bytes, from)) = socket.recv() {
            self.note(bytes, from);
        }
        let begin = || self.known.iter().find(|(_, check)| *check == PathCheck::Asking);
        let asking = self.asking.or_else(|| {
            let (host, _) = begin()?;
            Some(Question { host: *host, tries: 0, due: now, short_came: false, long_came: false })
        });
        let mut question = asking?;
        let verdict = match (question.long_came, now >= question.due && question.tries == TRIES) {
            (true, _) => Some(PathCheck::Whole),
            (false, true) if question.short_came => Some(PathCheck::TooNarrow),
            (false, true) => Some(PathCheck::Silent),
            (false, false) => None,
        };
        if let Some(verdict) = verdict {
            self.asking = None;
            let (_, check) = self.known.iter_mut().find(|(host, _)| *host == question.host)?;
            *check = verdict;
            return Some((question.host, verdict));
        }
        if now >= question.due {
            question.tries += 1;
            question.due = now + PATIENCE;
            let sequence = question.tries * 2;
            let header = if question.host.is_ipv4() { 20 + 8 } else { 40 + 8 };
            self.send(socket, question.host, sequence, SHORT);
            self.send(socket, question.host, sequence + 1, self.mtu - header);
        }
        self.asking = Some(question);
        None
    }

    /// True while a host is being asked, or is about to be.
    pub(super) fn is_asking(&self) -> bool {
        self.next_deadline().is_some()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let waits = self.known.iter().any(|(_, check)| *check == PathCheck::Asking);
        self.asking.map(|question| question.due).or(waits.then_some(Instant::EPOCH))
    }

    fn send(&self, socket: &mut Socket<'static>, host: IpAddr, sequence: u16, len: usize) {
        let (ident, seq_no, data) = (self.ident, sequence, &self.payload[..len]);
        let sums = ChecksumCapabilities::default();
        // A queue that is full means that nothing leaves now: the next try is as good.
        match host {
            IpAddr::V4(_) => {
                let echo = Icmpv4Repr::EchoRequest { ident, seq_no, data };
                if let Ok(bytes) = socket.send(echo.buffer_len(), host.into()) {
                    echo.emit(&mut Icmpv4Packet::new_unchecked(bytes), &sums);
                }
            }
            IpAddr::V6(v6) => {
                let echo = Icmpv6Repr::EchoRequest { ident, seq_no, data };
                if let Ok(bytes) = socket.send(echo.buffer_len(), host.into()) {
                    // The stack fills the checksum in: it knows which address this leaves from.
                    echo.emit(&v6, &v6, &mut Icmpv6Packet::new_unchecked(bytes), &sums);
                }
            }
        }
    }

    fn note(&mut self, bytes: &[u8], from: IpAddress) {
        let (Some(question), from) = (&mut self.asking, IpAddr::from(from)) else { return };
        let seq_no = match from {
            IpAddr::V4(_) => {
                let Ok(packet) = Icmpv4Packet::new_checked(bytes) else { return };
                match Icmpv4Repr::parse(&packet, &ChecksumCapabilities::default()) {
                    Ok(Icmpv4Repr::EchoReply { ident, seq_no, .. }) if ident == self.ident => seq_no,
                    _ => return,
                }
            }
            IpAddr::V6(v6) => {
                let Ok(packet) = Icmpv6Packet::new_checked(bytes) else { return };
                // The stack has verified the checksum.
                match Icmpv6Repr::parse(&v6, &v6, &packet, &ChecksumCapabilities::ignored()) {
                    Ok(Icmpv6Repr::EchoReply { ident, seq_no, .. }) if ident == self.ident => seq_no,
                    _ => return,
                }
            }
        };
        if from == question.host && (2..=2 * TRIES + 1).contains(&seq_no) {
            question.short_came |= seq_no % 2 == 0;
            question.long_came |= seq_no % 2 == 1;
        }
    }
}
