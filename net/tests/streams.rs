//! Every transport keeps the same contract: bytes arrive in order and once, both directions are bounded, an end is told.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use engine::{
    Clock, Core, Instant, MonotonicClock, Pool, Prng, RingConfig, RingHandle, RingMode, Segment, Waker,
};
use net::sim::{SimConfig, SimNet};
use net::smol::{IpNet, Link, LinkConfig, MemoryWire};
use net::tcp::{TcpConfig, TcpNetwork};
use net::{CloseReason, Listener, Network, Stream, StreamStatus};

const A: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

/// Two hosts and the time between them.
trait World {
    fn client(&self) -> Box<dyn Network>;
    fn server(&self) -> Box<dyn Network>;
    fn server_ip(&self) -> IpAddr;
    fn turn(&mut self) -> Instant;
}

struct TcpWorld {
    core: Core,
    clock: MonotonicClock,
}

impl TcpWorld {
    fn new(mode: RingMode) -> Self {
        let pool = Pool::for_tests();
        let config = RingConfig { mode, ..RingConfig::default() };
        let ring = RingHandle::new(config, &pool, Waker::new().expect("eventfd")).expect("io_uring");
        Self { core: Core::new(0, pool, ring), clock: MonotonicClock::start() }
    }
}

impl World for TcpWorld {
    fn client(&self) -> Box<dyn Network> {
        Box::new(TcpNetwork::new(&self.core, TcpConfig::default()))
    }

    fn server(&self) -> Box<dyn Network> {
        self.client()
    }

    fn server_ip(&self) -> IpAddr {
        Ipv4Addr::LOCALHOST.into()
    }

    fn turn(&mut self) -> Instant {
        self.core.ring().expect("a ring").turn().expect("turn");
        self.clock.now()
    }
}

struct SimWorld {
    net: SimNet,
    now: Instant,
}

impl SimWorld {
    fn new(seed: u64) -> Self {
        Self { net: SimNet::new(SimConfig { seed, ..SimConfig::default() }), now: Instant::EPOCH }
    }
}

impl World for SimWorld {
    fn client(&self) -> Box<dyn Network> {
        Box::new(self.net.host(A))
    }

    fn server(&self) -> Box<dyn Network> {
        Box::new(self.net.host(B))
    }

    fn server_ip(&self) -> IpAddr {
        B
    }

    fn turn(&mut self) -> Instant {
        self.now += Duration::from_micros(10);
        self.now
    }
}

/// Two smoltcp links over a wire in memory. Their halves of a turn lie between those of their users.
struct SmolWorld {
    wire: MemoryWire,
    links: [Link; 2],
    now: Instant,
}

impl SmolWorld {
    fn new(seed: u64) -> Self {
        let wire = MemoryWire::new(Duration::from_micros(20), seed);
        let now = Instant::from_nanos(1_000_000_000);
        let link = |end: usize, address| {
            let addresses = vec![IpNet { address, prefix: 24 }];
            let config = LinkConfig { addresses, ..LinkConfig::new("test", seed + end as u64) };
            Link::over(&config, Box::new(wire.end(end)), now).expect("a link")
        };
        let links = [link(0, A), link(1, B)];
        Self { wire, links, now }
    }
}

impl World for SmolWorld {
    fn client(&self) -> Box<dyn Network> {
        Box::new(self.links[0].network())
    }

    fn server(&self) -> Box<dyn Network> {
        Box::new(self.links[1].network())
    }

    fn server_ip(&self) -> IpAddr {
        B
    }

    fn turn(&mut self) -> Instant {
        let _ = self.links.each_mut().map(|link| link.transmit(self.now));
        self.now += Duration::from_micros(10);
        self.wire.advance(self.now);
        let _ = self.links.each_mut().map(|link| link.receive(self.now));
        self.now
    }
}

/// Turns until `done`; fails after ten seconds of the world's time.
fn until(world: &mut dyn World, mut done: impl FnMut(Instant) -> bool) {
    let limit = world.turn() + Duration::from_secs(10);
    loop {
        let now = world.turn();
        if done(now) {
            return;
        }
        assert!(now < limit, "nothing came of it in ten seconds");
    }
}

type Pair = (Box<dyn Stream>, Box<dyn Stream>, Box<dyn Listener>);

fn pair(world: &mut dyn World) -> Pair {
    let mut listener = world.server().listen(SocketAddr::new(world.server_ip(), 0)).expect("listen");
    let mut a = world.client().connect(listener.local_addr());
    let mut b = None;
    until(world, |now| {
        let _ = a.poll(now);
        b = b.take().or_else(|| listener.accept(now));
        b.is_some() && a.status() == StreamStatus::Open
    });
    (a, b.expect("accepted"), listener)
}

fn wait_closed(world: &mut dyn World, stream: &mut dyn Stream) -> CloseReason {
    let mut found = None;
    until(world, |now| {
        let _ = stream.poll(now);
        if let StreamStatus::Closed(reason) = stream.status() {
            found = Some(reason);
        }
        found.is_some()
    });
    found.expect("closed")
}

fn pattern(index: usize) -> u8 {
    (index.wrapping_mul(2_654_435_761) >> 7) as u8
}

fn segment(pool: &Pool, start: usize, len: usize) -> Option<Segment> {
    let mut buf = pool.alloc(len)?;
    buf.iter_mut().enumerate().for_each(|(index, byte)| *byte = pattern(start + index));
    Some(if len <= Segment::INLINE_MAX { Segment::inline(&buf) } else { Segment::Frame(buf.freeze()) })
}

/// Moves `total` patterned bytes from `a` to `b`, in segments and gulps of random sizes.
fn transfer(world: &mut dyn World, a: &mut dyn Stream, b: &mut dyn Stream, total: usize) {
    let pool = Pool::for_tests();
    let mut prng = Prng::from_seed(total as u64);
    let (mut pushed, mut read) = (0, 0);
    until(world, |now| {
        while pushed < total && a.free_segments() > 0 {
            let most = if prng.percent(50) { 64 } else { 20_000 };
            let len = (1 + prng.below(most) as usize).min(total - pushed);
            let Some(segment) = segment(&pool, pushed, len) else { break };
            a.push(segment);
            pushed += len;
        }
        let _ = a.poll(now);
        let _ = b.poll(now);
        let most = 1 + prng.below(40_000) as usize;
        if prng.percent(80) {
            read += b.receive(&mut |window| {
                let gulp = window.len().min(most);
                for (index, byte) in window[..gulp].iter().enumerate() {
                    assert_eq!(*byte, pattern(read + index), "byte {}", read + index);
                }
                gulp
            });
        }
        read == total
    });
    assert!(!a.is_sending() && b.readable() == 0);
}

fn keeps_the_contract(world: &mut dyn World) {
    let (mut a, mut b, mut listener) = pair(world);
    assert_eq!(a.peer_addr(), b.local_addr());
    assert_eq!(b.peer_addr(), a.local_addr());
    assert_eq!(Some(listener.local_addr()), b.local_addr());
    transfer(world, &mut *a, &mut *b, 3_000_000);
    transfer(world, &mut *b, &mut *a, 300_000);
    // The last words of a peer that closes are heard.
    a.push(Segment::inline(b"goodbye"));
    until(world, |now| {
        let _ = a.poll(now);
        !a.is_sending()
    });
    a.close();
    assert_eq!(a.status(), StreamStatus::Closed(CloseReason::Local));
    assert_eq!(wait_closed(world, &mut *b), CloseReason::Peer);
    let mut heard = Vec::new();
    until(world, |now| {
        let _ = b.poll(now);
        b.receive(&mut |window| {
            heard.extend_from_slice(window);
            window.len()
        });
        heard.len() == 7
    });
    assert_eq!(heard, b"goodbye");
    b.push(Segment::inline(b"dropped"));
    assert!(!b.is_sending());
    // A dropped stream is closed; a dropped listener refuses.
    let address = listener.local_addr();
    let mut c = world.client().connect(address);
    until(world, |now| {
        let _ = c.poll(now);
        listener.accept(now).is_some()
    });
    let reason = wait_closed(world, &mut *c);
    assert!([CloseReason::Peer, CloseReason::Reset].contains(&reason), "{reason}");
    let error = world.server().listen(address).err().expect("in use");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    drop(listener);
    world.turn();
    world.turn();
    let mut d = world.client().connect(address);
    assert_eq!(wait_closed(world, &mut *d), CloseReason::Refused);
}

/// A reader that does not read stops the sender: neither end grows without bound.
fn pushes_back(world: &mut dyn World) {
    let (mut a, mut b, _listener) = pair(world);
    let pool = Pool::for_tests();
    let frame = pool.alloc_zeroed(64 << 10).expect("a frame").freeze();
    let mut pushed = 0_u64;
    let mut quiet = 0;
    until(world, |now| {
        quiet += 1;
        while a.free_segments() > 0 {
            a.push(Segment::Frame(frame.clone()));
            pushed += frame.len() as u64;
            quiet = 0;
        }
        let _ = a.poll(now);
        let _ = b.poll(now);
        quiet > 5_000
    });
    let held = b.readable();
    assert!(held <= 1 << 20, "the reader holds {held} bytes");
    assert!(pushed < 64 << 20, "the sender took {pushed} bytes");
    // All of it arrives once the reader reads.
    let mut read = 0_u64;
    until(world, |now| {
        let _ = a.poll(now);
        let _ = b.poll(now);
        read += b.receive(&mut |window| window.len()) as u64;
        read == pushed
    });
}

#[test]
fn smoltcp_keeps_the_contract() {
    for seed in 0..4 {
        keeps_the_contract(&mut SmolWorld::new(seed));
        pushes_back(&mut SmolWorld::new(seed));
    }
}

#[test]
fn tcp_keeps_the_contract() {
    for mode in [RingMode::Probe, RingMode::Plain] {
        keeps_the_contract(&mut TcpWorld::new(mode));
    }
}

#[test]
fn tcp_pushes_back() {
    pushes_back(&mut TcpWorld::new(RingMode::Probe));
}

#[test]
fn simulated_links_keep_the_contract() {
    for seed in 0..8 {
        keeps_the_contract(&mut SimWorld::new(seed));
    }
}

#[test]
fn simulated_links_push_back() {
    pushes_back(&mut SimWorld::new(1));
}
