//! The bitmap against a set of numbers, and its pages against a disk that tears.

use std::collections::BTreeSet;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::format::{LayoutRequest, header};

const ARRAY: Uuid = Uuid::from_u128(0xb17);
const SHIFT: u32 = 16;
const GRANULE: u64 = 1 << SHIFT;

/// A data area of two pages and a short last granule.
fn layout() -> Layout {
    let data_size = (PAGE_BITS + 100) * GRANULE + 4096;
    let request = LayoutRequest {
        leg_size: 3 << 30,
        block_size: 4096,
        data_size: Some(data_size),
        max_crash_resync: None,
    };
    Layout::plan(request).expect("fits")
}

fn granules(first: u64, count: u64) -> ByteRange {
    ByteRange::new(first * GRANULE, count * GRANULE)
}

#[derive(Clone, Debug)]
enum Change {
    Set(ByteRange),
    Clear(ByteRange),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let size = layout().data_size;
    // Around the end of the first page, of the area, and anywhere.
    let start =
        prop_oneof![0..size, (PAGE_BITS - 3) * GRANULE..(PAGE_BITS + 3) * GRANULE, size - 300_000..size];
    let change = (start, 0..40 * GRANULE, any::<bool>()).prop_map(|(start, len, set)| {
        let range = ByteRange::new(start, len);
        if set { Change::Set(range) } else { Change::Clear(range) }
    });
    prop::collection::vec(change, 1..60)
}

/// What the model says about a change: partial granules count for a set, not for a clear.
fn apply(model: &mut BTreeSet<u64>, change: &Change, size: u64) {
    match change {
        Change::Set(range) if range.len != 0 => {
            let end = range.end().min(size);
            model.extend(range.start / GRANULE..end.div_ceil(GRANULE));
        }
        Change::Set(_) => {}
        Change::Clear(range) => {
            let end = range.end().min(size);
            model.retain(|granule| {
                let (first, past) = (granule * GRANULE, ((granule + 1) * GRANULE).min(size));
                !(range.start <= first && past <= end)
            });
        }
    }
}

fn set_of(bitmap: &Bitmap) -> BTreeSet<u64> {
    bitmap.runs().flat_map(|run| run.start / GRANULE..run.end().div_ceil(GRANULE)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_a_set(changes in changes(), probe in 0..layout().data_size, len in 1..30 * GRANULE) {
        let layout = layout();
        let mut bitmap = Bitmap::new(ARRAY, &layout);
        let mut model = BTreeSet::new();
        for change in &changes {
            let before = model.len() as u64;
            apply(&mut model, change, layout.data_size);
            let changed = match change {
                Change::Set(range) => bitmap.set(*range),
                Change::Clear(range) => bitmap.clear(*range, ClearedBy::CopiedAndFlushed),
            };
            prop_assert_eq!(changed, before.abs_diff(model.len() as u64));
            prop_assert_eq!(bitmap.set_granules(), model.len() as u64);
        }
        prop_assert_eq!(set_of(&bitmap), model.clone());
        let range = ByteRange::new(probe, len.min(layout.data_size - probe));
        let mut touched = probe / GRANULE..(range.end()).div_ceil(GRANULE);
        prop_assert_eq!(bitmap.is_any_set(range), touched.clone().any(|granule| model.contains(&granule)));
        prop_assert_eq!(bitmap.is_set(range), touched.all(|granule| model.contains(&granule)));
    }

    /// Page writes in any order, any of them torn at 512 B by a crash: what is read back has every bit of
    /// which `is_durable` spoke, and no bit that was never set, except in a page whose newer slot is torn: that has all.
    #[test]
    fn a_crash_never_loses_a_durable_bit(changes in changes(), saves in prop::collection::vec(0..4_u8, 60), sectors: u8) {
        let layout = layout();
        let mut bitmap = Bitmap::new(ARRAY, &layout);
        let mut disk = Disk::formatted(&layout);
        let mut ever = BTreeSet::new();
        let mut model = BTreeSet::new();
        let mut outstanding: Vec<PageWrite> = Vec::new();
        let mut failed = BTreeSet::new();
        for (change, save) in changes.iter().zip(saves) {
            apply(&mut model, change, layout.data_size);
            match change {
                Change::Set(range) => bitmap.set(*range),
                Change::Clear(range) => bitmap.clear(*range, ClearedBy::CopiedAndFlushed),
            };
            ever.extend(model.iter().copied());
            match save {
                0 => outstanding.extend(bitmap.next_page(Urgency::Marks, 1)),
                1 => outstanding.extend(bitmap.next_page(Urgency::Everything, 1)),
                2 => if let Some(write) = outstanding.pop() {
                    disk.write(&write.write, 0xff);
                    bitmap.on_durable(write.page);
                    failed.remove(&write.page);
                },
                _ => if let Some(write) = outstanding.pop() {
                    disk.write(&write.write, sectors);
                    bitmap.on_failed(write.page);
                    failed.insert(write.page);
                },
            }
            let mut crashed = disk.clone();
            for write in &outstanding {
                crashed.write(&write.write, sectors);
            }
            let (read, report) = Bitmap::load(ARRAY, &layout, &crashed.0);
            let out = outstanding.iter().map(|write| write.page);
            let torn: BTreeSet<u32> = out.chain(failed.iter().copied()).collect();
            prop_assert!(report.lost as usize <= torn.len(), "one slot of each page is always whole");
            let read = set_of(&read);
            prop_assert!(report.lost != 0 || read.is_subset(&ever));
            for granule in &model {
                let durable = bitmap.is_durable(granules(*granule, 1));
                prop_assert!(!durable || read.contains(granule), "granule {granule} lost");
            }
        }
    }
}

#[derive(Clone)]
struct Disk(Vec<u8>);

impl Disk {
    fn formatted(layout: &Layout) -> Self {
        let mut disk = Self(vec![0; usize::try_from(layout.bitmap_len()).expect("small")]);
        for block in first_blocks(ARRAY, layout) {
            disk.write(&block, 0xff);
        }
        disk
    }

    fn write(&mut self, write: &BlockWrite, sectors: u8) {
        let at = usize::try_from(write.offset - crate::format::layout::BITMAP_OFFSET).expect("small");
        for sector in (0..8).filter(|sector| sectors >> sector & 1 == 1) {
            let bytes = sector * 512..(sector + 1) * 512;
            self.0[at + bytes.start..at + bytes.end].copy_from_slice(&write.block[bytes]);
        }
    }
}

/// Writes everything until nothing is left to write.
fn save(bitmap: &mut Bitmap, disk: &mut Disk) {
    while let Some(write) = bitmap.next_page(Urgency::Everything, 1) {
        disk.write(&write.write, 0xff);
        bitmap.on_durable(write.page);
    }
    assert!(bitmap.is_saved());
}

#[test]
fn a_quiet_bitmap_has_nothing_to_write() {
    let mut bitmap = Bitmap::new(ARRAY, &layout());
    assert!(bitmap.is_saved() && bitmap.is_clear() && bitmap.is_all_durable());
    assert_eq!(bitmap.next_page(Urgency::Everything, 1), None);
    bitmap.set(granules(3, 1));
    bitmap.set(granules(3, 1));
    let first = bitmap.next_page(Urgency::Marks, 1).expect("one page");
    assert_eq!((first.page, bitmap.next_page(Urgency::Marks, 1)), (0, None), "one write of a page at a time");
    assert!(!bitmap.is_durable(granules(3, 1)) && bitmap.is_durable(granules(PAGE_BITS, 1)));
    bitmap.on_durable(0);
    assert!(bitmap.is_durable(granules(3, 1)) && bitmap.is_saved());
}

#[test]
fn a_set_during_a_write_needs_another_write() {
    let mut bitmap = Bitmap::new(ARRAY, &layout());
    bitmap.set(granules(1, 1));
    let _ = bitmap.next_page(Urgency::Marks, 1);
    bitmap.set(granules(2, 1));
    bitmap.on_durable(0);
    assert!(!bitmap.is_durable(granules(2, 1)));
    assert!(bitmap.next_page(Urgency::Marks, 1).is_some());
    bitmap.on_durable(0);
    assert!(bitmap.is_durable(granules(2, 1)));
}

#[test]
fn clears_are_lazy_and_still_reach_the_disk() {
    let layout = layout();
    let mut disk = Disk::formatted(&layout);
    let mut bitmap = Bitmap::new(ARRAY, &layout);
    bitmap.set(granules(0, 10));
    save(&mut bitmap, &mut disk);
    bitmap.clear(granules(0, 4), ClearedBy::CopiedAndFlushed);
    assert_eq!(bitmap.next_page(Urgency::Marks, 1), None);
    assert!(bitmap.is_all_durable() && !bitmap.is_saved());
    save(&mut bitmap, &mut disk);
    assert_eq!(set_of(&Bitmap::load(ARRAY, &layout, &disk.0).0), (4..10).collect());
}

#[test]
fn writes_alternate_between_the_slots() {
    let mut bitmap = Bitmap::new(ARRAY, &layout());
    let mut offsets = Vec::new();
    for granule in 0..4 {
        bitmap.set(granules(granule, 1));
        offsets.push(bitmap.next_page(Urgency::Marks, 1).expect("a page").write.offset);
        bitmap.on_durable(0);
    }
    let (even, odd) = (Layout::bitmap_block(0, 0), Layout::bitmap_block(0, 1));
    assert_eq!(offsets, [even, odd, even, odd], "formatting took the odd slot");
    bitmap.set(granules(9, 1));
    let failed = bitmap.next_page(Urgency::Marks, 1).expect("a page").write.offset;
    bitmap.on_failed(0);
    assert_eq!(bitmap.next_page(Urgency::Marks, 1).expect("again").write.offset, failed);
}

#[test]
fn a_page_without_a_whole_slot_is_all_ones() {
    let layout = layout();
    let mut disk = Disk::formatted(&layout);
    let mut bitmap = Bitmap::new(ARRAY, &layout);
    bitmap.set(granules(PAGE_BITS, 1));
    save(&mut bitmap, &mut disk);
    for at in [100, BLOCK_SIZE + 100, 2 * BLOCK_SIZE + 100, 3 * BLOCK_SIZE + 100] {
        disk.0[at] ^= 1;
    }
    let (mut lost, report) = Bitmap::load(ARRAY, &layout, &disk.0);
    assert_eq!(report, LoadReport { mended: 0, lost: 2 });
    assert_eq!(lost.set_granules(), layout.granules(), "not a bit more than there are granules");
    assert_eq!(lost.set_bytes(), layout.granules() * GRANULE);
    assert!(!lost.is_all_durable(), "it has to be written");
    save(&mut lost, &mut disk);
    assert_eq!(Bitmap::load(ARRAY, &layout, &disk.0).0.set_granules(), layout.granules());
}

#[test]
fn a_rotten_newest_slot_does_not_lose_its_bits() {
    let layout = layout();
    let mut disk = Disk::formatted(&layout);
    let mut bitmap = Bitmap::new(ARRAY, &layout);
    bitmap.set(granules(7, 1));
    save(&mut bitmap, &mut disk);
    bitmap.set(granules(9, 1));
    save(&mut bitmap, &mut disk);
    let newest = BLOCK_SIZE;
    disk.0[newest + 3000] ^= 0x10;
    let (read, report) = Bitmap::load(ARRAY, &layout, &disk.0);
    assert_eq!(report, LoadReport { mended: 0, lost: 1 });
    assert!(read.is_set(granules(7, 1)) && read.is_set(granules(9, 1)));
    disk.0[newest..newest + BLOCK_SIZE].fill(0);
    let (read, report) = Bitmap::load(ARRAY, &layout, &disk.0);
    assert_eq!((report.lost, read.is_set(granules(0, PAGE_BITS))), (1, true), "trimmed behind our back");
}

/// A mark that has rotted, or over which something else was written, is not a mark that was never made.
#[test]
fn a_damaged_newest_slot_does_not_forget_its_own_marks() {
    let layout = layout();
    let mut disk = Disk::formatted(&layout);
    let mut bitmap = Bitmap::new(ARRAY, &layout);
    for granule in [5, 9] {
        bitmap.set(granules(granule, 1));
        save(&mut bitmap, &mut disk);
    }
    let both = |disk: &Disk| {
        let (read, report) = Bitmap::load(ARRAY, &layout, &disk.0);
        assert_eq!((report.mended, report.lost), (0, 1));
        read.is_set(granules(5, 1)) && read.is_set(granules(9, 1))
    };
    let newest = BLOCK_SIZE;
    let mut rotten = Disk(disk.0.clone());
    rotten.0[newest + header::HEADER_LEN + 1] ^= 2;
    assert!(both(&rotten), "the bit of granule 9");
    let mut misdirected = Disk(disk.0.clone());
    misdirected.0.copy_within(..BLOCK_SIZE, newest);
    assert!(both(&misdirected));
    let mut foreign = Disk(disk.0.clone());
    foreign.0[newest..newest + BLOCK_SIZE].fill(0x55);
    assert!(both(&foreign));
    // The older one: the newest says all.
    let mut older = Disk(disk.0.clone());
    older.0[header::HEADER_LEN + 200] ^= 2;
    let (read, report) = Bitmap::load(ARRAY, &layout, &older.0);
    assert_eq!((report.mended, report.lost), (1, 0));
    assert!(read.is_set(granules(5, 1)) && read.is_set(granules(9, 1)) && !read.is_set(granules(0, 64)));
}

#[test]
fn a_page_of_another_place_or_array_is_not_read() {
    let layout = layout();
    let other = first_blocks(Uuid::from_u128(1), &layout).next().expect("a page");
    let mut disk = Disk::formatted(&layout);
    disk.write(&other, 0xff);
    assert_eq!(Bitmap::load(ARRAY, &layout, &disk.0).1.lost, 1);
    let mut disk = Disk::formatted(&layout);
    let misplaced = disk.0[3 * BLOCK_SIZE..4 * BLOCK_SIZE].to_vec();
    disk.0[BLOCK_SIZE..2 * BLOCK_SIZE].copy_from_slice(&misplaced);
    assert_eq!(Bitmap::load(ARRAY, &layout, &disk.0).1.lost, 1);
    assert_eq!(header::PAYLOAD_LEN, PAGE_WORDS * 8);
}

#[test]
fn runs_are_cut_at_the_wanted_length() {
    let mut bitmap = Bitmap::new(ARRAY, &layout());
    bitmap.set(granules(10, 20));
    bitmap.set(granules(40, 1));
    assert_eq!(bitmap.next_run(0, 16 * GRANULE), Some(granules(10, 16)));
    assert_eq!(bitmap.next_run(26, 16 * GRANULE), Some(granules(26, 4)));
    assert_eq!(bitmap.next_run(30, 16 * GRANULE), Some(granules(40, 1)));
    assert_eq!(bitmap.next_run(41, GRANULE), None);
    let last = layout().granules() - 1;
    bitmap.set(granules(last, 1));
    assert_eq!(bitmap.next_run(41, GRANULE), Some(ByteRange::new(last * GRANULE, 4096)));
    assert_eq!(bitmap.set_all(), layout().granules() - 22);
    assert_eq!(bitmap.runs().collect::<Vec<_>>(), [ByteRange::new(0, layout().data_size)]);
}

#[test]
fn the_leading_run_of_a_range_ends_where_its_granules_differ() {
    let mut bitmap = Bitmap::new(ARRAY, &layout());
    bitmap.set(granules(10, 20));
    let part = |first: u64, len: u64| ByteRange::new(first * GRANULE + 512, len);
    assert_eq!(bitmap.leading_run(part(8, 4 * GRANULE)), part(8, 2 * GRANULE - 512));
    assert_eq!(bitmap.leading_run(part(10, 30 * GRANULE)), part(10, 20 * GRANULE - 512));
    assert_eq!(bitmap.leading_run(part(12, GRANULE)), part(12, GRANULE));
    assert_eq!(bitmap.leading_run(part(60, GRANULE)), part(60, GRANULE));
    let last = granules(layout().granules() - 1, 1).start;
    assert_eq!(bitmap.leading_run(ByteRange::new(last, 4096)), ByteRange::new(last, 4096));
}

#[test]
fn union_adds_the_other_legs_marks() {
    let (mut ours, mut theirs) = (Bitmap::new(ARRAY, &layout()), Bitmap::new(ARRAY, &layout()));
    ours.set(granules(1, 2));
    theirs.set(granules(2, 2));
    assert_eq!(ours.union(&theirs), 1);
    assert_eq!(set_of(&ours), (1..4).collect());
}
