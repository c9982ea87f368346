//! Imports of several connections, and I/Os that outlive the connection that they were sent by.

mod import;

use std::collections::BTreeSet;
use std::time::Duration;

use bdev::fault::{Fault, FaultTarget};
use bdev::{BlockRange, Durability, IoError, Link, LinkDown, Op};
use engine::Prng;
use gateway::{Map, PortalGroup, RemoteConfig, RungTimes};
use import::{HOST, TARGET, World, config, ip};

fn several(connections: u32, level: u32) -> RemoteConfig {
    let mut remote = config("10.0.0.1:3260");
    remote.preferences.max_connections = connections;
    remote.offer_recovery(level);
    remote
}

/// An import with all its connections.
fn world(seed: u64, connections: u32, level: u32) -> World {
    let mut world = World::new(seed, several(connections, level), &[HOST]);
    // A loss does not stall the tests for two seconds.
    let mut target = world.target.config();
    target.preferences.default_time2wait = 0;
    world.target.set_config(target);
    world.up();
    complete(&mut world, connections);
    world
}

fn complete(world: &mut World, connections: u32) {
    let all = |world: &World| {
        let shown = world.target.connections();
        shown.len() == connections as usize && shown.iter().all(|connection| connection.full_feature)
    };
    assert!(world.run_until(Duration::from_secs(5), all), "{:?}", world.target.connections());
}

fn session(world: &World) -> u64 {
    match world.channel.link(world.now) {
        Link::Up { session, .. } => session,
        Link::Down(why) => panic!("down: {why}"),
    }
}

fn write_later(world: &mut World, tag: u64) {
    let mut buf = world.core.pool().alloc(4096).expect("a frame");
    buf.fill(tag as u8);
    let range = BlockRange::new(tag * 8, 8);
    world.submit(Op::Write { range, from: buf.freeze(), durability: Durability::Accepted }, tag);
}

#[test]
fn a_session_has_as_many_connections_as_were_asked_for_and_allowed() {
    let mut world = world(1, 3, 0);
    let shown = world.target.connections();
    assert!(shown.iter().all(|connection| connection.tsih == shown[0].tsih));
    for tag in 0..30 {
        write_later(&mut world, tag);
    }
    assert!(world.run_until(Duration::from_secs(1), |world| world.done.len() == 30));
    assert!(world.done.drain(..).all(|completed| completed.result.is_ok()));
    for (asked, allowed) in [(9, 4), (1, 1)] {
        let mut world = World::new(2, several(asked, 2), &[HOST]);
        world.up();
        complete(&mut world, allowed);
        world.run_until(Duration::from_millis(200), |_| false);
        assert_eq!(world.target.connections().len(), allowed as usize);
    }
}

/// The portals that an import's connections serve at.
fn portals(world: &World) -> BTreeSet<u16> {
    let serving = world.target.connections().into_iter().filter(|one| one.full_feature);
    serving.filter_map(|one| Some(one.target_address?.port())).collect()
}

/// An import over three addresses: the first is nobody's, then come two of the target's.
fn over_portals(seed: u64, groups: &[(i32, &[&str])]) -> World {
    let mut remote = several(4, 2);
    remote.address = "10.0.0.1:3999".parse().expect("address");
    let others = ["10.0.0.1:3264", "10.0.0.1:3265"];
    for other in others {
        remote.add_way(other.parse().expect("address"));
    }
    let mut world = World::new(seed, remote, &[HOST]);
    for (tag, portals) in groups {
        let portals = portals.iter().map(|portal| portal.parse().expect("address"));
        world.target.add_portal_group(&PortalGroup::new(*tag, portals)).expect("listening");
        world.target.add_map(TARGET, Map::new(*tag, 1)).expect("new");
    }
    world.up();
    world
}

#[test]
fn a_session_begins_where_a_portal_answers_and_has_connections_at_others() {
    let mut world = over_portals(11, &[(2, &["10.0.0.1:3264", "10.0.0.1:3265"])]);
    world.run_until(Duration::from_secs(3), |world| portals(world).len() == 2);
    assert_eq!(portals(&world), [3264, 3265].into());
    let shown = world.target.connections();
    assert!(shown.iter().all(|connection| connection.tsih == shown[0].tsih), "{shown:?}");
    for tag in 0..30 {
        write_later(&mut world, tag);
    }
    assert!(world.run_until(Duration::from_secs(1), |world| world.done.len() == 30));
    assert!(world.done.drain(..).all(|completed| completed.result.is_ok()));
}

#[test]
fn a_portal_of_another_group_is_done_without() {
    let mut world = over_portals(12, &[(2, &["10.0.0.1:3264"]), (3, &["10.0.0.1:3265"])]);
    world.run_until(Duration::from_secs(3), |_| false);
    assert_eq!(portals(&world), [3264].into());
    world.write(0, 8, 1).expect("the session goes on");
}

#[test]
fn below_level_2_a_session_ends_with_any_of_its_connections() {
    let mut world = world(3, 3, 1);
    world.fault.plan().set_latency(FaultTarget::Write, Duration::from_millis(20));
    for tag in 0..8 {
        write_later(&mut world, tag);
    }
    let before = session(&world);
    world.run_until(Duration::from_millis(1), |_| false);
    // With the first answer.
    world.network.reset_after(ip(1), ip(2), 1);
    assert!(world.run_until(Duration::from_millis(400), |world| world.done.len() == 8));
    let lost = world.done.drain(..).filter(|completed| completed.result == Err(IoError::LinkDown)).count();
    assert!(lost >= 5, "all but those of one connection at the least: {lost}");
    world.up();
    complete(&mut world, 3);
    assert!(session(&world) > before);
}

#[test]
fn writes_outlive_one_connection_of_several_and_all_of_them() {
    for (seed, connections) in [(4, 1), (5, 3)] {
        let mut world = world(seed, connections, 2);
        let before = session(&world);
        world.fault.plan().set_latency(FaultTarget::Write, Duration::from_millis(20));
        for one in [true, false] {
            for tag in 0..8 {
                write_later(&mut world, tag);
            }
            world.run_until(Duration::from_millis(5), |_| false);
            match one {
                true => world.network.reset_after(ip(2), ip(1), 1),
                false => world.network.reset(ip(1), ip(2)),
            }
            assert!(world.run_until(Duration::from_secs(2), |world| world.done.len() == 8), "{connections}");
            assert!(world.done.drain(..).all(|completed| completed.result.is_ok()));
            complete(&mut world, connections);
        }
        assert_eq!(session(&world), before, "the session never ended");
    }
}

/// Time2Wait is the target's two seconds here: this end comes again at once where it may.
#[test]
fn a_lost_connection_is_made_again_after_time2wait_and_not_before() {
    let mut world = World::new(6, several(1, 2), &[HOST]);
    let mut target = world.target.config();
    target.preferences.default_time2wait = 2;
    world.target.set_config(target);
    world.up();
    let (before, first) = (session(&world), world.target.connections()[0].id);
    world.fault.plan().set_latency(FaultTarget::Write, Duration::from_millis(20));
    write_later(&mut world, 1);
    world.run_until(Duration::from_millis(5), |_| false);
    world.network.reset(ip(1), ip(2));
    // It is another connection, under the same identifier.
    let comes_again = |world: &World| world.target.connections().iter().any(|shown| shown.id != first);
    assert!(!world.run_until(Duration::from_millis(1990), comes_again), "too early");
    assert!(world.run_until(Duration::from_millis(100), |world| world.done.len() == 1), "too late");
    assert_eq!(world.done.pop_front().expect("one").result, Ok(()));
    assert_eq!(session(&world), before, "the session never ended");
}

/// The same of a session that ends with its connection.
#[test]
fn a_session_that_was_lost_is_made_again_after_time2wait_and_not_before() {
    for (wait, early, late) in [(2, 1990, 100), (0, 40, 100)] {
        let mut world = World::new(6, several(1, 0), &[HOST]);
        let mut target = world.target.config();
        target.preferences.default_time2wait = wait;
        world.target.set_config(target);
        world.up();
        let first = session(&world);
        world.network.reset(ip(1), ip(2));
        assert!(world.run_until(Duration::from_millis(5), |world| !is_up(world)), "it is down");
        assert!(!world.run_until(Duration::from_millis(early), is_up), "too early");
        assert!(world.run_until(Duration::from_millis(late), is_up), "too late");
        assert_ne!(session(&world), first);
    }
}

fn is_up(world: &World) -> bool {
    matches!(world.channel.link(world.now), Link::Up { .. })
}

#[test]
fn data_survive_a_storm_of_resets_at_random_bytes() {
    for seed in 10..16 {
        let mut world = world(seed, 1 + (seed % 3) as u32, 2);
        let before = session(&world);
        let mut prng = Prng::from_seed(seed);
        let mut model = vec![0u8; 16384 * 512];
        for round in 0..40u8 {
            let blocks = 1 + prng.below(400) as u32;
            let lba = prng.below(16384 - u64::from(blocks));
            let bytes = lba as usize * 512..(lba as usize + blocks as usize) * 512;
            let (from, to) = if prng.below(2) == 0 { (1, 2) } else { (2, 1) };
            world.network.reset_after(ip(from), ip(to), 1 + prng.below(u64::from(blocks) * 512));
            if prng.below(2) == 0 {
                assert_eq!(world.read(lba, blocks).expect("read"), &model[bytes], "seed {seed}");
            } else {
                world.write(lba, blocks, round).expect("written");
                model[bytes].fill(round);
            }
            world.run_until(Duration::from_millis(prng.below(20)), |_| false);
        }
        assert!(world.medium.snapshot(BlockRange::new(0, 16384)) == model, "seed {seed}");
        assert_eq!(session(&world), before, "seed {seed}: the session never ended");
    }
}

#[test]
fn a_silence_that_ends_in_time_is_survived() {
    let mut world = world(6, 2, 2);
    let before = session(&world);
    world.fault.plan().set_latency(FaultTarget::Write, Duration::from_millis(20));
    for tag in 0..8 {
        write_later(&mut world, tag);
    }
    world.run_until(Duration::from_millis(5), |_| false);
    world.network.partition(ip(1), ip(2));
    world.run_until(Duration::from_millis(1400), |_| false);
    assert!(world.done.is_empty());
    world.network.heal(ip(1), ip(2));
    assert!(world.run_until(Duration::from_secs(2), |world| world.done.len() == 8));
    assert!(world.done.drain(..).all(|completed| completed.result.is_ok()));
    assert_eq!(session(&world), before);
}

#[test]
fn a_peer_that_does_not_come_back_is_given_up_in_time() {
    let mut world = world(7, 2, 2);
    world.fault.plan().set_latency(FaultTarget::Write, Duration::from_millis(20));
    write_later(&mut world, 1);
    world.run_until(Duration::from_millis(5), |_| false);
    world.network.partition(ip(1), ip(2));
    let before = world.now;
    assert!(world.run_until(Duration::from_secs(6), |world| !world.done.is_empty()));
    assert!(world.now - before <= Duration::from_millis(3500), "{:?}", world.now - before);
    assert!(matches!(world.channel.link(world.now), Link::Down(LinkDown::Lost(_) | LinkDown::Silent)));
}

/// A real target, whose abort waits for its medium: the I/O comes back with the answer, or after both rungs.
#[test]
fn what_hangs_in_the_medium_is_aborted_at_every_level_and_on_several_connections() {
    for (seed, (connections, level)) in (20..).zip([(1, 0), (1, 2), (3, 0), (3, 2)]) {
        let mut remote = several(connections, level);
        remote.io_timeout = Duration::from_millis(200);
        remote.rung_times =
            RungTimes { abort: Duration::from_millis(100), reset: Duration::from_millis(100) };
        let mut world = World::new(seed, remote, &[HOST]);
        world.up();
        complete(&mut world, connections);
        let before = session(&world);
        for round in 0..3 {
            world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
            write_later(&mut world, round);
            world.run_until(Duration::from_millis(250), |_| false);
            assert!(world.done.is_empty(), "the medium may still read its data");
            world.fault.plan().clear(FaultTarget::Write);
            assert!(world.run_until(Duration::from_millis(40), |world| world.done.len() == 1));
            assert_eq!(world.done.pop_front().expect("one").result, Err(IoError::TimedOut));
            world.write(round * 8, 8, 9).expect("the session goes on");
        }
        assert_eq!(session(&world), before, "{connections} connections, level {level}");
        world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
        write_later(&mut world, 1);
        let sent = world.now;
        assert!(world.run_until(Duration::from_secs(1), |world| world.done.len() == 1));
        let took = world.now - sent;
        assert!(took >= Duration::from_millis(400) && took < Duration::from_millis(440), "{took:?}");
        assert_eq!(world.done.pop_front().expect("one").result, Err(IoError::TimedOut));
        world.fault.plan().clear(FaultTarget::Write);
        world.up();
        world.write(8, 8, 9).expect("another session");
    }
}
