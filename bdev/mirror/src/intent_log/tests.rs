//! The log against a disk that tears: whatever may differ is in what replay says, at every moment.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use uuid::Uuid;

use super::codec::{CONTEXT_MAX, Transaction};
use super::*;
use crate::bitmap::{ClearedBy, Urgency};
use crate::format::header::{self, SEQ_MAX};
use crate::format::layout::{LOG_LEN, LOG_OFFSET, Layout};
use crate::format::{At, BLOCK_SIZE, BlockKind, Header, LayoutRequest};

const ARRAY: Uuid = Uuid::from_u128(0x106);

/// 64 slots of 64 KiB over 512 extents.
fn small() -> Layout {
    layout(32 << 20, 4 << 20)
}

fn layout(data: u64, bound: u64) -> Layout {
    let leg_size = data + (64 << 20);
    let request =
        LayoutRequest { leg_size, block_size: 4096, data_size: Some(data), max_crash_resync: Some(bound) };
    Layout::plan(request).expect("fits")
}

#[derive(Clone)]
struct Ring(Vec<u8>);

impl Ring {
    fn formatted(layout: &Layout) -> Self {
        let mut ring = Self(vec![0; usize::try_from(LOG_LEN).expect("1 MiB")]);
        ring.write(&first_block(ARRAY, &layout.log), 0xff);
        ring
    }

    fn write(&mut self, write: &BlockWrite, sectors: u8) {
        let at = usize::try_from(write.offset - LOG_OFFSET).expect("in the ring");
        for sector in (0..8).filter(|sector| sectors >> sector & 1 == 1) {
            let bytes = sector * 512..(sector + 1) * 512;
            self.0[at + bytes.start..at + bytes.end].copy_from_slice(&write.block[bytes]);
        }
    }

    fn rot(&mut self, seq: u64, byte: usize) {
        let at = usize::try_from(seq % LOG_BLOCKS).expect("below 256") * BLOCK_SIZE;
        self.0[at + byte] ^= 1;
    }

    fn replay(&self, layout: &Layout) -> Replay {
        replay(&self.0, ARRAY, &layout.log)
    }

    fn extents(&self, layout: &Layout) -> Vec<u32> {
        match self.replay(layout) {
            Replay::Table(replayed) => replayed.extents(),
            Replay::Unreadable { .. } => panic!("unreadable"),
        }
    }
}

/// A log with its bitmap and its disk.
struct Bench {
    layout: Layout,
    ring: Ring,
    bitmap: Bitmap,
    /// Granules that are marked on disk. The bitmap of a small layout is one page.
    marks: BTreeSet<u64>,
    log: IntentLog,
}

impl Bench {
    fn new(layout: Layout) -> Self {
        let ring = Ring::formatted(&layout);
        Self::start(layout, ring)
    }

    fn start(layout: Layout, ring: Ring) -> Self {
        Self::start_with(layout, ring, BTreeSet::new())
    }

    fn start_with(layout: Layout, ring: Ring, marks: BTreeSet<u64>) -> Self {
        let mut bitmap = Bitmap::new(ARRAY, &layout);
        for granule in &marks {
            bitmap.set(ByteRange::new(granule << 16, 1));
        }
        while let Some(page) = bitmap.next_page(Urgency::Marks, 1) {
            bitmap.on_durable(page.page);
        }
        let log = IntentLog::resume(ARRAY, layout.log, &ring.replay(&layout), &mut bitmap);
        Self { layout, ring, bitmap, marks, log }
    }

    fn extent(&self, extent: u64) -> ByteRange {
        ByteRange::new(extent << self.layout.log.extent_shift, 4096)
    }

    /// Writes the next transaction, if there is one.
    fn commit(&mut self) -> bool {
        let Some(transaction) = self.log.next_transaction(1, &self.bitmap).cloned() else { return false };
        self.ring.write(&transaction.write, 0xff);
        self.log.on_durable(transaction.seq);
        true
    }

    fn commit_all(&mut self) {
        while self.commit() {}
    }

    fn save_marks(&mut self) {
        while let Some(page) = self.bitmap.next_page(Urgency::Marks, 1) {
            self.bitmap.on_durable(page.page);
            self.marks = self.bitmap.runs().flat_map(|run| run.touched(16).iter()).collect();
        }
    }

    fn flush(&mut self) {
        let ticket = self.log.begin_flush();
        self.log.end_flush(ticket);
    }

    /// Admits a write of the extent; commits until it is active.
    fn admit(&mut self, extent: u64) -> Permit {
        match self.log.admit(self.extent(extent)) {
            Admission::Active(permit) => permit,
            Admission::NeedsTransaction(permit) => {
                assert!(self.commit() && self.log.is_active(&permit));
                permit
            }
            Admission::Full => panic!("no slot is free"),
        }
    }

    fn write(&mut self, extent: u64, durability: Durability) {
        let permit = self.admit(extent);
        self.log.finish(permit, Reach::BothLegs, durability, &self.bitmap);
    }

    fn is_logged(&self, extent: u64) -> bool {
        self.ring.extents(&self.layout).iter().any(|&logged| u64::from(logged) == extent)
    }
}

#[test]
fn a_write_waits_for_its_transaction_and_a_second_one_does_not() {
    let mut bench = Bench::new(small());
    let Admission::NeedsTransaction(permit) = bench.log.admit(bench.extent(5)) else { panic!("a miss") };
    assert!(!bench.log.is_active(&permit) && !bench.is_logged(5));
    let transaction = bench.log.next_transaction(1, &bench.bitmap).cloned().expect("a miss to write");
    assert_eq!(bench.log.next_transaction(1, &bench.bitmap).cloned(), None, "one outstanding at a time");
    assert!(!bench.log.is_active(&permit));
    bench.ring.write(&transaction.write, 0xff);
    bench.log.on_durable(transaction.seq);
    assert!(bench.log.is_active(&permit) && bench.is_logged(5));
    let Admission::Active(second) = bench.log.admit(bench.extent(5)) else { panic!("a hit") };
    bench.log.finish(permit, Reach::BothLegs, Durability::Durable, &bench.bitmap);
    bench.log.finish(second, Reach::BothLegs, Durability::Durable, &bench.bitmap);
    assert!(bench.is_logged(5), "an extent stays until its slot is needed");
}

#[test]
fn misses_share_a_transaction() {
    let mut bench = Bench::new(small());
    let permits: Vec<_> = (0..40).map(|i| bench.log.admit(bench.extent(i * 2))).collect();
    assert!(bench.commit());
    assert!(!bench.commit());
    for admission in permits {
        let Admission::NeedsTransaction(permit) = admission else { panic!("a miss") };
        assert!(bench.log.is_active(&permit));
        bench.log.cancel(permit);
    }
    assert_eq!(bench.log.usage().transactions, 1);
}

#[test]
fn a_failed_transaction_is_handed_out_again() {
    let mut bench = Bench::new(small());
    let Admission::NeedsTransaction(permit) = bench.log.admit(bench.extent(5)) else { panic!("a miss") };
    let first = bench.log.next_transaction(1, &bench.bitmap).cloned().expect("a miss to write");
    bench.log.on_failed();
    let again = bench.log.next_transaction(1, &bench.bitmap).cloned();
    assert_eq!(again, Some(first.clone()));
    bench.log.on_durable(first.seq);
    assert!(bench.log.is_active(&permit));
    bench.log.cancel(permit);
}

#[test]
#[should_panic(expected = "before its extents were active")]
fn finishing_before_the_transaction_is_a_bug() {
    let mut bench = Bench::new(small());
    let Admission::NeedsTransaction(permit) = bench.log.admit(bench.extent(5)) else { panic!("a miss") };
    bench.log.finish(permit, Reach::BothLegs, Durability::Durable, &bench.bitmap);
}

#[test]
#[should_panic(expected = "is not marked")]
fn a_write_that_missed_a_leg_has_to_be_marked() {
    let mut bench = Bench::new(small());
    let permit = bench.admit(5);
    bench.log.finish(permit, Reach::Marked, Durability::Durable, &bench.bitmap);
}

/// Fills the table; gives the number of extents that are in it.
fn fill(bench: &mut Bench, durability: Durability) -> u64 {
    // Even extents alone: nothing is fetched ahead.
    let mut extent = 0;
    while let Admission::Active(permit) | Admission::NeedsTransaction(permit) =
        bench.log.admit(bench.extent(extent))
    {
        bench.commit();
        bench.log.finish(permit, Reach::BothLegs, durability, &bench.bitmap);
        extent += 2;
    }
    extent / 2
}

#[test]
fn durable_writes_never_fill_the_table() {
    let mut bench = Bench::new(small());
    for i in 0..400 {
        bench.write(i * 2 % 512, Durability::Durable);
        assert!(bench.ring.extents(&bench.layout).len() <= 64);
    }
    assert_eq!(bench.log.exposed().count(), 0);
    assert_eq!(bench.log.relief(&bench.bitmap), Relief::default());
}

#[test]
fn cached_writes_stay_until_a_flush_that_began_after_them() {
    let mut bench = Bench::new(small());
    let held = fill(&mut bench, Durability::Accepted);
    assert_eq!(held, 64, "no extent could leave");
    assert!(bench.log.relief(&bench.bitmap).want_flush > 0);
    let early = bench.log.begin_flush();
    let permit = bench.admit(0);
    bench.log.finish(permit, Reach::BothLegs, Durability::Accepted, &bench.bitmap);
    bench.log.end_flush(early);
    assert_eq!(
        bench.log.exposed().map(|range| range.start).collect::<Vec<_>>(),
        [0],
        "written during the flush"
    );
    bench.commit_all();
    assert!(
        matches!(bench.log.admit(bench.extent(500)), Admission::NeedsTransaction(_)),
        "flushed ones left"
    );
    assert!(bench.is_logged(0) && !bench.is_logged(2));
}

#[test]
fn marked_writes_stay_until_their_pages_are_durable() {
    let mut bench = Bench::new(small());
    for i in 0..64 {
        let range = bench.extent(i * 2);
        bench.bitmap.set(range);
        let permit = bench.admit(i * 2);
        bench.log.finish(permit, Reach::Marked, Durability::Durable, &bench.bitmap);
    }
    assert!(!bench.commit() && bench.log.relief(&bench.bitmap).want_marks > 0);
    assert_eq!(bench.log.admit(bench.extent(500)), Admission::Full);
    bench.save_marks();
    assert!(bench.commit());
    assert!(bench.ring.extents(&bench.layout).len() < 64);
}

#[test]
fn a_pinned_extent_never_leaves() {
    let mut bench = Bench::new(small());
    let pinned = bench.admit(100);
    for i in 0..400 {
        bench.write(i * 2 % 90, Durability::Durable);
        bench.write(102 + i * 2 % 200, Durability::Durable);
        assert!(bench.is_logged(100));
    }
    bench.log.finish(pinned, Reach::BothLegs, Durability::Durable, &bench.bitmap);
    for i in 0..100 {
        bench.write(i * 2 % 90 + 200, Durability::Durable);
    }
    assert!(!bench.is_logged(100));
}

#[test]
fn a_write_over_many_extents_gets_all_or_nothing() {
    let mut bench = Bench::new(small());
    let wide = ByteRange::new((10 << 16) + 4096, 10 << 16);
    let Admission::NeedsTransaction(permit) = bench.log.admit(wide) else { panic!("misses") };
    assert!(bench.commit());
    assert!(bench.log.is_active(&permit));
    assert_eq!(bench.ring.extents(&bench.layout), (10..=20).collect::<Vec<_>>());
    let mut pins = Vec::new();
    while let Admission::NeedsTransaction(permit) = bench.log.admit(bench.extent(100 + 2 * pins.len() as u64))
    {
        pins.push(permit);
    }
    let used = bench.log.usage().used;
    assert_eq!(bench.log.admit(ByteRange::new(300 << 16, 5 << 16)), Admission::Full);
    assert_eq!(bench.log.usage().used, used, "nothing was taken");
    for pin in pins {
        bench.log.cancel(pin);
    }
    bench.log.cancel(permit);
}

/// A small table keeps fewer slots free than the longest write needs.
#[test]
fn the_longest_write_gets_its_room_in_a_full_table() {
    let mut bench = Bench::new(small());
    for extent in 0..100 {
        bench.write(extent * 2, Durability::Durable);
    }
    let range = ByteRange::new(20 << 20, bench.log.max_write_bytes());
    assert_eq!(bench.log.admit(range), Admission::Full);
    assert!(bench.commit(), "it makes room");
    assert!(matches!(bench.log.admit(range), Admission::NeedsTransaction(_)));
}

#[test]
fn a_stream_finds_its_next_extents_active() {
    let mut bench = Bench::new(layout(1 << 30, 256 << 20));
    for extent in 0..200 {
        bench.write(extent, Durability::Durable);
        bench.commit_all();
    }
    let usage = bench.log.usage();
    assert_eq!(usage.misses, 2, "the first two only");
    assert_eq!(usage.hits, 198);
}

#[test]
fn a_table_of_many_windows_is_rebuilt_from_the_last_ones() {
    let mut bench = Bench::new(layout(1 << 40, 64 << 30));
    let slots = u64::from(bench.layout.log.slots);
    assert_eq!(codec::window(bench.layout.log.slots), 20);
    for i in 0..700 {
        let ranges: Vec<_> = (0..90).map(|j| (i * 90 + j) * 7919 % 262_144).collect();
        let permits: Vec<_> = ranges.iter().map(|&extent| bench.log.admit(bench.extent(extent))).collect();
        bench.commit_all();
        for admission in permits {
            let (Admission::Active(permit) | Admission::NeedsTransaction(permit)) = admission else {
                continue;
            };
            bench.log.finish(permit, Reach::BothLegs, Durability::Durable, &bench.bitmap);
        }
    }
    let Replay::Table(found) = bench.ring.replay(&bench.layout) else { panic!("whole") };
    assert_eq!(found.table, bench.log.on_disk);
    let used = found.extents().len() as u64;
    assert!(used <= slots && used > slots * 9 / 10, "{used} of {slots}");
    let mut rotten = bench.ring.clone();
    rotten.rot(found.seq - 19, 3000);
    assert_eq!(rotten.replay(&bench.layout), Replay::Unreadable { newest: found.seq });
    let mut old = bench.ring.clone();
    old.rot(found.seq - 20, 3000);
    assert_eq!(old.replay(&bench.layout), Replay::Table(found.clone()), "older ones do not matter");
    let mut lost = bench.ring.clone();
    lost.write(&empty_transaction(ARRAY, &bench.layout.log, found.seq - 5 - LOG_BLOCKS, 1).write, 0xff);
    assert_eq!(lost.replay(&bench.layout), Replay::Unreadable { newest: found.seq }, "a lost write");
}

#[test]
fn a_clean_stop_empties_the_log_and_a_start_finds_it_empty() {
    let mut bench = Bench::new(small());
    for i in 0..20 {
        bench.write(i, Durability::Accepted);
    }
    assert_eq!(bench.log.close(1, &bench.bitmap).cloned(), Err(Held::Unflushed));
    bench.flush();
    let permit = bench.admit(3);
    assert_eq!(bench.log.close(1, &bench.bitmap).cloned(), Err(Held::Busy));
    bench.log.cancel(permit);
    bench.commit_all();
    let last = bench.log.close(1, &bench.bitmap).cloned().expect("quiet and flushed");
    assert_eq!(bench.log.admit(bench.extent(3)), Admission::Full);
    bench.ring.write(&last.write, 0xff);
    bench.log.on_durable(last.seq);
    assert!(bench.ring.replay(&bench.layout).is_empty());
    let mut bench = Bench::start(bench.layout, bench.ring);
    assert!(bench.bitmap.is_clear());
    bench.write(7, Durability::Durable);
    assert_eq!(bench.ring.extents(&bench.layout), [7]);
}

#[test]
fn after_a_crash_extents_stay_until_marked_and_flushed() {
    let mut bench = Bench::new(small());
    for i in 0..64 {
        let permit = bench.admit(i * 2);
        drop(permit);
    }
    let mut bench = Bench::start(bench.layout, bench.ring);
    assert_eq!(bench.bitmap.set_bytes(), 64 << 16, "everything logged is marked");
    assert!(!bench.commit());
    bench.save_marks();
    assert!(!bench.commit(), "not flushed since the crash");
    bench.flush();
    assert!(bench.commit());
    assert!(bench.ring.extents(&bench.layout).len() < 64);
}

#[test]
fn a_torn_tail_is_kept_until_it_is_marked() {
    let mut bench = Bench::new(small());
    bench.write(1, Durability::Durable);
    let Admission::NeedsTransaction(_permit) = bench.log.admit(bench.extent(9)) else { panic!("a miss") };
    let torn = bench.log.next_transaction(1, &bench.bitmap).cloned().expect("a miss");
    // Header and updates are new, the end of the context is not.
    bench.ring.write(&torn.write, 0b0000_1111);
    assert_eq!(bench.ring.extents(&bench.layout), [0, 1, 9], "what was not written reads as extent 0");
    let mut bench = Bench::start(bench.layout, bench.ring);
    let Admission::NeedsTransaction(permit) = bench.log.admit(bench.extent(30)) else { panic!("a miss") };
    assert!(!bench.commit(), "the next transaction would overwrite what the torn one says");
    assert!(bench.log.relief(&bench.bitmap).want_marks > 0);
    bench.save_marks();
    assert!(bench.commit() && bench.log.is_active(&permit));
    bench.log.cancel(permit);
}

#[test]
fn an_unreadable_ring_marks_everything_and_is_rewritten() {
    let mut bench = Bench::new(small());
    bench.ring.rot(1, 2000);
    assert_eq!(bench.ring.replay(&bench.layout), Replay::Unreadable { newest: 0 });
    let mut bench = Bench::start(bench.layout, bench.ring);
    assert_eq!(bench.bitmap.set_bytes(), bench.layout.data_size);
    assert_eq!(bench.log.admit(bench.extent(3)), Admission::Full);
    assert!(!bench.commit(), "nothing before the marks are durable");
    bench.save_marks();
    for _ in 0..LOG_BLOCKS {
        assert_eq!(bench.log.admit(bench.extent(3)), Admission::Full);
        assert!(bench.commit());
    }
    bench.write(3, Durability::Durable);
    assert_eq!(bench.ring.extents(&bench.layout), [3]);
}

#[test]
fn two_damaged_blocks_behind_the_newest_are_not_a_crash() {
    let mut bench = Bench::new(small());
    for i in 0..10 {
        bench.write(i * 2, Durability::Durable);
    }
    let Replay::Table(found) = bench.ring.replay(&bench.layout) else { panic!("whole") };
    bench.ring.rot(found.seq, 2000);
    assert!(bench.is_logged(18), "salvaged from the rotten newest one");
    bench.ring.rot(found.seq - 1, 2000);
    assert_eq!(bench.ring.replay(&bench.layout), Replay::Unreadable { newest: found.seq - 2 });
}

fn says(ring: &Ring, layout: &Layout, extent: u32) -> bool {
    match ring.replay(layout) {
        Replay::Table(replayed) => replayed.extents().contains(&extent),
        Replay::Unreadable { .. } => true,
    }
}

/// What no crash leaves of a transaction is no torn tail: what it activated was written to.
#[test]
fn a_newest_transaction_that_is_gone_is_not_forgotten() {
    for transactions in [20, 300] {
        let mut bench = Bench::new(small());
        for i in 0..transactions {
            bench.write(i * 2 % 200, Durability::Durable);
        }
        let Replay::Table(found) = bench.ring.replay(&bench.layout) else { panic!("whole") };
        let extent = u32::try_from((transactions - 1) * 2 % 200).expect("small");
        assert!(found.extents().contains(&extent));
        let at = |seq: u64| usize::try_from(seq % LOG_BLOCKS).expect("below 256") * BLOCK_SIZE;
        let newest = at(found.seq);
        let mut rotten = bench.ring.clone();
        let update = header::HEADER_LEN + 16;
        rotten.0[newest + update..newest + update + 6].fill(0xff);
        assert!(says(&rotten, &bench.layout, extent), "{transactions}: rot in what it activates");
        let mut misdirected = bench.ring.clone();
        misdirected.0.copy_within(at(found.seq - 1)..at(found.seq - 1) + BLOCK_SIZE, newest);
        assert!(says(&misdirected, &bench.layout, extent), "{transactions}: another one over it");
        let mut foreign = bench.ring.clone();
        foreign.0[newest..newest + BLOCK_SIZE].fill(0xa5);
        assert!(says(&foreign, &bench.layout, extent), "{transactions}: something else over it");
        let mut trimmed = bench.ring.clone();
        trimmed.0[newest..newest + BLOCK_SIZE].fill(0);
        assert_eq!(
            says(&trimmed, &bench.layout, extent),
            transactions > LOG_BLOCKS,
            "{transactions}: zeroed"
        );
    }
}

#[test]
fn a_ring_is_emptied_from_outside() {
    let mut bench = Bench::new(small());
    bench.write(7, Durability::Durable);
    for rotten in [false, true] {
        let mut ring = bench.ring.clone();
        if rotten {
            ring.rot(2, 2000);
            ring.rot(3, 2000);
            ring.rot(1, 2000);
        }
        let transactions: Vec<_> =
            emptying(ARRAY, bench.layout.log, &ring.replay(&bench.layout), 5).collect();
        assert_eq!(transactions.len() as u64, if rotten { LOG_BLOCKS } else { 1 });
        for transaction in transactions {
            ring.write(&transaction.write, 0xff);
        }
        assert!(ring.replay(&bench.layout).is_empty());
    }
}

#[derive(Clone, Debug)]
enum Event {
    Admit(u64, u64),
    Finish(Durability, Reach),
    Commit,
    Fail(u8),
    BeginFlush,
    EndFlush,
    SaveMarks,
    Resync(u64),
    Restart(u8),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (0..512_u64, 1..9_u64).prop_map(|(at, count)| Event::Admit(at, count.min(512 - at))),
        2 => (0..32_u64).prop_map(|at| Event::Admit(at, 1)),
        3 => Just(Event::Finish(Durability::Accepted, Reach::BothLegs)),
        3 => Just(Event::Finish(Durability::Durable, Reach::BothLegs)),
        1 => Just(Event::Finish(Durability::Durable, Reach::Marked)),
        1 => Just(Event::Finish(Durability::Accepted, Reach::Marked)),
        8 => Just(Event::Commit),
        1 => any::<u8>().prop_map(Event::Fail),
        2 => Just(Event::BeginFlush),
        2 => Just(Event::EndFlush),
        1 => Just(Event::SaveMarks),
        1 => (0..512_u64).prop_map(Event::Resync),
        1 => any::<u8>().prop_map(Event::Restart),
    ];
    prop::collection::vec(event, 20..250)
}

/// What may differ between the legs, kept without any cleverness.
#[derive(Default)]
struct Truth {
    pending: Vec<Permit>,
    waiting: Vec<Permit>,
    /// Extents with cached writes, and the number of flushes begun when the last of them ended.
    cached: BTreeMap<u64, usize>,
    flushes: Vec<FlushTicket>,
    done: usize,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// R1, R4, I5, I7, I8 in one: after any events, cut off by a crash with the outstanding transaction torn
    /// at 512 B, everything that may differ is in the replayed log or set in the durable bitmap.
    #[test]
    fn whatever_may_differ_is_logged_or_marked(events in events(), sectors: u8) {
        let mut bench = Bench::new(small());
        let mut truth = Truth::default();
        for event in events {
            step(&mut bench, &mut truth, &event);
            let mut crashed = bench.ring.clone();
            if let Some(outstanding) = &bench.log.outstanding {
                crashed.write(&outstanding.transaction.write, sectors);
            }
            check(&bench, &truth, &crashed)?;
        }
    }

    /// Whatever a whole block of ours holds, replay answers, and never names an extent that is not there.
    #[test]
    fn sealed_garbage_never_panics(at in 64..BLOCK_SIZE - 8, garbage in any::<[u8; 8]>(), seq in 0..SEQ_MAX) {
        let layout = small();
        let mut bench = Bench::new(layout);
        let mut write = empty_transaction(ARRAY, &layout.log, seq, 1).write;
        write.block[at..at + 8].copy_from_slice(&garbage);
        let header = Header { kind: BlockKind::IntentLog, seq, generation: 1 };
        header::seal(&mut write.block, header, At { array: ARRAY, address: write.offset });
        bench.ring.write(&write, 0xff);
        if let Replay::Table(found) = bench.ring.replay(&layout) {
            prop_assert!(found.extents().iter().all(|&extent| extent < layout.log.extents));
        }
        let _ = Bench::start(layout, bench.ring);
    }

    #[test]
    fn transaction_codec_is_inverse(updates in prop::collection::vec((0..64_u16, 0..512_u32), 0..=UPDATES_MAX), seq in 1..1_u64 << 40) {
        let layout = small();
        let updates: Vec<_> = updates.into_iter().map(|(slot, extent)| Update { slot, extent }).collect();
        let table: Vec<u32> = (0..64).map(|slot| if slot % 3 == 0 { FREE } else { slot }).collect();
        let write = codec::encode(ARRAY, (seq, 9), 1, &updates, &table);
        let decoded = codec::decode(&write.block, seq % LOG_BLOCKS, ARRAY, &layout.log).expect("whole");
        let start = usize::from(decoded.context_start);
        prop_assert_eq!(&decoded.context[64 - start..], &table[..start]);
        let context = decoded.context.clone();
        let context_start = decoded.context_start;
        prop_assert_eq!(decoded, Transaction { seq, generation: 9, base_seq: 1, updates, context_start, context });
        prop_assert!(codec::decode(&write.block, (seq + 1) % LOG_BLOCKS, ARRAY, &layout.log).is_err());
    }
}

fn step(bench: &mut Bench, truth: &mut Truth, event: &Event) {
    match *event {
        Event::Admit(at, count) => match bench.log.admit(ByteRange::new(at << 16, count << 16)) {
            Admission::Active(permit) => truth.pending.push(permit),
            Admission::NeedsTransaction(permit) => truth.waiting.push(permit),
            Admission::Full => {}
        },
        Event::Finish(durability, reach) if !truth.pending.is_empty() => {
            let permit = truth.pending.remove(0);
            if reach == Reach::Marked {
                bench.bitmap.set(permit.range());
            }
            if durability == Durability::Accepted {
                truth.cached.extend(permit.extents.iter().map(|extent| (extent, truth.flushes.len())));
            }
            bench.log.finish(permit, reach, durability, &bench.bitmap);
        }
        Event::Commit => {
            bench.commit();
            let (active, waiting) = truth.waiting.drain(..).partition(|permit| bench.log.is_active(permit));
            truth.waiting = waiting;
            truth.pending.extend::<Vec<_>>(active);
        }
        Event::Fail(sectors) => {
            if let Some(transaction) = bench.log.next_transaction(1, &bench.bitmap).cloned() {
                bench.ring.write(&transaction.write, sectors);
                bench.log.on_failed();
            }
        }
        Event::BeginFlush => truth.flushes.push(bench.log.begin_flush()),
        Event::EndFlush if truth.done < truth.flushes.len() => {
            bench.log.end_flush(truth.flushes[truth.done]);
            truth.cached.retain(|_, began| *began > truth.done);
            truth.done += 1;
        }
        Event::SaveMarks => bench.save_marks(),
        Event::Resync(granule) => {
            let range = ByteRange::new(granule << 16, 1 << 16);
            if !truth.pending.iter().any(|permit| permit.range().overlaps(range)) {
                bench.bitmap.clear(range, ClearedBy::CopiedAndFlushed);
            }
        }
        Event::Restart(sectors) => restart(bench, truth, sectors),
        Event::Finish(..) | Event::EndFlush => {}
    }
}

/// A crash, and the same disk again.
fn restart(bench: &mut Bench, truth: &mut Truth, sectors: u8) {
    let mut ring = bench.ring.clone();
    if let Some(outstanding) = &bench.log.outstanding {
        ring.write(&outstanding.transaction.write, sectors);
    }
    *bench = Bench::start_with(bench.layout, ring, std::mem::take(&mut bench.marks));
    *truth = Truth::default();
}

fn check(bench: &Bench, truth: &Truth, crashed: &Ring) -> Result<(), TestCaseError> {
    let logged = match crashed.replay(&bench.layout) {
        Replay::Table(replayed) => replayed.extents(),
        Replay::Unreadable { .. } => {
            return Err(TestCaseError::fail("one torn block made the ring unreadable"));
        }
    };
    prop_assert!(logged.len() <= 64 + UPDATES_MAX, "I7");
    let is_logged = |extent: u64| logged.binary_search(&u32::try_from(extent).expect("small")).is_ok();
    for permit in &truth.pending {
        prop_assert!(permit.extents.iter().all(is_logged), "R1: {permit:?} may be on its way to the legs");
    }
    for &extent in truth.cached.keys() {
        prop_assert!(is_logged(extent), "R4: extent {extent} was written and not flushed");
    }
    for granule in bench.bitmap.runs().flat_map(|run| run.touched(16).iter()) {
        let marked = bench.marks.contains(&granule);
        prop_assert!(marked || is_logged(granule), "R6: the mark of granule {granule} is nowhere on disk");
    }
    Ok(())
}

#[test]
fn the_context_moves_over_every_slot() {
    for slots in [64_u16, 859, 860, 861, 16_384, 65_535] {
        let mut seen = vec![false; slots.into()];
        for seq in 1000..1000 + codec::window(slots) {
            let start = usize::from(codec::context_start(seq, slots));
            for i in 0..codec::context_len(slots) {
                seen[(start + i) % usize::from(slots)] = true;
            }
        }
        assert!(seen.into_iter().all(|seen| seen), "{slots}");
    }
    const { assert!(CONTEXT_MAX * 255 > 65_535, "the ring holds every window") };
}
