use core::net::{Ipv4Addr, SocketAddr};

use engine::{Pool, Segment};

use super::*;
use crate::stream::{CloseReason, StreamStatus};

const A: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

struct Bench {
    net: SimNet,
    now: Instant,
    listener: Box<dyn Listener>,
    a: Box<dyn Stream>,
    b: Box<dyn Stream>,
}

impl Bench {
    fn new(config: SimConfig) -> Self {
        let net = SimNet::new(config);
        let mut listener = net.host(B).listen(SocketAddr::new(B, 3260)).expect("listen");
        let mut a = net.host(A).connect(listener.local_addr());
        let mut now = Instant::EPOCH;
        while a.status() == StreamStatus::Connecting {
            now = net.next_deadline().expect("an answer is on its way");
            let _ = a.poll(now);
        }
        let b = listener.accept(now).expect("accepted");
        Self { net, now, listener, a, b }
    }

    /// Polls both ends whenever something is due. One poll may show one piece, so poll on while there is more.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            while (self.a.poll(self.now) | self.b.poll(self.now)).is_busy() {}
            match self.net.next_deadline().filter(|due| *due <= end) {
                Some(due) => self.now = self.now.max(due),
                None => break,
            }
        }
        self.now = end;
    }

    fn say(&mut self, text: &[u8]) {
        self.a.push(Segment::inline(text));
    }

    fn closed(reason: CloseReason) -> StreamStatus {
        StreamStatus::Closed(reason)
    }
}

fn peek(stream: &mut dyn Stream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.receive(&mut |window| {
        bytes = window.to_vec();
        0
    });
    bytes
}

fn take(stream: &mut dyn Stream, count: usize) {
    stream.receive(&mut |_| count);
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_partition_holds_bytes_until_it_heals() {
    let mut bench = Bench::new(SimConfig::default());
    bench.net.partition(A, B);
    bench.say(b"late");
    bench.run(100 * MS);
    assert_eq!(bench.b.readable(), 0);
    assert_eq!(bench.a.status(), StreamStatus::Open);
    bench.net.heal(A, B);
    bench.run(10 * MS);
    assert_eq!(peek(&mut *bench.b), b"late");
}

#[test]
fn a_sender_gives_up_and_its_peer_learns_when_it_speaks() {
    let mut bench = Bench::new(SimConfig { give_up: 50 * MS, ..SimConfig::default() });
    bench.net.partition(A, B);
    bench.say(b"lost");
    bench.run(100 * MS);
    assert_eq!(bench.a.status(), Bench::closed(CloseReason::TimedOut));
    assert_eq!(bench.b.status(), StreamStatus::Open);
    bench.net.heal(A, B);
    bench.b.push(Segment::inline(b"anyone?"));
    bench.run(10 * MS);
    assert_eq!(bench.b.status(), Bench::closed(CloseReason::Reset));
    assert_eq!(bench.b.readable(), 0);
}

#[test]
fn a_cut_way_back_stops_the_sender_when_its_window_is_full() {
    let mut bench = Bench::new(SimConfig { window: 4096, ..SimConfig::default() });
    let pool = Pool::for_tests();
    let frame = pool.alloc_zeroed(64 << 10).expect("a frame").freeze();
    bench.net.partition_one_way(B, A);
    bench.a.push(Segment::Frame(frame));
    let mut read = 0;
    for _ in 0..20 {
        bench.run(MS);
        let count = bench.b.readable();
        take(&mut *bench.b, count);
        read += count;
    }
    assert_eq!(read, 4096, "one window arrives, no acknowledgement comes back");
    bench.net.heal(A, B);
    while read < 64 << 10 {
        bench.run(MS);
        let count = bench.b.readable();
        take(&mut *bench.b, count);
        read += count;
    }
}

#[test]
fn a_reset_strikes_after_the_very_byte() {
    for bytes in [0, 1, 5, 6] {
        let mut bench = Bench::new(SimConfig { piece_max: 4, ..SimConfig::default() });
        bench.net.reset_after(A, B, bytes);
        bench.say(b"abcdefgh");
        bench.run(10 * MS);
        assert_eq!(peek(&mut *bench.b), &b"abcdefgh"[..bytes as usize]);
        assert_eq!(bench.a.status(), Bench::closed(CloseReason::Reset));
        assert_eq!(bench.b.status(), Bench::closed(CloseReason::Reset));
    }
}

#[test]
fn a_killed_host_resets_its_peers_and_a_dark_one_is_silent() {
    let mut bench = Bench::new(SimConfig::default());
    bench.net.halt(A, Halt::Kill);
    bench.run(10 * MS);
    assert_eq!(bench.b.status(), Bench::closed(CloseReason::Reset));

    let mut bench = Bench::new(SimConfig::default());
    bench.net.halt(A, Halt::PowerOff);
    bench.b.push(Segment::inline(b"hello?"));
    bench.run(100 * MS);
    assert_eq!(bench.b.status(), StreamStatus::Open);
    assert!(bench.net.host(A).listen(SocketAddr::new(A, 1)).is_err());
    bench.net.power_on(A);
    bench.run(10 * MS);
    assert_eq!(bench.b.status(), Bench::closed(CloseReason::Reset), "it knows nothing of the connection");
}

#[test]
fn a_frozen_host_goes_on_where_it_was() {
    let mut bench = Bench::new(SimConfig::default());
    bench.net.freeze(B);
    bench.say(b"wait");
    bench.run(100 * MS);
    assert_eq!(bench.b.readable(), 0);
    bench.net.thaw(B);
    bench.run(10 * MS);
    assert_eq!(peek(&mut *bench.b), b"wait");
}

#[test]
fn connecting_into_a_partition_times_out() {
    let mut bench = Bench::new(SimConfig { give_up: 50 * MS, ..SimConfig::default() });
    bench.net.partition(A, B);
    bench.a = bench.net.host(A).connect(bench.listener.local_addr());
    bench.run(100 * MS);
    assert_eq!(bench.a.status(), Bench::closed(CloseReason::TimedOut));
}

#[test]
fn a_connection_that_both_ends_dropped_is_forgotten() {
    let Bench { net, a, b, listener, now } = Bench::new(SimConfig::default());
    drop((a, b, listener));
    let _ = net.advance(now + Duration::from_secs(1));
    assert_eq!(net.next_deadline(), None);
    assert!(net.world.borrow().is_empty());
}

#[test]
fn a_seed_decides_the_run() {
    let run = |seed| {
        let mut bench = Bench::new(SimConfig { seed, piece_max: 16, ..SimConfig::default() });
        let mut trace = Vec::new();
        for _ in 0..20 {
            bench.say(&[7; 60]);
            bench.run(Duration::from_micros(50));
            let count = bench.b.readable();
            trace.push((count, bench.net.next_deadline()));
            take(&mut *bench.b, count);
        }
        trace
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
