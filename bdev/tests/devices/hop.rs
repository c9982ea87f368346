//! A hop between threads, and its ends.

use std::sync::Arc;

use crate::common::{Bench, core, geometry};
use bdev::hop::{HopBdev, HopEvent, HopIdentity, HopServer, LANE_DEPTH, hop};
use bdev::{Bdev, Capabilities, Geometry, Io, IoError, Link, LinkDown, Op, Tag};
use engine::Instant;
use uuid::Uuid;

fn make() -> (Arc<HopBdev>, HopServer) {
    let identity = HopIdentity {
        name: "h0".to_owned(),
        product: "hop",
        uuid: Uuid::nil(),
        geometry: geometry(512),
        capabilities: Capabilities::FLUSH,
    };
    hop(identity, &core())
}

fn answer_all(server: &mut HopServer) -> usize {
    let mut served = 0;
    while let Some((id, io)) = server.take() {
        server.complete(id, io.complete(Ok(()), Instant::EPOCH));
        served += 1;
    }
    served
}

#[test]
fn it_serves_channels_of_other_threads_and_tells_when_they_go() {
    let (bdev, mut server) = make();
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let bdev = bdev.clone();
            std::thread::spawn(move || {
                let mut bench = Bench::new(bdev);
                for round in 0..200 {
                    for tag in 0..8 {
                        bench.submit(Op::Flush, round * 8 + tag);
                    }
                    let mut tags: Vec<u64> = bench.wait(8).iter().map(|it| it.tag.0).collect();
                    tags.sort_unstable();
                    assert_eq!(tags, (round * 8..round * 8 + 8).collect::<Vec<_>>());
                }
            })
        })
        .collect();
    let mut served = 0;
    let (mut opened, mut closed) = (Vec::new(), Vec::new());
    while closed.len() < 3 {
        while let Some(event) = server.next_event() {
            match event {
                HopEvent::Opened(id) => opened.push(id),
                HopEvent::Closed(id) => closed.push(id),
            }
        }
        served += answer_all(&mut server);
        std::thread::yield_now();
    }
    clients.into_iter().for_each(|client| client.join().expect("no failure"));
    closed.sort_unstable();
    assert_eq!((served, opened), (3 * 200 * 8, closed));
}

#[test]
fn a_full_lane_refuses_and_gives_back() {
    let (bdev, mut server) = make();
    let mut bench = Bench::new(bdev);
    for tag in 0..LANE_DEPTH as u64 {
        bench.submit(Op::Flush, tag);
    }
    let now = bench.now();
    let refused = bench.channel.submit(Io::new(Op::Flush, Tag(999), now), now).expect_err("full");
    assert_eq!((refused.why, refused.io.tag), (IoError::Busy, Tag(999)));
    assert!(matches!(server.next_event(), Some(HopEvent::Opened(_))));
    assert_eq!(answer_all(&mut server), LANE_DEPTH);
    // Answered, but not taken by the client: the lane is still full.
    let refused = bench.channel.submit(refused.io, now).expect_err("full");
    assert_eq!(bench.wait(LANE_DEPTH).len(), LANE_DEPTH);
    bench.channel.submit(refused.io, now).expect("room");
    assert_eq!(answer_all(&mut server), 1);
}

#[test]
fn lanes_are_served_in_turn() {
    let (bdev, mut server) = make();
    let mut benches: Vec<Bench> = (0..3).map(|_| Bench::new(bdev.clone())).collect();
    for bench in &mut benches {
        (0..4).for_each(|tag| bench.submit(Op::Flush, tag));
    }
    let opened: Vec<_> = std::iter::from_fn(|| server.next_event()).collect();
    assert_eq!(opened.len(), 3);
    let mut order = Vec::new();
    while let Some((id, io)) = server.take() {
        order.push(id);
        server.complete(id, io.complete(Ok(()), Instant::EPOCH));
    }
    assert_eq!(order.len(), 12);
    for round in order.chunks(3) {
        assert!(round[0] < round[1] && round[1] < round[2], "{order:?}");
    }
}

#[test]
fn a_server_that_goes_gives_back_what_it_had_not_taken() {
    let (bdev, mut server) = make();
    let mut noticed = Bench::new(bdev.clone());
    assert!(matches!(server.next_event(), Some(HopEvent::Opened(_))));
    let mut unnoticed = Bench::new(bdev);
    noticed.submit(Op::Flush, 1);
    noticed.submit(Op::Flush, 2);
    unnoticed.submit(Op::Flush, 3);
    let (id, io) = server.take().expect("a request");
    server.complete(id, io.complete(Ok(()), Instant::EPOCH));
    drop(server);
    let mut results: Vec<_> = noticed.wait(2).into_iter().map(|it| (it.tag.0, it.result)).collect();
    results.sort_unstable_by_key(|(tag, _)| *tag);
    assert_eq!(results, [(1, Ok(())), (2, Err(IoError::Aborted))]);
    assert_eq!(unnoticed.wait(1)[0].result, Err(IoError::Aborted));
    let now = noticed.now();
    assert!(matches!(noticed.channel.link(now), Link::Down(LinkDown::Lost(_))));
    let refused = noticed.channel.submit(Io::new(Op::Flush, Tag(2), now), now).expect_err("gone");
    assert_eq!(refused.why, IoError::Aborted);
    drop(refused.io.complete(Err(IoError::Aborted), now));
}

#[test]
fn a_client_that_goes_with_ios_in_flight_is_closed_after_the_last_answer() {
    let (bdev, mut server) = make();
    let mut bench = Bench::new(bdev);
    bench.submit(Op::Flush, 1);
    bench.submit(Op::Flush, 2);
    let Some(HopEvent::Opened(id)) = server.next_event() else { panic!("a lane") };
    let (_, first) = server.take().expect("the first");
    drop(bench);
    assert_eq!(server.next_event(), None, "one is taken, one waits");
    let (_, second) = server.take().expect("the second");
    server.complete(id, first.complete(Ok(()), Instant::EPOCH));
    assert_eq!(server.next_event(), None, "one is taken");
    server.complete(id, second.complete(Ok(()), Instant::EPOCH));
    assert_eq!(server.next_event(), Some(HopEvent::Closed(id)));
    assert_eq!(server.next_event(), None);
}

#[test]
fn size_powers_and_link_change_under_open_channels() {
    let (bdev, mut server) = make();
    let bench = Bench::new(bdev.clone());
    let now = bench.now();
    let larger = Geometry { blocks: 9_999, ..geometry(512) };
    server.set_geometry(larger);
    server.set_capabilities(Capabilities::READ_ONLY);
    assert_eq!((bdev.geometry(), bdev.capabilities()), (larger, Capabilities::READ_ONLY));
    assert_eq!(bench.channel.link(now), Link::Up { session: 0, geometry: larger, alive_at: now });
    server.set_link(Err(LinkDown::Silent));
    assert_eq!(bench.channel.link(now), Link::Down(LinkDown::Silent));
    server.set_link(Ok(()));
    assert_eq!(bench.channel.link(now), Link::Up { session: 1, geometry: larger, alive_at: now });
}
