//! The holder's own leg fails: what goes on without it, and how it comes back.

use bdev::sim::SimFault;
use bdev::{BlockRange, IoError};
use mirror::events::EventKind;
use mirror::format::{ArbiterKind, LegMask};
use mirror::status::RoleKind;

use super::world::{BLOCK, World};
use super::{SECOND, millis, pair, settle};

/// The own leg, out after one error; hosts go on writing elsewhere on the volume.
fn without_own_leg(world: &mut World) {
    world.spread = 20;
    world.load(0, millis(20));
    world.disks[0].inject(SimFault::FailWrites { count: 1 });
    // It may have none on its way.
    for _ in 0..200 {
        if world.in_sync(0) == LegMask::ONE {
            break;
        }
        world.load(0, millis(5));
    }
    assert_eq!(world.in_sync(0), LegMask::ONE, "{}", world.describe());
    world.disks[0].heal();
}

fn all_data(world: &World) -> BlockRange {
    let status = world.status(0);
    let blocks = u32::try_from(status.data_size / 512).expect("small");
    BlockRange::new(status.data_offset / 512, blocks)
}

fn break_data(world: &World) {
    world.disks[0].inject(SimFault::FailWritesIn { range: all_data(world) });
}

/// While the own leg is out nothing on it says what it misses: a restart copies everything.
#[test]
fn a_holder_that_restarts_without_its_leg_in_sync_takes_everything_from_the_peer() {
    let mut world = pair(400);
    world.spread = 20;
    world.load(0, millis(20));
    break_data(&world);
    world.load(0, millis(500));
    assert_eq!(world.in_sync(0), LegMask::ONE, "{}", world.describe());
    // Elsewhere: no old extent of the log covers it.
    (world.base, world.spread) = (400, 100);
    world.load(0, millis(500));
    world.drain();
    assert_eq!(world.errors, 0, "{}", world.describe());
    world.disks[0].heal();
    world.kill(0);
    world.start(0);
    world.wait("service", 10 * SECOND, |world| world.is_holder(0));
    world.load(0, millis(100));
    settle(&mut world, 0);
}

/// The same where the own superblock could not be written either: what the arbiter says, or the peer's leg, counts.
#[test]
fn a_leg_that_never_heard_that_it_is_out_takes_everything_from_the_peer() {
    for policy in [ArbiterKind::Biased, ArbiterKind::Etcd] {
        let mut world = World::new(401, policy);
        world.create();
        world.spread = 20;
        world.load(0, millis(20));
        world.disks[0].inject(SimFault::FailWrites { count: 1_000_000 });
        world.load(0, millis(500));
        assert_eq!(world.in_sync(0), LegMask::ONE, "{}", world.describe());
        (world.base, world.spread) = (400, 100);
        world.load(0, millis(500));
        world.drain();
        assert_eq!(world.errors, 0, "{}", world.describe());
        world.disks[0].heal();
        world.kill(0);
        world.start(0);
        world.wait("service", 10 * SECOND, |world| world.is_holder(0));
        world.load(0, millis(100));
        settle(&mut world, 0);
    }
}

/// The peer dies, and within its grace the own leg fails a write: the peer goes, and the error is the last leg's.
#[test]
fn an_own_error_while_the_peer_is_away_does_not_stop_the_volume() {
    let mut world = pair(402);
    world.load(0, millis(20));
    world.kill(1);
    break_data(&world);
    world.load(0, millis(100));
    world.disks[0].heal();
    world.load(0, 2 * SECOND);
    world.drain();
    assert_eq!(world.in_sync(0), LegMask::ZERO, "{}", world.describe());
    let acks = world.acks;
    world.load(0, millis(100));
    assert!(world.acks > acks, "{}", world.describe());
    world.start(1);
    settle(&mut world, 0);
}

/// The own leg fails, and so many writes later the peer is lost.
fn lose_own_leg_and_peer(world: &mut World, moment: u64) {
    world.spread = 24;
    world.load(0, millis(20));
    world.disks[0].inject(SimFault::FailWrites { count: 1 });
    for _ in 0..moment {
        world.write(0);
        world.step();
    }
    world.cut();
}

/// The peer is lost at every moment around the config without the own leg, for a while or longer.
#[test]
fn a_peer_that_is_lost_while_the_own_leg_goes_is_no_deadlock() {
    for moment in 0..24 {
        let mut world = pair(410 + moment);
        lose_own_leg_and_peer(&mut world, moment);
        let away = if moment % 2 == 0 { millis(100) } else { 3 * SECOND };
        world.load(0, away);
        world.heal();
        world.load(0, SECOND);
        world.drain();
        let acks = world.acks;
        world.load(0, millis(100));
        assert!(world.acks > acks, "moment {moment}: {}", world.describe());
        settle(&mut world, 0);
    }
}

/// The own leg fails, the peer is lost before it hears that its leg counts alone, so that it is given up in turn; the holder dies when the
/// arbiter has both configs, and its superblock neither. It has everything, and serves alone.
#[test]
fn a_holder_that_dies_between_two_changes_of_mind_serves_again() {
    let mut deaths = 0;
    for moment in 0..24 {
        let mut world = World::new(440 + moment, ArbiterKind::Etcd);
        world.create();
        lose_own_leg_and_peer(&mut world, moment);
        let (mut left_out, mut died) = (false, false);
        for _ in 0..200_000 {
            world.step();
            let in_sync = world.arbiter.config().map(|config| config.in_sync);
            left_out |= in_sync == Some(LegMask::ONE);
            if left_out && in_sync == Some(LegMask::ZERO) {
                died = true;
                break;
            }
        }
        world.kill(0);
        deaths += u32::from(died);
        world.disks[0].heal();
        world.start(0);
        if died {
            world.wait("service alone", 20 * SECOND, |world| world.is_holder(0));
        }
        world.heal();
        world.run(SECOND);
        settle(&mut world, 0);
    }
    assert!(deaths > 0, "no moment meets it");
}

/// Refused for want of memory: nothing is wrong with the leg.
#[test]
fn a_leg_that_is_busy_is_asked_again() {
    let mut world = pair(403);
    world.load(0, millis(20));
    world.disks[0].inject(SimFault::BusyWrites { count: 50 });
    world.load(0, millis(500));
    world.drain();
    assert_eq!((world.errors, world.in_sync(0)), (0, LegMask::both()), "{}", world.describe());
    world.disks[1].inject(SimFault::BusyWrites { count: 3 });
    world.load(0, millis(500));
    world.drain();
    assert_eq!((world.errors, world.in_sync(0)), (0, LegMask::both()), "{}", world.describe());
    world.kill(1);
    world.load(0, SECOND);
    world.disks[0].inject(SimFault::BusyWrites { count: 50 });
    world.load(0, millis(500));
    world.drain();
    assert_eq!(world.errors, 0, "{}", world.describe());
    world.start(1);
    settle(&mut world, 0);
}

/// Only the peer's leg is in sync: a reset of the link is waited out, and only a long loss is the hosts' to see.
#[test]
fn a_link_that_is_lost_for_a_moment_is_no_error_while_only_the_peers_leg_counts() {
    let mut world = pair(404);
    without_own_leg(&mut world);
    break_data(&world);
    for _ in 0..10 {
        world.load(0, millis(50));
        world.cut();
        let time = 1 + world.prng.below(300);
        world.load(0, millis(time));
        world.heal();
        world.load(0, millis(200));
    }
    world.drain();
    assert_eq!(world.errors, 0, "{}", world.describe());
    world.cut();
    world.load(0, 6 * SECOND);
    assert!(world.errors > 0, "nobody waits for ever: {}", world.describe());
    world.heal();
    world.load(0, SECOND);
    world.drain();
    let (acks, errors) = (world.acks, world.errors);
    world.load(0, millis(100));
    world.drain();
    assert!(world.acks > acks && world.errors == errors, "{}", world.describe());
    world.disks[0].heal();
    settle(&mut world, 0);
}

/// The own leg cannot read a block while the way to the peer's is being made anew: the read waits for it.
#[test]
fn a_bad_block_is_read_from_a_peer_that_is_about_to_be_back() {
    let mut mended = 0;
    for moment in 0..20 {
        let mut world = pair(430 + moment);
        world.load(0, millis(20));
        world.drain();
        let lba = (world.status(0).data_offset + 5 * BLOCK) / 512;
        world.disks[0].inject(SimFault::BadBlock { lba });
        world.cut();
        world.read(0, 5);
        world.run(millis(moment * 5));
        world.heal();
        world.read(0, 5);
        world.load(0, millis(200));
        world.drain();
        assert_eq!(world.errors, 0, "moment {moment}: {}", world.describe());
        settle(&mut world, 0);
        mended += world.status(0).counters.mended;
    }
    assert!(mended > 0);
}

/// The last leg's log is gone and cannot be written: writes that wait for it end.
#[test]
fn a_last_leg_whose_log_is_dead_fails_writes_and_hangs_none() {
    let mut world = pair(405);
    world.load(0, millis(20));
    world.kill(1);
    world.load(0, SECOND);
    world.drain();
    world.kill(0);
    world.disks[0].poke(1 << 20, &vec![0xa5; 1 << 20]);
    world.start(0);
    world.wait("service", SECOND, |world| world.is_holder(0));
    world.disks[0].inject(SimFault::FailWrites { count: 1_000_000 });
    world.load(0, 2 * SECOND);
    world.drain();
    assert!(world.errors > 0, "{}", world.describe());
    world.disks[0].heal();
    world.load(0, millis(500));
    let acks = world.acks;
    world.load(0, millis(100));
    assert!(world.acks > acks, "{}", world.describe());
    world.start(1);
    settle(&mut world, 0);
}

/// A holder whose own leg stays broken serves from the peer's, and takes its own back when it works.
#[test]
fn a_holder_serves_from_its_peer_while_its_own_leg_is_broken() {
    let mut world = pair(406);
    without_own_leg(&mut world);
    break_data(&world);
    world.load(0, millis(100));
    world.drain();
    world.kill(0);
    world.start(0);
    world.wait("service", 5 * SECOND, |world| world.is_holder(0));
    world.load(0, 3 * SECOND);
    world.drain();
    assert_eq!((world.errors, world.in_sync(0)), (0, LegMask::ONE), "{}", world.describe());
    world.disks[0].heal();
    settle(&mut world, 0);
}

/// It comes back under load, by a delta: what it missed is known as long as the holder lives.
#[test]
fn an_own_leg_that_failed_once_comes_back_by_itself() {
    let mut world = pair(407);
    world.load(0, millis(20));
    world.disks[0].inject(SimFault::FailWrites { count: 1 });
    world.load(0, millis(500));
    assert_eq!(world.in_sync(0), LegMask::ONE, "{}", world.describe());
    world.load(0, 10 * SECOND);
    assert_eq!((world.errors, world.in_sync(0)), (0, LegMask::both()), "{}", world.describe());
    settle(&mut world, 0);
    let last = world.status(0).last_resync.expect("a resync ended");
    assert!(last.copied < world.status(0).data_size, "{last:?}");
}

/// The same with a crash at each moment of the way back.
#[test]
fn a_holder_that_dies_while_its_own_leg_comes_back_loses_nothing() {
    for moment in 0..12 {
        let mut world = pair(440 + moment);
        world.load(0, millis(20));
        world.disks[0].inject(SimFault::FailWrites { count: 1 });
        world.load(0, millis(500));
        world.load(0, millis(moment * 20));
        world.kill(0);
        world.start(0);
        world.wait("service", 10 * SECOND, |world| world.is_holder(0));
        let until = world.prng.below(60);
        world.load(0, millis(until));
        world.power_off(0);
        world.start(0);
        world.wait("service", 10 * SECOND, |world| world.is_holder(0));
        world.load(0, millis(50));
        settle(&mut world, 0);
    }
}

/// The config without the peer is the arbiter's, and cannot be written: when the peer is back it is the own leg that goes.
#[test]
fn a_config_that_cannot_be_written_is_not_in_the_way_of_a_peer_that_is_back() {
    let mut world = World::new(460, ArbiterKind::Etcd);
    world.create();
    world.load(0, millis(20));
    world.cut();
    world.disks[0].inject(SimFault::FailWrites { count: 1_000_000 });
    world.load(0, millis(600));
    assert_eq!(world.arbiter.config().map(|config| config.in_sync), Some(LegMask::ZERO), "it is asked first");
    world.heal();
    world.load(0, 5 * SECOND);
    let acks = world.acks;
    world.load(0, millis(100));
    assert!(world.acks > acks && world.errors == 0, "{}", world.describe());
    assert_eq!(world.in_sync(0), LegMask::ONE, "{}", world.describe());
    world.disks[0].heal();
    settle(&mut world, 0);
}

/// Without an arbiter it may be on the own leg all the same, which would serve alone when its node starts anew: hosts wait.
#[test]
fn a_config_that_may_have_been_written_is_waited_for() {
    let mut world = pair(461);
    world.load(0, millis(20));
    world.cut();
    world.disks[0].inject(SimFault::FailWrites { count: 1_000_000 });
    world.load(0, millis(600));
    world.heal();
    world.load(0, SECOND);
    let acks = world.acks;
    world.load(0, SECOND);
    assert_eq!((world.acks, world.errors), (acks, 0), "{}", world.describe());
    world.disks[0].heal();
    world.load(0, SECOND);
    assert!(world.acks > acks, "{}", world.describe());
    settle(&mut world, 0);
}

/// The holder lives on the peer's leg, stands still, and the peer takes over meanwhile: its leg refuses what the holder writes then. The
/// link is cut before the holder has seen why.
#[test]
fn a_host_of_a_holder_that_was_succeeded_hears_of_no_reservation() {
    for seed in 420..430 {
        let mut world = World::new(seed, ArbiterKind::Etcd);
        world.create();
        without_own_leg(&mut world);
        world.drain();
        let sleeper = world.pause(0);
        world.wait("a promotion", 10 * SECOND, |world| world.status(1).role == RoleKind::Promoting);
        world.resume(0, sleeper);
        for _ in 0..8 {
            world.write(0);
        }
        let refused = |world: &World| {
            world.status(0).events.iter().any(|event| event.kind == EventKind::PeerFailed(IoError::Fenced))
        };
        world.wait("a refusal", SECOND, refused);
        world.cut();
        world.run(8 * SECOND);
        assert!(world.is_holder(1), "{}", world.describe());
        world.heal();
        world.drain();
    }
}
