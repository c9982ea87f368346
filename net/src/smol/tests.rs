mod degraded;

use core::ops::ControlFlow;
use core::time::Duration;

use engine::packet::LinkState;
use engine::{Pool, Prng, Segment};

use super::*;
use crate::stream::StreamStatus;

const MS: Duration = Duration::from_millis(1);
const STEP: Duration = Duration::from_micros(10);

/// Two links over a wire, on a clock of the test's.
struct Bench {
    wire: MemoryWire,
    links: [Link; 2],
    now: Instant,
}

fn config(end: u8, seed: u64) -> LinkConfig {
    let addresses = vec![
        IpNet { address: [10, 0, 0, end + 1].into(), prefix: 24 },
        IpNet { address: format!("fd00::{}", end + 1).parse().expect("an address"), prefix: 64 },
    ];
    LinkConfig { addresses, ..LinkConfig::new("test", seed * 2 + u64::from(end)) }
}

impl Bench {
    fn new(seed: u64) -> Self {
        Self::with(seed, Congestion::default(), Duration::from_millis(5))
    }

    /// With these ways to deal with a loss.
    fn with(seed: u64, congestion: Congestion, min_rto: Duration) -> Self {
        let wire = MemoryWire::new(Duration::from_micros(20), seed);
        let now = Instant::from(Duration::from_secs(1));
        let links = [0, 1].map(|end| {
            let device = Box::new(wire.end(usize::from(end)));
            let config = LinkConfig { congestion, min_rto, ack_delay: min_rto * 2 / 5, ..config(end, seed) };
            Link::over(&config, device, now).expect("a link")
        });
        Self { wire, links, now }
    }

    /// One turn of both ends; `between` is what their users do.
    fn turn(&mut self, between: impl FnOnce(Instant)) {
        self.now += STEP;
        self.wire.advance(self.now);
        for link in &mut self.links {
            let _ = link.receive(self.now);
        }
        between(self.now);
        for link in &mut self.links {
            let _ = link.transmit(self.now);
        }
    }

    /// Turns until `done`; returns the time that it took. Fails after `limit`.
    fn until(&mut self, limit: Duration, mut done: impl FnMut(Instant) -> bool) -> Duration {
        let begin = self.now;
        let mut over = false;
        while !over {
            self.turn(|now| over = done(now));
            assert!(self.now - begin <= limit, "nothing came of it in {limit:?}");
        }
        self.now - begin
    }

    fn pair(&mut self, v6: bool) -> (Box<dyn Stream>, Box<dyn Stream>, Box<dyn Listener>) {
        let address = config(1, 0).addresses[usize::from(v6)].address;
        let mut listener = self.links[1].network().listen(SocketAddr::new(address, 3260)).expect("listen");
        let mut a = self.links[0].network().connect(listener.local_addr());
        let mut b = None;
        self.until(Duration::from_secs(2), |now| {
            let _ = a.poll(now);
            b = b.take().or_else(|| listener.accept(now));
            b.is_some() && a.status() == StreamStatus::Open
        });
        (a, b.expect("accepted"), listener)
    }

    fn closed(&mut self, stream: &mut dyn Stream, limit: Duration) -> CloseReason {
        let mut reason = None;
        self.until(limit, |now| {
            let _ = stream.poll(now);
            if let StreamStatus::Closed(found) = stream.status() {
                reason = Some(found);
            }
            reason.is_some()
        });
        reason.expect("closed")
    }

    /// Questions and answers of 4 KiB, one at a time; returns the longest that one took.
    fn ping_pong(&mut self, a: &mut dyn Stream, b: &mut dyn Stream, rounds: usize) -> Duration {
        let pool = Pool::for_tests();
        let frame = pool.alloc_zeroed(4096).expect("a frame").freeze();
        let mut longest = Duration::ZERO;
        for _ in 0..rounds {
            a.push(Segment::Frame(frame.clone()));
            let (mut asked, mut answered) = (0, 0);
            longest = longest.max(self.until(Duration::from_secs(5), |now| {
                let _ = (a.poll(now), b.poll(now));
                asked += b.receive(&mut |window| window.len());
                if asked == 4096 {
                    asked = 0;
                    b.push(Segment::Frame(frame.clone()));
                    let _ = b.poll(now);
                }
                answered += a.receive(&mut |window| window.len());
                answered == 4096
            }));
        }
        longest
    }
}

/// Moves `total` bytes of a pattern, in pieces of random sizes, and looks at each.
fn transfer(bench: &mut Bench, a: &mut dyn Stream, b: &mut dyn Stream, total: usize) -> Duration {
    let pool = Pool::for_tests();
    let mut prng = Prng::from_seed(total as u64);
    let (mut pushed, mut read) = (0_usize, 0_usize);
    let pattern = |at: usize| (at.wrapping_mul(2_654_435_761) >> 7) as u8;
    bench.until(Duration::from_secs(60), |now| {
        while pushed < total && a.free_segments() > 0 {
            let len = (1 + prng.below(20_000) as usize).min(total - pushed);
            let Some(mut frame) = pool.alloc(len) else { break };
            frame.iter_mut().enumerate().for_each(|(at, byte)| *byte = pattern(pushed + at));
            a.push(Segment::Frame(frame.freeze()));
            pushed += len;
        }
        let _ = (a.poll(now), b.poll(now));
        read += b.receive(&mut |window| {
            for (at, byte) in window.iter().enumerate() {
                assert_eq!(*byte, pattern(read + at), "byte {}", read + at);
            }
            window.len()
        });
        read == total
    })
}

#[test]
fn bytes_arrive_in_order_and_once_over_a_wire_that_does_everything_wrong() {
    for seed in 0..6 {
        let mut bench = Bench::new(seed);
        let (mut a, mut b, _listener) = bench.pair(seed % 2 == 1);
        bench.wire.lose(20);
        bench.wire.reorder(50);
        bench.wire.corrupt(10);
        transfer(&mut bench, &mut *a, &mut *b, 2_000_000);
        transfer(&mut bench, &mut *b, &mut *a, 500_000);
        let status = bench.links[0].status();
        assert!(status.counters.retransmissions > 0, "{status:?}");
        assert!(status.counters.corrupt + bench.links[1].status().counters.corrupt > 0);
        assert_eq!((status.counters.copied_out, status.counters.copied_in), (2_000_000, 500_000));
    }
}

/// A lost frame costs a few of the shortest timeouts, never smoltcp's second.
#[test]
fn a_loss_is_mended_in_milliseconds() {
    let mut bench = Bench::new(7);
    let (mut a, mut b, _listener) = bench.pair(false);
    // The congestion window begins small.
    bench.ping_pong(&mut *a, &mut *b, 1);
    assert!(bench.ping_pong(&mut *a, &mut *b, 200) < MS);
    assert_eq!(bench.links[0].status().counters.retransmissions, 0);
    bench.wire.lose(10);
    let longest = bench.ping_pong(&mut *a, &mut *b, 2_000);
    assert!(longest > 4 * MS, "nothing was lost");
    assert!(longest < 50 * MS, "{longest:?}");
    bench.wire.lose(0);
    let sent = bench.links[0].status().counters;
    assert!(sent.retransmissions > 0 && sent.retransmissions < sent.segments / 10, "{sent:?}");
}

#[test]
fn a_lost_carrier_ends_connections_at_once_and_a_new_one_is_made_when_it_is_back() {
    let mut bench = Bench::new(3);
    let (mut a, mut b, mut listener) = bench.pair(false);
    bench.wire.set_state(LinkState::NoCarrier);
    let reason = bench.closed(&mut *a, 50 * MS);
    assert_eq!(reason, CloseReason::Os(100));
    assert!(matches!(bench.closed(&mut *b, 50 * MS), CloseReason::Os(100)));
    let news = bench.links[0].take_news();
    assert!(news.len() == 1 && news[0].to_string().contains("no carrier"), "{news:?}");
    let c = bench.links[0].network().connect(listener.local_addr());
    assert_eq!(c.status(), StreamStatus::Closed(CloseReason::Os(100)));
    bench.wire.set_state(LinkState::Up);
    let back = bench.now + 50 * MS;
    bench.until(100 * MS, |now| now > back);
    let mut c = bench.links[0].network().connect(listener.local_addr());
    bench.until(100 * MS, |now| {
        let _ = c.poll(now);
        listener.accept(now).is_some()
    });
}

/// A device that would cut long frames and complete checksums, with nobody at the other end.
struct Cutting {
    dead: MemoryDevice,
    properties: Properties,
}

impl Cutting {
    fn new() -> Self {
        let wire = MemoryWire::new(MS, 0);
        wire.set_state(LinkState::Gone);
        let dead = wire.end(0);
        let properties = Properties { segmentation: Some(65_549), ..dead.properties().clone() };
        Self { dead, properties }
    }
}

impl FrameDevice for Cutting {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn receive(&mut self) -> Option<(engine::packet::Received<'_>, &mut dyn Transmit)> {
        self.dead.receive()
    }

    fn transmitter(&mut self) -> &mut dyn Transmit {
        self.dead.transmitter()
    }

    fn flush(&mut self) {}

    fn is_pending(&self) -> bool {
        false
    }

    fn state(&mut self) -> LinkState {
        self.dead.state()
    }

    fn stats(&mut self) -> engine::packet::PacketStats {
        self.dead.stats()
    }
}

/// Its memory device takes no frame whose checksum is left to it.
#[test]
fn an_interface_may_come_back_with_another_kind_of_device() {
    let mut bench = Bench::new(9);
    bench.links[0] = Link::over(&config(0, 9), Box::new(Cutting::new()), bench.now).expect("a link");
    bench.turn(|_| {});
    assert!(bench.links[0].stack.borrow().is_gone());
    let device = Box::new(bench.wire.end(0));
    bench.links[0].stack.borrow_mut().replace(device);
    bench.turn(|_| {});
    for v6 in [false, true] {
        let (mut a, mut b, _listener) = bench.pair(v6);
        transfer(&mut bench, &mut *a, &mut *b, 200_000);
    }
}

#[test]
fn a_path_that_is_too_narrow_is_named() {
    let mut bench = Bench::new(4);
    bench.wire.limit(1500);
    let (_a, _b, _listener) = bench.pair(false);
    let begin = bench.now;
    bench.until(Duration::from_secs(2), |now| now - begin > Duration::from_secs(1));
    for link in &mut bench.links {
        assert_eq!(link.status().paths.len(), 1);
        assert_eq!(link.status().paths[0].1, PathCheck::TooNarrow);
        let news = link.take_news();
        assert!(
            news.len() == 1 && news[0].to_string().contains("9000 bytes do not reach 10.0.0."),
            "{news:?}"
        );
    }
}

#[test]
fn a_path_that_is_whole_is_known_to_be_for_both_families() {
    for v6 in [false, true] {
        let mut bench = Bench::new(5);
        let (_a, _b, _listener) = bench.pair(v6);
        let begin = bench.now;
        bench.until(Duration::from_secs(1), |now| now - begin > 20 * MS);
        for link in &mut bench.links {
            assert_eq!(link.status().paths[0].1, PathCheck::Whole, "{:?}", link.status());
            assert!(link.take_news().is_empty());
        }
    }
}

#[test]
fn sockets_are_used_again_and_a_link_without_any_says_so() {
    let mut bench = Bench::new(6);
    let (a, b, mut listener) = bench.pair(false);
    drop((a, b));
    for _ in 0..40 {
        let mut a = bench.links[0].network().connect(listener.local_addr());
        let mut b = None;
        bench.until(Duration::from_secs(3), |now| {
            let _ = a.poll(now);
            b = b.take().or_else(|| listener.accept(now));
            b.is_some() && a.status() == StreamStatus::Open
        });
    }
    let later = bench.now + Duration::from_secs(3);
    bench.until(Duration::from_secs(4), |now| now > later);
    let mut held = Vec::new();
    let limit = LinkConfig::new("test", 1).sockets;
    for _ in 0..limit {
        held.push(bench.links[0].network().connect(listener.local_addr()));
    }
    let last = bench.links[0].network().connect(listener.local_addr());
    assert_eq!(last.status(), StreamStatus::Closed(CloseReason::Os(105)), "no buffer space");
    assert!(bench.links[0].users() >= limit);
    let news = bench.links[0].take_news();
    assert!(matches!(&news[..], [LinkNews::Crowded { limit: told, .. }] if *told == limit), "{news:?}");
    drop((held, last));
    assert_eq!(bench.links[0].users(), 0);
}

#[test]
fn an_abort_is_a_reset_and_takes_back_what_was_not_sent() {
    let mut bench = Bench::new(7);
    let (mut a, mut b, _listener) = bench.pair(false);
    let bytes = Pool::for_tests().alloc(4096).expect("a frame").freeze();
    // More than the window of the other end, which reads nothing.
    bench.until(Duration::from_secs(3), |now| {
        while a.free_segments() > 0 {
            a.push(Segment::Frame(bytes.clone()));
        }
        let _ = a.poll(now);
        b.readable() > 64 << 10
    });
    a.abort();
    drop(a);
    assert_eq!(bench.closed(&mut *b, Duration::from_secs(3)), CloseReason::Reset);
}

#[test]
fn what_nobody_listens_on_refuses_and_what_is_elsewhere_is_unreachable() {
    let mut bench = Bench::new(8);
    let network = bench.links[0].network();
    let mut a = network.connect("10.0.0.2:9".parse().expect("an address"));
    assert_eq!(bench.closed(&mut *a, 100 * MS), CloseReason::Refused);
    let b = network.connect("192.0.2.1:3260".parse().expect("an address"));
    assert_eq!(b.status(), StreamStatus::Closed(CloseReason::Os(101)), "network unreachable");
    let mut c = network.connect("10.0.0.77:3260".parse().expect("an address"));
    assert_eq!(bench.closed(&mut *c, Duration::from_secs(6)), CloseReason::TimedOut);
    let error = network.listen("10.0.0.9:1".parse().expect("an address")).err().expect("not ours");
    assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    assert!(network.has_address([10, 0, 0, 1].into()) && !network.has_address([10, 0, 0, 2].into()));
    assert!(network.reaches([10, 0, 0, 9].into()) && !network.reaches([10, 0, 1, 9].into()));
}

#[test]
fn a_tap_sees_every_frame_until_it_has_seen_enough() {
    let mut bench = Bench::new(10);
    let seen = Rc::new(RefCell::new(Vec::new()));
    let frames = seen.clone();
    let see = move |_: Instant, direction: Direction, frame: &[u8]| {
        frames.borrow_mut().push((direction, frame.len()));
        if frames.borrow().len() == 40 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    bench.links[0].set_tap(Tap { until: Instant::FAR_FUTURE, see: Box::new(see) });
    let (mut a, mut b, _listener) = bench.pair(false);
    bench.ping_pong(&mut *a, &mut *b, 50);
    assert_eq!(seen.borrow().len(), 40);
    for direction in [Direction::In, Direction::Out] {
        let long = seen.borrow().iter().filter(|one| **one == (direction, 4096 + 54)).count();
        assert!(long > 5, "{:?}", seen.borrow());
    }
}

#[test]
fn round_trips_are_those_of_the_wire() {
    let mut bench = Bench::new(11);
    let (mut a, mut b, _listener) = bench.pair(false);
    bench.ping_pong(&mut *a, &mut *b, 500);
    let trips = bench.links[0].status().round_trips;
    assert!(trips.count > 400, "{trips:?}");
    // There and back, and a turn at each end.
    assert!((40..=60).contains(&trips.p50.as_micros()), "{trips:?}");
}

/// A link that has nothing to do says when it wants to be polled, and it is not now.
#[test]
fn an_idle_link_lets_its_reactor_sleep() {
    let mut bench = Bench::new(9);
    let (mut a, mut b, _listener) = bench.pair(false);
    bench.ping_pong(&mut *a, &mut *b, 3);
    let begin = bench.now;
    bench.until(Duration::from_secs(1), |now| now - begin > 300 * MS);
    bench.turn(|_| {});
    for link in &bench.links {
        let due = link.next_deadline().expect("it looks after its interface");
        assert!(due > bench.now, "{:?}", due.saturating_since(bench.now));
        // Nor does a turn ask each socket what it has to send.
        assert!(link.stack.borrow().quiet_until > bench.now + MS);
    }
}

/// Requests of 4 KiB and answers of 48 bytes, 32 at a time: how long so many of them take.
fn closed_loop(bench: &mut Bench, a: &mut dyn Stream, b: &mut dyn Stream, rounds: usize) -> Duration {
    let pool = Pool::for_tests();
    let request = pool.alloc_zeroed(4096).expect("a frame").freeze();
    let answer = pool.alloc_zeroed(48).expect("a frame").freeze();
    let (mut sent, mut asked, mut told, mut answered) = (0, 0, 0, 0);
    bench.until(Duration::from_secs(60), |now| {
        let _ = (a.poll(now), b.poll(now));
        asked += b.receive(&mut |window| window.len());
        while told < asked / 4096 {
            b.push(Segment::Frame(answer.clone()));
            told += 1;
        }
        answered += a.receive(&mut |window| window.len());
        while sent < rounds.min(answered / 48 + 32) {
            a.push(Segment::Frame(request.clone()));
            sent += 1;
        }
        let _ = (a.poll(now), b.poll(now));
        answered == rounds * 48
    })
}

/// What a loss costs depends on the shortest timeout, and on whether it is taken for congestion: the defaults are for a link that
/// replication has for itself. Without any loss neither matters.
#[test]
fn a_lossy_link_keeps_most_of_its_rate() {
    let rounds = 10_000;
    let took = |congestion: Congestion, min_rto: Duration, permille: u64| {
        let runs = (0..3).map(|seed| {
            let mut bench = Bench::with(seed, congestion, min_rto);
            let (mut a, mut b, _listener) = bench.pair(false);
            closed_loop(&mut bench, &mut *a, &mut *b, 2000);
            bench.wire.lose(permille);
            closed_loop(&mut bench, &mut *a, &mut *b, rounds)
        });
        runs.sum::<Duration>()
    };
    let LinkConfig { congestion, min_rto, .. } = LinkConfig::new("test", 1);
    let whole = took(congestion, min_rto, 0);
    assert_eq!(whole, took(Congestion::Reno, 5 * MS, 0));
    let [rarely, often] = [1, 10].map(|permille| took(congestion, min_rto, permille));
    // On a wire of 20 us a loss costs a dozen round trips, where it is noticed by the timer alone.
    assert!(rarely < whole * 11 / 10 && often < whole * 9 / 5, "{whole:?}, {rarely:?}, {often:?}");
    let slow = took(Congestion::Reno, 5 * MS, 10);
    assert!(slow > often * 3, "{often:?}, {slow:?}");
}
