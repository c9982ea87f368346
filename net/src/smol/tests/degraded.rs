//! A link on a bad day: it is down, its peer is dead, its interface does not come back as it was, its node stood still.

use std::cell::Cell;

use engine::packet::{PacketStats, Received};

use super::*;

/// A device that frames do not leave: the kernel does not take them while the interface is down.
struct Stuck {
    inner: MemoryDevice,
    flushed: Rc<Cell<usize>>,
}

impl FrameDevice for Stuck {
    fn properties(&self) -> &Properties {
        self.inner.properties()
    }

    fn receive(&mut self) -> Option<(Received<'_>, &mut dyn Transmit)> {
        self.inner.receive()
    }

    fn transmitter(&mut self) -> &mut dyn Transmit {
        self.inner.transmitter()
    }

    fn flush(&mut self) {
        self.flushed.set(self.flushed.get() + 1);
    }

    fn is_pending(&self) -> bool {
        true
    }

    fn state(&mut self) -> LinkState {
        self.inner.state()
    }

    fn stats(&mut self) -> PacketStats {
        self.inner.stats()
    }
}

impl Bench {
    /// Turns for so long; after each one, this end may sleep.
    fn sleeps_for(&mut self, time: Duration, end: usize) {
        let begin = self.now;
        while self.now - begin < time {
            self.turn(|_| {});
            let due = self.links[end].next_deadline().expect("it looks after its interface");
            assert!(due > self.now, "it is awake {:?} after the beginning", self.now - begin);
        }
    }

    fn sent(&self, end: usize) -> u64 {
        self.links[end].status().counters.frames.sent
    }
}

#[test]
fn a_link_that_is_down_lets_its_reactor_sleep_and_tells_the_kernel_nothing() {
    let mut bench = Bench::new(12);
    let flushed = Rc::new(Cell::new(0));
    let device = Box::new(Stuck { inner: bench.wire.end(0), flushed: flushed.clone() });
    bench.links[0] = Link::over(&config(0, 12), device, bench.now).expect("a link");
    bench.turn(|_| {});
    assert!(bench.links[0].next_deadline() <= Some(bench.now), "what is pending leaves at once");
    assert_eq!(flushed.get(), 1);
    for state in [LinkState::Down, LinkState::NoCarrier, LinkState::Gone] {
        bench.wire.set_state(state);
        let seen = bench.now + 25 * MS;
        bench.until(50 * MS, |now| now > seen);
        flushed.set(0);
        bench.sleeps_for(50 * MS, 0);
        assert_eq!(flushed.get(), 0, "{state:?}");
    }
    bench.wire.set_state(LinkState::Up);
    let seen = bench.now + 25 * MS;
    bench.until(50 * MS, |now| now > seen);
    assert!(flushed.get() > 0, "it goes on");
}

/// A closed socket has a reset to send, and nobody says where to.
#[test]
fn connections_to_a_dead_peer_that_are_given_up_let_the_reactor_sleep_and_leave_nothing_behind() {
    let mut bench = Bench::new(13);
    bench.wire.cut([true; 2]);
    let network = bench.links[0].network();
    let mut stream = network.connect("10.0.0.2:3260".parse().expect("an address"));
    let begin = bench.now;
    bench.until(Duration::from_secs(2), |now| {
        let _ = stream.poll(now);
        now - begin > Duration::from_secs(1)
    });
    drop(stream);
    bench.sleeps_for(Duration::from_millis(2500), 0);
    let sent = bench.sent(0);
    bench.sleeps_for(Duration::from_secs(1), 0);
    assert_eq!(bench.sent(0), sent, "nobody connects any more");
    assert_eq!(bench.links[0].status().sockets.1, 0);
}

#[test]
fn an_interface_that_is_back_and_cannot_be_used_is_told_of_once_for_each_reason() {
    let mut bench = Bench::new(14);
    let stack = bench.links[0].stack.clone();
    for why in ["its MTU is 1500", "its MTU is 1500", "it is down", "its MTU is 1500"] {
        stack.borrow_mut().watch.not_replaced(why.to_owned());
        assert_eq!(bench.links[0].status().why.as_deref(), Some(why));
    }
    let told: Vec<String> = bench.links[0].take_news().iter().map(LinkNews::to_string).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(told[1], "interface test is there again and cannot be used: it is down");
    stack.borrow_mut().replace(Box::new(bench.wire.end(0)));
    assert_eq!(bench.links[0].status().why, None);
}

/// smoltcp measures round trips in 32 bits, on a clock that runs hundreds of times as fast as the world's: the first one may not take an hour.
#[test]
fn a_node_that_stood_still_for_hours_goes_on_without_its_connections() {
    for turns in 0..16 {
        let mut bench = Bench::new(15);
        let mut listener =
            bench.links[1].network().listen("10.0.0.2:3260".parse().expect("ours")).expect("free");
        let a = bench.links[0].network().connect(listener.local_addr());
        (0..turns).for_each(|_| bench.turn(|_| {}));
        // Both nodes stop, with whatever is on the wire.
        bench.now += Duration::from_secs(3 * 3600);
        (0..100).for_each(|_| bench.turn(|_| {}));
        drop(a);
        let mut a = bench.links[0].network().connect(listener.local_addr());
        let mut b = None;
        bench.until(Duration::from_secs(5), |now| {
            let _ = a.poll(now);
            b = listener.accept(now).or_else(|| b.take());
            b.is_some() && a.status() == StreamStatus::Open
        });
        bench.ping_pong(&mut *a, &mut *b.expect("accepted"), 3);
    }
}

/// Nobody answers for a dead peer: it is looked for, and neither the wire nor the reactor has much of that.
#[test]
fn a_dead_peer_is_asked_for_rarely_and_found_soon() {
    for v6 in [false, true] {
        let mut bench = Bench::with(16, Congestion::default(), LinkConfig::new("test", 1).min_rto);
        bench.wire.cut([true; 2]);
        let address = SocketAddr::new(config(1, 0).addresses[usize::from(v6)].address, 3260);
        let mut listener = bench.links[1].network().listen(address).expect("free");
        let mut stream = bench.links[0].network().connect(address);
        let begin = bench.now;
        let mut turns = 0;
        while bench.now - begin < Duration::from_secs(1) {
            // Asleep in between.
            bench.now = bench.links[0].next_deadline().map_or(bench.now, |due| due.max(bench.now));
            bench.turn(|now| {
                let _ = stream.poll(now);
            });
            turns += 1;
        }
        let sent = bench.sent(0);
        assert!((10..60).contains(&sent), "{sent} frames");
        assert!(turns < 500, "{turns} turns");
        bench.wire.cut([false; 2]);
        bench.until(150 * MS, |now| {
            let _ = stream.poll(now);
            listener.accept(now).is_some()
        });
    }
}
