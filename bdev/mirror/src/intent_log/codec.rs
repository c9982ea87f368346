//! One transaction of the intent log as a 4 KiB block.
//!
//! It carries what changed (`updates`) and a window of the whole table (`context`) that moves on with every
//! transaction, so that the last `ceil(slots / 860)` transactions rebuild the table.

use uuid::Uuid;

use crate::format::field::fields;
use crate::format::header::{self, At, BlockKind, HEADER_LEN, Header, HeaderError};
use crate::format::layout::{Layout, LogGeometry};
use crate::format::{BLOCK_SIZE, Block, BlockWrite};

/// Most updates in a transaction.
pub const UPDATES_MAX: usize = 96;
/// Most slots in a transaction's context.
pub const CONTEXT_MAX: usize = 860;
/// An extent number that means: this slot is free.
pub const FREE: u32 = u32::MAX;
/// Bytes of an update.
const UPDATE_LEN: usize = 6;

fields! {
    /// A transaction's fields, behind the header.
    TRANSACTION_FIELDS from HEADER_LEN;
    N_UPDATES: 2, "number of updates, 0 to 96";
    N_SLOTS: 2, "slots of the table";
    CONTEXT_START: 2, "first slot of the context";
    CONTEXT_COUNT: 2, "slots in the context, 1 to 860; they go on at slot 0 behind the last";
    BASE_SEQ: 8, "every slot was free before the updates of this transaction; no older one matters";
    UPDATES: UPDATES_MAX * UPDATE_LEN, "updates: slot u16, extent u32 (all ones: free); unused ones are all ones";
    CONTEXT: CONTEXT_MAX * 4, "context: the extent in each slot after the updates; unused ones are all ones";
}
const _: () = assert!(CONTEXT.end() == BLOCK_SIZE);

/// A slot and what is in it from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update {
    /// The slot.
    pub slot: u16,
    /// The extent, or [`FREE`].
    pub extent: u32,
}

/// A decoded transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Its sequence number; the ring position is `seq % 256`.
    pub seq: u64,
    /// Config generation of the writer.
    pub generation: u64,
    /// The transaction before whose updates every slot was free.
    pub base_seq: u64,
    /// What changed.
    pub updates: Vec<Update>,
    /// First slot of the context.
    pub context_start: u16,
    /// The extents in the slots from `context_start` on, modulo the number of slots, after the updates.
    pub context: Vec<u32>,
}

/// Number of slots in a context of a table of `slots`.
pub const fn context_len(slots: u16) -> usize {
    if (slots as usize) < CONTEXT_MAX { slots as usize } else { CONTEXT_MAX }
}

/// Number of transactions that show every slot once.
pub const fn window(slots: u16) -> u64 {
    (slots as u64).div_ceil(CONTEXT_MAX as u64)
}

/// First slot of the context of transaction `seq`.
pub fn context_start(seq: u64, slots: u16) -> u16 {
    let start = (seq % u64::from(slots)) * (CONTEXT_MAX as u64) % u64::from(slots);
    u16::try_from(start).expect("a slot number")
}

/// Encodes the transaction `seq`; `table` is the extent in each slot after the updates.
pub(super) fn encode(
    array: Uuid,
    header: (u64, u64),
    base_seq: u64,
    updates: &[Update],
    table: &[u32],
) -> BlockWrite {
    let (seq, generation) = header;
    let mut block = [0; BLOCK_SIZE];
    let slots = u16::try_from(table.len()).expect("a table has at most 65,535 slots");
    let start = context_start(seq, slots);
    let count = context_len(slots);
    N_UPDATES.put(&mut block, &u16::try_from(updates.len()).expect("at most 96").to_le_bytes());
    N_SLOTS.put(&mut block, &slots.to_le_bytes());
    CONTEXT_START.put(&mut block, &start.to_le_bytes());
    CONTEXT_COUNT.put(&mut block, &u16::try_from(count).expect("at most 860").to_le_bytes());
    BASE_SEQ.put(&mut block, &base_seq.to_le_bytes());
    block[UPDATES.offset..].fill(0xff);
    for (i, update) in updates.iter().enumerate() {
        put_update(&mut block, i, *update);
    }
    let (behind, from_start) = table.split_at(start.into());
    let rotated = from_start.iter().chain(behind).take(count);
    for (bytes, extent) in block[CONTEXT.offset..].chunks_exact_mut(4).zip(rotated) {
        bytes.copy_from_slice(&extent.to_le_bytes());
    }
    let offset = Layout::log_block(seq);
    header::seal(
        &mut block,
        Header { kind: BlockKind::IntentLog, seq, generation },
        At { array, address: offset },
    );
    BlockWrite { offset, block }
}

fn put_update(block: &mut Block, index: usize, update: Update) {
    let field = UPDATES.part(index, UPDATE_LEN);
    block[field.offset..field.offset + 2].copy_from_slice(&update.slot.to_le_bytes());
    block[field.offset + 2..field.end()].copy_from_slice(&update.extent.to_le_bytes());
}

fn get_update(block: &Block, index: usize) -> Update {
    let bytes = UPDATES.part(index, UPDATE_LEN).of(block);
    let word =
        |range: core::ops::Range<usize>| bytes[range].iter().rev().fold(0, |n, &b| n << 8 | u32::from(b));
    Update { slot: u16::try_from(word(0..2)).expect("two bytes"), extent: word(2..6) }
}

/// Reads the block at ring position `index`.
///
/// # Errors
/// The header's error, or [`HeaderError::Corrupt`] for a whole block whose content no program of ours writes.
pub fn decode(
    block: &Block,
    index: u64,
    array: Uuid,
    geometry: &LogGeometry,
) -> Result<Transaction, HeaderError> {
    let at = At { array, address: Layout::log_block(index) };
    let Header { seq, generation, .. } = header::open(block, BlockKind::IntentLog, at)?;
    let updates = usize::from(N_UPDATES.u16(block));
    let count = usize::from(CONTEXT_COUNT.u16(block));
    let sound = Layout::log_block(seq) == at.address
        && N_SLOTS.u16(block) == geometry.slots
        && updates <= UPDATES_MAX
        && count == context_len(geometry.slots)
        && CONTEXT_START.u16(block) == context_start(seq, geometry.slots)
        && BASE_SEQ.u64(block) <= seq;
    if !sound {
        return Err(HeaderError::Corrupt);
    }
    let updates: Vec<Update> = (0..updates).map(|i| get_update(block, i)).collect();
    let context: Vec<u32> = context_words(block).take(count).collect();
    let known = |extent: u32| extent == FREE || extent < geometry.extents;
    let sound = updates.iter().all(|update| update.slot < geometry.slots && known(update.extent))
        && context.iter().all(|&extent| known(extent));
    let context_start = CONTEXT_START.u16(block);
    if sound {
        Ok(Transaction { seq, generation, base_seq: BASE_SEQ.u64(block), updates, context_start, context })
    } else {
        Err(HeaderError::Corrupt)
    }
}

fn context_words(block: &Block) -> impl Iterator<Item = u32> {
    CONTEXT.of(block).chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().expect("four bytes")))
}

/// Every extent that a damaged block may have activated, read without trusting anything: a superset is
/// harmless. The context says once more what the updates say, where it reaches that far.
pub(super) fn salvage(block: &Block, geometry: &LogGeometry) -> Vec<u32> {
    let updates = (0..UPDATES_MAX).map(|i| get_update(block, i).extent);
    let named = updates.chain(context_words(block));
    let mut extents: Vec<u32> = named.filter(|&extent| extent < geometry.extents).collect();
    extents.sort_unstable();
    extents.dedup();
    extents
}
