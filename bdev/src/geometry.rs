//! Sizes, addresses and powers of a block device.

use core::fmt;

use bitflags::bitflags;

/// Size and block sizes of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// Logical block size in bytes: 512 or 4096.
    pub block_size: u32,
    /// Physical block size in bytes, a multiple of `block_size`: what the medium writes without a read.
    pub physical_block_size: u32,
    /// Number of logical blocks.
    pub blocks: u64,
}

impl Geometry {
    /// Capacity in bytes.
    pub fn bytes(&self) -> u64 {
        self.blocks * u64::from(self.block_size)
    }

    /// True when `range` lies inside the device.
    pub fn contains(&self, range: BlockRange) -> bool {
        range.lba.checked_add(u64::from(range.blocks)).is_some_and(|end| end <= self.blocks)
    }
}

/// Bytes that a device with [`Capabilities::ATOMIC_WRITE`] writes as one.
pub const ATOMIC_WRITE_MAX: u32 = 1 << 20;

/// Whether blocks have storage behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// They have, or it is not known that they have not.
    Allocated,
    /// They have none, and read as zeroes.
    Hole,
}

/// Blocks at the beginning of a range that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockStatus {
    /// How many; at least one where the range has one.
    pub blocks: u32,
    /// What they are.
    pub backing: Backing,
}

/// A run of logical blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockRange {
    /// First logical block address.
    pub lba: u64,
    /// Number of logical blocks; may be zero.
    pub blocks: u32,
}

impl BlockRange {
    /// The run of `blocks` blocks at `lba`.
    pub const fn new(lba: u64, blocks: u32) -> Self {
        Self { lba, blocks }
    }

    /// One past the last block.
    ///
    /// # Panics
    /// On overflow: check ranges from outside with [`Geometry::contains`] first.
    pub fn end(&self) -> u64 {
        self.lba.checked_add(u64::from(self.blocks)).expect("range was checked against a geometry")
    }

    /// True when the two runs share a block.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.blocks != 0 && other.blocks != 0 && self.lba < other.end() && other.lba < self.end()
    }
}

impl fmt::Display for BlockRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.lba, self.blocks)
    }
}

/// The storage behind a device that takes it as it is written. All in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Storage that the device's blocks have, and what is kept beside them.
    pub allocated: u64,
    /// Storage that is still to be had where the device lies. Others there may take it.
    pub available: u64,
}

bitflags! {
    /// What a device can do beyond read and write.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Capabilities: u32 {
        /// `Op::Flush` reaches stable storage.
        const FLUSH = 1 << 0;
        /// `Durability::Durable` writes are stable when they complete.
        const FUA = 1 << 1;
        /// `Op::Discard`.
        const DISCARD = 1 << 2;
        /// `Op::WriteZeroes`.
        const WRITE_ZEROES = 1 << 3;
        /// Discarded blocks read as zeroes.
        const DISCARD_ZEROES = 1 << 4;
        /// `Op::Fence`: old generations can be locked out.
        const FENCE = 1 << 5;
        /// Completed `Durability::Accepted` writes may be lost with the power until a flush.
        const VOLATILE_CACHE = 1 << 6;
        /// Writes are refused.
        const READ_ONLY = 1 << 7;
        /// `Op::BlockStatus` tells which blocks are backed.
        const BLOCK_STATUS = 1 << 8;
        /// No reader and no power failure sees a part of a write of at most [`ATOMIC_WRITE_MAX`] bytes.
        const ATOMIC_WRITE = 1 << 9;
        /// `Op::CompareAndWrite`, atomic against every other operation on the device.
        const COMPARE_AND_WRITE = 1 << 10;
        /// `Op::StoreState` and `Op::LoadState`: some bytes are kept beside the data.
        const UNIT_STATE = 1 << 11;
        /// `Op::HandOver`: another node can serve it in this one's place.
        const HAND_OVER = 1 << 12;
        /// `Op::CryptoErase`.
        const CRYPTO_ERASE = 1 << 13;
    }
}
