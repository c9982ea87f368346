//! A disk that hangs: it neither does what it is asked nor fails it.

use bdev::sim::SimFault;
use mirror::command::{Command, Demotion};
use mirror::events::EventKind;
use mirror::format::{ArbiterKind, LegMask};
use mirror::status::RoleKind;

use super::world::{BLOCK, World};
use super::{PROMOTE, SECOND, millis, pair, settle};

fn hangs(world: &World, index: usize) -> bool {
    let events = world.status(index).events;
    let told = |event: &&mirror::events::Event| {
        matches!(event.kind, EventKind::OwnDiskHangs(_) | EventKind::OwnDiskAnswers)
    };
    events.iter().rfind(told).is_some_and(|event| matches!(event.kind, EventKind::OwnDiskHangs(_)))
}

/// Hosts wait as long as a disk may take, and are served over the peer's leg then.
#[test]
fn a_holder_whose_disk_hangs_goes_on_over_the_peers_leg() {
    for (seed, policy) in [(500, ArbiterKind::Biased), (501, ArbiterKind::Etcd)] {
        let mut world = World::new(seed, policy);
        world.create();
        world.spread = 20;
        world.load(0, millis(20));
        world.disks[0].hang();
        world.load(0, 9 * SECOND);
        assert_eq!(world.in_sync(0), LegMask::both(), "a disk may be slow");
        world.load(0, 3 * SECOND);
        assert_eq!(world.in_sync(0), LegMask::ONE, "{}", world.describe());
        assert!(hangs(&world, 0), "{}", world.describe());
        let acks = world.acks;
        (world.base, world.spread) = (400, 100);
        world.load(0, SECOND);
        assert!(world.acks > acks + 100, "{}", world.describe());
        world.drain();
        assert_eq!(world.errors, 0, "{}", world.describe());
        world.check_acknowledged(1);
        // Nothing is sent to a disk that may still do what it has.
        let writes = world.disks[0].writes_in_flight();
        world.load(0, 5 * SECOND);
        assert_eq!(world.disks[0].writes_in_flight(), writes);
        world.disks[0].wake();
        world.load(0, SECOND);
        settle(&mut world, 0);
        assert!(!hangs(&world, 0), "{}", world.describe());
    }
}

/// Nothing is read or written before what an earlier process left in the disk's cache is stable; a disk that hangs then is told of.
#[test]
fn a_node_flushes_its_leg_before_it_reads_it() {
    let mut world = pair(505);
    world.load(0, millis(50));
    world.kill(1);
    world.disks[1].hang();
    world.start(1);
    world.load(0, 12 * SECOND);
    assert_eq!(world.status(1).role, RoleKind::Starting, "{}", world.describe());
    assert_eq!(world.status(1).reason.as_deref(), Some("flushing this node's leg"));
    assert!(hangs(&world, 1), "{}", world.describe());
    world.disks[1].wake();
    world.load(0, SECOND);
    settle(&mut world, 0);
    assert!(!hangs(&world, 1), "{}", world.describe());
}

/// A flush that fails takes nothing away: the leg is read, and what it says counts.
#[test]
fn a_node_whose_first_flush_fails_says_so_and_begins() {
    let mut world = pair(506);
    world.load(0, millis(50));
    world.kill(1);
    world.load(0, SECOND);
    world.disks[1].inject(SimFault::FailFlushes { count: 1 });
    world.start(1);
    let failed = |event: &mirror::events::Event| matches!(event.kind, EventKind::OwnLegFailed(_));
    world.wait("a flush", SECOND, |world| world.status(1).events.iter().any(failed));
    world.load(0, millis(300));
    settle(&mut world, 0);
}

/// A node that is told to stop before it has begun does.
#[test]
fn a_node_stops_in_the_middle_of_its_first_flush() {
    let mut world = pair(507);
    world.kill(1);
    world.disks[1].hang();
    world.start(1);
    world.run(millis(100));
    let now = world.now;
    world.nodes[1].as_mut().expect("runs").driver.stop(now);
    world.run(millis(100));
    assert_eq!(world.status(1).role, RoleKind::Stopping, "{}", world.describe());
    world.disks[1].wake();
    world.wait("its end", SECOND, |world| world.status(1).role == RoleKind::Stopped);
}

/// What the disk had in flight lands when it wakes, behind what hosts wrote since: it is copied over.
#[test]
fn what_lands_late_is_not_kept() {
    for seed in 510..513 {
        let mut world = pair(seed);
        // All writes meet.
        world.spread = 4;
        world.load(0, millis(20));
        world.disks[0].hang();
        world.load(0, 12 * SECOND);
        assert_eq!(world.in_sync(0), LegMask::ONE, "{}", world.describe());
        world.disks[0].wake();
        world.load(0, millis(300));
        world.drain();
        settle(&mut world, 0);
        world.kill(1);
        world.load(0, 2 * SECOND);
        world.drain();
        world.check_acknowledged(0);
    }
}

/// Reads, too: nothing but they is under way.
#[test]
fn reads_that_a_disk_does_not_answer_come_from_the_peer() {
    let mut world = pair(520);
    world.spread = 20;
    world.load(0, millis(200));
    world.drain();
    world.disks[0].hang();
    for block in 0..8 {
        world.read(0, block * 5);
    }
    world.run(12 * SECOND);
    assert!(world.reading.is_empty(), "{}", world.describe());
    assert_eq!(world.errors, 0, "{}", world.describe());
    world.disks[0].wake();
    world.load(0, SECOND);
    settle(&mut world, 0);
}

/// Nobody could answer for the last leg: hosts wait, and hear no error.
#[test]
fn hosts_wait_for_the_last_leg() {
    let mut world = pair(530);
    world.load(0, millis(20));
    world.kill(1);
    world.load(0, 3 * SECOND);
    assert_eq!(world.in_sync(0), LegMask::ZERO, "{}", world.describe());
    world.disks[0].hang();
    let acks = world.acks;
    world.load(0, 15 * SECOND);
    assert!(hangs(&world, 0), "{}", world.describe());
    assert_eq!(world.acks, acks, "{}", world.describe());
    world.disks[0].wake();
    world.drain();
    assert_eq!(world.errors, 0, "{}", world.describe());
    world.run(SECOND);
    assert!(!hangs(&world, 0), "{}", world.describe());
    world.start(1);
    world.load(0, SECOND);
    settle(&mut world, 0);
}

/// The peer goes away, for a while or longer, at moments around the one at which the own leg goes out.
#[test]
fn a_peer_that_is_lost_meanwhile_is_no_loss() {
    for moment in 0..6 {
        let policy = [ArbiterKind::Biased, ArbiterKind::Etcd][moment % 2];
        let mut world = World::new(540 + moment as u64, policy);
        world.create();
        world.spread = 6;
        world.load(0, millis(20));
        world.disks[0].hang();
        world.load(0, millis(9900 + 120 * moment as u64));
        world.cut();
        world.load(0, if moment % 3 == 0 { millis(200) } else { 4 * SECOND });
        world.disks[0].wake();
        world.load(0, SECOND);
        world.heal();
        world.load(0, 2 * SECOND);
        world.run(4 * SECOND);
        let holder = world.holder().unwrap_or_else(|| panic!("nobody holds: {}", world.describe()));
        world.load(holder, SECOND);
        settle(&mut world, holder);
    }
}

/// The disk of the node that stands by: the holder goes on without it, and takes it back.
#[test]
fn a_standby_whose_disk_hangs_goes_out() {
    let mut world = pair(560);
    world.spread = 20;
    world.load(0, millis(20));
    world.disks[1].hang();
    world.load(0, 13 * SECOND);
    assert_eq!(world.in_sync(0), LegMask::ZERO, "{}", world.describe());
    assert!(hangs(&world, 1), "{}", world.describe());
    world.disks[1].wake();
    world.load(0, SECOND);
    settle(&mut world, 0);
    assert_eq!(world.errors, 0, "{}", world.describe());
}

/// A disk that is slow now and then, and never for so long.
#[test]
fn a_disk_that_is_slow_stays() {
    let mut world = pair(570);
    world.load(0, millis(20));
    for _ in 0..3 {
        world.disks[0].inject(SimFault::DelayWrites { count: 20, extra: millis(9000) });
        world.load(0, 10 * SECOND);
    }
    assert_eq!(world.in_sync(0), LegMask::both(), "{}", world.describe());
}

/// The disk that could not read a block hangs while it is mended: the data are the peer's, and are asked for again.
#[test]
fn a_disk_that_hangs_while_it_is_mended_keeps_no_read() {
    let mut world = pair(580);
    world.load(0, millis(20));
    world.drain();
    world.run(3 * SECOND);
    let lba = (world.status(0).data_offset + 5 * BLOCK) / 512;
    world.disks[0].inject(SimFault::BadBlock { lba });
    world.disks[0].inject(SimFault::DelayWrites { count: 1, extra: 30 * SECOND });
    world.read(0, 5);
    world.run(15 * SECOND);
    assert!(world.reading.is_empty(), "{}", world.describe());
    assert_eq!(world.errors, 0, "{}", world.describe());
    world.run(20 * SECOND);
    world.disks[0].heal();
    world.load(0, SECOND);
    settle(&mut world, 0);
}

/// The link blinks meanwhile: the peer that comes back is not kept waiting by a superblock on the disk that hangs.
#[test]
fn a_link_that_blinks_meanwhile_is_no_deadlock() {
    let mut world = pair(581);
    world.load(0, millis(20));
    world.disks[0].hang();
    world.load(0, SECOND);
    world.cut();
    world.load(0, millis(20));
    world.heal();
    world.load(0, 14 * SECOND);
    let acks = world.acks;
    world.load(0, SECOND);
    assert!(world.acks > acks + 100, "{}", world.describe());
    world.disks[0].wake();
    world.load(0, SECOND);
    settle(&mut world, 0);
}

/// The same where the peer was away for long enough to be left out, which the disk did not write down.
#[test]
fn a_link_that_is_lost_for_longer_meanwhile_is_no_deadlock() {
    // With data in caches the config begins with a flush, which nobody hears of.
    for (policy, accepted) in [(ArbiterKind::Etcd, 0), (ArbiterKind::Etcd, 50), (ArbiterKind::Biased, 50)] {
        let mut world = World::new(584, policy);
        world.create();
        world.accepted = accepted;
        world.load(0, millis(20));
        world.disks[0].hang();
        world.load(0, SECOND);
        world.cut();
        world.load(0, millis(600));
        world.heal();
        world.load(0, 14 * SECOND);
        let acks = world.acks;
        world.load(0, SECOND);
        assert!(world.acks > acks + 100, "{policy:?} {accepted}: {}", world.describe());
        world.disks[0].wake();
        world.load(0, SECOND);
        settle(&mut world, 0);
    }
}

/// Where a config without the own leg is the operator's, nothing is given up: a disk that comes back costs nothing.
#[test]
fn an_operator_who_decides_finds_everything_as_it_was() {
    for policy in [ArbiterKind::Manual, ArbiterKind::ClusterManager] {
        let mut world = World::new(582, policy);
        world.start(0);
        world.start(1);
        world.run(SECOND);
        if policy == ArbiterKind::ClusterManager {
            world.command(0, PROMOTE).expect("nobody else");
        }
        world.wait("sync", 10 * SECOND, |world| world.is_in_sync(0));
        world.load(0, millis(20));
        world.disks[0].hang();
        world.load(0, 13 * SECOND);
        assert!(hangs(&world, 0), "{}", world.describe());
        world.disks[0].wake();
        world.load(0, millis(100));
        settle(&mut world, 0);
        assert_eq!(world.errors, 0, "{}", world.describe());
    }
}

/// Turns of the node that are due when they come: nearly all where a node does not sleep.
pub(crate) fn spins(world: &mut World, time: core::time::Duration) -> u64 {
    let (mut turns, mut due) = (0, 0);
    let until = world.now + time;
    while world.now < until {
        world.step();
        turns += 1;
        due += u64::from(world.is_due(0));
    }
    due * 100 / turns
}

#[test]
fn a_node_sleeps_while_its_disk_hangs() {
    for (accepted, how) in [(0, "out"), (50, "out"), (0, "leaving")] {
        let mut world = World::new(583, ArbiterKind::Biased);
        world.create();
        world.accepted = accepted;
        world.load(0, millis(20));
        world.disks[0].hang();
        if how == "out" {
            world.load(0, 13 * SECOND);
            world.drain();
        } else {
            world.load(0, millis(500));
            world.command(0, Command::Demote(Demotion::AtOnce)).expect("always");
            world.run(11 * SECOND);
            assert!(world.open.is_empty(), "hosts hear of it: {}", world.describe());
        }
        let share = spins(&mut world, 2 * SECOND);
        assert!(share < 10, "{how}: {share} % of the turns: {}", world.describe());
    }
}

/// A holder that ends keeps its place until its disk has nothing left of it.
#[test]
fn whoever_comes_next_finds_a_disk_that_has_answered() {
    let mut world = pair(584);
    world.load(0, millis(20));
    world.disks[0].hang();
    world.load(0, 13 * SECOND);
    world.drain();
    world.command(0, Command::Demote(Demotion::Orderly)).expect("a holder");
    world.run(3 * SECOND);
    assert!(world.command(0, PROMOTE).is_err(), "{}", world.describe());
    world.disks[0].wake();
    world.run(3 * SECOND);
    assert_eq!(world.status(0).role, RoleKind::Standby, "{}", world.describe());
    world.command(0, PROMOTE).expect("it was the last");
    world.wait("service", 10 * SECOND, |world| world.is_holder(0));
    world.load(0, SECOND);
    settle(&mut world, 0);
}

/// The first write into a cache, under a policy by which the own leg does not go out: its superblock is not asked without end.
#[test]
fn a_first_cached_write_waits_for_the_disk() {
    let mut world = World::new(585, ArbiterKind::Manual);
    world.create();
    world.accepted = 0;
    world.load(0, millis(20));
    world.drain();
    world.disks[0].hang();
    world.accepted = 100;
    world.load(0, 13 * SECOND);
    let share = spins(&mut world, 2 * SECOND);
    assert!(share < 10, "{share} % of the turns: {}", world.describe());
    world.disks[0].wake();
    world.load(0, SECOND);
    settle(&mut world, 0);
}
