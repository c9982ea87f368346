//! Reading a ring back: which extents may differ after a crash.
//!
//! Every answer is a superset of the truth. What cannot be read counts as everything.

use uuid::Uuid;

use super::codec::{self, FREE, Transaction};
use crate::format::header::HeaderError;
use crate::format::layout::{LOG_BLOCKS, LOG_LEN, LogGeometry};
use crate::format::{BLOCK_SIZE, Block, is_zero};

/// What a ring says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replay {
    /// The table as of the newest transaction.
    Table(Replayed),
    /// The table cannot be rebuilt: any extent may differ.
    Unreadable {
        /// The newest sequence number seen in any whole block; 0 when none is whole.
        newest: u64,
    },
}

/// A table that was rebuilt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// The newest transaction.
    pub seq: u64,
    /// Its config generation.
    pub generation: u64,
    /// The transaction before whose updates every slot was free.
    pub base_seq: u64,
    /// The extent in each slot, or all ones for free.
    pub table: Vec<u32>,
    /// Extents named by a damaged block right behind the newest transaction. A torn tail names extents that
    /// nothing was written to; a rotten one names extents that something was written to. Both are counted as
    /// different.
    pub salvaged: Vec<u32>,
}

impl Replayed {
    /// Every extent that may differ, rising, each once.
    pub fn extents(&self) -> Vec<u32> {
        let held = self.table.iter().copied().filter(|&extent| extent != FREE);
        let mut extents: Vec<u32> = held.chain(self.salvaged.iter().copied()).collect();
        extents.sort_unstable();
        extents.dedup();
        extents
    }
}

impl Replay {
    /// True when the ring says that nothing differs.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Table(replayed) if replayed.extents().is_empty())
    }
}

/// Reads a ring image.
///
/// # Panics
/// When `ring` is not [`LOG_LEN`] bytes long: the caller's mistake.
pub fn replay(ring: &[u8], array: Uuid, geometry: &LogGeometry) -> Replay {
    assert_eq!(ring.len() as u64, LOG_LEN, "a ring image has 1 MiB");
    let blocks: Vec<&Block> =
        ring.chunks_exact(BLOCK_SIZE).map(|block| block.try_into().expect("a whole block")).collect();
    let ring = Ring { array, geometry, blocks };
    ring.replay()
}

/// What a disk writes at once at the least.
const SECTOR: usize = 512;

/// What is where the next transaction would go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tail {
    /// Nothing new.
    None,
    /// A transaction that is torn, or rotten: what it may have activated is still there to be read.
    Torn,
    /// Something that no crash leaves: whatever wrote it may have taken a transaction with it.
    Gone,
}

struct Ring<'a> {
    array: Uuid,
    geometry: &'a LogGeometry,
    blocks: Vec<&'a Block>,
}

impl Ring<'_> {
    fn block(&self, seq: u64) -> &Block {
        self.blocks[usize::try_from(seq % LOG_BLOCKS).expect("below 256")]
    }

    fn read(&self, seq: u64) -> Result<Transaction, HeaderError> {
        codec::decode(self.block(seq), seq % LOG_BLOCKS, self.array, self.geometry)
    }

    /// Damaged, as opposed to blank: something was there.
    fn is_damaged(&self, seq: u64) -> bool {
        self.read(seq).is_err_and(|error| error != HeaderError::Blank)
    }

    fn replay(&self) -> Replay {
        let newest = (0..LOG_BLOCKS).filter_map(|at| self.read(at).ok()).max_by_key(|found| found.seq);
        let Some(newest) = newest else { return Replay::Unreadable { newest: 0 } };
        let unreadable = Replay::Unreadable { newest: newest.seq };
        // One transaction is outstanding at a time, so a crash damages one block at most: more is rot, and
        // nobody knows what the rotten ones said.
        if self.is_damaged(newest.seq + 1) && self.is_damaged(newest.seq + 2) {
            return unreadable;
        }
        let Some(table) = self.rebuild(&newest) else { return unreadable };
        let salvaged = match self.after(newest.seq) {
            Tail::None => Vec::new(),
            Tail::Torn => codec::salvage(self.block(newest.seq + 1), self.geometry),
            Tail::Gone => return unreadable,
        };
        let Transaction { seq, generation, base_seq, .. } = newest;
        Replay::Table(Replayed { seq, generation, base_seq, table, salvaged })
    }

    /// What is behind the newest whole transaction. A tear mixes it with what was there before: an older transaction, or in a
    /// ring that has not been filled yet nothing.
    fn after(&self, newest: u64) -> Tail {
        let filled = newest >= LOG_BLOCKS;
        match self.read(newest + 1) {
            Ok(_) => Tail::None,
            Err(HeaderError::Blank) if !filled => Tail::None,
            Err(HeaderError::NotOurs) if !filled && is_zero(&self.block(newest + 1)[..SECTOR]) => Tail::Torn,
            Err(HeaderError::Corrupt) => Tail::Torn,
            Err(
                HeaderError::Blank
                | HeaderError::NotOurs
                | HeaderError::OtherArray(_)
                | HeaderError::Misdirected(_)
                | HeaderError::OtherKind(_)
                | HeaderError::Version(_),
            ) => Tail::Gone,
        }
    }

    /// The table after `newest`; `None` when a transaction that it takes is not whole.
    fn rebuild(&self, newest: &Transaction) -> Option<Vec<u32>> {
        let slots = self.geometry.slots;
        let first = newest.base_seq.max((newest.seq + 1).saturating_sub(codec::window(slots)));
        let mut table = vec![FREE; usize::from(slots)];
        for seq in first..=newest.seq {
            let found = self.read(seq).ok().filter(|found| found.seq == seq)?;
            let rotated = (usize::from(found.context_start)..).zip(&found.context);
            for (slot, &extent) in rotated {
                table[slot % usize::from(slots)] = extent;
            }
            for update in &found.updates {
                table[usize::from(update.slot)] = update.extent;
            }
        }
        Some(table)
    }
}
