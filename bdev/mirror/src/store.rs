//! One leg's superblock: the copy that counts, and the write that is about to replace it (R8, R9).
//!
//! ```text
//! idle --begin--> slot --durable--> tail (config changes only) --durable--> idle, the next one counts
//!                   '--failed--> idle, the old one still counts
//! ```
//!
//! Invariant: one write at a time. A tail that cannot be written is left: it is a third copy, for people.

use bdev::IoError;

use crate::desk::{Desk, Purpose, Side};
use crate::format::copies::Numbering;
use crate::format::{Superblock, SuperblockWrites};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The slot's write is to be sent.
    Slot,
    /// It is on its way.
    SlotSent,
    /// The tail's write is to be sent.
    Tail,
    /// It is on its way.
    TailSent,
}

#[derive(Debug)]
struct Writing {
    next: Superblock,
    writes: SuperblockWrites,
    stage: Stage,
}

/// How a superblock's write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// It counts now.
    Durable,
    /// The old one still counts, or either does.
    Failed(IoError),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Store {
    side: Side,
    attempt: u32,
    current: Superblock,
    writing: Option<Box<Writing>>,
}

impl Store {
    /// The own leg's.
    pub(crate) fn own(current: Superblock) -> Self {
        Self { side: Side::Own, attempt: 0, current, writing: None }
    }

    /// The peer's leg's, on this way to it.
    pub(crate) fn peer(current: Superblock, attempt: u32) -> Self {
        Self { side: Side::Peer, attempt, current, writing: None }
    }

    /// The superblock that counts.
    pub(crate) fn current(&self) -> &Superblock {
        &self.current
    }

    /// True while a write is on its way.
    pub(crate) fn is_busy(&self) -> bool {
        self.writing.is_some()
    }

    /// Somebody else wrote this leg's superblock: the holder, through our guard.
    pub(crate) fn observe(&mut self, seen: Superblock) {
        let same =
            (seen.array, seen.leg, seen.index) == (self.current.array, self.current.leg, self.current.index);
        if same && seen.seq > self.current.seq && self.writing.is_none() {
            self.current = seen;
        }
    }

    /// Starts to write `next`.
    ///
    /// # Panics
    /// When a write is on its way: ask [`Store::is_busy`].
    pub(crate) fn begin(&mut self, step: Numbering, mut next: Superblock, desk: &mut Desk) {
        let writes = next.succeed_by(step, &self.current);
        assert!(self.writing.is_none(), "one superblock write at a time");
        self.writing = Some(Box::new(Writing { next, writes, stage: Stage::Slot }));
        self.poke(desk);
    }

    /// Sends what waits for a frame.
    pub(crate) fn poke(&mut self, desk: &mut Desk) {
        let Some(writing) = &mut self.writing else { return };
        let (write, sent) = match writing.stage {
            Stage::Slot => (&writing.writes.slot, Stage::SlotSent),
            Stage::Tail => match &writing.writes.tail {
                Some(tail) => (tail, Stage::TailSent),
                None => return,
            },
            Stage::SlotSent | Stage::TailSent => return,
        };
        if desk.has_block() {
            desk.write_block(self.side, write, Purpose::Superblock { attempt: self.attempt });
            writing.stage = sent;
        }
    }

    /// A block's write ended. `None` while there is more to do.
    pub(crate) fn on_done(&mut self, result: Result<(), IoError>, desk: &mut Desk) -> Option<Stored> {
        let mut writing = self.writing.take()?;
        match (writing.stage, result) {
            (Stage::SlotSent, Err(error)) => return Some(Stored::Failed(error)),
            (Stage::SlotSent, Ok(())) if writing.writes.tail.is_some() => {
                writing.stage = Stage::Tail;
                self.writing = Some(writing);
                self.poke(desk);
                return None;
            }
            _ => {}
        }
        self.current = writing.next;
        Some(Stored::Durable)
    }
}
