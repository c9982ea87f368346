//! The intent log: "these extents may differ". Bounded, on the local leg alone, one 4 KiB write for each
//! batch of misses.
//!
//! Owner: the array core; pure, no I/O. Rules: R1, R4, R6, I5, I7, I20. Format: [`codec`], `FORMAT.md`.
//!
//! ```text
//! free --admit: queued--> writing --on_durable--> active --evicted (R4): leaving--> free
//!                            ^ next_transaction                      next_transaction, on_durable
//! ```
//!
//! A write asks for its extents with [`IntentLog::admit`] and gets a [`Permit`], which pins them. It may go
//! to the legs when [`IntentLog::is_active`] says so (R1), and gives the permit back with
//! [`IntentLog::finish`], saying how it ended. What R4 asks is kept here and read from the bitmap itself, so
//! the core has no way to let an extent go too early.
//!
//! One transaction is outstanding at a time (group commit): what queues up meanwhile goes into the next one.

pub mod codec;
pub mod evict;
mod index;
mod lru;
pub mod replay;
mod types;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bdev::Durability;
use uuid::Uuid;

pub use codec::FREE;
pub use evict::{CacheState, Entry, ExtentFacts, Held, Marks, Writes, may_leave, may_send};
pub use replay::{Replay, Replayed, replay};
pub use types::{Admission, FlushTicket, LogUsage, Permit, Reach, Relief, TransactionWrite};

use crate::bitmap::Bitmap;
use crate::format::BlockWrite;
use crate::format::layout::{LOG_BLOCKS, LogGeometry};
use crate::range::{ByteRange, UnitRange};
use codec::{UPDATES_MAX, Update};
use index::Index;
use lru::Lru;

/// Extents activated ahead of a sequential stream.
const PREFETCH: u32 = 2;
/// Slots looked at for eviction in one transaction, so that a table of busy extents costs bounded time.
const EVICTION_SCAN: usize = 4 * UPDATES_MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlotState {
    Free,
    /// Waits for a transaction.
    Queued,
    /// In the outstanding transaction.
    Writing,
    /// Active on disk.
    Active,
    /// Freed by the outstanding transaction.
    Leaving,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    extent: u32,
    state: SlotState,
    /// Permits that cover the extent.
    pending: u32,
    /// The first flush that makes its last writes stable.
    stable_after: u64,
    /// Not written to since it was activated.
    fresh: bool,
}

const EMPTY: Slot = Slot { extent: FREE, state: SlotState::Free, pending: 0, stable_after: 0, fresh: false };

/// What the log may do next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing may be written before these extents, salvaged from a torn block that the next transaction
    /// overwrites, are marked on disk.
    Salvaging(Vec<u32>),
    /// The ring was unreadable: once everything is marked on disk, so many empty transactions replace it.
    Rewriting(u64),
    /// Normal service.
    Ready,
    /// A transaction that frees everything is outstanding or durable (R12): no admission.
    Closed,
}

#[derive(Debug)]
struct Outstanding {
    transaction: TransactionWrite,
    delivery: Delivery,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    /// With the driver.
    InFlight,
    /// Failed: to be handed out again.
    Failed,
}

/// The table in memory.
#[derive(Debug)]
pub struct IntentLog {
    array: Uuid,
    geometry: LogGeometry,
    slots: Vec<Slot>,
    /// What the disk says once the outstanding transaction is durable.
    on_disk: Vec<u32>,
    index: Index,
    lru: Lru,
    free: Vec<u16>,
    queue: VecDeque<u16>,
    /// Slots changed by the outstanding transaction.
    in_transaction: Vec<u16>,
    /// Room for the updates of the next transaction, taken once (I23).
    updates: Vec<Update>,
    outstanding: Option<Outstanding>,
    phase: Phase,
    next_seq: u64,
    base_seq: u64,
    flushes_begun: u64,
    flushes_done: u64,
    /// The last flush that any extent waits for.
    unstable_until: u64,
    /// Slots that the last write which was refused for want of room needs.
    needed: usize,
    usage: LogUsage,
}

/// The first transaction of a formatted leg: the table is empty.
pub(crate) fn first_block(array: Uuid, geometry: &LogGeometry) -> BlockWrite {
    empty_transaction(array, geometry, 1, 0).write
}

/// The transactions that empty a ring from outside, each durable before the next: for a leg that was brought
/// in sync, whose own log is history. One where the ring is readable, a whole ring of them where it is not.
pub fn emptying(
    array: Uuid,
    geometry: LogGeometry,
    replay: &Replay,
    generation: u64,
) -> impl Iterator<Item = TransactionWrite> + use<> {
    let (first, count) = match replay {
        Replay::Table(replayed) => (replayed.seq + 1, 1),
        Replay::Unreadable { newest } => (newest + LOG_BLOCKS, LOG_BLOCKS),
    };
    (first..first + count).map(move |seq| empty_transaction(array, &geometry, seq, generation))
}

fn empty_transaction(array: Uuid, geometry: &LogGeometry, seq: u64, generation: u64) -> TransactionWrite {
    let table = vec![FREE; usize::from(geometry.slots)];
    TransactionWrite { seq, write: codec::encode(array, (seq, generation), seq, &[], &table) }
}

impl IntentLog {
    /// Goes on from what a ring said, and marks every extent that may differ in the bitmap: they stay active
    /// until those marks are durable and a flush went by (R4 binds recovery too).
    pub fn resume(array: Uuid, geometry: LogGeometry, replay: &Replay, bitmap: &mut Bitmap) -> Self {
        let mut log = Self::empty(array, geometry);
        match replay {
            Replay::Table(replayed) => log.restore(replayed, bitmap),
            Replay::Unreadable { newest } => {
                bitmap.set_all();
                log.next_seq = newest + LOG_BLOCKS;
                log.phase = Phase::Rewriting(LOG_BLOCKS);
            }
        }
        log.base_seq = match replay {
            Replay::Table(replayed) => replayed.base_seq,
            Replay::Unreadable { .. } => log.next_seq,
        };
        log
    }

    fn empty(array: Uuid, geometry: LogGeometry) -> Self {
        let slots = geometry.slots;
        let usage = LogUsage { slots: slots.into(), ..LogUsage::default() };
        Self {
            array,
            geometry,
            slots: vec![EMPTY; slots.into()],
            on_disk: vec![FREE; slots.into()],
            index: Index::new(slots),
            lru: Lru::new(slots),
            free: (0..slots).rev().collect(),
            queue: VecDeque::with_capacity(slots.into()),
            in_transaction: Vec::with_capacity(UPDATES_MAX),
            updates: Vec::with_capacity(UPDATES_MAX),
            outstanding: None,
            phase: Phase::Ready,
            next_seq: 1,
            base_seq: 1,
            flushes_begun: 0,
            flushes_done: 0,
            unstable_until: 0,
            needed: 0,
            usage,
        }
    }

    fn restore(&mut self, replayed: &Replayed, bitmap: &mut Bitmap) {
        for extent in replayed.extents() {
            bitmap.set(self.extent_bytes(extent));
        }
        self.free.clear();
        for (slot, &extent) in (0..self.geometry.slots).zip(&replayed.table).rev() {
            // The same extent twice is a table that no program of ours writes; it is marked, and one slot
            // will do.
            if extent == FREE || self.index.get(extent).is_some() {
                self.free.push(slot);
                continue;
            }
            let stable_after = self.flushes_begun + 1;
            self.unstable_until = stable_after;
            self.slots[usize::from(slot)] =
                Slot { extent, state: SlotState::Active, pending: 0, stable_after, fresh: false };
            self.index.insert(extent, slot);
            self.lru.touch(slot);
        }
        self.on_disk.copy_from_slice(&replayed.table);
        self.next_seq = replayed.seq + 1;
        if !replayed.salvaged.is_empty() {
            self.phase = Phase::Salvaging(replayed.salvaged.clone());
        }
    }

    /// The log's figures as laid out.
    pub fn geometry(&self) -> &LogGeometry {
        &self.geometry
    }

    /// Most bytes of one write, so that a few writes fit into the table at a time. Larger ones have to be
    /// split.
    pub fn max_write_bytes(&self) -> u64 {
        (u64::from(self.geometry.slots) / 4 - 1) << self.geometry.extent_shift
    }

    fn extent_bytes(&self, extent: u32) -> ByteRange {
        ByteRange::new(u64::from(extent) << self.geometry.extent_shift, self.geometry.extent_bytes())
    }

    // --- Writes ---

    /// A write asks for its extents (R1).
    ///
    /// # Panics
    /// When the range is empty, outside the data area, or longer than [`IntentLog::max_write_bytes`].
    pub fn admit(&mut self, range: ByteRange) -> Admission {
        let extents = range.touched(self.geometry.extent_shift);
        assert!(
            extents.count != 0 && extents.end() <= u64::from(self.geometry.extents),
            "no such range {range}"
        );
        assert!(range.len <= self.max_write_bytes(), "a write of {range} has to be split");
        let missing = numbers(extents).filter(|&extent| self.index.get(extent).is_none()).count();
        if missing > self.free.len() || matches!(self.phase, Phase::Rewriting(_) | Phase::Closed) {
            self.needed = missing;
            return Admission::Full;
        }
        self.needed = 0;
        self.usage.misses += missing as u64;
        self.usage.hits += extents.count - missing as u64;
        for extent in numbers(extents) {
            let slot = self.index.get(extent).unwrap_or_else(|| self.activate(extent));
            self.lru.touch(slot);
            self.slots[usize::from(slot)].pending += 1;
        }
        self.prefetch(extents);
        let permit = Permit { range, extents };
        if self.is_active(&permit) { Admission::Active(permit) } else { Admission::NeedsTransaction(permit) }
    }

    /// True once every extent of the permit is active on disk.
    pub fn is_active(&self, permit: &Permit) -> bool {
        numbers(permit.extents).all(|extent| {
            let slot = self.index.get(extent).expect("a permit pins its extents");
            let active = self.slots[usize::from(slot)].state == SlotState::Active;
            may_send(if active { Entry::Durable } else { Entry::Unwritten })
        })
    }

    /// A write ended: `durability` is the weakest that any leg in sync gave it.
    ///
    /// # Panics
    /// When the extents were not active (R1), or when `reach` says marked and the bitmap says otherwise (I5).
    pub fn finish(&mut self, permit: Permit, reach: Reach, durability: Durability, bitmap: &Bitmap) {
        assert!(self.is_active(&permit), "a write went out before its extents were active");
        assert!(
            reach == Reach::BothLegs || bitmap.is_set(permit.range),
            "a write that missed a leg is not marked"
        );
        self.unpin(permit.into_extents(), durability);
    }

    /// A write that was admitted and never sent to any leg.
    pub fn cancel(&mut self, permit: Permit) {
        self.unpin(permit.into_extents(), Durability::Durable);
    }

    fn unpin(&mut self, extents: UnitRange, durability: Durability) {
        for extent in numbers(extents) {
            let slot = self.index.get(extent).expect("a permit pins its extents");
            let slot = &mut self.slots[usize::from(slot)];
            slot.pending -= 1;
            slot.fresh = false;
            if durability == Durability::Accepted {
                slot.stable_after = self.flushes_begun + 1;
                self.unstable_until = slot.stable_after;
            }
        }
    }

    fn activate(&mut self, extent: u32) -> u16 {
        let slot = self.free.pop().expect("the caller has counted the free slots");
        self.slots[usize::from(slot)] = Slot { extent, state: SlotState::Queued, fresh: true, ..EMPTY };
        self.index.insert(extent, slot);
        self.lru.touch(slot);
        self.queue.push_back(slot);
        slot
    }

    /// Activates what a sequential stream needs next, from slots beyond the reserve.
    fn prefetch(&mut self, extents: UnitRange) {
        let mut numbers = numbers(extents);
        let (Some(first), Some(last)) = (numbers.clone().next(), numbers.next_back()) else { return };
        let last_slot = self.index.get(last).expect("just admitted");
        let before = first.checked_sub(1).and_then(|before| self.index.get(before));
        if before.is_none() || !self.slots[usize::from(last_slot)].fresh {
            return;
        }
        for extent in last + 1..(last + 1 + PREFETCH).min(self.geometry.extents) {
            if self.index.get(extent).is_none() && self.free.len() > self.reserve() {
                self.activate(extent);
            }
        }
    }

    // --- Flushes ---

    /// A flush of every leg in sync begins: it covers the writes that have ended by now.
    pub fn begin_flush(&mut self) -> FlushTicket {
        self.flushes_begun += 1;
        FlushTicket(self.flushes_begun)
    }

    /// Every leg in sync has answered that flush with success. A flush that failed is simply not reported.
    pub fn end_flush(&mut self, ticket: FlushTicket) {
        self.flushes_done = self.flushes_done.max(ticket.0);
    }

    // --- Eviction ---

    fn facts(&self, slot: u16, bitmap: &Bitmap) -> ExtentFacts {
        let Slot { extent, pending, stable_after, .. } = self.slots[usize::from(slot)];
        let stable = stable_after <= self.flushes_done;
        let marked = bitmap.is_durable(self.extent_bytes(extent));
        ExtentFacts {
            writes: if pending == 0 { Writes::Ended } else { Writes::Pending },
            cache: if stable { CacheState::Stable } else { CacheState::Volatile },
            marks: if marked { Marks::Durable } else { Marks::Unwritten },
        }
    }

    /// No extent waits for a flush.
    fn is_all_stable(&self) -> bool {
        self.unstable_until <= self.flushes_done
    }

    /// Slots kept free ahead of need: 5 %, more in small tables.
    fn reserve(&self) -> usize {
        let slots = usize::from(self.geometry.slots);
        (slots / 20).max(8).min(slots / 4)
    }

    /// Slots to be made free: a write that waits may need more than the reserve.
    fn room_wanted(&self) -> usize {
        self.reserve().max(self.needed)
    }

    /// Free slots, counting those that the outstanding transaction frees.
    fn free_soon(&self) -> usize {
        self.free.len() + self.in_state(SlotState::Leaving).count()
    }

    fn in_state(&self, state: SlotState) -> impl Iterator<Item = u16> {
        self.in_transaction.iter().copied().filter(move |&slot| self.slots[usize::from(slot)].state == state)
    }

    /// What holds up the oldest extents while free slots are short; all zero while they are not.
    pub fn relief(&self, bitmap: &Bitmap) -> Relief {
        let mut relief = Relief::default();
        if let Phase::Salvaging(_) | Phase::Rewriting(_) = self.phase {
            relief.want_marks = u32::from(!self.may_write(bitmap));
        }
        if self.is_all_stable() && bitmap.is_all_durable() || self.free_soon() >= self.room_wanted() {
            return relief;
        }
        let oldest =
            self.lru.oldest_first().filter(|&slot| self.slots[usize::from(slot)].state == SlotState::Active);
        for slot in oldest.take(self.reserve().max(UPDATES_MAX)) {
            match may_leave(self.facts(slot, bitmap)) {
                Err(Held::Unflushed) => relief.want_flush += 1,
                Err(Held::Unmarked) => relief.want_marks += 1,
                Ok(()) | Err(Held::Busy) => {}
            }
        }
        relief
    }

    // --- Transactions ---

    /// The next transaction to write, if one is due and none is outstanding. After [`IntentLog::on_failed`]
    /// it is the same one again. `generation` is the holder's current one.
    pub fn next_transaction(&mut self, generation: u64, bitmap: &Bitmap) -> Option<&TransactionWrite> {
        if self.outstanding.is_some() {
            return self.again();
        }
        if !self.may_write(bitmap) {
            return None;
        }
        match self.phase {
            Phase::Closed => None,
            Phase::Rewriting(_) => Some(self.send_empty(generation)),
            Phase::Salvaging(_) | Phase::Ready => {
                self.phase = Phase::Ready;
                self.collect_updates(bitmap);
                if self.updates.is_empty() { None } else { Some(self.send(generation)) }
            }
        }
    }

    /// The outstanding one, if it failed.
    fn again(&mut self) -> Option<&TransactionWrite> {
        let outstanding = self.outstanding.as_mut().filter(|one| one.delivery == Delivery::Failed)?;
        outstanding.delivery = Delivery::InFlight;
        Some(&outstanding.transaction)
    }

    /// True once the transaction that frees everything is durable (R12).
    pub fn is_freed(&self) -> bool {
        self.phase == Phase::Closed && self.outstanding.is_none()
    }

    fn may_write(&self, bitmap: &Bitmap) -> bool {
        match &self.phase {
            Phase::Ready | Phase::Closed => true,
            Phase::Rewriting(_) => bitmap.is_all_durable(),
            Phase::Salvaging(extents) => extents.iter().all(|&e| bitmap.is_durable(self.extent_bytes(e))),
        }
    }

    /// What the next transaction says: queued extents first, then the oldest extents that may leave.
    fn collect_updates(&mut self, bitmap: &Bitmap) {
        let mut updates = core::mem::take(&mut self.updates);
        updates.clear();
        while updates.len() < UPDATES_MAX
            && let Some(slot) = self.queue.pop_front()
        {
            self.slots[usize::from(slot)].state = SlotState::Writing;
            updates.push(Update { slot, extent: self.slots[usize::from(slot)].extent });
        }
        let activated = updates.len();
        let wanted = self.room_wanted().saturating_sub(self.free.len()).min(UPDATES_MAX - activated);
        updates.extend(self.victims(bitmap).take(wanted).map(|slot| Update { slot, extent: FREE }));
        for Update { slot, .. } in &updates[activated..] {
            self.index.remove(*slot);
            self.lru.remove(*slot);
            self.slots[usize::from(*slot)].state = SlotState::Leaving;
        }
        self.updates = updates;
    }

    /// Extents that may leave, least recently used first.
    fn victims(&self, bitmap: &Bitmap) -> impl Iterator<Item = u16> {
        let active = |slot: &u16| self.slots[usize::from(*slot)].state == SlotState::Active;
        let oldest = self.lru.oldest_first().take(EVICTION_SCAN).filter(active);
        oldest.filter(|&slot| may_leave(self.facts(slot, bitmap)).is_ok())
    }

    fn send(&mut self, generation: u64) -> &TransactionWrite {
        for update in &self.updates {
            self.on_disk[usize::from(update.slot)] = update.extent;
        }
        self.in_transaction.extend(self.updates.iter().map(|update| update.slot));
        let seq = self.next_seq;
        let write = codec::encode(self.array, (seq, generation), self.base_seq, &self.updates, &self.on_disk);
        self.hand_out(TransactionWrite { seq, write })
    }

    fn send_empty(&mut self, generation: u64) -> &TransactionWrite {
        self.base_seq = self.next_seq;
        self.on_disk.fill(FREE);
        self.hand_out(empty_transaction(self.array, &self.geometry, self.next_seq, generation))
    }

    fn hand_out(&mut self, transaction: TransactionWrite) -> &TransactionWrite {
        self.next_seq += 1;
        self.usage.transactions += 1;
        &self.outstanding.insert(Outstanding { transaction, delivery: Delivery::InFlight }).transaction
    }

    /// The outstanding transaction is durable. Permits may have become active.
    ///
    /// # Panics
    /// When `seq` is not the outstanding transaction: a programming error.
    pub fn on_durable(&mut self, seq: u64) {
        let outstanding = self.outstanding.as_ref().expect("a transaction is outstanding");
        assert_eq!(outstanding.transaction.seq, seq, "another transaction is outstanding");
        self.outstanding = None;
        while let Some(slot) = self.in_transaction.pop() {
            let entry = &mut self.slots[usize::from(slot)];
            match entry.state {
                SlotState::Writing => entry.state = SlotState::Active,
                SlotState::Leaving => {
                    *entry = EMPTY;
                    self.free.push(slot);
                }
                state => unreachable!("slot {slot} is {state:?} in a transaction"),
            }
        }
        if let Phase::Rewriting(left) = self.phase {
            self.phase = if left > 1 { Phase::Rewriting(left - 1) } else { Phase::Ready };
        }
    }

    /// The outstanding transaction failed; [`IntentLog::next_transaction`] gives it again.
    pub fn on_failed(&mut self) {
        let outstanding = self.outstanding.as_mut().expect("a transaction is outstanding");
        outstanding.delivery = Delivery::Failed;
    }

    /// The transaction that frees all slots, for a clean shutdown (R12). Afterwards nothing is admitted any
    /// more.
    ///
    /// # Errors
    /// Why some extent may not leave yet; [`Held::Busy`] also while a transaction is outstanding or the ring
    /// is being repaired.
    pub fn close(&mut self, generation: u64, bitmap: &Bitmap) -> Result<&TransactionWrite, Held> {
        if self.outstanding.is_some() || self.phase != Phase::Ready {
            return Err(Held::Busy);
        }
        for slot in self.lru.oldest_first() {
            may_leave(self.facts(slot, bitmap))?;
        }
        self.phase = Phase::Closed;
        Ok(self.send_empty(generation))
    }

    // --- For the core and the status ---

    /// The bytes that may differ between the legs: every extent that is pinned or not yet stable. A degrade
    /// marks these in the bitmap before it lets go of pending acknowledgements.
    pub fn exposed(&self) -> impl Iterator<Item = ByteRange> {
        self.lru.oldest_first().filter_map(|slot| {
            let slot = self.slots[usize::from(slot)];
            let exposed = slot.pending != 0 || slot.stable_after > self.flushes_done;
            exposed.then(|| self.extent_bytes(slot.extent))
        })
    }

    /// Figures for the status.
    pub fn usage(&self) -> LogUsage {
        let used = self.slots.len() - self.free.len();
        let exposed_bytes = (used as u64) << self.geometry.extent_shift;
        LogUsage { used: u32::try_from(used).expect("at most 65,535"), exposed_bytes, ..self.usage }
    }
}

fn numbers(extents: UnitRange) -> impl DoubleEndedIterator<Item = u32> + Clone {
    extents.iter().map(|extent| u32::try_from(extent).expect("an extent has a 32-bit number"))
}
