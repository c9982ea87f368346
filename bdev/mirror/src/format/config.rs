//! The config record: who holds the array, with which legs in sync, in which generation.
//!
//! Every change of holder or of the in-sync set is a new generation (`mirror.md`, terms). The nonce tells two
//! records of the same generation apart that were made by two nodes which did not see each other; it comes
//! from the caller.

use bitflags::bitflags;

/// One of the two legs, and the node that owns it: node X's local leg is leg X.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LegIndex {
    /// Leg and node 0.
    Zero,
    /// Leg and node 1.
    One,
}

impl LegIndex {
    /// Both, in order.
    pub const BOTH: [Self; 2] = [Self::Zero, Self::One];

    /// The peer's.
    pub const fn other(self) -> Self {
        match self {
            Self::Zero => Self::One,
            Self::One => Self::Zero,
        }
    }

    /// As an array index.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// As stored, and as a node number in a fence key.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// From its number; `None` for anything but 0 and 1.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Zero),
            1 => Some(Self::One),
            _ => None,
        }
    }
}

bitflags! {
    /// A set of legs.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct LegMask: u8 {
        /// Leg 0.
        const ZERO = 1;
        /// Leg 1.
        const ONE = 2;
    }

    /// Marks of a config record.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct ConfigFlags: u8 {
        /// Made by a forced promotion: acknowledged writes may be missing (I10).
        const FORCED = 1;
    }
}

impl LegMask {
    /// One leg alone.
    pub const fn only(leg: LegIndex) -> Self {
        match leg {
            LegIndex::Zero => Self::ZERO,
            LegIndex::One => Self::ONE,
        }
    }

    /// Both legs.
    pub const fn both() -> Self {
        Self::all()
    }

    /// True when `leg` is in the set.
    pub const fn has(self, leg: LegIndex) -> bool {
        self.contains(Self::only(leg))
    }
}

/// Names a config record for good: two records with the same id are the same record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigId {
    /// Generation.
    pub generation: u64,
    /// Random number of whoever made it.
    pub nonce: u64,
}

/// Why a config was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reason {
    /// The array was created.
    Created = 1,
    /// The holder started again (R11).
    Restarted = 2,
    /// The holder started without its peer, by policy or command.
    StartedDegraded = 3,
    /// The peer's leg could not be reached.
    LinkLost = 4,
    /// A leg missed a deadline.
    TimedOut = 5,
    /// A leg reported an I/O error.
    IoError = 6,
    /// The operator took a leg out.
    Removed = 7,
    /// A leg came back in sync.
    Rejoined = 8,
    /// The node was promoted.
    Promoted = 9,
    /// The node was promoted by force.
    ForcePromoted = 10,
    /// Planned switchover.
    SwitchedOver = 11,
    /// A leg's bad ranges overflowed.
    BadRanges = 12,
    /// The holder was gone, and the arbiter gave the array to its peer.
    TakenOver = 13,
    /// The legs had diverged, and the operator chose this data set.
    SplitResolved = 14,
}

impl Reason {
    /// All, in the order of their codes.
    pub const ALL: [Self; 14] = [
        Self::Created,
        Self::Restarted,
        Self::StartedDegraded,
        Self::LinkLost,
        Self::TimedOut,
        Self::IoError,
        Self::Removed,
        Self::Rejoined,
        Self::Promoted,
        Self::ForcePromoted,
        Self::SwitchedOver,
        Self::BadRanges,
        Self::TakenOver,
        Self::SplitResolved,
    ];

    /// From its stored code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }

    /// In words, for the status.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Created => "array created",
            Self::Restarted => "holder restarted",
            Self::StartedDegraded => "started without the peer",
            Self::LinkLost => "peer unreachable",
            Self::TimedOut => "leg missed its deadline",
            Self::IoError => "I/O error on a leg",
            Self::Removed => "leg removed by the operator",
            Self::Rejoined => "leg back in sync",
            Self::Promoted => "promoted by the operator",
            Self::ForcePromoted => "promoted by force",
            Self::SwitchedOver => "planned switchover",
            Self::BadRanges => "too many bad ranges on a leg",
            Self::TakenOver => "taken over: the holder was gone",
            Self::SplitResolved => "split resolved in favour of this data set",
        }
    }
}

/// How far a generation jumps in a forced promotion, so that no ordinary count of the other side can reach
/// it.
pub const FORCED_JUMP: u64 = 1 << 32;
/// The largest generation: what a fence key can carry.
pub const GENERATION_MAX: u64 = bdev::FenceKey::GENERATION_MAX;

/// A config record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// Generation and nonce.
    pub id: ConfigId,
    /// The node that runs the mirror.
    pub holder: LegIndex,
    /// Legs that carry every acknowledged write. Never empty.
    pub in_sync: LegMask,
    /// Marks.
    pub flags: ConfigFlags,
    /// Why it was made.
    pub reason: Reason,
}

/// The generation count is used up: nothing may change any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the array has used up its generations: copy the data to a new array")]
pub struct GenerationsExhausted;

impl Config {
    /// The generation.
    pub const fn generation(&self) -> u64 {
        self.id.generation
    }

    /// The record after this one.
    ///
    /// # Errors
    /// [`GenerationsExhausted`] at 2^56 - 1.
    ///
    /// # Panics
    /// When `in_sync` is empty: an array without a leg in sync has no data.
    pub fn successor(
        &self,
        nonce: u64,
        holder: LegIndex,
        in_sync: LegMask,
        reason: Reason,
    ) -> Result<Self, GenerationsExhausted> {
        assert!(!in_sync.is_empty(), "a config keeps at least one leg in sync");
        let (jump, flags) = match reason {
            Reason::ForcePromoted => (FORCED_JUMP, ConfigFlags::FORCED),
            _ => (1, ConfigFlags::empty()),
        };
        let generation = self.id.generation + jump;
        if generation > GENERATION_MAX {
            return Err(GenerationsExhausted);
        }
        Ok(Self { id: ConfigId { generation, nonce }, holder, in_sync, flags, reason })
    }

    /// The same record in a later generation: where a fence has already used the next one up.
    #[must_use]
    pub fn raised_to(mut self, generation: u64) -> Self {
        self.id.generation = self.id.generation.max(generation);
        self
    }

    /// The first record of an array.
    pub const fn first(nonce: u64, holder: LegIndex, in_sync: LegMask) -> Self {
        let id = ConfigId { generation: 1, nonce };
        Self { id, holder, in_sync, flags: ConfigFlags::empty(), reason: Reason::Created }
    }

    /// The record of a leg that has never been in an array's config: generation 0.
    pub const fn joining(holder: LegIndex) -> Self {
        let id = ConfigId { generation: 0, nonce: 0 };
        let flags = ConfigFlags::empty();
        Self { id, holder, in_sync: LegMask::only(holder), flags, reason: Reason::Created }
    }
}
