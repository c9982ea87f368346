//! The on-disk format of a leg: what is where, and how each block proves that it is whole and belongs there.
//!
//! Owner: pure functions and values, no I/O, no clock, no random source. Byte tables, update order and crash
//! cases: `FORMAT.md`, below, checked against the constants by a test. Rules: R8, R9, I8, I9, I20.
#![doc = include_str!("../../FORMAT.md")]

pub mod config;
pub mod copies;
pub mod create;
pub mod field;
pub mod header;
mod heard;
pub mod history;
pub mod layout;
pub mod leg_record;
pub mod superblock;
pub mod unit_state;

#[cfg(test)]
mod doc_tests;
#[cfg(test)]
pub(crate) mod tests;

pub use config::{Config, ConfigFlags, ConfigId, LegIndex, LegMask, Reason};
pub use copies::{Chosen, Copies, Copy, CopyState, SuperblockWrites};
pub use create::{CreateLeg, Step};
pub use header::{At, BlockKind, Header, HeaderError};
pub use heard::Heard;
pub use history::{History, Relation, compare};
pub use layout::{Layout, LayoutError, LayoutRequest, LogGeometry};
pub use leg_record::{LegFlags, LegRecord, LegState};
pub use superblock::{
    Access, ArbiterKind, ArrayName, Features, Lease, RunState, Superblock, SuperblockError,
};
pub use unit_state::{UnitState, UnitStateHealth};

/// Bytes of every metadata block.
pub const BLOCK_SIZE: usize = 4096;
/// [`BLOCK_SIZE`] for arithmetic on device offsets.
pub const BLOCK_BYTES: u64 = 4096;

/// One metadata block.
pub type Block = [u8; BLOCK_SIZE];

/// One block and its place on the metadata device, in bytes: what the driver writes.
#[derive(Clone, PartialEq, Eq)]
pub struct BlockWrite {
    /// Byte offset on the metadata device, a multiple of [`BLOCK_SIZE`].
    pub offset: u64,
    /// The sealed block.
    pub block: Block,
}

impl core::fmt::Debug for BlockWrite {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("BlockWrite").field("offset", &self.offset).finish_non_exhaustive()
    }
}

/// True when every byte is zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}
