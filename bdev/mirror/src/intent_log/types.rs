//! What goes in and out of the intent log: permits, answers, transactions, figures.

use crate::format::BlockWrite;
use crate::range::{ByteRange, UnitRange};

/// The right to write a range once its extents are active. It pins them until [`super::IntentLog::finish`]; a
/// permit that is dropped pins them until the array stops, which costs slots but loses nothing.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit pins its extents until it is finished"]
pub struct Permit {
    pub(super) range: ByteRange,
    pub(super) extents: UnitRange,
}

impl Permit {
    /// The bytes that may be written.
    pub fn range(&self) -> ByteRange {
        self.range
    }

    pub(super) fn into_extents(self) -> UnitRange {
        self.extents
    }
}

/// Answer to a write that asks for its extents.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit pins its extents until it is finished"]
pub enum Admission {
    /// All its extents are active on disk: go (R1).
    Active(Permit),
    /// The extents are reserved; wait for [`super::IntentLog::is_active`], after the next transactions are
    /// durable.
    NeedsTransaction(Permit),
    /// No slot is free: nothing is reserved. See [`super::IntentLog::relief`], and ask again after the next
    /// transaction.
    Full,
}

/// Which legs a finished write reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Both legs: they are equal in its range.
    BothLegs,
    /// Not both: its granules are set in the bitmap.
    Marked,
}

/// A flush of every leg in sync, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushTicket(pub(super) u64);

/// A transaction to write and make durable on the leg that hosts the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionWrite {
    /// Its number, for [`super::IntentLog::on_durable`].
    pub seq: u64,
    /// Place and content.
    pub write: BlockWrite,
}

/// What would let the oldest extents go when free slots are short: numbers of slots held up for each reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relief {
    /// Slots that wait for a flush of the legs in sync.
    pub want_flush: u32,
    /// Slots that wait for bitmap pages to be written.
    pub want_marks: u32,
}

/// Figures for the status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogUsage {
    /// Slots of the table.
    pub slots: u32,
    /// Slots in use.
    pub used: u32,
    /// Bytes that would be copied after a crash now, at most.
    pub exposed_bytes: u64,
    /// Transactions written since start.
    pub transactions: u64,
    /// Extents found active.
    pub hits: u64,
    /// Extents that had to be activated.
    pub misses: u64,
}
