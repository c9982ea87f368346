//! The three superblock copies: which one counts, and in which order they are written (R9).
//!
//! Slots 0 and 1 alternate by `seq & 1`, so a write never touches the copy that counts. The third copy, at
//! the end of the leg, is written on config changes only, after the slot is durable. Crash cases:
//! `FORMAT.md`.

use super::header::HeaderError;
use super::layout::Layout;
use super::superblock::{RunState, Superblock, SuperblockError};
use super::{Block, BlockWrite};
use crate::mutation::{Mutation, is_broken};

/// Why a superblock is written: how much that adds to its sequence number. The leg's own node writes often and with nobody's
/// leave, at starts; for fences it writes before the leg is judged anew; a holder that has judged it marks it. A leg that
/// was set back to an older copy of itself stays below what it once had, until it is marked: no node starts a thousand times
/// in a session, nor is fenced a thousand times between two marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Numbering {
    /// Anything else.
    Write,
    /// A fence.
    Fence,
    /// A mark.
    Mark,
}

impl Numbering {
    /// What it adds: odd, for the slots alternate.
    pub const fn adds(self) -> u64 {
        match self {
            Self::Write => 1,
            Self::Fence => (1 << 10) + 1,
            Self::Mark => (1 << 20) + 1,
        }
    }
}

/// One of the copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    /// The slot of even sequence numbers.
    Slot0,
    /// The slot of odd sequence numbers.
    Slot1,
    /// The third copy.
    Tail,
}

/// What a copy's block holds.
pub type CopyState = Result<Superblock, SuperblockError>;

/// All three, as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copies {
    /// Slot 0.
    pub slot0: CopyState,
    /// Slot 1.
    pub slot1: CopyState,
    /// Third copy.
    pub tail: CopyState,
}

/// The copy that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Its content. From the tail the run state reads as running, because the tail does not follow it.
    pub superblock: Superblock,
    /// Where it was.
    pub from: Copy,
    /// The highest sequence number that the leg's superblock may have had: a damaged slot may have held the next one,
    /// and that a mark.
    pub newest: u64,
}

/// The blocks of one superblock write, in order: `slot`, wait until durable, then `tail` where present, wait
/// until durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuperblockWrites {
    /// The slot that the current superblock is *not* in.
    pub slot: BlockWrite,
    /// The third copy, on config changes.
    pub tail: Option<BlockWrite>,
}

impl Copies {
    /// Reads the three blocks of a leg of `leg_size` bytes.
    pub fn read(slot0: &Block, slot1: &Block, tail: &Block, leg_size: u64) -> Self {
        Self {
            slot0: Superblock::decode(slot0, Layout::superblock_slot(0)),
            slot1: Superblock::decode(slot1, Layout::superblock_slot(1)),
            tail: Superblock::decode(tail, Layout::tail_of(leg_size)),
        }
    }

    fn all(&self) -> [(Copy, &CopyState); 3] {
        [(Copy::Slot0, &self.slot0), (Copy::Slot1, &self.slot1), (Copy::Tail, &self.tail)]
    }

    /// The newest valid copy; at least one *slot* must be valid.
    ///
    /// # Errors
    /// [`NoSuperblock`] when both slots are invalid. The tail alone is not enough to go on by itself: it may
    /// be many writes old. It is there for the operator ([`NoSuperblock::Torn`]).
    pub fn choose(&self) -> Result<Chosen, NoSuperblock> {
        if self.slot0.is_err() && self.slot1.is_err() {
            return Err(self.why_none());
        }
        let valid = self.all().into_iter().filter_map(|(copy, state)| Some((copy, state.as_ref().ok()?)));
        let (from, newest) =
            valid.rev().max_by_key(|(_, superblock)| superblock.seq).expect("a slot is valid");
        let mut superblock = newest.clone();
        // What is lost may have said so.
        let lost = self.slot0.is_err() || self.slot1.is_err();
        if from == Copy::Tail || lost && superblock.run_state == RunState::Running {
            superblock.run_state = RunState::Cached;
        }
        let rotten = [&self.slot0, &self.slot1].into_iter().any(is_damaged);
        let newest = superblock.seq + if rotten && from != Copy::Tail { Numbering::Mark.adds() } else { 0 };
        Ok(Chosen { superblock, from, newest })
    }

    /// What is wrong when both slots are invalid: the error that says most.
    fn why_none(&self) -> NoSuperblock {
        let errors =
            [&self.slot0, &self.slot1].map(|slot| *slot.as_ref().expect_err("both slots are invalid"));
        let told = errors.into_iter().find(|error| !matches!(error, SuperblockError::Header(_)));
        let version = errors
            .into_iter()
            .find(|error| matches!(error, SuperblockError::Header(HeaderError::Version(_))));
        if let Some(error) = told.or(version) {
            return NoSuperblock::Unusable(error);
        }
        let absent = |error: &SuperblockError| {
            matches!(error, SuperblockError::Header(HeaderError::Blank | HeaderError::NotOurs))
        };
        if errors.iter().all(absent) && self.tail.is_err() {
            return NoSuperblock::Absent;
        }
        NoSuperblock::Torn { tail: self.tail.clone().ok().map(Box::new) }
    }
}

/// True for a slot that was written, and cannot be read.
fn is_damaged(slot: &CopyState) -> bool {
    slot.as_ref().is_err_and(|error| *error != SuperblockError::Header(HeaderError::Blank))
}

/// Why a leg has no superblock that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoSuperblock {
    /// No trace of one.
    Absent,
    /// There was one, and both slots are damaged.
    Torn {
        /// The third copy, if it is whole: what an operator could restore.
        tail: Option<Box<Superblock>>,
    },
    /// There is one that this program cannot use.
    Unusable(SuperblockError),
}

impl Superblock {
    /// Numbers `self` as the successor of `current` and gives the blocks to write. Only one such write may be
    /// outstanding; until its slot is durable `current` counts.
    ///
    /// # Panics
    /// When the generation falls (I3) or the leg's identity changes: programming errors.
    pub fn succeed(&mut self, current: &Self) -> SuperblockWrites {
        self.succeed_by(Numbering::Write, current)
    }

    /// The same, for a reason.
    ///
    /// # Panics
    /// As [`Superblock::succeed`].
    pub fn succeed_by(&mut self, step: Numbering, current: &Self) -> SuperblockWrites {
        assert_eq!((self.array, self.leg, self.index), (current.array, current.leg, current.index));
        assert!(
            self.config().generation() >= current.config().generation(),
            "generations rise in every store"
        );
        assert!(self.fence.generation >= current.fence.generation, "a fence never falls");
        self.seq = current.seq + step.adds();
        self.events = current.events + 1;
        self.writes(current.config() != self.config() || current.fence != self.fence)
    }

    /// The blocks of the first superblock of a leg.
    pub(super) fn first_writes(&self) -> SuperblockWrites {
        self.writes(true)
    }

    fn writes(&self, config_changed: bool) -> SuperblockWrites {
        let write = |offset| BlockWrite { offset, block: self.encode(offset) };
        let slot = if is_broken(Mutation::R9SameSlot) { 0 } else { self.seq };
        SuperblockWrites {
            slot: write(Layout::superblock_slot(slot)),
            tail: config_changed.then(|| write(self.layout.superblock_tail())),
        }
    }
}
