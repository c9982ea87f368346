//! How much storage a device has.

use std::sync::Arc;

use crate::common::{Bench, core, file_of, geometry};
use crate::crypto;
use bdev::fault::FaultBdev;
use bdev::hop::{HopIdentity, hop};
use bdev::malloc::MallocBdev;
use bdev::meter::Metered;
use bdev::null::NullBdev;
use bdev::{Backing, Bdev, BlockRange, Durability, Geometry, Op};
use uuid::Uuid;

fn allocated(bdev: &Arc<dyn Bdev>) -> u64 {
    bdev.space().expect("it knows").allocated
}

/// Blocks that are written have storage, blocks that are discarded have not.
fn counts(bdev: &Arc<dyn Bdev>) {
    let block_size = u64::from(bdev.geometry().block_size);
    let mut bench = Bench::new(bdev.clone());
    let before = allocated(bdev);
    // In whole pages of any file system.
    let blocks = u32::try_from((256 << 10) / block_size).expect("a few");
    let range = BlockRange::new(u64::from(blocks), blocks);
    bench.write(range.lba, range.blocks, 7, Durability::Durable).expect("written");
    assert_eq!(allocated(bdev) - before, 256 << 10, "{bdev:?}");
    bench.write(range.lba, range.blocks, 8, Durability::Durable).expect("written");
    assert_eq!(allocated(bdev) - before, 256 << 10, "{bdev:?}: written twice");
    let first = BlockRange::new(range.lba, blocks / 2);
    bench.run(Op::Discard { range: first }).result.expect("discarded");
    assert_eq!(allocated(bdev) - before, 128 << 10, "{bdev:?}");
    bench.run(Op::WriteZeroes { range, durability: Durability::Durable }).result.expect("zeroed");
    assert_eq!(allocated(bdev), before, "{bdev:?}");
}

#[test]
fn a_ram_disk_counts_what_was_written() {
    for block_size in [512, 4096] {
        let disk = MallocBdev::new("m0", Uuid::nil(), geometry(block_size));
        let total = disk.geometry().bytes();
        counts(&(disk.clone() as Arc<dyn Bdev>));
        Bench::new(disk.clone()).write(1, 1, 1, Durability::Accepted).expect("written");
        let space = disk.space().expect("it knows");
        assert_eq!((space.allocated, space.allocated + space.available), (u64::from(block_size), total));
        let mut bench = Bench::new(disk.clone());
        for (lba, blocks, backing) in
            [(0, 1, Backing::Hole), (1, 1, Backing::Allocated), (2, 62, Backing::Hole)]
        {
            let done =
                bench.run(Op::BlockStatus { range: BlockRange::new(lba, 64 - lba as u32), found: None });
            let Op::BlockStatus { found: Some(found), .. } = done.op else { panic!("an answer") };
            assert_eq!((found.blocks, found.backing), (blocks, backing), "at {lba}");
        }
    }
}

#[test]
fn a_file_has_what_its_file_system_gave_it() {
    let (_temp, file) = file_of(geometry(4096));
    let space = file.space().expect("a regular file");
    assert!(space.available > 0 && space.allocated < 64 << 10, "{space:?}");
    counts(&(file as Arc<dyn Bdev>));
}

#[test]
fn devices_pass_on_what_the_ones_below_have() {
    let base = MallocBdev::new("m0", Uuid::nil(), geometry(512));
    let fault = FaultBdev::new("f0", "error", Uuid::nil(), base);
    counts(&(Metered::new(fault) as Arc<dyn Bdev>));
    let base = MallocBdev::new("m0", Uuid::nil(), crypto::below(4096));
    counts(&(crypto::formatted(base) as Arc<dyn Bdev>));
    let null = NullBdev::new("n0", Uuid::nil(), geometry(512));
    assert_eq!(null.space(), None, "it stores nothing");
}

/// A device that is served elsewhere has the storage of the one that it is a part of.
#[test]
fn a_part_has_the_storage_of_the_whole() {
    let whole = MallocBdev::new("m0", Uuid::nil(), geometry(512));
    let identity = HopIdentity {
        name: "h0".to_owned(),
        product: "hop",
        uuid: Uuid::nil(),
        geometry: Geometry { blocks: whole.geometry().blocks - 64, ..whole.geometry() },
        capabilities: whole.capabilities(),
    };
    let (bdev, server) = hop(identity, &core());
    assert_eq!(bdev.space(), None, "nobody said of what it is a part");
    let base: Arc<dyn Bdev> = whole.clone();
    server.set_storage(&base);
    Bench::new(whole.clone()).write(64, 8, 1, Durability::Accepted).expect("written");
    assert_eq!(bdev.space(), whole.space());
    drop((base, whole));
    assert_eq!(bdev.space(), None, "it is gone");
}
