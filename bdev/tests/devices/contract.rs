//! Every device keeps the same contract: an I/O comes back exactly once, as it was given; what was written is read; ranges
//! are checked; refusals give the I/O back.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::common::{BLOCKS, Bench, core, file_of, geometry, scratch_file};
use crate::crypto;
use bdev::fault::FaultBdev;
use bdev::hop::{ClientId, HopIdentity, HopServer, hop};
use bdev::malloc::MallocBdev;
use bdev::null::NullBdev;
use bdev::sim::{SimBdev, SimConfig};
use bdev::uring::{FileOptions, UringBdev};
use bdev::{
    Backing, Bdev, BlockRange, Capabilities, Channel, Completions, Durability, FenceKey, Io, IoError, Op, Tag,
};
use engine::Instant;
use uuid::Uuid;

const DURABILITIES: [Durability; 2] = [Durability::Accepted, Durability::Durable];

/// Whether a device keeps what is written to it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Memory {
    Keeps,
    Forgets,
}

fn keeps_the_contract(bench: &mut Bench, capabilities: Capabilities, memory: Memory) {
    checks_ranges(bench);
    if memory == Memory::Keeps {
        reads_what_was_written(bench, capabilities);
    }
    compares_and_writes(bench, capabilities, memory);
    knows_what_is_backed(bench, capabilities, memory);
    changes_nothing_of_no_length(bench, memory);
    answers_each_once(bench);
    gives_back_what_it_refuses(bench);
}

fn checks_ranges(bench: &mut Bench) {
    assert_eq!(bench.read(BLOCKS - 1, 2), Err(IoError::OutOfRange));
    assert_eq!(bench.read(BLOCKS, 1), Err(IoError::OutOfRange));
    for durability in DURABILITIES {
        assert_eq!(bench.write(BLOCKS, 1, 0, durability), Err(IoError::OutOfRange));
        assert_eq!(bench.write(u64::MAX, 1, 0, durability), Err(IoError::OutOfRange));
        let range = BlockRange::new(0, u32::MAX);
        assert_eq!(bench.run(Op::WriteZeroes { range, durability }).result, Err(IoError::OutOfRange));
    }
    let range = BlockRange::new(u64::MAX - 1, 2);
    assert_eq!(bench.run(Op::Discard { range }).result, Err(IoError::OutOfRange));
    let key = FenceKey { node: 0, generation: 1 };
    assert_eq!(bench.run(Op::Fence { key }).result, Err(IoError::Unsupported));
}

fn compare_and_write(bench: &mut Bench, lba: u64, wanted: &[u8], from: u8) -> Result<(), IoError> {
    let mut both = bench.core.pool().alloc(2 * wanted.len()).expect("a frame");
    both[..wanted.len()].copy_from_slice(wanted);
    both[wanted.len()..].fill(from);
    let block = bench.read(lba, 1).expect("read").len();
    let range = BlockRange::new(lba, u32::try_from(wanted.len() / block).expect("few"));
    bench.run(Op::CompareAndWrite { range, both: both.freeze(), durability: Durability::Durable }).result
}

fn compares_and_writes(bench: &mut Bench, capabilities: Capabilities, memory: Memory) {
    let lba = BLOCKS - 4;
    let mut wanted = bench.read(lba, 2).expect("read");
    if !capabilities.contains(Capabilities::COMPARE_AND_WRITE) {
        assert_eq!(compare_and_write(bench, lba, &wanted, 1), Err(IoError::Unsupported));
        return;
    }
    assert_eq!(compare_and_write(bench, lba, &wanted, 0x5a), Ok(()));
    let at = wanted.len() - 3;
    wanted.fill(if memory == Memory::Keeps { 0x5a } else { 0 });
    wanted[at] ^= 1;
    let offset = u32::try_from(at).expect("short");
    assert_eq!(compare_and_write(bench, lba, &wanted, 7), Err(IoError::Miscompare { offset }));
    if memory == Memory::Keeps {
        assert_eq!(bench.read_byte(lba, 2), 0x5a, "a miscompare writes nothing");
    }
}

fn knows_what_is_backed(bench: &mut Bench, capabilities: Capabilities, memory: Memory) {
    let mut look = |lba: u64, blocks: u32| {
        let range = BlockRange::new(lba, blocks);
        let completed = bench.run(Op::BlockStatus { range, found: None });
        completed.result.map(|()| match completed.op {
            Op::BlockStatus { found, .. } => found.expect("an answer"),
            other => panic!("{other:?}"),
        })
    };
    if !capabilities.contains(Capabilities::BLOCK_STATUS) {
        assert_eq!(look(0, 1), Err(IoError::Unsupported));
        return;
    }
    assert_eq!(look(BLOCKS, 1), Err(IoError::OutOfRange));
    if memory == Memory::Keeps {
        // Written above: the last block, in a run that ends with the device.
        let last = look(BLOCKS - 1, 1).expect("an answer");
        assert_eq!((last.blocks, last.backing), (1, Backing::Allocated));
        let middle = look(BLOCKS / 2, 32).expect("an answer");
        assert_eq!((middle.blocks, middle.backing), (32, Backing::Hole), "never written");
    }
}

fn reads_what_was_written(bench: &mut Bench, capabilities: Capabilities) {
    for (byte, durability) in [(1, Durability::Accepted), (0xa5, Durability::Durable)] {
        bench.write(8, 16, byte, durability).expect("written");
        assert_eq!(bench.read_byte(8, 16), byte);
        assert_eq!((bench.read_byte(7, 1), bench.read_byte(24, 1)), (0, 0), "nothing beside it");
    }
    bench.run(Op::Flush).result.expect("flushed");
    bench.write(BLOCKS - 1, 1, 9, Durability::Accepted).expect("the last block");
    assert_eq!(bench.read_byte(BLOCKS - 1, 1), 9);
    // A part of a frame, not aligned in memory.
    let mut frame = bench.core.pool().alloc(64 << 10).expect("a frame");
    frame.iter_mut().enumerate().for_each(|(index, byte)| *byte = index as u8);
    let from = frame.freeze().slice(3..3 + 4096);
    let blocks = 4096 / bench.read(0, 1).expect("read").len() as u32;
    let range = BlockRange::new(100, blocks);
    let completed = bench.run(Op::Write { range, from: from.clone(), durability: Durability::Accepted });
    completed.result.expect("written");
    assert!(matches!(&completed.op, Op::Write { from: back, .. } if **back == *from));
    assert_eq!(bench.read(100, blocks).expect("read"), &from[..]);
    for (durability, lba) in DURABILITIES.into_iter().zip([8, 10]) {
        assert!(capabilities.contains(Capabilities::WRITE_ZEROES));
        let range = BlockRange::new(lba, 2);
        let completed = bench.run(Op::WriteZeroes { range, durability });
        completed.result.expect("zeroed");
        assert!(matches!(completed.op, Op::WriteZeroes { durability: back, .. } if back == durability));
    }
    assert_eq!((bench.read_byte(8, 4), bench.read_byte(12, 12)), (0, 0xa5));
    bench.run(Op::Discard { range: BlockRange::new(16, 8) }).result.expect("discarded");
    if capabilities.contains(Capabilities::DISCARD_ZEROES) {
        assert_eq!((bench.read_byte(12, 4), bench.read_byte(16, 8)), (0xa5, 0));
    }
}

fn changes_nothing_of_no_length(bench: &mut Bench, memory: Memory) {
    if memory == Memory::Keeps {
        bench.write(0, 1, 3, Durability::Accepted).expect("written");
    }
    for durability in DURABILITIES {
        let range = BlockRange::new(0, 0);
        let from = bench.core.pool().alloc(512).expect("a frame").freeze();
        bench.run(Op::Write { range, from, durability }).result.expect("nothing to do");
        bench.run(Op::WriteZeroes { range, durability }).result.expect("nothing to do");
        bench.run(Op::Discard { range }).result.expect("nothing to do");
        let into = bench.core.pool().alloc(512).expect("a frame");
        bench.run(Op::Read { range, into }).result.expect("nothing to do");
    }
    let expected = if memory == Memory::Keeps { 3 } else { 0 };
    assert_eq!(bench.read_byte(0, 1), expected);
}

fn answers_each_once(bench: &mut Bench) {
    for tag in 0..96 {
        let op = match tag % 4 {
            0 => bench.write_op(tag, 1, 1, Durability::Accepted),
            1 => Op::Flush,
            2 => Op::Discard { range: BlockRange::new(tag, 1) },
            _ => bench.read_op(tag, 1),
        };
        bench.submit(op, tag);
    }
    let mut tags: Vec<u64> = bench.wait(96).iter().map(|completed| completed.tag.0).collect();
    tags.sort_unstable();
    assert_eq!(tags, (0..96).collect::<Vec<_>>());
    for _ in 0..100 {
        bench.turn();
    }
    assert!(bench.done.is_empty(), "nothing comes twice");
}

/// Fills the queue, where there is one.
fn gives_back_what_it_refuses(bench: &mut Bench) {
    let now = bench.now();
    let mut accepted = 0;
    for tag in 0..5_000 {
        match bench.channel.submit(Io::new(Op::Flush, Tag(tag), now), now) {
            Ok(()) => accepted += 1,
            Err(refused) => {
                assert_eq!((refused.why, refused.io.tag), (IoError::Busy, Tag(tag)));
                drop(refused.io.complete(Err(IoError::Aborted), now));
                break;
            }
        }
    }
    assert_eq!(bench.wait(accepted).len(), accepted);
    bench.run(Op::Flush).result.expect("there is room again");
}

fn check(bdev: Arc<dyn Bdev>, memory: Memory) {
    let capabilities = bdev.capabilities();
    keeps_the_contract(&mut Bench::new(bdev), capabilities, memory);
}

#[test]
fn null_keeps_the_contract() {
    check(NullBdev::new("n0", Uuid::nil(), geometry(512)), Memory::Forgets);
}

#[test]
fn malloc_keeps_the_contract() {
    for block_size in [512, 4096] {
        check(MallocBdev::new("m0", Uuid::nil(), geometry(block_size)), Memory::Keeps);
    }
}

#[test]
fn uring_keeps_the_contract() {
    for block_size in [512, 4096] {
        let (_temp, bdev) = scratch_file(block_size);
        check(bdev, Memory::Keeps);
    }
}

#[test]
fn uring_keeps_the_contract_in_memory_backed_files() {
    let Ok(temp) = tempfile::NamedTempFile::new_in("/dev/shm") else { return };
    temp.as_file().set_len(geometry(512).bytes()).expect("size");
    let bdev = UringBdev::open_file("u0", Uuid::nil(), temp.path(), FileOptions::new(512)).expect("open");
    check(bdev, Memory::Keeps);
}

#[test]
#[ignore = "destroys the block device named by GEMEL_TEST_BLOCK_DEVICE"]
fn uring_keeps_the_contract_on_a_block_device() {
    let path = std::env::var_os("GEMEL_TEST_BLOCK_DEVICE").expect("GEMEL_TEST_BLOCK_DEVICE");
    let bdev = UringBdev::open_file("u0", Uuid::nil(), path.as_ref(), FileOptions::new(512)).expect("open");
    assert_eq!(bdev.geometry().blocks, BLOCKS, "make it two MiB, zeroed");
    check(bdev, Memory::Keeps);
}

#[test]
fn sim_keeps_the_contract() {
    for (seed, block_size) in [(0, 512), (1, 4096)] {
        let config = SimConfig { seed, ..SimConfig::default() };
        check(SimBdev::new("s0", Uuid::nil(), geometry(block_size), config), Memory::Keeps);
    }
}

#[test]
fn unarmed_fault_devices_keep_the_contract() {
    let base = MallocBdev::new("m0", Uuid::nil(), geometry(512));
    let first = FaultBdev::new("f0", "error", Uuid::nil(), base);
    check(FaultBdev::new("f1", "delay", Uuid::nil(), first), Memory::Keeps);
    let (_temp, base) = scratch_file(512);
    check(FaultBdev::new("f2", "error", Uuid::nil(), base), Memory::Keeps);
}

#[test]
fn crypto_keeps_the_contract() {
    for block_size in [512, 4096] {
        let base = MallocBdev::new("m0", Uuid::nil(), crypto::below(block_size));
        check(crypto::formatted(base), Memory::Keeps);
        let (_temp, base) = file_of(crypto::below(block_size));
        check(crypto::formatted(base), Memory::Keeps);
    }
}

/// Serves a hop from another channel.
struct Served {
    server: HopServer,
    channel: Box<dyn Channel>,
    owners: BTreeMap<u64, (ClientId, Tag)>,
    next: u64,
}

impl Served {
    fn poll(&mut self, now: Instant) {
        while self.server.next_event().is_some() {}
        while let Some((client, mut io)) = self.server.take() {
            self.next += 1;
            self.owners.insert(self.next, (client, io.tag));
            io.tag = Tag(self.next);
            self.channel.submit(io, now).expect("a RAM disk takes all");
        }
        let mut done = Completions::new();
        let _ = self.channel.poll(now, &mut done);
        for mut completed in done {
            let (client, tag) = self.owners.remove(&completed.tag.0).expect("one of ours");
            completed.tag = tag;
            self.server.complete(client, completed);
        }
    }
}

#[test]
fn a_served_hop_keeps_the_contract() {
    let core = core();
    let base = MallocBdev::new("m0", Uuid::nil(), geometry(512));
    let capabilities = base.capabilities();
    let identity = HopIdentity {
        name: "h0".to_owned(),
        product: "hop",
        uuid: Uuid::nil(),
        geometry: base.geometry(),
        capabilities,
    };
    let (bdev, server) = hop(identity, &core);
    let channel = base.open(&core).expect("a channel");
    let mut served = Served { server, channel, owners: BTreeMap::new(), next: 0 };
    let mut bench = Bench::on(core, bdev, Box::new(move |now| served.poll(now)));
    keeps_the_contract(&mut bench, capabilities, Memory::Keeps);
}
