//! Everything that the simulated hosts share: connections, listeners, faults, time.

use core::cell::Cell;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;

use engine::{Instant, Prng, Progress, Segment};

use super::connection::{Connection, End, EndId, Owner, Parcel, Pipe, Travelling};
use super::{Halt, Pace, SimConfig};
use crate::stream::{CloseReason, StreamStatus};

/// How long until a parcel that found its way cut tries again.
const RETRANSMISSION: Duration = Duration::from_millis(5);
/// The first port that is chosen where none is asked for.
const FIRST_PORT: u16 = 49152;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HostState {
    Up,
    Frozen,
    Off,
}

#[derive(Debug)]
struct Host {
    state: HostState,
    next_port: u16,
}

pub(super) struct World {
    config: SimConfig,
    prng: Prng,
    now: Instant,
    hosts: BTreeMap<IpAddr, Host>,
    cuts: BTreeSet<(IpAddr, IpAddr)>,
    resets: BTreeMap<(IpAddr, IpAddr), u64>,
    corruptions: BTreeSet<(IpAddr, IpAddr)>,
    slow: BTreeMap<(IpAddr, IpAddr), Duration>,
    woken: BTreeSet<IpAddr>,
    listeners: BTreeMap<SocketAddr, VecDeque<EndId>>,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    first: Cell<First>,
}

/// What is due first of all that travels.
#[derive(Clone, Copy, Debug)]
enum First {
    /// It may have changed since it was last looked for.
    Unknown,
    Known(Option<(Instant, EndId)>),
}

impl World {
    pub(super) fn new(config: SimConfig) -> Self {
        assert!(config.piece_max > 0 && config.window > 0, "a link carries at least one byte");
        Self {
            config,
            prng: Prng::from_seed(config.seed),
            now: Instant::EPOCH,
            hosts: BTreeMap::new(),
            cuts: BTreeSet::new(),
            resets: BTreeMap::new(),
            corruptions: BTreeSet::new(),
            slow: BTreeMap::new(),
            woken: BTreeSet::new(),
            listeners: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_connection: 0,
            first: Cell::new(First::Unknown),
        }
    }

    // Faults.

    pub(super) fn cut(&mut self, from: IpAddr, to: IpAddr) {
        self.cuts.insert((from, to));
    }

    pub(super) fn mend(&mut self, from: IpAddr, to: IpAddr) {
        self.cuts.remove(&(from, to));
        self.settle();
    }

    pub(super) fn freeze(&mut self, ip: IpAddr) {
        self.host(ip).state = HostState::Frozen;
    }

    pub(super) fn thaw(&mut self, ip: IpAddr) {
        self.host(ip).state = HostState::Up;
        self.settle();
    }

    pub(super) fn power_on(&mut self, ip: IpAddr) {
        self.thaw(ip);
    }

    pub(super) fn reset_after(&mut self, from: IpAddr, to: IpAddr, bytes: u64) {
        self.resets.insert((from, to), bytes);
    }

    pub(super) fn reset_between(&mut self, a: IpAddr, b: IpAddr) {
        self.first.set(First::Unknown);
        for connection in self.connections.values_mut() {
            let ends = connection.ends.each_ref().map(|end| end.address.ip());
            if ends == [a, b] || ends == [b, a] {
                reset(connection);
            }
        }
        self.woken.extend([a, b]);
    }

    pub(super) fn vanish(&mut self, from: IpAddr, to: IpAddr) {
        self.first.set(First::Unknown);
        for connection in self.connections.values_mut() {
            for side in 0..2 {
                let ways = [connection.ends[side].address.ip(), connection.ends[1 - side].address.ip()];
                let closed = matches!(connection.ends[side].status, StreamStatus::Closed(_));
                if ways == [from, to] && closed {
                    connection.pipes[side].clear();
                }
            }
        }
        self.connections.retain(|_, connection| !connection.is_over());
    }

    pub(super) fn corrupt_next(&mut self, from: IpAddr, to: IpAddr) {
        self.corruptions.insert((from, to));
    }

    pub(super) fn slow_down(&mut self, from: IpAddr, to: IpAddr, extra: Duration) {
        self.slow.insert((from, to), extra);
    }

    pub(super) fn take_woken(&mut self) -> Vec<IpAddr> {
        core::mem::take(&mut self.woken).into_iter().collect()
    }

    pub(super) fn halt(&mut self, ip: IpAddr, how: Halt) {
        if how == Halt::PowerOff {
            self.host(ip).state = HostState::Off;
        }
        self.listeners.retain(|address, _| address.ip() != ip);
        for end in self.ends_of(ip) {
            self.abandon(end, how);
        }
    }

    fn ends_of(&self, ip: IpAddr) -> Vec<EndId> {
        let all = self.connections.keys().flat_map(|id| [0, 1].map(|side| EndId { connection: *id, side }));
        all.filter(|end| self.end(*end).address.ip() == ip && self.end(*end).owner == Owner::Present)
            .collect()
    }

    fn abandon(&mut self, id: EndId, how: Halt) {
        self.first.set(First::Unknown);
        let connection = self.connection(id);
        let end = &mut connection.ends[id.side];
        let was_closed = matches!(end.status, StreamStatus::Closed(_));
        end.close(CloseReason::Local);
        end.owner = Owner::Gone;
        match how {
            Halt::PowerOff => connection.pipes[id.side].clear(),
            Halt::Kill if was_closed => {}
            Halt::Kill => self.send(id, Parcel::Reset),
        }
        self.forget_if_over(id);
    }

    // Listening and connecting.

    pub(super) fn listen(&mut self, ip: IpAddr, address: SocketAddr) -> io::Result<SocketAddr> {
        if self.host(ip).state == HostState::Off {
            return Err(io::ErrorKind::NetworkDown.into());
        }
        if address.ip() != ip && !address.ip().is_unspecified() {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let port = if address.port() == 0 { self.choose_port(ip) } else { address.port() };
        let address = SocketAddr::new(ip, port);
        if self.listeners.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.listeners.insert(address, VecDeque::new());
        Ok(address)
    }

    pub(super) fn unlisten(&mut self, address: SocketAddr) {
        for end in self.listeners.remove(&address).unwrap_or_default() {
            self.abandon(end, Halt::Kill);
        }
    }

    pub(super) fn accept(&mut self, address: SocketAddr) -> Option<EndId> {
        self.listeners.get_mut(&address)?.pop_front()
    }

    pub(super) fn connect(&mut self, ip: IpAddr, to: SocketAddr) -> EndId {
        let from = SocketAddr::new(ip, self.choose_port(ip));
        self.next_connection += 1;
        let id = EndId { connection: self.next_connection, side: 0 };
        let mut ends = [End::new(from), End::new(to)];
        // Until it is accepted, nobody is at the far end.
        ends[1].owner = Owner::Gone;
        self.connections
            .insert(id.connection, Connection { ends, pipes: [Pipe::default(), Pipe::default()] });
        self.send(id, Parcel::Connect);
        id
    }

    fn host(&mut self, ip: IpAddr) -> &mut Host {
        self.hosts.entry(ip).or_insert(Host { state: HostState::Up, next_port: FIRST_PORT })
    }

    fn choose_port(&mut self, ip: IpAddr) -> u16 {
        let host = self.host(ip);
        let port = host.next_port;
        host.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
        port
    }

    // One stream's calls. A connection whose end is asked about exists: it is forgotten only when both owners are gone.

    pub(super) fn end(&self, id: EndId) -> &End {
        &self.connections[&id.connection].ends[id.side]
    }

    fn connection(&mut self, id: EndId) -> &mut Connection {
        self.connections.get_mut(&id.connection).expect("it lives as long as an end's owner")
    }

    pub(super) fn push(&mut self, id: EndId, segment: Segment) {
        let end = &mut self.connection(id).ends[id.side];
        if !matches!(end.status, StreamStatus::Closed(_)) && !segment.as_bytes().is_empty() {
            end.outbox.push_back(segment);
        }
    }

    /// Takes one arrived piece, or all: a reader must bear both.
    pub(super) fn take_arrived(&mut self, id: EndId, into: &mut Vec<u8>) -> Progress {
        let all = self.prng.percent(50);
        let inbox = &mut self.connection(id).ends[id.side].inbox;
        let count = if all { inbox.len() } else { inbox.len().min(1) };
        inbox.drain(..count).for_each(|piece| into.extend_from_slice(&piece));
        Progress::from_count(count)
    }

    /// The reader consumed bytes: the sender may send as many more, when it hears of it.
    pub(super) fn acknowledge(&mut self, id: EndId, count: usize) {
        self.connection(id).pipes[id.other().side].owed += count;
        self.settle_pipe(id.other());
    }

    pub(super) fn close(&mut self, id: EndId) {
        self.first.set(First::Unknown);
        let connection = self.connection(id);
        let end = &mut connection.ends[id.side];
        let before = end.status.clone();
        end.close(CloseReason::Local);
        match before {
            StreamStatus::Open => self.send(id, Parcel::Finished),
            StreamStatus::Connecting => connection.pipes[id.side].clear(),
            StreamStatus::Closed(_) => {}
        }
    }

    /// The owner dropped its stream.
    pub(super) fn release(&mut self, id: EndId) {
        if self.connections.contains_key(&id.connection) && self.end(id).owner == Owner::Present {
            self.close(id);
            self.connection(id).ends[id.side].owner = Owner::Gone;
            self.forget_if_over(id);
        }
    }

    pub(super) fn is_present(&self, id: EndId) -> bool {
        self.connections.get(&id.connection).is_some_and(|it| it.ends[id.side].owner == Owner::Present)
    }

    /// Sends what the window allows.
    pub(super) fn transmit(&mut self, id: EndId) -> Progress {
        let mut sent = 0;
        while let Some(bytes) = self.next_piece(id) {
            self.send(id, Parcel::Data(bytes));
            sent += 1;
        }
        Progress::from_count(sent)
    }

    fn next_piece(&mut self, id: EndId) -> Option<Vec<u8>> {
        let SimConfig { piece_max, window, .. } = self.config;
        let Connection { ends, pipes } = self.connections.get_mut(&id.connection)?;
        let room = window.saturating_sub(pipes[id.side].unacknowledged).min(piece_max);
        let end = &mut ends[id.side];
        if !end.is_open() || end.outbox.is_empty() || room == 0 {
            return None;
        }
        let count = if self.prng.percent(50) { room } else { 1 + self.prng.below(room as u64) as usize };
        let bytes = end.take_bytes(count);
        pipes[id.side].unacknowledged += bytes.len();
        Some(bytes)
    }

    // Travel.

    fn send(&mut self, from: EndId, parcel: Parcel) {
        let SimConfig { latency_min, latency_max, .. } = self.config;
        let spread = u64::try_from(latency_max.saturating_sub(latency_min).as_nanos()).unwrap_or(u64::MAX);
        let way = (self.end(from).address.ip(), self.end(from.other()).address.ip());
        let extra = self.slow.get(&way).copied().unwrap_or_default();
        let latency = latency_min + Duration::from_nanos(self.prng.below(spread.max(1))) + extra;
        let sent = self.now;
        let due = sent + latency;
        let pipe = &mut self.connection(from).pipes[from.side];
        // It cannot overtake: only the first parcel of a pipe is ever looked at.
        let is_head = pipe.parcels.is_empty();
        pipe.parcels.push_back(Travelling { parcel, sent, due });
        if let (true, First::Known(first)) = (is_head, self.first.get()) {
            let sooner = first.is_none_or(|first| order(&(due, from)) < order(&first));
            self.first.set(First::Known(if sooner { Some((due, from)) } else { first }));
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.first_due().map(|(due, _)| due)
    }

    fn first_due(&self) -> Option<(Instant, EndId)> {
        if let First::Known(first) = self.first.get() {
            return first;
        }
        let first = self.look_for_first();
        self.first.set(First::Known(first));
        first
    }

    fn look_for_first(&self) -> Option<(Instant, EndId)> {
        let pipes = self.connections.iter().flat_map(|(id, it)| {
            let end = |side| EndId { connection: *id, side };
            [(end(0), &it.pipes[0]), (end(1), &it.pipes[1])]
        });
        let heads = pipes.filter_map(|(id, pipe)| Some((pipe.parcels.front()?.due, id)));
        heads.min_by_key(order)
    }

    /// Somebody polls, and thinks that it is `now`.
    pub(super) fn on_poll(&mut self, now: Instant) {
        if self.config.pace == Pace::Polls {
            // What was delivered to others is their work.
            let _ = self.advance(now);
        }
    }

    /// Delivers everything that is due, in order of time.
    pub(super) fn advance(&mut self, now: Instant) -> Progress {
        let mut delivered = 0;
        while let Some((due, from)) = self.first_due().filter(|(due, _)| *due <= now) {
            self.now = self.now.max(due);
            self.first.set(First::Unknown);
            self.deliver(from, due);
            delivered += 1;
        }
        self.now = self.now.max(now);
        Progress::from_count(delivered)
    }

    fn is_way_open(&self, from: EndId) -> bool {
        let way = [self.end(from).address.ip(), self.end(from.other()).address.ip()];
        let is_up = |ip| self.hosts.get(ip).is_none_or(|host| host.state == HostState::Up);
        !self.cuts.contains(&(way[0], way[1])) && way.iter().all(is_up)
    }

    fn deliver(&mut self, from: EndId, due: Instant) {
        if !self.is_way_open(from) {
            self.hold_back(from, due);
            return;
        }
        let to = from.other();
        let host = self.end(to).address.ip();
        self.woken.insert(host);
        let connection = self.connection(from);
        let travelling = connection.pipes[from.side].parcels.pop_front().expect("it is due");
        let receiver = &mut connection.ends[to.side];
        match travelling.parcel {
            Parcel::Connect => self.deliver_connect(to),
            Parcel::Accepted if receiver.status == StreamStatus::Connecting => {
                receiver.status = StreamStatus::Open;
            }
            Parcel::Refused => receiver.close(CloseReason::Refused),
            Parcel::Reset => {
                receiver.close(CloseReason::Reset);
                connection.pipes[to.side].clear();
            }
            Parcel::Finished => receiver.close(CloseReason::Peer),
            Parcel::Data(bytes) if receiver.is_open() => self.deliver_data(from, bytes),
            // Nobody is there to take it.
            Parcel::Data(_) | Parcel::Accepted => self.send(to, Parcel::Reset),
        }
        self.forget_if_over(from);
    }

    fn deliver_connect(&mut self, to: EndId) {
        let address = self.end(to).address;
        let Some(backlog) = self.listeners.get_mut(&address) else {
            self.send(to, Parcel::Refused);
            return;
        };
        backlog.push_back(to);
        let end = &mut self.connection(to).ends[to.side];
        end.owner = Owner::Present;
        end.status = StreamStatus::Open;
        self.send(to, Parcel::Accepted);
    }

    fn deliver_data(&mut self, from: EndId, mut bytes: Vec<u8>) {
        let to = from.other();
        let way = (self.end(from).address.ip(), self.end(to).address.ip());
        let resets_here = match self.resets.get_mut(&way) {
            Some(left) if *left <= bytes.len() as u64 => {
                bytes.truncate(*left as usize);
                true
            }
            Some(left) => {
                *left -= bytes.len() as u64;
                false
            }
            None => false,
        };
        if !bytes.is_empty() && self.corruptions.remove(&way) {
            let at = self.prng.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << self.prng.below(8);
        }
        let connection = self.connection(from);
        if !bytes.is_empty() {
            connection.ends[to.side].inbox.push_back(bytes);
        }
        if resets_here {
            reset(connection);
            self.resets.remove(&way);
        }
    }

    fn hold_back(&mut self, from: EndId, due: Instant) {
        let give_up = self.config.give_up;
        let connection = self.connection(from);
        let head = connection.pipes[from.side].parcels.front_mut().expect("it is due");
        if due.saturating_since(head.sent) >= give_up {
            connection.ends[from.side].close(CloseReason::TimedOut);
            connection.pipes[from.side].clear();
            let host = self.end(from).address.ip();
            self.woken.insert(host);
            self.forget_if_over(from);
            return;
        }
        head.due = due + RETRANSMISSION;
    }

    /// Tells senders what was consumed, where the way back is open again.
    fn settle(&mut self) {
        let ends = self.connections.keys().flat_map(|id| [0, 1].map(|side| EndId { connection: *id, side }));
        for end in ends.collect::<Vec<_>>() {
            self.settle_pipe(end);
        }
    }

    fn settle_pipe(&mut self, sender: EndId) {
        if self.is_way_open(sender.other()) {
            let pipe = &mut self.connection(sender).pipes[sender.side];
            pipe.unacknowledged = pipe.unacknowledged.saturating_sub(core::mem::take(&mut pipe.owed));
            // The reader's turn is not the sender's: what is sent now counts as work of the next poll.
            let _ = self.transmit(sender);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.connections.is_empty() && self.listeners.is_empty()
    }

    fn forget_if_over(&mut self, id: EndId) {
        if self.connections.get(&id.connection).is_some_and(Connection::is_over) {
            self.connections.remove(&id.connection);
        }
    }
}

/// What is due at the same time arrives in the order of connections.
fn order((due, id): &(Instant, EndId)) -> (Instant, u64, usize) {
    (*due, id.connection, id.side)
}

/// Both ends lose the connection and what travels.
fn reset(connection: &mut Connection) {
    for end in &mut connection.ends {
        end.close(CloseReason::Reset);
    }
    for pipe in &mut connection.pipes {
        pipe.clear();
    }
}
