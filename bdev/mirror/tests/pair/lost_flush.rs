//! A flush fails once, and what it covered is lost: the disk does not tell a second time. Whoever had asked, and whatever becomes
//! of that meanwhile, hosts are told, or the other leg has it and says so (I18).

use bdev::Op;
use bdev::sim::SimFault;
use mirror::events::EventKind;
use mirror::format::LegMask;
use mirror::holder::resync::Throttle;
use mirror::status::PeerSight;

use super::copies::{is_copying, throttle};
use super::last_copy::cached;
use super::last_leg::{alone, fails_once};
use super::world::World;
use super::{SECOND, millis, pair, settle};

/// The next flush of the holder's disk that ends.
fn next_flush_loses(world: &mut World) {
    world.disks[0].inject(SimFault::LoseFlushes { count: 1 });
}

fn is_joined(world: &World) -> bool {
    world.status(0).peer.is_some_and(|peer| peer.sight == PeerSight::Joined)
}

fn own_leg_failed(world: &World) -> bool {
    world.status(0).events.iter().any(|event| matches!(event.kind, EventKind::OwnLegFailed(_)))
}

/// The peer has what the own leg has lost: no host need know.
fn nobody_need_know(world: &mut World) {
    assert_eq!(world.ask(0, Op::Flush), Ok(()), "{}", world.describe());
    settle(world, 0);
    assert!(own_leg_failed(world), "{}", world.describe());
    assert_eq!(world.errors, 0);
}

/// Hosts know, and the legs are the same.
fn everybody_knows(world: &mut World) {
    fails_once(world);
    world.give_up();
    world.heal();
    settle(world, 0);
}

#[test]
fn a_flush_before_a_config_that_fails_when_the_peer_is_back() {
    for seed in 940..944 {
        let mut world = cached(seed);
        next_flush_loses(&mut world);
        world.disks[0].slow_down(millis(400));
        world.cut();
        world.run(millis(350));
        world.disks[0].slow_down(millis(0));
        world.heal();
        world.wait("the peer", millis(200), is_joined);
        assert!(!own_leg_failed(&world), "it is under way");
        world.run(millis(500));
        nobody_need_know(&mut world);
    }
}

#[test]
fn a_flush_before_a_config_that_failed_when_the_peer_came_back() {
    for seed in 944..948 {
        let mut world = cached(seed);
        next_flush_loses(&mut world);
        world.cut();
        world.wait("a failure", SECOND, own_leg_failed);
        world.heal();
        world.wait("the peer", millis(90), is_joined);
        assert_eq!(world.in_sync(0), LegMask::both());
        nobody_need_know(&mut world);
    }
}

#[test]
fn a_flush_of_a_source_that_fails_when_the_copy_is_cut_off() {
    let mut world = alone(950);
    world.load(0, millis(20));
    world.drain();
    world.disks[0].slow_down(millis(100));
    world.start(1);
    world.wait("a copy", 10 * SECOND, |world| is_copying(world, 0, 0));
    next_flush_loses(&mut world);
    world.cut();
    world.disks[0].slow_down(millis(0));
    world.run(millis(200));
    everybody_knows(&mut world);
}

/// Everything is copied, and both legs are being flushed before the peer's counts; its disk takes its time.
fn is_about_to_rejoin(world: &mut World) {
    world.disks[1].slow_down(millis(30));
    world.start(1);
    world.wait("a copy", 10 * SECOND, |world| is_copying(world, 0, 1));
    world.wait("its end", 20 * SECOND, |world| world.status(0).dirty_bytes == 0);
    assert_eq!(world.in_sync(0), LegMask::ZERO);
}

#[test]
fn a_flush_that_both_legs_fail_has_failed_on_both() {
    let mut world = alone(951);
    is_about_to_rejoin(&mut world);
    next_flush_loses(&mut world);
    world.run(millis(5));
    world.cut();
    world.run(millis(100));
    everybody_knows(&mut world);
}

/// A host flushes, the disk fails it, and the link goes.
fn flushes_and_is_cut(seed: u64) -> World {
    let mut world = cached(seed);
    next_flush_loses(&mut world);
    world.send(0, Op::Flush);
    world.cut();
    world.run(millis(10));
    world
}

#[test]
fn a_hosts_flush_that_both_legs_fail_is_not_asked_for_again() {
    for seed in 952..956 {
        let mut world = flushes_and_is_cut(seed);
        world.heal();
        assert_eq!(world.answer(), Ok(()), "the peer has it");
        nobody_need_know(&mut world);
    }
}

#[test]
fn a_hosts_flush_that_both_legs_fail_is_told_where_the_own_leg_goes_on_alone() {
    for seed in 956..960 {
        let mut world = flushes_and_is_cut(seed);
        world.answer().expect_err("it may be lost");
        assert_eq!(world.in_sync(0), LegMask::ZERO);
        everybody_knows(&mut world);
    }
}

/// The own leg is to go out, and what it has lost is in the peer's cache when the link goes.
#[test]
fn an_own_leg_that_is_to_go_out_and_stays_alone_is_told_of() {
    for seed in 960..964 {
        let mut world = cached(seed);
        next_flush_loses(&mut world);
        world.send(0, Op::Flush);
        world.wait("a failure", SECOND, own_leg_failed);
        world.cut();
        let told = world.answer().is_err();
        world.wait("config", 5 * SECOND, |world| world.in_sync(0) != LegMask::both());
        assert!(told || world.in_sync(0) != LegMask::ZERO, "{}", world.describe());
        world.give_up();
        world.heal();
        settle(&mut world, 0);
    }
}

/// What only the copy has now is copied back over it: no log keeps it any more.
#[test]
fn what_a_source_lost_while_it_was_copied_is_marked() {
    let mut world = pair(964);
    world.spread = 60;
    world.load(0, millis(20));
    world.kill(1);
    world.load(0, SECOND);
    throttle(&mut world, 0, Throttle::Paused);
    world.start(1);
    world.wait("a copy", 5 * SECOND, |world| is_copying(world, 0, 0));
    (world.base, world.spread, world.accepted) = (400, 100, 100);
    world.load(0, millis(20));
    world.drain();
    next_flush_loses(&mut world);
    fails_once(&mut world);
    world.give_up();
    throttle(&mut world, 0, Throttle::Running);
    settle(&mut world, 0);
}

/// That the peer's leg could not be flushed once is no reason to give up on the own one's first failure, long after.
#[test]
fn writes_that_wait_for_room_wait_from_the_last_legs_failure_on() {
    let mut world = alone(965);
    is_about_to_rejoin(&mut world);
    world.cut();
    world.run(3 * SECOND);
    world.disks[0].inject(SimFault::FailFlushes { count: 30 });
    world.load(0, 3 * SECOND);
    world.drain();
    assert_eq!(world.errors, 0, "{}", world.describe());
    fails_once(&mut world);
    world.heal();
    settle(&mut world, 0);
}
