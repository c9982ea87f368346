//! Writes that two caches hold are lost only if both lose power: not when one leg goes out, or its node does, and then the
//! power of the other fails.

use bdev::sim::SimFault;
use core::time::Duration;
use mirror::format::{ArbiterKind, LegIndex, LegMask};
use mirror::status::{PeerSight, RoleKind};

use super::world::World;
use super::{SECOND, millis, settle};

/// A pair whose last writes are in both caches.
pub(crate) fn cached(seed: u64) -> World {
    let mut world = World::new(seed, ArbiterKind::Etcd);
    world.create();
    (world.accepted, world.spread) = (100, 60);
    world.load(0, millis(20));
    world.drain();
    world
}

fn is_alone(world: &World, leg: LegIndex) -> bool {
    world.arbiter.config().is_some_and(|config| config.in_sync == LegMask::only(leg))
}

/// The power of this node fails as soon as the arbiter counts its leg alone; it comes back, and has everything.
fn goes_dark_when_alone(world: &mut World, node: usize) {
    world.wait("config", 10 * SECOND, |world| is_alone(world, LegIndex::BOTH[node]));
    world.power_off(node);
    world.start(node);
    world.wait("service", 10 * SECOND, |world| world.is_holder(node));
    world.check_acknowledged(node);
}

#[test]
fn a_holder_whose_peer_goes_keeps_what_both_had() {
    for seed in 710..716 {
        let mut world = cached(seed);
        world.cut();
        goes_dark_when_alone(&mut world, 0);
        world.heal();
        settle(&mut world, 0);
    }
}

#[test]
fn a_holder_that_starts_again_keeps_what_both_had() {
    for seed in 720..726 {
        let mut world = cached(seed);
        world.kill(0);
        world.kill(1);
        world.start(0);
        world.start(1);
        goes_dark_when_alone(&mut world, 0);
        settle(&mut world, 0);
    }
}

#[test]
fn a_standby_that_takes_over_keeps_what_both_had() {
    for seed in 730..736 {
        let mut world = cached(seed);
        world.kill(0);
        goes_dark_when_alone(&mut world, 1);
        world.start(0);
        settle(&mut world, 1);
    }
}

/// The arbiter is out of reach when the peer goes; then hosts wait.
fn loses_peer_and_arbiter(world: &mut World) {
    world.arbiter.reach = [false; 2];
    world.cut();
    world.wait("frozen", 10 * SECOND, |world| world.status(0).role == RoleKind::Frozen);
}

#[test]
fn a_holder_keeps_what_both_took_while_the_config_waited_for_the_arbiter() {
    for seed in 750..756 {
        let mut world = cached(seed);
        loses_peer_and_arbiter(&mut world);
        world.heal();
        world.wait("the peer", 10 * SECOND, |world| world.is_in_sync(0));
        let acks = world.acks;
        world.load(0, millis(20));
        world.drain();
        assert!(world.acks > acks, "seed {seed}: it goes on with the peer");
        world.cut();
        world.arbiter.reach[0] = true;
        goes_dark_when_alone(&mut world, 0);
        world.heal();
        settle(&mut world, 0);
    }
}

/// A drive that tries a sector again and again has taken the flush in the meantime.
#[test]
fn a_holder_keeps_what_its_leg_took_late() {
    for seed in 760..766 {
        let mut world = cached(seed);
        world.disks[0].inject(SimFault::DelayWrites { count: 1, extra: 4 * SECOND });
        world.load(0, millis(1));
        world.run(millis(50));
        loses_peer_and_arbiter(&mut world);
        world.run(4 * SECOND);
        world.arbiter.reach[0] = true;
        goes_dark_when_alone(&mut world, 0);
        world.heal();
        settle(&mut world, 0);
    }
}

/// The holder's own leg goes out: from then on hosts' writes are durable.
fn loses_its_own_leg(world: &mut World) {
    world.accepted = 0;
    world.disks[0].inject(SimFault::FailWrites { count: 1_000_000 });
    world.load(0, millis(5));
    world.wait("config", 10 * SECOND, |world| world.in_sync(0) == LegMask::only(LegIndex::One));
}

#[test]
fn a_holder_that_serves_from_its_peers_leg_has_there_what_both_had() {
    for (seed, policy) in [(770, ArbiterKind::Etcd), (771, ArbiterKind::Biased), (772, ArbiterKind::Etcd)] {
        let mut world = World::new(seed, policy);
        world.create();
        (world.accepted, world.spread) = (100, 60);
        world.load(0, millis(20));
        loses_its_own_leg(&mut world);
        world.power_off(1);
        world.run(millis(100));
        world.start(1);
        let joined = |world: &World| world.status(0).peer.is_some_and(|peer| peer.sight == PeerSight::Joined);
        world.wait("the peer", 10 * SECOND, joined);
        world.drain();
        world.check_acknowledged(1);
    }
}

#[test]
fn whoever_takes_over_a_leg_that_counted_alone_has_what_both_had() {
    for seed in 780..784 {
        let mut world = cached(seed);
        world.write(0);
        loses_its_own_leg(&mut world);
        world.kill(0);
        world.wait("takeover", 10 * SECOND, |world| world.is_holder(1));
        world.power_off(1);
        world.start(1);
        world.wait("service", 10 * SECOND, |world| world.is_holder(1));
        world.check_acknowledged(1);
    }
}

/// How long hosts wait for the config of a holder whose peer is gone, and whose next flushes fail.
fn outage(fails: u32) -> Duration {
    let mut world = cached(740);
    world.disks[0].inject(SimFault::FailFlushes { count: fails });
    world.cut();
    let began = world.now;
    world.wait("config", 5 * SECOND, |world| is_alone(world, LegIndex::Zero));
    let outage = world.now - began;
    world.disks[0].heal();
    world.load(0, millis(50));
    world.heal();
    settle(&mut world, 0);
    outage
}

/// A flush that fails is tried again; a leg that never flushes is the last one all the same, and hosts do not wait for ever.
#[test]
fn a_flush_that_fails_delays_a_config_and_does_not_prevent_it() {
    let [sound, thrice, always] = [0, 3, 1_000_000].map(outage);
    assert!(thrice >= sound + millis(300), "{sound:?} and {thrice:?}");
    assert!(always >= thrice + millis(300) && always <= sound + millis(1200), "{sound:?} and {always:?}");
}
