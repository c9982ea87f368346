//! When data are on stable storage: FUA, DPO, SYNCHRONIZE CACHE and WCE over a disk whose cache a power cut empties.

mod host;

use std::sync::Arc;

use bdev::Geometry;
use bdev::sim::{SimBdev, SimConfig, SimFault, Survival};
use gateway::LunMode;
use host::{GOOD, World};
use uuid::Uuid;

const FUA: u8 = 0x08;
const DPO: u8 = 0x10;
const LBA: u8 = 64;
const BLOCKS: u8 = 1;
const BYTES: usize = BLOCKS as usize * 512;

/// A host's LUN 0 on a disk with a volatile cache.
fn world(mode: LunMode) -> (World, Arc<SimBdev>) {
    let geometry = Geometry { block_size: 512, physical_block_size: 4096, blocks: 16384 };
    let disk = SimBdev::new("s0", Uuid::from_u128(9), geometry, SimConfig::default());
    let lun = disk.clone();
    (World::with_lun_as(1, mode, |_| lun), disk)
}

/// True when all that was written is what a power cut would leave.
fn is_stable(disk: &SimBdev) -> bool {
    disk.unstable().is_empty()
}

/// The blocks that these tests write, as a power cut would leave them.
fn after_a_power_cut(disk: &SimBdev) -> Vec<u8> {
    let at = usize::from(LBA) * 512;
    disk.stable_image()[at..at + BYTES].to_vec()
}

/// A command with DPO and FUA in byte 1: its CDB without them, and its data, which leave blocks full of the byte.
type Write = (&'static str, Vec<u8>, fn(u8, u8) -> Vec<u8>);

fn data(_before: u8, byte: u8) -> Vec<u8> {
    vec![byte; BYTES]
}

/// What COMPARE AND WRITE brings.
fn both(before: u8, byte: u8) -> Vec<u8> {
    [vec![before; BYTES], vec![byte; BYTES]].concat()
}

fn writes() -> [Write; 5] {
    let long = |opcode: u8, at: usize| {
        let mut cdb = vec![0; 16];
        (cdb[0], cdb[9], cdb[at]) = (opcode, LBA, BLOCKS);
        cdb
    };
    [
        ("WRITE(10)", vec![0x2a, 0, 0, 0, 0, LBA, 0, 0, BLOCKS, 0], data),
        ("WRITE(12)", vec![0xaa, 0, 0, 0, 0, LBA, 0, 0, 0, BLOCKS, 0, 0], data),
        ("WRITE(16)", long(0x8a, 13), data),
        // It only ever sets bits: the bytes that the test writes one after the other have ever more of them.
        ("ORWRITE(16)", long(0x8b, 13), data),
        ("COMPARE AND WRITE", long(0x89, 13), both),
    ]
}

fn with(flags: u8, cdb: &[u8]) -> Vec<u8> {
    let mut cdb = cdb.to_vec();
    cdb[1] |= flags;
    cdb
}

const SYNCHRONIZE_CACHE: [&[u8]; 4] = [
    &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    &[0x35, 0, 0, 0, 0, LBA, 0, 0, BLOCKS, 0],
    &[0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    &[0x91, 0, 0, 0, 0, 0, 0, 0, 0, LBA, 0, 0, 0, BLOCKS, 0, 0],
];

#[test]
fn a_write_with_fua_is_stable_when_it_is_answered_and_one_without_may_wait() {
    for (name, cdb, data) in writes() {
        let (mut world, disk) = world(LunMode::SyncCached);
        assert_eq!(world.run(0, &cdb, &data(0, 0x01)), GOOD, "{name}");
        assert_eq!(after_a_power_cut(&disk), [0; BYTES], "{name} is in the cache, where it may be");
        assert_eq!(world.run(0, &with(DPO, &cdb), &data(0x01, 0x03)), GOOD, "{name}");
        assert!(!is_stable(&disk), "{name}: DPO says nothing of it");
        assert_eq!(world.run(0, &with(FUA, &cdb), &data(0x03, 0x07)), GOOD, "{name}");
        assert_eq!(after_a_power_cut(&disk), [0x07; BYTES], "{name} with FUA");
        assert_eq!(world.run(0, &with(FUA | DPO, &cdb), &data(0x07, 0x0f)), GOOD, "{name}");
        assert_eq!(after_a_power_cut(&disk), [0x0f; BYTES], "{name} with FUA and DPO");
    }
}

#[test]
fn write_and_verify_is_stable_whatever_it_says() {
    let long = |opcode: u8| {
        let mut cdb = vec![0; 16];
        (cdb[0], cdb[9], cdb[13]) = (opcode, LBA, BLOCKS);
        cdb
    };
    let twelve = vec![0xae, 0, 0, 0, 0, LBA, 0, 0, 0, BLOCKS, 0, 0];
    let cdbs = [vec![0x2e, 0, 0, 0, 0, LBA, 0, 0, BLOCKS, 0], twelve, long(0x8e)];
    let (mut world, disk) = world(LunMode::SyncCached);
    for (byte, cdb) in (1..).zip(cdbs) {
        for flags in [0, DPO] {
            assert_eq!(world.run(0, &with(flags, &cdb), &[byte | flags; BYTES]), GOOD);
            assert_eq!(after_a_power_cut(&disk), [byte | flags; BYTES], "{cdb:x?}");
        }
    }
}

#[test]
fn synchronize_cache_is_answered_when_what_was_written_before_is_stable() {
    for (byte, cdb) in (1..).zip(SYNCHRONIZE_CACHE) {
        let (mut world, disk) = world(LunMode::SyncCached);
        let write = [0x2a, 0, 0, 0, 0, LBA, 0, 0, BLOCKS, 0];
        assert_eq!(world.run(0, &write, &[byte; BYTES]), GOOD);
        assert!(!is_stable(&disk));
        disk.inject(SimFault::FailFlushes { count: 1 });
        let failed = world.run(0, cdb, &[]);
        assert_eq!(failed.0, scsi::status::CHECK_CONDITION, "a disk that cannot is no success: {failed:x?}");
        assert!(!is_stable(&disk));
        assert_eq!(world.run(0, cdb, &[]), GOOD, "{cdb:x?}");
        assert_eq!(after_a_power_cut(&disk), [byte; BYTES], "{cdb:x?}");
    }
}

#[test]
fn a_read_with_fua_gives_what_the_medium_has() {
    for (opcode, at, len) in [(0x28, 5, 8), (0xa8, 5, 9), (0x88, 9, 13)] {
        let (mut world, disk) = world(LunMode::SyncCached);
        let write = [0x2a, 0, 0, 0, 0, LBA, 0, 0, BLOCKS, 0];
        assert_eq!(world.run(0, &write, &[0x5a; BYTES]), GOOD);
        let mut cdb = [0; 16];
        (cdb[0], cdb[at], cdb[len]) = (opcode, LBA, BLOCKS);
        for (flags, stable) in [(DPO, false), (FUA, true)] {
            let task = world.hosts[0].send(&with(flags, &cdb), &[], u32::try_from(BYTES).expect("short"));
            assert_eq!(world.end(0, task), GOOD);
            assert_eq!(world.hosts[0].data(task), [0x5a; BYTES]);
            assert_eq!(is_stable(&disk), stable, "{opcode:x} with {flags:x}");
        }
    }
}

/// WCE of the caching mode page: as it is, and as it can be made.
fn write_cache(world: &mut World, control: u8) -> u8 {
    let task = world.hosts[0].send(&[0x1a, 0x08, control << 6 | 0x08, 0, 64, 0], &[], 64);
    assert_eq!(world.end(0, task), GOOD);
    world.hosts[0].data(task)[4 + 2] >> 2 & 1
}

#[test]
fn a_lun_says_whether_it_has_a_cache_and_means_it() {
    let writes = writes().map(|(name, cdb, data)| (name, cdb, data(0, 0x5a)));
    let same = ("WRITE SAME(10)", vec![0x41, 0, 0, 0, 0, LBA, 0, 0, BLOCKS, 0], vec![0x5a; 512]);
    let six = ("WRITE(6)", vec![0x0a, 0, 0, LBA, BLOCKS, 0], vec![0x5a; BYTES]);
    for (name, cdb, data) in writes.into_iter().chain([same, six]) {
        let (mut durable, disk) = world(LunMode::SyncDurable);
        assert_eq!((write_cache(&mut durable, 0), write_cache(&mut durable, 1)), (0, 0));
        assert_eq!(durable.run(0, &cdb, &data), GOOD, "{name}");
        assert_eq!(after_a_power_cut(&disk), [0x5a; BYTES], "{name}: WCE is zero");

        // A host that turns the cache off is believed from then on.
        let (mut cached, disk) = world(LunMode::SyncCached);
        assert_eq!((write_cache(&mut cached, 0), write_cache(&mut cached, 1)), (1, 1));
        let mut page = [0; 4 + 20];
        (page[4], page[5]) = (0x08, 0x12);
        assert_eq!(cached.run(0, &[0x15, 0x10, 0, 0, 24, 0], &page), GOOD);
        assert_eq!(write_cache(&mut cached, 0), 0);
        assert_eq!(cached.run(0, &cdb, &data), GOOD, "{name}");
        assert_eq!(after_a_power_cut(&disk), [0x5a; BYTES], "{name}: WCE is zero now");
    }
}

#[test]
fn what_is_not_flushed_is_lost_with_the_power_and_no_more_than_that() {
    let (mut world, disk) = world(LunMode::SyncCached);
    let write = |lba: u8, flags: u8| [0x2a, flags, 0, 0, 0, lba, 0, 0, 1, 0];
    assert_eq!(world.run(0, &write(1, 0), &[1; 512]), GOOD);
    assert_eq!(world.run(0, SYNCHRONIZE_CACHE[0], &[]), GOOD);
    assert_eq!(world.run(0, &write(2, FUA), &[2; 512]), GOOD);
    assert_eq!(world.run(0, &write(3, 0), &[3; 512]), GOOD);
    disk.crash_with(Survival::None);
    let kept = [1, 2, 3].map(|lba| disk.peek(lba * 512, 512)[0]);
    assert_eq!(kept, [1, 2, 0]);
    assert_ne!(world.run(0, &write(4, 0), &[4; 512]), GOOD, "the disk is gone");
}
