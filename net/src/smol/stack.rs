//! One interface with its sockets: what all streams and listeners of a link share.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use engine::packet::LinkState;
use engine::{Instant, Prng, Progress};
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketHandle};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, IpEndpoint, IpListenEndpoint};

use super::clock::Clock;
use super::config::{IpNet, LinkConfig};
use super::device::{FrameDevice, Phy};
use super::offload::Tap;
use super::path::{PathCheck, Paths};
use super::socket::{Sockets, Touched};
use super::status::{LinkCounters, LinkNews, LinkStatus, Meter};
use super::watch::{Seen, Watch};

/// Frames taken in one turn at the most.
const FRAMES_PER_TURN: usize = 256;
/// Rounds over all sockets in one turn at the most.
const ROUNDS_PER_TURN: usize = 64;
/// How long others may be kept waiting for the sake of a host that does not answer.
const LULL: Duration = Duration::from_millis(5);
/// Whoever was not polled for so long has no connections any more, and smoltcp's estimate of round trips does not take it.
const STANDSTILL: Duration = Duration::from_secs(60);
/// Ports for connections that begin here (RFC 6335, section 6).
const PORTS: core::ops::RangeInclusive<u16> = 49_152..=65_535;

pub(super) const ENETDOWN: i32 = 100;
const ENETUNREACH: i32 = 101;
const EADDRNOTAVAIL: i32 = 99;
const EADDRINUSE: i32 = 98;
const ENOBUFS: i32 = 105;
const EINVAL: i32 = 22;

/// What the configuration says, over this device as it is now: what the device does is asked once.
fn interface_over(
    phy: &mut Phy,
    config: &LinkConfig,
    random_seed: u64,
    now: smoltcp::time::Instant,
) -> Interface {
    let address = EthernetAddress(phy.device.properties().address);
    let mut settings = Config::new(HardwareAddress::Ethernet(address));
    settings.random_seed = random_seed;
    let mut interface = Interface::new(settings, phy, now);
    interface.update_ip_addrs(|addresses| {
        for net in &config.addresses {
            // The configuration was checked: they fit.
            let _ = addresses.push(IpCidr::new(net.address.into(), net.prefix));
        }
    });
    for gateway in &config.gateways {
        // There is at most one of each family, and room for both.
        let _ = match gateway {
            IpAddr::V4(v4) => interface.routes_mut().add_default_ipv4_route(*v4).map(drop),
            IpAddr::V6(v6) => interface.routes_mut().add_default_ipv6_route(*v6).map(drop),
        };
    }
    interface
}

/// See the module.
pub(super) struct Stack {
    config: LinkConfig,
    clock: Clock,
    phy: Phy,
    interface: Interface,
    pub(super) sockets: Sockets,
    paths: Paths,
    prng: Prng,
    /// Ports that are listened on, with their address.
    listening: Vec<SocketAddr>,
    /// Streams in use.
    streams: usize,
    pub(super) watch: Watch,
    meter: Meter,
    /// No socket has anything to send before, unless one is touched or a frame comes in.
    pub(super) quiet_until: Instant,
    now: Instant,
    pub(super) counters: LinkCounters,
}

impl Stack {
    pub(super) fn new(config: &LinkConfig, device: Box<dyn FrameDevice>, now: Instant) -> Self {
        let clock = Clock::new(config.min_rto);
        let mtu = config.mtu.min(device.properties().mtu);
        let mut prng = Prng::from_seed(config.seed);
        let mut phy = Phy::new(device, mtu);
        let interface = interface_over(&mut phy, config, prng.next_u64(), clock.instant(now));
        let mut sockets = Sockets::new(config, clock);
        let ident = prng.below(1 << 16) as u16;
        let paths = Paths::new(&mut sockets.set, mtu, ident);
        let config = LinkConfig { mtu, ..config.clone() };
        let watch = Watch::new(&config, phy.device.state(), now);
        Self {
            config,
            clock,
            phy,
            interface,
            sockets,
            paths,
            prng,
            listening: Vec::new(),
            streams: 0,
            watch,
            meter: Meter::new(now),
            quiet_until: now,
            now,
            counters: LinkCounters::default(),
        }
    }

    // --- Turns ---

    pub(super) fn receive(&mut self, now: Instant) -> Progress {
        if now.saturating_since(self.now) > STANDSTILL {
            self.sockets.abort_all();
        }
        self.now = now;
        self.phy.ledger.set_now(now);
        self.look(now);
        let at = self.clock.instant(now);
        let mut taken = 0;
        while taken < FRAMES_PER_TURN {
            match self.interface.poll_ingress_single(at, &mut self.phy, &mut self.sockets.set) {
                PollIngressSingleResult::None => break,
                _ => taken += 1,
            }
        }
        if taken > 0 || self.paths.is_asking() {
            self.sockets.touch();
        }
        self.sockets.tidy(now);
        if let Some((host, check)) = self.paths.poll(&mut self.sockets.set, now) {
            self.on_path(host, check);
        }
        Progress::from_count(taken)
    }

    /// Where no frame can leave, none is made, and those that were wait until one can.
    pub(super) fn transmit(&mut self, now: Instant) -> Progress {
        self.now = now;
        if !self.watch.is_up() {
            return Progress::Idle;
        }
        self.phy.ledger.set_now(now);
        let touched = self.sockets.take_touched() == Touched::Yes;
        let rounds = if touched || now >= self.quiet_until { self.send(now) } else { 0 };
        self.phy.device.flush();
        Progress::from_count(rounds)
    }

    /// Sends what sockets have to send. When there was nothing, it is known until when that is so: the kernel is not kept waiting for that.
    fn send(&mut self, now: Instant) -> usize {
        let at = self.clock.instant(now);
        for rounds in 0..ROUNDS_PER_TURN {
            match self.interface.poll_egress(at, &mut self.phy, &mut self.sockets.set) {
                PollResult::SocketStateChanged => {}
                PollResult::None if rounds == 0 => {
                    self.quiet_until = self.sockets_due().unwrap_or(Instant::FAR_FUTURE);
                    return 0;
                }
                PollResult::None => return self.ask_again(rounds),
            }
        }
        self.ask_again(ROUNDS_PER_TURN)
    }

    fn ask_again(&mut self, rounds: usize) -> usize {
        self.quiet_until = Instant::EPOCH;
        rounds
    }

    /// When a socket has something to send, as things are.
    fn sockets_due(&mut self) -> Option<Instant> {
        let at = self.clock.instant(self.now);
        self.interface.poll_at(at, &self.sockets.set).map(|at| self.clock.world(at))
    }

    pub(super) fn next_deadline(&mut self) -> Option<Instant> {
        let sending = match self.watch.state() {
            LinkState::Up if self.phy.device.is_pending() => Some(self.now),
            LinkState::Up => self.sockets_due().map(|due| due.max(self.lull())),
            LinkState::NoCarrier | LinkState::Down | LinkState::Gone => None,
        };
        let own = Instant::earliest(self.sockets.next_deadline(), self.paths.next_deadline());
        Instant::earliest(Instant::earliest(sending, own), Some(self.watch.next_look()))
    }

    /// The stack wants to ask a host that does not answer again and again: until then it need not be woken.
    fn lull(&self) -> Instant {
        let next = self.phy.neighbours.next(self.now);
        next.map_or(Instant::EPOCH, |next| next.min(self.now + LULL))
    }

    pub(super) fn prepare_sleep(&mut self) {
        self.phy.device.prepare_sleep();
    }

    /// Looks whether the interface carries frames; when it stops, connections end at once.
    fn look(&mut self, now: Instant) {
        if !self.watch.is_due(&mut *self.phy.device, now) {
            return;
        }
        // Whatever was missed before is asked for now.
        self.sockets.touch();
        self.meter.note(&mut *self.phy.device, now);
        if self.sockets.free() > 0 {
            self.watch.roomy();
        }
        let (state, mtu) = (self.phy.device.state(), self.phy.device.mtu());
        if self.watch.look(state, mtu) == Seen::Lost {
            self.counters.carrier_losses += 1;
            self.sockets.abort_all();
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.watch.state() == LinkState::Gone
    }

    /// The interface is there again: goes on with its device.
    pub(super) fn replace(&mut self, device: Box<dyn FrameDevice>) {
        self.phy.replace(device);
        let at = self.clock.instant(self.now);
        self.interface = interface_over(&mut self.phy, &self.config, self.prng.next_u64(), at);
        self.meter = Meter::new(self.now);
        self.watch.replaced(self.now);
    }

    pub(super) fn set_tap(&self, tap: Tap) {
        self.phy.ledger.set_tap(tap);
    }

    fn on_path(&mut self, host: IpAddr, check: PathCheck) {
        match check {
            PathCheck::Asking | PathCheck::Whole => {}
            PathCheck::TooNarrow | PathCheck::Silent => {
                self.watch.tell(LinkNews::Path { host, check, mtu: self.config.mtu });
            }
        }
    }

    // --- Addresses ---

    pub(super) fn has_address(&self, address: IpAddr) -> bool {
        self.config.addresses.iter().any(|net| net.address == address)
    }

    pub(super) fn is_near(&self, address: IpAddr) -> bool {
        self.source_for(address).is_some_and(|net| net.contains(address))
    }

    /// The address that packets to `address` leave from; any of its family where a gateway leads there.
    fn source_for(&self, address: IpAddr) -> Option<IpNet> {
        let mine = &self.config.addresses;
        let routed = || {
            let gateway =
                self.config.gateways.iter().find(|gateway| gateway.is_ipv4() == address.is_ipv4())?;
            mine.iter().find(|net| net.contains(*gateway))
        };
        mine.iter().find(|net| net.contains(address)).or_else(routed).copied()
    }

    fn free_port(&mut self, taken: impl Fn(&Self, u16) -> bool) -> Option<u16> {
        let (first, count) = (*PORTS.start(), PORTS.end() - PORTS.start());
        let mut port = || first + self.prng.below(u64::from(count) + 1) as u16;
        let candidates: [u16; 64] = core::array::from_fn(|_| port());
        candidates.into_iter().find(|port| !taken(self, *port))
    }

    fn is_port_used(&self, port: u16) -> bool {
        let listened = self.listening.iter().any(|address| address.port() == port);
        let connected = self.sockets.set.iter().any(|(_, socket)| match socket {
            smoltcp::socket::Socket::Tcp(socket) => {
                socket.local_endpoint().is_some_and(|end| end.port == port)
            }
            smoltcp::socket::Socket::Icmp(_) => false,
        });
        listened || connected
    }

    // --- Connections ---

    fn take_socket(&mut self) -> Option<SocketHandle> {
        let taken = self.sockets.take();
        if taken.is_none() {
            self.watch.crowded(self.config.sockets);
        }
        taken
    }

    /// Begins a connection.
    pub(super) fn connect(&mut self, to: SocketAddr) -> Result<(SocketHandle, SocketAddr), i32> {
        if !self.watch.is_up() {
            return Err(ENETDOWN);
        }
        let source = self.source_for(to.ip()).ok_or(ENETUNREACH)?;
        let port = self.free_port(Self::is_port_used).ok_or(EADDRNOTAVAIL)?;
        let local = SocketAddr::new(source.address, port);
        let handle = self.take_socket().ok_or(ENOBUFS)?;
        let (remote, near) = (IpEndpoint::from(to), IpEndpoint::from(local));
        let socket = self.sockets.get_mut(handle);
        if socket.connect(self.interface.context(), remote, near).is_err() {
            self.sockets.give_back(handle, self.now);
            return Err(EINVAL);
        }
        self.counters.connects += 1;
        self.streams += 1;
        Ok((handle, local))
    }

    /// A connection came about: from here on it is a stream's.
    pub(super) fn on_accepted(&mut self) {
        self.counters.accepted += 1;
        self.streams += 1;
    }

    /// Asks whether the path to a host is whole.
    pub(super) fn on_established(&mut self, host: IpAddr) {
        self.paths.ask(host);
    }

    /// A stream is over.
    pub(super) fn release(&mut self, handle: SocketHandle) {
        self.streams -= 1;
        self.sockets.give_back(handle, self.now);
    }

    /// Reserves an address to listen on; a port that is 0 is chosen.
    pub(super) fn reserve(&mut self, address: SocketAddr) -> Result<SocketAddr, i32> {
        if !self.has_address(address.ip()) {
            return Err(EADDRNOTAVAIL);
        }
        let port = match address.port() {
            0 => self.free_port(Self::is_port_used).ok_or(EADDRINUSE)?,
            port => port,
        };
        let address = SocketAddr::new(address.ip(), port);
        if self.listening.contains(&address) {
            return Err(EADDRINUSE);
        }
        self.listening.push(address);
        Ok(address)
    }

    /// A socket that listens; `None` when all are in use.
    pub(super) fn listening(&mut self, address: SocketAddr) -> Option<SocketHandle> {
        let handle = self.take_socket()?;
        let endpoint = IpListenEndpoint { addr: Some(address.ip().into()), port: address.port() };
        match self.sockets.get_mut(handle).listen(endpoint) {
            Ok(()) => Some(handle),
            Err(_) => {
                self.sockets.give_back(handle, self.now);
                None
            }
        }
    }

    /// Listens no more.
    pub(super) fn unlisten(&mut self, address: SocketAddr, waiting: &[SocketHandle]) {
        self.listening.retain(|other| *other != address);
        for handle in waiting {
            self.sockets.get_mut(*handle).abort();
            self.sockets.give_back(*handle, self.now);
        }
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        self.config.connect_timeout
    }

    pub(super) fn is_up(&self) -> bool {
        self.watch.is_up()
    }

    pub(super) fn users(&self) -> usize {
        self.listening.len() + self.streams
    }

    pub(super) fn status(&mut self) -> LinkStatus {
        let (segments, retransmissions) = self.phy.ledger.segments();
        let counters = LinkCounters {
            frames: self.phy.device.stats(),
            segments,
            retransmissions,
            corrupt: self.phy.ledger.corrupt(),
            unsent: self.phy.ledger.unsent(),
            ..self.counters
        };
        LinkStatus {
            state: self.watch.state(),
            why: self.watch.why().cloned(),
            rates: self.meter.rates(),
            device: self.phy.device.properties().clone(),
            mtu: self.config.mtu,
            addresses: self.config.addresses.clone(),
            sockets: (self.config.sockets, self.config.sockets - self.sockets.free()),
            counters,
            round_trips: self.phy.ledger.round_trips(),
            paths: self.paths.known().collect(),
        }
    }
}
