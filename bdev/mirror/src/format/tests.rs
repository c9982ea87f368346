//! Codecs are inverse, every torn write reopens to a valid older or newer state (I8), nothing that a disk
//! holds can panic.

use bdev::FenceKey;
use proptest::prelude::*;
use uuid::Uuid;

use super::copies::NoSuperblock;
use super::header::{self, At, BlockKind, Header, HeaderError, SEQ_MAX};
use super::*;

pub(crate) const ARRAY: Uuid = Uuid::from_u128(0xa11a_0000_0000_0000_0000_0000_0000_0001);
const MIB: u64 = 1 << 20;
/// What a disk writes in one piece.
const SECTOR: usize = 512;

pub(crate) fn example_layout() -> Layout {
    let request =
        LayoutRequest { leg_size: 1 << 40, block_size: 512, data_size: None, max_crash_resync: None };
    Layout::plan(request).expect("1 TiB is a leg")
}

pub(crate) fn example_create(index: LegIndex) -> CreateLeg {
    CreateLeg {
        array: ARRAY,
        name: ArrayName::new("example").expect("a name"),
        leg: Uuid::from_u128(0x1e60 + u128::from(index.number())),
        index,
        node: Uuid::from_u128(0x90de + u128::from(index.number())),
        layout: example_layout(),
        flags: LegFlags::ZEROED | LegFlags::VOLATILE_CACHE,
        incarnation: Uuid::from_u128(0xb007),
        arbiter: ArbiterKind::Biased,
        lease: super::Lease::default(),
    }
}

pub(crate) fn example_superblock() -> Superblock {
    example_create(LegIndex::One).founder(77)
}

prop_compose! {
    fn configs()(count in 1..=40_usize)(
        steps in prop::collection::vec((any::<u64>(), 0..2_u8, 1..4_u8, 0..12_usize), count),
    ) -> History {
        let index = |n: u8| LegIndex::from_number(n).expect("0 or 1");
        let mut steps = steps.into_iter();
        let (nonce, holder, mask, _) = steps.next().expect("at least one");
        let first = Config::first(nonce, index(holder), LegMask::from_bits_truncate(mask));
        let mut history = History::new(first);
        for (nonce, holder, mask, reason) in steps {
            let mask = LegMask::from_bits_truncate(mask);
            let next = history.current().successor(nonce, index(holder), mask, Reason::ALL[reason]);
            history.push(next.expect("generations left"));
        }
        history
    }
}

prop_compose! {
    fn leg_records()(
        uuid: u128, state in 0..8_usize, flags in 0..8_u8, incarnation: u128, tracked_since in 0..1_u64 << 56, seen_seq: u64,
    ) -> LegRecord {
        LegRecord {
            uuid: Uuid::from_u128(uuid), state: LegState::ALL[state], flags: LegFlags::from_bits_truncate(flags),
            incarnation: Uuid::from_u128(incarnation), tracked_since, seen_seq,
        }
    }
}

prop_compose! {
    fn layouts()(mib in 6..1_u64 << 32, block_size in prop::sample::select(vec![512, 4096_u32]), odd in 0..MIB) -> Layout {
        let leg_size = mib * MIB + odd;
        let request = LayoutRequest { leg_size, block_size, data_size: None, max_crash_resync: None };
        Layout::plan(request).expect("large enough")
    }
}

prop_compose! {
    fn superblocks()(
        history in configs(), legs in [leg_records(), leg_records()], layout in layouts(),
        (seq, events) in (0..SEQ_MAX, any::<u64>()), ids in [1..u128::MAX, 1..u128::MAX, 1..u128::MAX],
        (index, fence_node) in (0..2_u8, 0..2_u8), fence_generation in 0..1_u64 << 56,
        (clean, arbiter) in (any::<bool>(), prop::sample::select(vec![ArbiterKind::Biased, ArbiterKind::Manual,
            ArbiterKind::ClusterManager, ArbiterKind::Etcd])),
        (compat, name) in (any::<u32>(), "[a-zäöü]{1,30}"), heard: [u64; 16],
    ) -> Superblock {
        Superblock {
            seq, array: Uuid::from_u128(ids[0]), name: ArrayName::new(&name).expect("a name"),
            leg: Uuid::from_u128(ids[1]), index: LegIndex::from_number(index).expect("0 or 1"),
            node: Uuid::from_u128(ids[2]), features: Features { compat, ro_compat: 0, incompat: 0 }, layout,
            run_state: if clean { RunState::Clean } else { RunState::Running },
            fence: FenceKey { node: fence_node, generation: fence_generation },
            history, heard: crate::format::Heard::from_stored(heard), arbiter, lease: super::Lease::of(core::time::Duration::from_millis(20 + seq % 60_000)).unwrap_or_default(),
            arbiter_id: Uuid::from_u128(ids[0] ^ ids[2]), legs, events,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn superblock_codec_is_inverse(superblock in superblocks()) {
        let address = Layout::superblock_slot(superblock.seq);
        let block = superblock.encode(address);
        prop_assert_eq!(Superblock::decode(&block, address), Ok(superblock));
    }

    #[test]
    fn one_flipped_bit_is_always_seen(superblock in superblocks(), bit in 0..BLOCK_SIZE * 8) {
        let mut block = superblock.encode(65_536);
        block[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Superblock::decode(&block, 65_536).is_err());
    }

    /// Whatever a whole block holds, decoding answers.
    #[test]
    fn sealed_garbage_never_panics(superblock in superblocks(), at in 64..1100_usize, garbage in any::<[u8; 8]>()) {
        let mut block = superblock.encode(65_536);
        block[at..at + 8].copy_from_slice(&garbage);
        let header = Header { kind: BlockKind::Superblock, seq: superblock.seq, generation: 0 };
        header::seal(&mut block, header, At { array: superblock.array, address: 65_536 });
        if let Ok(read) = Superblock::decode(&block, 65_536) {
            prop_assert!(read.layout.is_sound());
            prop_assert_eq!(Superblock::decode(&read.encode(65_536), 65_536), Ok(read));
        }
    }
}

#[test]
fn a_header_names_what_is_wrong() {
    let at = At { array: ARRAY, address: 8192 };
    let mut block = [7; BLOCK_SIZE];
    let sealed = Header { kind: BlockKind::Bitmap, seq: 3, generation: 9 };
    header::seal(&mut block, sealed, at);
    let open = |block: &Block, kind, at| header::open(block, kind, at);
    assert_eq!(open(&block, BlockKind::Bitmap, at), Ok(sealed));
    assert_eq!(open(&block, BlockKind::IntentLog, at), Err(HeaderError::OtherKind(5)));
    assert_eq!(
        open(&block, BlockKind::Bitmap, At { address: 4096, ..at }),
        Err(HeaderError::Misdirected(8192))
    );
    let other = At { array: Uuid::from_u128(5), ..at };
    assert_eq!(open(&block, BlockKind::Bitmap, other), Err(HeaderError::OtherArray(ARRAY)));
    assert_eq!(open(&[0; BLOCK_SIZE], BlockKind::Bitmap, at), Err(HeaderError::Blank));
    assert_eq!(open(&[9; BLOCK_SIZE], BlockKind::Bitmap, at), Err(HeaderError::NotOurs));
    block[4000] ^= 1;
    assert_eq!(open(&block, BlockKind::Bitmap, at), Err(HeaderError::Corrupt));
    header::seal(&mut block, Header { seq: SEQ_MAX + 1, ..sealed }, at);
    assert_eq!(open(&block, BlockKind::Bitmap, at), Err(HeaderError::Corrupt), "absurd sequence number");
}

/// A leg's three superblock blocks.
#[derive(Clone)]
struct Disk {
    slots: [Block; 2],
    tail: Block,
    leg_size: u64,
}

impl Disk {
    fn new(first: &Superblock) -> Self {
        let leg_size = first.layout.leg_size;
        let mut disk = Self { slots: [[0; BLOCK_SIZE]; 2], tail: [0; BLOCK_SIZE], leg_size };
        let writes = first.first_writes();
        disk.block(writes.slot.offset).copy_from_slice(&writes.slot.block);
        disk.block(writes.tail.as_ref().expect("the first write has it").offset)
            .copy_from_slice(&writes.tail.expect("as above").block);
        disk
    }

    fn block(&mut self, offset: u64) -> &mut Block {
        match offset {
            _ if offset == Layout::superblock_slot(0) => &mut self.slots[0],
            _ if offset == Layout::superblock_slot(1) => &mut self.slots[1],
            _ if offset == Layout::tail_of(self.leg_size) => &mut self.tail,
            _ => panic!("no superblock at {offset}"),
        }
    }

    fn choose(&self) -> Result<Chosen, NoSuperblock> {
        Copies::read(&self.slots[0], &self.slots[1], &self.tail, self.leg_size).choose()
    }

    /// The write with only some of its sectors done.
    fn torn(&self, write: &BlockWrite, sectors: u32) -> Self {
        let mut disk = self.clone();
        let block = disk.block(write.offset);
        for sector in (0..BLOCK_SIZE / SECTOR).filter(|sector| sectors >> sector & 1 == 1) {
            let bytes = sector * SECTOR..(sector + 1) * SECTOR;
            block[bytes.clone()].copy_from_slice(&write.block[bytes]);
        }
        disk
    }

    fn done(&self, write: &BlockWrite) -> Self {
        self.torn(write, 0xff)
    }
}

/// Every subset of sectors of every block of a chain of superblock writes.
#[test]
fn a_torn_superblock_write_reopens_to_old_or_new() {
    let mut current = example_superblock();
    let mut disk = Disk::new(&current);
    for round in 0..6_u64 {
        let mut next = current.clone();
        next.run_state = if round % 2 == 0 { RunState::Running } else { RunState::Clean };
        if round % 3 == 0 {
            let config = current.config().successor(round, LegIndex::One, LegMask::ONE, Reason::Restarted);
            next.history.push(config.expect("generations left"));
        }
        let writes = next.succeed(&current);
        assert_eq!(writes.tail.is_some(), round % 3 == 0, "the end copy follows config changes only");
        for sectors in 0..256 {
            let found = disk.torn(&writes.slot, sectors).choose().expect("a slot is whole").superblock;
            assert!(found == current || found == next, "round {round}, sectors {sectors:08b}");
            assert!(found == next || sectors != 0xff, "all sectors are the whole block");
            assert!(found == current || sectors != 0, "no sector is nothing");
        }
        disk = disk.done(&writes.slot);
        if let Some(tail) = &writes.tail {
            for sectors in 0..256 {
                let found = disk.torn(tail, sectors).choose().expect("both slots are whole");
                assert_eq!(found.superblock, next);
            }
            disk = disk.done(tail);
        }
        current = next;
    }
}

#[test]
fn a_rotten_newest_slot_is_mended_from_the_end_copy_as_running() {
    let first = example_superblock();
    let disk = Disk::new(&first);
    let mut next = first.clone();
    next.history.push(
        first.config().successor(5, LegIndex::One, LegMask::ONE, Reason::Restarted).expect("some left"),
    );
    let writes = next.succeed(&first);
    let mut disk = disk.done(&writes.slot).done(writes.tail.as_ref().expect("config changed"));
    disk.block(writes.slot.offset)[100] ^= 4;
    let found = disk.choose().expect("slot 1 and the end copy are whole");
    assert_eq!((found.from, found.superblock.config()), (Copy::Tail, next.config()));
    assert_eq!(found.superblock.run_state, RunState::Cached);
}

/// A slot that cannot be read may have held the next superblock: a leg is not called older for it than it may be.
#[test]
fn a_damaged_slot_may_have_held_the_next_number() {
    let mut current = example_superblock();
    let mut disk = Disk::new(&current);
    let first = disk.choose().expect("a new leg");
    assert_eq!(first.newest, first.superblock.seq, "the other slot was never written");
    for _ in 0..3 {
        let mut next = current.clone();
        let writes = next.succeed_by(copies::Numbering::Mark, &current);
        disk = disk.done(&writes.slot);
        let whole = disk.choose().expect("a slot is whole");
        assert_eq!((whole.superblock.seq, whole.newest), (next.seq, next.seq));
        let mut rotten = disk.clone();
        rotten.block(writes.slot.offset)[100] ^= 4;
        let found = rotten.choose().expect("the other slot is whole");
        assert_eq!((found.superblock.seq, found.newest), (current.seq, next.seq));
        current = next;
    }
}

#[test]
fn without_a_whole_slot_nothing_is_chosen() {
    let mut disk = Disk::new(&example_superblock());
    disk.slots = [[0; BLOCK_SIZE]; 2];
    assert!(matches!(disk.choose(), Err(NoSuperblock::Torn { tail: Some(_) })));
    disk.tail = [0; BLOCK_SIZE];
    assert_eq!(disk.choose(), Err(NoSuperblock::Absent));
    disk.slots = [[3; BLOCK_SIZE]; 2];
    assert_eq!(disk.choose(), Err(NoSuperblock::Absent));
    disk.slots[0] = example_superblock().encode(0);
    assert!(matches!(disk.choose(), Err(NoSuperblock::Torn { tail: None })), "misdirected");
    let mut newer = example_superblock();
    newer.features.incompat = 8;
    disk.slots[1] = newer.encode(Layout::superblock_slot(1));
    let incompatible = SuperblockError::Incompatible { incompat: 8 };
    assert_eq!(disk.choose(), Err(NoSuperblock::Unusable(incompatible)));
}

#[test]
#[should_panic(expected = "generations rise")]
fn a_superblock_never_falls_back() {
    let old = example_superblock();
    let mut next = old.clone();
    next.history
        .push(old.config().successor(5, LegIndex::One, LegMask::ONE, Reason::Restarted).expect("some left"));
    let mut older = old;
    let _ = older.succeed(&next);
}

#[test]
fn layouts_of_all_sizes_are_sound() {
    for shift in 23..54_u64 {
        for extra in [0, 1, 4096, 65_536, MIB, 3 * MIB + 77] {
            let leg_size = (1 << shift) + extra;
            let request =
                LayoutRequest { leg_size, block_size: 4096, data_size: None, max_crash_resync: None };
            let layout = Layout::plan(request).expect("8 MiB and more");
            assert!(layout.is_sound(), "{layout:?}");
            assert!(layout.data_offset >= layout::BITMAP_OFFSET + 8 * layout.bitmap_len());
            assert!(layout.log.max_crash_resync() <= layout::MAX_CRASH_RESYNC_DEFAULT);
            let overhead = leg_size - layout.data_size;
            assert!(overhead <= 7 * MIB + leg_size / 1000, "{overhead} of {leg_size}");
        }
    }
}

#[test]
fn the_crash_resync_bound_is_kept() {
    let request = |leg_size, bound| LayoutRequest {
        leg_size,
        block_size: 512,
        data_size: None,
        max_crash_resync: Some(bound),
    };
    for leg_shift in [24, 30, 40] {
        for bound_shift in [22, 24, 28, 33, 36, 38] {
            let bound = 1 << bound_shift;
            let layout = Layout::plan(request(1 << leg_shift, bound)).expect("a bound of 4 MiB and more");
            assert!(layout.log.max_crash_resync() <= bound, "{layout:?}");
            assert!(layout.is_sound());
        }
    }
    let large = Layout::plan(LayoutRequest { max_crash_resync: None, ..request(1 << 40, 0) }).expect("a leg");
    assert_eq!((large.log.slots, large.log.extent_shift), (16_384, 22));
    let refused = Layout::plan(request(1 << 30, 1 << 20));
    assert_eq!(refused, Err(LayoutError::CrashResync { asked: 1 << 20, least: 4 << 20 }));
}

#[test]
fn legs_that_cannot_be_laid_out_are_refused() {
    let request =
        LayoutRequest { leg_size: 5 * MIB, block_size: 512, data_size: None, max_crash_resync: None };
    let Err(LayoutError::TooSmall { needed, .. }) = Layout::plan(request) else { panic!("no room for data") };
    let fits = Layout::plan(LayoutRequest { leg_size: needed, ..request }).expect("the size it asked for");
    assert_eq!(fits.data_size, 65_536);
    let blocks = LayoutRequest { block_size: 520, ..request };
    assert_eq!(Layout::plan(blocks), Err(LayoutError::BlockSize(520)));
    let odd = LayoutRequest { leg_size: 64 * MIB, data_size: Some(1000), ..request };
    assert_eq!(Layout::plan(odd), Err(LayoutError::DataSize(1000)));
}

#[test]
fn a_joining_leg_takes_the_arrays_figures() {
    let array = example_layout();
    let joined = array.joining(2 << 40).expect("twice as large");
    assert!(joined.same_array(&array) && joined.is_sound());
    assert!(matches!(array.joining(1 << 39), Err(LayoutError::TooSmall { .. })));
}

#[test]
fn formatting_writes_superblocks_last_and_never_the_first_bytes() {
    let create = example_create(LegIndex::Zero);
    let steps = create.founder(1).format_steps();
    let superblock_at =
        |step: &Step| matches!(step, Step::Write(write) if write.offset < layout::UNIT_STATE_OFFSET);
    let first = steps.iter().position(superblock_at).expect("a superblock is written");
    let rest = &steps[first..];
    let pairs = rest.chunks_exact(2);
    assert!(pairs.remainder().is_empty() && rest.len() == 6);
    assert!(pairs.into_iter().all(|pair| matches!(pair, [Step::Write(_), Step::Flush])));
    assert_eq!(steps[first - 1], Step::Flush);
    let lowest = steps.iter().filter_map(|step| match step {
        Step::Zero { offset, .. } => Some(*offset),
        Step::Write(write) => Some(write.offset),
        Step::Flush => None,
    });
    assert_eq!(lowest.min(), Some(layout::SUPERBLOCK_OFFSET));
}

#[test]
fn a_device_holds_a_leg_if_the_arrays_blocks_are_whole_ones_there() {
    for (array, device, fits) in [
        (512, 512, true),
        (512, 4096, false),
        (4096, 512, true),
        (4096, 4096, true),
        (4096, 8192, false),
        (512, 0, false),
    ] {
        let layout = Layout { block_size: array, ..example_layout() };
        let wanted = if fits { Ok(()) } else { Err(LayoutError::DeviceBlocks { device, array }) };
        assert_eq!(layout.check_blocks(device), wanted);
    }
}
