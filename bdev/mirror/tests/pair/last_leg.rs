//! The last leg in sync has trouble: hosts hear of it, and wait no longer than they may.

use bdev::sim::SimFault;
use bdev::{IoError, Op};
use mirror::format::{ArbiterKind, LegMask};

use super::hang::spins;
use super::world::World;
use super::{SECOND, millis, pair, settle};

/// A holder without its peer, whose hosts flush nothing.
pub(crate) fn alone(seed: u64) -> World {
    let mut world = pair(seed);
    world.load(0, millis(20));
    world.kill(1);
    world.load(0, SECOND);
    world.drain();
    assert_eq!(world.in_sync(0), LegMask::ZERO, "{}", world.describe());
    world.accepted = 100;
    world
}

pub(crate) fn fails_once(world: &mut World) {
    assert!(
        matches!(world.ask(0, Op::Flush), Err(IoError::Medium { .. } | IoError::Os(_))),
        "nobody was told"
    );
    assert_eq!(world.ask(0, Op::Flush), Ok(()), "once");
}

/// The log is short of room, and the flush that makes some fails: the disk tells that once, and it is the host's to know (I18).
#[test]
fn a_flush_that_failed_for_the_log_is_told_to_the_next_host_that_flushes() {
    let mut world = alone(910);
    world.disks[0].inject(SimFault::FailFlushes { count: 1 });
    world.load(0, SECOND);
    world.drain();
    fails_once(&mut world);
    world.start(1);
    settle(&mut world, 0);
}

/// The same where the flush was that of the config that made it the last one.
#[test]
fn a_flush_that_failed_before_a_config_is_told_to_the_next_host_that_flushes() {
    let mut world = World::new(911, ArbiterKind::Biased);
    world.create();
    (world.accepted, world.spread) = (100, 60);
    world.load(0, millis(20));
    world.drain();
    world.disks[0].inject(SimFault::FailFlushes { count: 1 });
    world.cut();
    world.wait("config", 5 * SECOND, |world| world.in_sync(0) == LegMask::ZERO);
    fails_once(&mut world);
    world.heal();
    settle(&mut world, 0);
}

/// No extent leaves a log that is full: writes that wait for room end.
#[test]
fn a_last_leg_that_never_flushes_fails_writes_and_hangs_none() {
    let mut world = alone(912);
    world.disks[0].inject(SimFault::FailFlushes { count: 1_000_000 });
    world.load(0, 8 * SECOND);
    assert!(world.errors > 0, "{}", world.describe());
    world.disks[0].heal();
    world.load(0, millis(500));
    world.drain();
    let acks = world.acks;
    world.load(0, millis(100));
    assert!(world.acks > acks, "{}", world.describe());
    world.start(1);
    settle(&mut world, 0);
}

/// Only the peer's leg counts, and it is away.
fn without_either(seed: u64) -> World {
    let mut world = World::new(seed, ArbiterKind::Biased);
    world.create();
    (world.accepted, world.spread) = (0, 20);
    world.load(0, millis(20));
    world.disks[0].inject(SimFault::FailWrites { count: 1_000_000 });
    world.load(0, SECOND);
    world.drain();
    assert_eq!(world.in_sync(0), LegMask::ONE, "{}", world.describe());
    world.cut();
    world.run(millis(50));
    world.accepted = 100;
    world
}

/// Who waits for both superblocks to say that there is data in caches does not wait for ever.
#[test]
fn a_write_that_may_be_cached_waits_for_a_peer_no_longer_than_others() {
    let mut world = without_either(913);
    world.write(0);
    world.run(8 * SECOND);
    assert!(world.open.is_empty() && world.errors == 1, "{}", world.describe());
    world.heal();
    world.disks[0].heal();
    world.load(0, SECOND);
    settle(&mut world, 0);
}

/// The peer is back, and slow: what such a write waits for is the change that is under way, however long it has waited.
#[test]
fn a_node_sleeps_while_a_write_waits_for_a_change() {
    for slow in [140, 150, 160] {
        let mut world = without_either(914);
        world.disks[0].heal();
        world.write(0);
        world.disks[1].slow_down(millis(slow));
        world.heal();
        let most = (0..40).map(|_| spins(&mut world, millis(100))).max();
        assert!(most < Some(20), "{slow} ms: {most:?}: {}", world.describe());
        world.disks[1].slow_down(millis(0));
        settle(&mut world, 0);
    }
}
