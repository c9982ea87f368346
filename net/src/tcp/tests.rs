use std::io::{Read, Write};

use engine::{Clock, MonotonicClock, Pool, Progress, RingConfig, Segment, Waker};

use super::send::{Queue, SEGMENTS_MAX};
use super::*;
use crate::stream::StreamStatus;

fn core() -> Core {
    let pool = Pool::for_tests();
    let ring =
        RingHandle::new(RingConfig::default(), &pool, Waker::new().expect("eventfd")).expect("io_uring");
    Core::new(0, pool, ring)
}

fn free_frames(core: &Core) -> [usize; 3] {
    core.pool().stats().map(|class| class.free)
}

/// Turns until `done`; fails after ten seconds.
fn until(core: &Core, mut done: impl FnMut(engine::Instant) -> bool) {
    let clock = MonotonicClock::start();
    let limit = clock.now() + Duration::from_secs(10);
    while !done(clock.now()) {
        assert!(clock.now() < limit, "nothing came of it in ten seconds");
        core.ring().expect("a ring").turn().expect("turn");
    }
}

fn accepted(core: &Core) -> (Box<dyn Stream>, std::net::TcpStream) {
    let network = TcpNetwork::new(core, TcpConfig::default());
    let mut listener = network.listen("127.0.0.1:0".parse().expect("address")).expect("listen");
    let other = std::net::TcpStream::connect(listener.local_addr()).expect("connect");
    let mut stream = None;
    until(core, |now| {
        stream = stream.take().or_else(|| listener.accept(now));
        stream.is_some()
    });
    (stream.expect("accepted"), other)
}

/// A socket for both families calls IPv4 hosts by names of IPv6: whoever compares addresses knows one name of a host.
#[test]
fn a_host_has_one_address_whichever_socket_it_came_through() {
    let core = core();
    let network = TcpNetwork::new(&core, TcpConfig::default());
    let mut listener = network.listen("[::]:0".parse().expect("address")).expect("listen");
    let port = listener.local_addr().port();
    for host in ["127.0.0.1", "::1"] {
        let ip: core::net::IpAddr = host.parse().expect("address");
        let other = std::net::TcpStream::connect((ip, port)).expect("connect");
        let mut stream = None;
        until(&core, |now| {
            stream = stream.take().or_else(|| listener.accept(now));
            stream.is_some()
        });
        let stream = stream.expect("accepted");
        assert_eq!(stream.peer_addr(), other.local_addr().ok());
        assert_eq!(stream.local_addr(), other.peer_addr().ok());
    }
}

#[test]
fn a_send_that_ends_early_goes_on_where_it_stopped() {
    let core = core();
    let (_stream, _other) = accepted(&core);
    let socket = engine::Socket::unconnected("127.0.0.1:1".parse().expect("address")).expect("socket");
    let mut queue = Queue::new();
    for text in [&b"abc"[..], b"", b"defg", b"h"] {
        queue.push(Segment::inline(text));
    }
    assert_eq!(queue.free(), SEGMENTS_MAX - 3, "an empty segment needs no room");
    let mut sent = Vec::new();
    // Each send moves two bytes more.
    while let Some(engine::Operation::Send { segments, skip, .. }) = queue.start(&socket) {
        assert!(queue.start(&socket).is_none(), "one send at a time");
        let bytes: Vec<u8> = segments.iter().flat_map(|segment| segment.as_bytes().to_vec()).collect();
        let moved = bytes.len().min(skip + 2) - skip;
        sent.extend_from_slice(&bytes[skip..skip + moved]);
        queue.finish(segments, skip, moved);
        assert!(sent.len() <= 8, "the same bytes go twice: {sent:?}");
    }
    assert_eq!(sent, b"abcdefgh");
    assert!(queue.is_empty());
}

#[test]
fn a_peer_that_resets_is_told_from_one_that_closes() {
    let core = core();
    let (mut stream, mut other) = accepted(&core);
    stream.push(Segment::inline(b"unread"));
    until(&core, |now| {
        let _ = stream.poll(now);
        !stream.is_sending()
    });
    // The bytes must have arrived before the close, which is a reset because they were not read.
    other.peek(&mut [0; 6]).expect("peek");
    other.write_all(b"last words").expect("write");
    drop(other);
    until(&core, |now| {
        let _ = stream.poll(now);
        matches!(stream.status(), StreamStatus::Closed(_))
    });
    assert_eq!(stream.status(), StreamStatus::Closed(CloseReason::Reset));
}

/// Fills the ways of the kernel, both of them, and ends the stream: what the other end reads, and how that ends.
fn read_after(end: fn(&mut dyn Stream)) -> (usize, std::io::Result<usize>) {
    let core = core();
    let (mut stream, mut other) = accepted(&core);
    let bytes = core.pool().alloc(4096).expect("a frame").freeze();
    let mut moved = engine::Instant::EPOCH;
    until(&core, |now| {
        while stream.free_segments() > 0 {
            stream.push(Segment::Frame(bytes.clone()));
        }
        if stream.poll(now) == Progress::Busy || moved == engine::Instant::EPOCH {
            moved = now;
        }
        now - moved > Duration::from_millis(200)
    });
    end(&mut *stream);
    until(&core, |now| stream.poll(now) == Progress::Idle);
    drop(stream);
    core.ring().expect("a ring").turn().expect("turn");
    let (mut total, mut into) = (0, vec![0; 1 << 20]);
    loop {
        match other.read(&mut into) {
            Ok(count) if count > 0 => total += count,
            last => return (total, last),
        }
    }
}

#[test]
fn an_abort_takes_back_what_the_peer_has_not_got() {
    let (all, last) = read_after(|stream| stream.close());
    assert_eq!(last.expect("an orderly end"), 0);
    let (some, last) = read_after(|stream| stream.abort());
    assert_eq!(last.expect_err("a reset").kind(), std::io::ErrorKind::ConnectionReset);
    assert!(some < all, "{some} of {all} bytes came after all");
}

#[test]
fn dropping_a_stream_closes_it_and_gives_its_frames_back() {
    let core = core();
    let before = free_frames(&core);
    let (mut stream, mut other) = accepted(&core);
    until(&core, |now| {
        let _ = stream.poll(now);
        other.set_nonblocking(true).is_ok()
    });
    drop(stream);
    until(&core, |_| matches!(other.read(&mut [0; 1]), Ok(0)));
    until(&core, |_| free_frames(&core) == before);
}

#[test]
fn a_dropped_listener_stops_listening() {
    let core = core();
    let network = TcpNetwork::new(&core, TcpConfig::default());
    let listener = network.listen("127.0.0.1:0".parse().expect("address")).expect("listen");
    let address = listener.local_addr();
    drop(listener);
    until(&core, |_| core.ring().expect("a ring").in_flight() == 0);
    std::net::TcpStream::connect(address).expect_err("nobody listens");
}

#[test]
fn a_connect_that_takes_too_long_times_out_and_stays_so() {
    let core = core();
    let before = free_frames(&core);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let network = TcpNetwork::new(&core, TcpConfig::default());
    let mut stream = network.connect(listener.local_addr().expect("address"));
    let start = MonotonicClock::start().now();
    let _ = stream.poll(start);
    assert_eq!(stream.status(), StreamStatus::Connecting);
    let _ = stream.poll(start + TcpConfig::default().connect_timeout);
    assert_eq!(stream.status(), StreamStatus::Closed(CloseReason::TimedOut));
    // The kernel's late answer changes nothing.
    until(&core, |now| {
        let _ = stream.poll(now);
        core.ring().expect("a ring").in_flight() == 0
    });
    assert_eq!(stream.status(), StreamStatus::Closed(CloseReason::TimedOut));
    drop(stream);
    assert_eq!(free_frames(&core), before);
}

#[test]
fn a_connection_waits_where_there_are_no_frames_for_it() {
    let core = core();
    let network = TcpNetwork::new(&core, TcpConfig::default());
    let mut listener = network.listen("127.0.0.1:0".parse().expect("address")).expect("listen");
    let hoard: Vec<_> = std::iter::from_fn(|| core.pool().alloc(64 << 10)).collect();
    let mut other = std::net::TcpStream::connect(listener.local_addr()).expect("connect");
    other.write_all(b"hello").expect("write");
    for _ in 0..100 {
        core.ring().expect("a ring").turn().expect("turn");
        assert!(listener.accept(engine::Instant::EPOCH).is_none());
    }
    drop(hoard);
    let mut stream = None;
    until(&core, |now| {
        stream = stream.take().or_else(|| listener.accept(now));
        stream.as_mut().is_some_and(|stream: &mut Box<dyn Stream>| {
            let _ = stream.poll(now);
            let mut heard = Vec::new();
            stream.receive(&mut |window| {
                heard.extend_from_slice(window);
                0
            });
            heard == b"hello"
        })
    });
}

#[test]
fn without_frames_or_a_ring_a_connect_fails_in_words() {
    let core = core();
    let pool = core.pool();
    let hoard: Vec<_> = std::iter::from_fn(|| pool.alloc(64 << 10)).collect();
    let network = TcpNetwork::new(&core, TcpConfig::default());
    let stream = network.connect("127.0.0.1:1".parse().expect("address"));
    assert_eq!(stream.status(), StreamStatus::Closed(CloseReason::Os(ENOBUFS)));
    drop(hoard);
    let network = TcpNetwork::new(&Core::for_tests(Pool::for_tests()), TcpConfig::default());
    let error = network.listen("127.0.0.1:0".parse().expect("address")).err().expect("no ring");
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
}
