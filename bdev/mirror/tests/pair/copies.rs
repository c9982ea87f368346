//! What a copy is made of may be in its source's cache alone. The source loses power while the copy goes on: what hosts have not
//! flushed may be lost, and the legs do not differ for it.

use bdev::sim::SimFault;
use bdev::{BlockRange, Durability, Op};
use mirror::command::Command;
use mirror::events::EventKind;
use mirror::format::{ArbiterKind, LegIndex, LegMask};
use mirror::holder::resync::Throttle;
use mirror::status::PeerSight;

use super::world::World;
use super::{SECOND, millis, pair, settle};

/// A pair whose hosts flush nothing.
fn cached(seed: u64) -> World {
    let mut world = World::new(seed, ArbiterKind::Etcd);
    world.create();
    world.accepted = 100;
    world.load(0, millis(20));
    world.drain();
    world
}

/// The holder serves from its peer's leg, and its own is left alone for half a second.
fn without_own_leg(world: &mut World) {
    world.accepted = 0;
    world.disks[0].inject(SimFault::FailWrites { count: 1_000_000 });
    world.load(0, millis(5));
    world.wait("config", 10 * SECOND, |world| world.in_sync(0) == LegMask::only(LegIndex::One));
    world.disks[0].heal();
    world.drain();
    world.accepted = 100;
}

pub(crate) fn throttle(world: &mut World, holder: usize, throttle: Throttle) {
    world.command(holder, Command::Resync(throttle)).expect("it holds");
}

pub(crate) fn is_copying(world: &World, holder: usize, least: u64) -> bool {
    world.is_holder(holder) && world.status(holder).resync.is_some_and(|copy| copy.copied >= least)
}

/// Stops the copy as soon as part of it is there.
fn stop_in_the_middle(world: &mut World, holder: usize) {
    world.wait("a copy", 10 * SECOND, |world| is_copying(world, holder, 1));
    throttle(world, holder, Throttle::Paused);
    // What was copied is written down.
    world.run(SECOND);
    assert!(world.status(holder).dirty_bytes > 0, "it is not over: {}", world.describe());
}

/// The power of the peer fails, whose leg is the only one that counts.
fn source_loses_power(world: &mut World) {
    world.power_off(1);
    world.give_up();
    world.run(millis(50));
    world.start(1);
    let joined = |world: &World| world.status(0).peer.is_some_and(|peer| peer.sight == PeerSight::Joined);
    world.wait("the peer", 10 * SECOND, joined);
    throttle(world, 0, Throttle::Running);
    settle(world, 0);
}

#[test]
fn what_both_took_while_the_own_leg_came_back_is_marked() {
    for seed in 790..794 {
        let mut world = cached(seed);
        world.spread = 60;
        without_own_leg(&mut world);
        throttle(&mut world, 0, Throttle::Paused);
        world.wait("the own leg", 5 * SECOND, |world| is_copying(world, 0, 0));
        (world.base, world.spread) = (400, 100);
        world.load(0, millis(20));
        world.drain();
        source_loses_power(&mut world);
    }
}

#[test]
fn what_the_peer_took_while_the_own_leg_was_out_is_flushed_before_it_is_copied() {
    for seed in 800..804 {
        let mut world = cached(seed);
        without_own_leg(&mut world);
        world.load(0, millis(200));
        world.drain();
        stop_in_the_middle(&mut world, 0);
        source_loses_power(&mut world);
    }
}

#[test]
fn what_a_holder_that_lost_its_cache_takes_from_its_peer_is_marked() {
    for seed in 810..814 {
        let mut world = cached(seed);
        world.load(0, millis(200));
        world.drain();
        world.power_off(0);
        world.start(0);
        stop_in_the_middle(&mut world, 0);
        source_loses_power(&mut world);
    }
}

#[test]
fn what_a_new_holder_has_in_its_cache_is_flushed_before_it_is_copied() {
    for seed in 820..824 {
        let mut world = cached(seed);
        without_own_leg(&mut world);
        world.load(0, millis(200));
        world.drain();
        world.kill(0);
        world.wait("takeover", 20 * SECOND, |world| world.is_holder(1));
        world.start(0);
        stop_in_the_middle(&mut world, 1);
        world.power_off(1);
        world.give_up();
        world.run(millis(50));
        world.start(1);
        world.wait("service", 20 * SECOND, |world| world.is_holder(1));
        settle(&mut world, 1);
    }
}

/// A flush that comes late holds up nobody but the copy.
#[test]
fn a_source_that_does_not_flush_is_asked_again() {
    let mut world = cached(830);
    without_own_leg(&mut world);
    world.disks[1].inject(SimFault::FailFlushes { count: 2 });
    world.load(0, 2 * SECOND);
    world.accepted = 0;
    settle(&mut world, 0);
}

/// A pair of which the first eight MiB are partly copied to the peer's leg, and stay so.
fn half_copied(seed: u64) -> World {
    let mut world = World::new(seed, ArbiterKind::Biased);
    world.create();
    world.kill(1);
    world.run(SECOND);
    for at in 0..8 {
        write_large(&mut world, at * 2048);
    }
    world.start(1);
    stop_in_the_middle(&mut world, 0);
    world
}

/// A MiB at this block of 512 bytes.
fn write_large(world: &mut World, lba: u64) {
    let mut from = world.core.pool().alloc(1 << 20).expect("frames");
    from.fill(7);
    let (range, from) = (BlockRange::new(lba, 2048), from.freeze());
    assert_eq!(world.ask(0, Op::Write { range, from, durability: Durability::Durable }), Ok(()));
}

/// Else a host that writes the same again and again undoes every copy before the next one (I13).
#[test]
fn a_write_over_granules_some_of_which_are_copied_makes_none_of_those_stale() {
    let mut world = half_copied(840);
    let dirty = world.status(0).dirty_bytes;
    for at in 0..15 {
        write_large(&mut world, at * 1024);
    }
    assert_eq!(world.status(0).dirty_bytes, dirty, "{}", world.describe());
    throttle(&mut world, 0, Throttle::Running);
    settle(&mut world, 0);
}

/// Reads for copies that began before the link was lost fail when it is there again: the copy that goes on is another one.
#[test]
fn a_source_that_failed_an_older_copy_has_not_failed_this_one() {
    let mut world = half_copied(841);
    world.disks[0].slow_down(millis(400));
    throttle(&mut world, 0, Throttle::Running);
    world.run(millis(1));
    throttle(&mut world, 0, Throttle::Paused);
    world.disks[0].slow_down(millis(0));
    world.cut();
    world.run(millis(1));
    world.heal();
    world.wait("the copy", SECOND / 3, |world| is_copying(world, 0, 0));
    world.disks[0].inject(SimFault::FailReads { count: 4 });
    world.run(millis(500));
    world.disks[0].heal();
    assert!(is_copying(&world, 0, 0), "{}", world.describe());
    let barred = |event: &mirror::events::Event| matches!(event.kind, EventKind::ResyncStopped { .. });
    assert!(!world.status(0).events.iter().any(barred), "{}", world.describe());
    throttle(&mut world, 0, Throttle::Running);
    settle(&mut world, 0);
}

/// No host is at work, and somebody else has every frame that a copy could take.
#[test]
fn a_resync_waits_for_frames() {
    let mut world = pair(460);
    world.kill(1);
    world.load(0, millis(500));
    world.drain();
    world.run(2 * SECOND);
    let pool = world.core.pool().clone();
    let taken: Vec<_> = [1 << 20, 64 << 10]
        .into_iter()
        .flat_map(|size| core::iter::from_fn(|| pool.alloc(size)).collect::<Vec<_>>())
        .collect();
    world.start(1);
    world.run(3 * SECOND);
    assert!(world.status(0).dirty_bytes > 0, "{}", world.describe());
    drop(taken);
    settle(&mut world, 0);
}
