//! Legs whose devices have other logical blocks than the array: what cannot be written in whole blocks is refused, in words.

use bdev::{BlockRange, Durability, Op};
use mirror::format::{ArbiterKind, LegMask};
use mirror::status::{PeerSight, RoleKind};

use super::world::World;
use super::{SECOND, millis};

fn has_failed(world: &World, node: usize) {
    let status = world.status(node);
    assert_eq!(status.role, RoleKind::Failed, "{}", world.describe());
    let why = status.reason.expect("it says why");
    assert!(why.contains("4096") && why.contains("512"), "{why}");
}

#[test]
fn a_blank_leg_with_larger_blocks_than_the_array_does_not_join() {
    let mut world = World::new(900, ArbiterKind::Biased);
    world.exchange_disk(1, 4096);
    world.start(0);
    world.start(1);
    world.run(2 * SECOND);
    has_failed(&world, 1);
    assert!(world.disks[1].peek(0, 1 << 20).iter().all(|byte| *byte == 0), "nothing was written to it");
    world.load(0, millis(50));
    world.drain();
    assert!(world.acks > 0 && world.in_sync(0) == LegMask::ZERO, "{}", world.describe());
}

/// Both ways round: as the peer's leg, and as that of the node that would hold.
#[test]
fn a_leg_that_was_moved_to_a_disk_with_larger_blocks_is_refused() {
    for node in 0..2 {
        let mut world = World::new(901, ArbiterKind::Biased);
        world.create();
        world.load(0, millis(50));
        world.drain();
        world.kill(node);
        let image = world.disks[node].peek(0, super::world::LEG_BYTES);
        world.exchange_disk(node, 4096);
        world.disks[node].poke(0, &image);
        world.start(node);
        world.run(SECOND);
        has_failed(&world, node);
    }
}

/// What the peer exports says that it has other blocks than its superblock knows.
#[test]
fn a_way_to_a_leg_with_larger_blocks_is_barred() {
    let mut world = World::new(902, ArbiterKind::Biased);
    world.create();
    world.load(0, millis(50));
    world.drain();
    world.kill(0);
    world.kill(1);
    world.exchange_wire(0, 4096);
    world.start(0);
    world.start(1);
    world.wait("a refusal", 5 * SECOND, |world| {
        world.status(0).peer.is_some_and(|peer| peer.sight == PeerSight::Refused)
    });
    let cause = world.status(0).peer.and_then(|peer| peer.cause).expect("it says why");
    assert!(cause.contains("4096") && cause.contains("512"), "{cause}");
}

/// Smaller ones fit into the array's.
#[test]
fn a_leg_with_smaller_blocks_than_the_array_joins() {
    let mut world = World::new(903, ArbiterKind::Biased);
    world.exchange_disk(0, 4096);
    world.create();
    let mut from = world.core.pool().alloc(4096).expect("frames");
    from.fill(7);
    let op = Op::Write { range: BlockRange::new(9, 1), from: from.freeze(), durability: Durability::Durable };
    assert_eq!(world.ask(0, op), Ok(()));
    assert_eq!(world.data(1)[9 * 4096..10 * 4096], [7; 4096]);
    world.check_equal();
}
