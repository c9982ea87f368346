//! What an array remembers of each leg. The config is the authority on who is in sync; this says what else is
//! known.

use bitflags::bitflags;
use uuid::Uuid;

/// A leg's recorded state (`mirror.md`, leg states).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum LegState {
    /// A place in the array that no leg has taken.
    Spare = 0,
    /// Formatted by its node, waiting for the holder; holds none of the array's data.
    Joining = 1,
    /// Being copied to: a mixture of old and new.
    Syncing = 2,
    /// Carries every acknowledged write, as far as this superblock knows.
    InSync = 3,
    /// Unreachable; its identity is kept.
    Missing = 4,
    /// Out because of I/O errors.
    Faulty = 5,
    /// Reachable, excluded by the config.
    Stale = 6,
    /// Its history diverged from ours: both data sets are kept, nothing happens by itself.
    Split = 7,
}

impl LegState {
    /// All, in the order of their codes.
    pub const ALL: [Self; 8] = [
        Self::Spare,
        Self::Joining,
        Self::Syncing,
        Self::InSync,
        Self::Missing,
        Self::Faulty,
        Self::Stale,
        Self::Split,
    ];

    /// From its stored code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

bitflags! {
    /// Properties of a leg.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct LegFlags: u8 {
        /// Read only when the other leg cannot be.
        const WRITE_MOSTLY = 1;
        /// Completed writes may be lost with the power until a flush.
        const VOLATILE_CACHE = 2;
        /// The data area read as zeroes when the leg was formatted.
        const ZEROED = 4;
    }
}

/// One leg's record. Each superblock holds one for each leg, its own included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LegRecord {
    /// The leg's uuid; nil for a place that no leg has ever taken.
    pub uuid: Uuid,
    /// Its state.
    pub state: LegState,
    /// Its properties.
    pub flags: LegFlags,
    /// Boot or cache-loss id of its node, as last seen: a volatile cache with the same id has lost nothing.
    pub incarnation: Uuid,
    /// The generation since which the bitmap and the intent logs tell everything that this leg misses: the
    /// last generation in which it was in sync. 0: not tracked, only a full copy helps.
    ///
    /// For a place that no leg has taken, 1 says that everything written since creation is tracked.
    pub tracked_since: u64,
    /// Sequence number of its superblock when last seen: an older one has been reverted. 0: never seen.
    pub seen_seq: u64,
}

impl LegRecord {
    /// A place that no leg has taken, everything tracked since creation.
    pub const fn vacant() -> Self {
        Self {
            uuid: Uuid::nil(),
            state: LegState::Spare,
            flags: LegFlags::empty(),
            incarnation: Uuid::nil(),
            tracked_since: 1,
            seen_seq: 0,
        }
    }

    /// True when a leg has taken this place.
    pub fn is_taken(&self) -> bool {
        !self.uuid.is_nil()
    }
}
