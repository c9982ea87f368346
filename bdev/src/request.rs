//! The life of an I/O.
//!
//! ```text
//!   owner --- Channel::submit(Io) ---> queued -> submitted -> completed ---> Channel::poll(..., done) --- Completed --> owner
//!              |                                                                                                (replied)
//!              +--- Err(Refused { io }) back to the owner: nothing happened
//! ```
//!
//! An [`Io`] is one value with one owner at any time. It comes back exactly once, as [`Completed`] or [`Refused`]; dropped
//! unfinished it panics, because an I/O without an answer is a hung host. Its buffer is a handle to a frame that is never
//! copied on the way. Four timestamps travel with it and feed each layer's histograms.

use core::mem;

use engine::{Buf, BufMut, Instant};

use crate::error::IoError;
use crate::geometry::{BlockRange, BlockStatus, Geometry};

/// The owner's name for an I/O; it has no meaning to the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u64);

/// When a write counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Accepted by the device; a volatile cache may hold it until a flush.
    Accepted,
    /// On stable storage (forced unit access).
    Durable,
}

/// Who writes, and in which generation: carried to a leg's guard as the persistent-reservation key of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FenceKey {
    /// The node's index in the array, 0 or 1.
    pub node: u8,
    /// The generation, at most 2^56 - 1.
    pub generation: u64,
}

impl FenceKey {
    /// The largest generation that a key can carry.
    pub const GENERATION_MAX: u64 = (1 << 56) - 1;

    /// As an 8-byte reservation key: node + 1 in the top byte (a key of zero means "none"), generation below.
    ///
    /// # Panics
    /// When the generation is larger than [`FenceKey::GENERATION_MAX`].
    pub fn to_reservation_key(self) -> u64 {
        assert!(self.generation <= Self::GENERATION_MAX, "generation does not fit in a reservation key");
        (u64::from(self.node) + 1) << 56 | self.generation
    }

    /// From an 8-byte reservation key; `None` when the top byte is zero.
    pub fn from_reservation_key(key: u64) -> Option<Self> {
        let node = u8::try_from(key >> 56).expect("eight bits").checked_sub(1)?;
        Some(Self { node, generation: key & Self::GENERATION_MAX })
    }
}

/// What to do.
#[derive(Debug)]
pub enum Op {
    /// Read `range` into a frame of exactly its length.
    Read {
        /// Blocks to read.
        range: BlockRange,
        /// Where to; comes back filled.
        into: BufMut,
    },
    /// Write a frame of exactly the range's length.
    Write {
        /// Blocks to write.
        range: BlockRange,
        /// The bytes; they do not change while in flight because nobody can.
        from: Buf,
        /// When it counts as done.
        durability: Durability,
    },
    /// Make everything completed before stable.
    Flush,
    /// The blocks' content is no longer needed.
    Discard {
        /// Blocks to discard.
        range: BlockRange,
    },
    /// Make the blocks read as zeroes.
    WriteZeroes {
        /// Blocks to zero.
        range: BlockRange,
        /// When it counts as done.
        durability: Durability,
    },
    /// Write the second half of `both` if the blocks hold the first, atomically against every other operation on the device;
    /// otherwise fail with [`IoError::Miscompare`]. Each half has the range's length.
    CompareAndWrite {
        /// Blocks to compare and write.
        range: BlockRange,
        /// What they must hold, and what to write.
        both: Buf,
        /// When it counts as done.
        durability: Durability,
    },
    /// Look which blocks at the beginning of the range have storage behind them.
    BlockStatus {
        /// Blocks to look at.
        range: BlockRange,
        /// The answer; `None` until it is there.
        found: Option<BlockStatus>,
    },
    /// Lock every generation below the key's out of the device, wait until their operations ended, and let this
    /// channel in with the key (`mirror.md` R10). Fails with [`IoError::Fenced`] when a newer generation was here.
    Fence {
        /// Who asks, and for which generation.
        key: FenceKey,
    },
    /// Keep these bytes beside the data, in place of the ones before: durably, and as safe as the data.
    StoreState {
        /// The bytes, at most [`Op::STATE_MAX`].
        from: Buf,
    },
    /// Give back the bytes of the last [`Op::StoreState`]; none, where there was none.
    LoadState {
        /// Where to.
        into: BufMut,
        /// How many bytes there are, when it comes back.
        found: StateFound,
    },
    /// Let the other node serve the device. Completed when the way there has begun: [`crate::Bdev::access`] says how it ends.
    /// Fails with [`IoError::NotReady`] when the other one cannot, or not now.
    HandOver,
    /// Make all that was written unreadable, durably, by another key. What is in flight on the device meanwhile is lost, too: hold
    /// everybody else off. When it fails, the old data may be readable, or nothing, until it succeeds.
    CryptoErase,
}

/// What became of the power since some state was stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Power {
    /// Somebody who keeps the state was on all the time, as far as is known.
    #[default]
    Kept,
    /// Everybody was off.
    Lost,
}

/// Whether the state that was stored can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StateHealth {
    /// It can, or there has never been any.
    #[default]
    Whole,
    /// There was some, and every copy of it is damaged: until something is stored, nobody knows what it said.
    Damaged,
}

/// What [`Op::LoadState`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateFound {
    /// Bytes that are stored.
    pub len: u32,
    /// Whether the power was lost since.
    pub power: Power,
    /// Whether it can be read.
    pub health: StateHealth,
}

impl Op {
    /// Most bytes of state that a device keeps.
    pub const STATE_MAX: usize = 62 << 10;

    /// The blocks touched, if any.
    pub fn range(&self) -> Option<BlockRange> {
        match self {
            Self::Read { range, .. }
            | Self::Write { range, .. }
            | Self::Discard { range }
            | Self::WriteZeroes { range, .. }
            | Self::CompareAndWrite { range, .. }
            | Self::BlockStatus { range, .. } => Some(*range),
            Self::Flush
            | Self::Fence { .. }
            | Self::StoreState { .. }
            | Self::LoadState { .. }
            | Self::HandOver
            | Self::CryptoErase => None,
        }
    }

    /// Checks the range against a device.
    ///
    /// # Errors
    /// [`IoError::OutOfRange`].
    ///
    /// # Panics
    /// When the buffer does not have the range's length: the caller's programming error. A range of no blocks has no
    /// bytes, whatever its buffer.
    pub fn check(&self, geometry: Geometry) -> Result<(), IoError> {
        let (range, len) = match self {
            Self::Read { range, into } => (*range, Some(into.len())),
            Self::Write { range, from, .. } => (*range, Some(from.len())),
            Self::CompareAndWrite { range, both, .. } => (*range, Some(both.len() / 2)),
            Self::Discard { range } | Self::WriteZeroes { range, .. } | Self::BlockStatus { range, .. } => {
                (*range, None)
            }
            Self::Flush
            | Self::Fence { .. }
            | Self::StoreState { .. }
            | Self::LoadState { .. }
            | Self::HandOver
            | Self::CryptoErase => {
                return Ok(());
            }
        };
        if !geometry.contains(range) {
            return Err(IoError::OutOfRange);
        }
        let bytes = u64::from(range.blocks) * u64::from(geometry.block_size);
        let fits = len.is_none_or(|len| len as u64 == bytes) || range.blocks == 0;
        assert!(fits, "a {} of {bytes} bytes with a buffer of {len:?}", self.name());
        Ok(())
    }

    /// True when the operation changes the medium's content.
    pub fn changes_medium(&self) -> bool {
        matches!(
            self,
            Self::Write { .. }
                | Self::Discard { .. }
                | Self::WriteZeroes { .. }
                | Self::CompareAndWrite { .. }
                | Self::CryptoErase
        )
    }

    /// The operation's name, for counters and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Read { .. } => "read",
            Self::Write { .. } => "write",
            Self::Flush => "flush",
            Self::Discard { .. } => "discard",
            Self::WriteZeroes { .. } => "write_zeroes",
            Self::CompareAndWrite { .. } => "compare_and_write",
            Self::BlockStatus { .. } => "block_status",
            Self::Fence { .. } => "fence",
            Self::StoreState { .. } => "store_state",
            Self::LoadState { .. } => "load_state",
            Self::HandOver => "hand_over",
            Self::CryptoErase => "crypto_erase",
        }
    }
}

/// When an I/O reached each step of its life at the layer that owns it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamps {
    /// The owner made it.
    pub queued: Instant,
    /// The device below took it.
    pub submitted: Instant,
    /// The device below answered.
    pub completed: Instant,
    /// The owner answered whoever asked.
    pub replied: Instant,
}

/// One I/O on its way down.
#[derive(Debug)]
#[must_use = "an I/O must be submitted or completed"]
pub struct Io {
    op: Op,
    /// The owner's name for it.
    pub tag: Tag,
    /// After this instant a channel with a far end answers [`IoError::TimedOut`]; local devices may ignore it.
    pub deadline: Option<Instant>,
    /// Timestamps so far.
    pub stamps: Stamps,
}

impl Io {
    /// A new I/O.
    pub fn new(op: Op, tag: Tag, now: Instant) -> Self {
        Self { op, tag, deadline: None, stamps: Stamps { queued: now, ..Stamps::default() } }
    }

    /// The same I/O with a deadline.
    pub fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// What to do.
    pub fn op(&self) -> &Op {
        &self.op
    }

    /// What to do, with the read buffer writable.
    pub fn op_mut(&mut self) -> &mut Op {
        &mut self.op
    }

    /// Takes the operation out, leaving a shell that must be finished with [`IoShell::complete`]. For a device that hands
    /// the buffer to something else while the I/O is in flight.
    pub fn detach(mut self) -> (IoShell, Op) {
        let op = mem::replace(&mut self.op, Op::Flush);
        let shell = IoShell { tag: self.tag, deadline: self.deadline, stamps: self.stamps };
        mem::forget(self);
        (shell, op)
    }

    /// Ends it with a result.
    pub fn complete(self, result: Result<(), IoError>, now: Instant) -> Completed {
        let (shell, op) = self.detach();
        shell.complete(op, result, now)
    }

    /// Gives it back unstarted.
    pub fn refuse(self, why: IoError) -> Refused {
        Refused { io: self, why }
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("{} I/O {:?} dropped without an answer", self.op.name(), self.tag);
        }
    }
}

/// An [`Io`] whose operation is in other hands. Not checked on drop: prefer keeping the `Io` whole.
#[derive(Debug)]
#[must_use = "a detached I/O must be completed"]
pub struct IoShell {
    /// The owner's name for it.
    pub tag: Tag,
    /// See [`Io::deadline`].
    pub deadline: Option<Instant>,
    /// Timestamps so far.
    pub stamps: Stamps,
}

impl IoShell {
    /// Puts the operation back: the I/O is whole again.
    pub fn attach(self, op: Op) -> Io {
        Io { op, tag: self.tag, deadline: self.deadline, stamps: self.stamps }
    }

    /// Ends it with a result.
    pub fn complete(self, op: Op, result: Result<(), IoError>, now: Instant) -> Completed {
        Completed { op, tag: self.tag, result, stamps: Stamps { completed: now, ..self.stamps } }
    }
}

/// An I/O that ended: exactly one for each accepted [`Io`].
#[derive(Debug)]
pub struct Completed {
    /// The operation with its buffer.
    pub op: Op,
    /// The owner's name for it.
    pub tag: Tag,
    /// How it ended. A failed write may have changed any part of its range.
    pub result: Result<(), IoError>,
    /// Timestamps up to `completed`.
    pub stamps: Stamps,
}

/// An I/O that a channel would not take: nothing happened, and it is the owner's again.
#[derive(Debug)]
#[must_use = "the I/O is yours again"]
pub struct Refused {
    /// The I/O.
    pub io: Io,
    /// Why: [`IoError::Busy`] means "poll and try again", anything else is final.
    pub why: IoError,
}
