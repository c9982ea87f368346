//! What is acknowledged as durable is on both legs' media at that moment, whatever their caches hold (R3).

use bdev::{BlockRange, Durability, Op};
use mirror::format::LegMask;

use super::world::{BLOCK, World};
use super::{millis, pair};

/// The first byte of a block, on both legs, after a power cut at both nodes.
fn after_a_power_cut(world: &World, block: u64) -> [u8; 2] {
    [0, 1].map(|node| {
        let offset = world.status(node).data_offset + block * BLOCK;
        world.disks[node].stable_image()[usize::try_from(offset).expect("small")]
    })
}

fn range(block: u64) -> BlockRange {
    BlockRange::new(block * 8, 8)
}

fn write(world: &mut World, block: u64, byte: u8, durability: Durability) {
    let mut from = world.core.pool().alloc(4096).expect("frames");
    from.fill(byte);
    let op = Op::Write { range: range(block), from: from.freeze(), durability };
    world.ask(0, op).expect("written");
}

#[test]
fn a_durable_write_is_stable_on_both_legs_when_it_is_answered() {
    let mut world = pair(900);
    world.run(millis(20));
    for block in [1, 300, 2] {
        write(&mut world, block, 0x11, Durability::Durable);
        assert_eq!(after_a_power_cut(&world, block), [0x11; 2], "{block}");
        let op = Op::WriteZeroes { range: range(block), durability: Durability::Durable };
        world.ask(0, op).expect("zeroed");
        assert_eq!(after_a_power_cut(&world, block), [0; 2], "{block}");
    }
}

#[test]
fn a_flush_makes_what_was_answered_stable_on_both_legs() {
    let mut world = pair(901);
    world.run(millis(20));
    write(&mut world, 1, 0x11, Durability::Accepted);
    write(&mut world, 300, 0x22, Durability::Accepted);
    assert_eq!(
        [1, 300].map(|block| after_a_power_cut(&world, block)),
        [[0; 2]; 2],
        "in caches, where it may be"
    );
    // Another write's durability is not theirs.
    write(&mut world, 2, 0x33, Durability::Durable);
    assert_eq!(after_a_power_cut(&world, 1), [0; 2]);
    world.ask(0, Op::Flush).expect("flushed");
    let stable = [1, 300, 2].map(|block| after_a_power_cut(&world, block));
    assert_eq!(stable, [[0x11; 2], [0x22; 2], [0x33; 2]]);
}

/// A leg that is out has nothing to say; the other one alone has to have it.
#[test]
fn a_durable_write_without_the_peer_is_stable_on_the_leg_that_is_left() {
    let mut world = pair(902);
    world.kill(1);
    world.wait("service without the peer", millis(8000), |world| world.in_sync(0) == LegMask::ZERO);
    let offset = world.status(0).data_offset;
    let at = |block: u64| usize::try_from(offset + block * BLOCK).expect("small");
    write(&mut world, 1, 0x11, Durability::Accepted);
    assert_eq!(world.disks[0].stable_image()[at(1)], 0);
    write(&mut world, 2, 0x22, Durability::Durable);
    assert_eq!(world.disks[0].stable_image()[at(2)], 0x22);
    world.ask(0, Op::Flush).expect("flushed");
    assert_eq!(world.disks[0].stable_image()[at(1)], 0x11);
}
