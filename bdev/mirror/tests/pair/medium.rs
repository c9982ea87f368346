//! Metadata that cannot be read: for once, in one place, or at all.

use bdev::sim::SimFault;
use mirror::format::ArbiterKind;
use mirror::status::RoleKind;

use super::world::World;
use super::{SECOND, millis, pair, settle};

/// Of the superblock's first slot, in blocks of 512 bytes; the other one follows.
const SLOTS: u64 = (64 << 10) / 512;

/// Both slots are read at once, and are two copies all the same (R9).
#[test]
fn a_bad_sector_takes_one_copy_of_the_superblock_alone() {
    for node in 0..2 {
        for lba in [SLOTS - 1, SLOTS, SLOTS + 7, SLOTS + 8, SLOTS + 15] {
            let mut world = pair(700);
            world.load(0, millis(20));
            world.drain();
            world.kill(node);
            world.disks[node].inject(SimFault::BadBlock { lba });
            world.start(node);
            world.load(0, SECOND);
            settle(&mut world, 0);
        }
    }
}

/// The holder's leg alone counts when it starts again: whoever takes it for damaged ends the array.
#[test]
fn reads_that_fail_and_then_do_not_cost_a_start_nothing() {
    for count in [1, 2, 3, 4] {
        let mut world = pair(701);
        world.load(0, millis(20));
        world.kill(1);
        world.load(0, 2 * SECOND);
        world.drain();
        world.kill(0);
        world.disks[0].inject(SimFault::FailReads { count });
        world.start(0);
        world.wait("service", 5 * SECOND, |world| world.is_holder(0));
        world.start(1);
        settle(&mut world, 0);
    }
}

/// Each error may take a broken disk seconds.
#[test]
fn a_disk_that_fails_every_read_is_given_up_soon() {
    for policy in [ArbiterKind::Biased, ArbiterKind::Etcd] {
        let mut world = World::new(702, policy);
        world.create();
        world.kill(1);
        world.disks[1].inject(SimFault::FailReads { count: 80 });
        world.start(1);
        world.wait("verdict", SECOND, |world| world.status(1).role == RoleKind::Failed);
        let reason = world.status(1).reason.expect("one");
        assert!(reason.contains("cannot be read (medium error"), "{reason}");
    }
}
