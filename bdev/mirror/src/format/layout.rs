//! What is where on a leg. Computed once when the leg is formatted, then stored in its superblock.
//!
//! The two legs of an array share the size of the data area, the granule and the extent; their data offsets
//! may differ.

use thiserror::Error;

use super::BLOCK_BYTES;
use super::header::PAYLOAD_LEN;

/// Layout version that this code writes and reads.
pub const LAYOUT_VERSION: u16 = 1;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// An exported Linux MD v1.2 superblock; empty in normal running.
pub const MD_OFFSET: u64 = 4 * KIB;
/// Superblock slots 0 and 1.
pub const SUPERBLOCK_OFFSET: u64 = 64 * KIB;
/// Logical-unit state A and B.
pub const UNIT_STATE_OFFSET: u64 = 128 * KIB;
/// Bytes of each copy of the logical-unit state.
pub const UNIT_STATE_LEN: u64 = 64 * KIB;
/// The intent log's ring.
pub const LOG_OFFSET: u64 = MIB;
/// Transactions in the ring.
pub const LOG_BLOCKS: u64 = 256;
/// Bytes of the ring.
pub const LOG_LEN: u64 = LOG_BLOCKS * BLOCK_BYTES;
/// Bad ranges A and B.
pub const BAD_RANGES_OFFSET: u64 = 2 * MIB;
/// Bytes of each copy of the bad ranges.
pub const BAD_RANGES_LEN: u64 = 64 * KIB;
/// The out-of-sync bitmap: two slots for each page, side by side.
pub const BITMAP_OFFSET: u64 = 4 * MIB;
/// Bits in a bitmap page.
pub const PAGE_BITS: u64 = PAYLOAD_LEN as u64 * 8;
/// How often the bitmap may double before the data must move.
const BITMAP_GROWTH: u64 = 8;
/// Alignment of the data area.
pub const DATA_ALIGN: u64 = MIB;

/// log2 of the granule: 64 KiB.
pub const GRANULE_SHIFT: u32 = 16;
/// log2 of the largest extent: 4 MiB.
pub const EXTENT_SHIFT_MAX: u32 = 22;
/// Fewest slots of an intent log.
pub const SLOTS_MIN: u64 = 64;
/// Most slots of an intent log; 65,535 is no slot's number.
pub const SLOTS_MAX: u64 = 65_535;
/// Most extents: an extent's number has 32 bits, and all ones means "free".
const EXTENTS_MAX: u64 = u32::MAX as u64;
/// Extents shrink until an array has about this many.
const EXTENTS_WANTED: u64 = 4096;
/// Default bound of a crash resync, where the array is large enough.
pub const MAX_CRASH_RESYNC_DEFAULT: u64 = 64 * GIB;

/// The intent log's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogGeometry {
    /// Extents that the log can hold at a time.
    pub slots: u16,
    /// log2 of the extent in bytes.
    pub extent_shift: u32,
    /// Extents of the data area.
    pub extents: u32,
}

impl LogGeometry {
    /// Bytes of an extent.
    pub const fn extent_bytes(&self) -> u64 {
        1 << self.extent_shift
    }

    /// Most bytes that differ after a crash on account of the log (I7).
    pub const fn max_crash_resync(&self) -> u64 {
        self.slots as u64 * self.extent_bytes()
    }
}

/// What is where on a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Bytes of the device, rounded down to whole blocks.
    pub leg_size: u64,
    /// Logical block size of the array in bytes: 512 or 4096.
    pub block_size: u32,
    /// First byte of the data area on the leg.
    pub data_offset: u64,
    /// Bytes of the data area.
    pub data_size: u64,
    /// log2 of the bitmap's granule in bytes.
    pub granule_shift: u32,
    /// Intent log.
    pub log: LogGeometry,
}

/// What a layout is computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayoutRequest {
    /// Bytes of the device.
    pub leg_size: u64,
    /// Logical block size of the array in bytes: 512 or 4096.
    pub block_size: u32,
    /// Bytes of the data area; the largest possible when absent. A joining leg takes the array's.
    pub data_size: Option<u64>,
    /// Most bytes to copy after a crash; when absent a quarter of the data, at most 64 GiB. A joining leg
    /// takes the array's log geometry instead ([`Layout::joining`]).
    pub max_crash_resync: Option<u64>,
}

/// Why a leg cannot be laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LayoutError {
    /// Smaller than the metadata and one granule of data.
    #[error("the leg has {leg_size} bytes; it needs at least {needed}")]
    TooSmall {
        /// The leg's size.
        leg_size: u64,
        /// The least size that would do.
        needed: u64,
    },
    /// Block size other than 512 and 4096.
    #[error("block size {0} is neither 512 nor 4096")]
    BlockSize(u32),
    /// Data area is zero or not a whole number of blocks.
    #[error("a data area of {0} bytes is not a positive multiple of the block size")]
    DataSize(u64),
    /// Bound lower than the smallest log.
    #[error("a crash resync of {asked} bytes is too small: give at least {least}")]
    CrashResync {
        /// The bound asked for.
        asked: u64,
        /// The least possible.
        least: u64,
    },
    /// Its device's blocks are not the array's, nor parts of them.
    #[error(
        "its device has blocks of {device} bytes, and the array's have {array}: not all of them could be written; give a device with blocks of {array} bytes"
    )]
    DeviceBlocks {
        /// The device's block size.
        device: u32,
        /// The array's.
        array: u32,
    },
    /// More extents than can be numbered.
    #[error("a data area of {0} bytes is too large for the intent log")]
    TooLarge(u64),
}

impl Layout {
    /// Lays out the first leg of an array.
    ///
    /// # Errors
    /// [`LayoutError`]: the leg or a figure does not fit.
    pub fn plan(request: LayoutRequest) -> Result<Self, LayoutError> {
        if !matches!(request.block_size, 512 | 4096) {
            return Err(LayoutError::BlockSize(request.block_size));
        }
        let leg_size = request.leg_size / BLOCK_BYTES * BLOCK_BYTES;
        let (data_offset, room) = data_area(leg_size);
        let data_size = request.data_size.unwrap_or(room / (1 << GRANULE_SHIFT) * (1 << GRANULE_SHIFT));
        if data_size == 0 || data_size > room {
            let needed = data_offset + request.data_size.unwrap_or(1 << GRANULE_SHIFT) + BLOCK_BYTES;
            return Err(LayoutError::TooSmall { leg_size: request.leg_size, needed });
        }
        if !data_size.is_multiple_of(u64::from(request.block_size)) {
            return Err(LayoutError::DataSize(data_size));
        }
        let log = log_geometry(data_size, request.max_crash_resync)?;
        let (block_size, granule_shift) = (request.block_size, GRANULE_SHIFT);
        Ok(Self { leg_size, block_size, data_offset, data_size, granule_shift, log })
    }

    /// Lays out a leg that joins an array: same data size, block size, granule and log as the array's.
    ///
    /// # Errors
    /// [`LayoutError::TooSmall`] when this leg cannot hold the array's data.
    pub fn joining(&self, leg_size: u64) -> Result<Self, LayoutError> {
        let (block_size, data_size) = (self.block_size, Some(self.data_size));
        let planned = Self::plan(LayoutRequest { leg_size, block_size, data_size, max_crash_resync: None })?;
        Ok(Self { log: self.log, ..planned })
    }

    /// Checks that each of the array's blocks is whole blocks of a device of this block size.
    ///
    /// # Errors
    /// [`LayoutError::DeviceBlocks`].
    pub const fn check_blocks(&self, device: u32) -> Result<(), LayoutError> {
        let array = self.block_size;
        if device != 0 && array.is_multiple_of(device) {
            Ok(())
        } else {
            Err(LayoutError::DeviceBlocks { device, array })
        }
    }

    /// True when both describe the same array: everything equal but the leg's own size and data offset.
    pub fn same_array(&self, other: &Self) -> bool {
        (self.block_size, self.data_size, self.granule_shift, self.log)
            == (other.block_size, other.data_size, other.granule_shift, other.log)
    }

    /// Byte offset of superblock slot `seq & 1`.
    pub const fn superblock_slot(seq: u64) -> u64 {
        SUPERBLOCK_OFFSET + (seq & 1) * BLOCK_BYTES
    }

    /// Byte offset of the third superblock copy.
    pub const fn superblock_tail(&self) -> u64 {
        self.leg_size - BLOCK_BYTES
    }

    /// Byte offset of the third superblock copy of a device of `leg_size` bytes.
    pub const fn tail_of(leg_size: u64) -> u64 {
        (leg_size / BLOCK_BYTES).saturating_sub(1) * BLOCK_BYTES
    }

    /// Byte offset of transaction `seq` in the intent log's ring.
    pub const fn log_block(seq: u64) -> u64 {
        LOG_OFFSET + seq % LOG_BLOCKS * BLOCK_BYTES
    }

    /// Granules of the data area.
    pub const fn granules(&self) -> u64 {
        self.data_size.div_ceil(1 << self.granule_shift)
    }

    /// Pages of the bitmap.
    pub const fn bitmap_pages(&self) -> u32 {
        // data_size is below 2^32 extents of 4 MiB, so this is below 2^24.
        self.granules().div_ceil(PAGE_BITS) as u32
    }

    /// Byte offset of the slot of `page` for sequence number `seq`.
    pub const fn bitmap_block(page: u32, seq: u64) -> u64 {
        BITMAP_OFFSET + (page as u64 * 2 + (seq & 1)) * BLOCK_BYTES
    }

    /// Bytes of the bitmap on disk, both slots of all pages.
    pub const fn bitmap_len(&self) -> u64 {
        self.bitmap_pages() as u64 * 2 * BLOCK_BYTES
    }

    /// Number of logical blocks of the data area.
    pub const fn blocks(&self) -> u64 {
        self.data_size / self.block_size as u64
    }

    /// Checks figures that came from a disk: whatever passes cannot overflow, overlap, or point outside the
    /// leg.
    pub(super) fn is_sound(&self) -> bool {
        let data_end = self.data_offset.checked_add(self.data_size);
        matches!(self.block_size, 512 | 4096)
            && self.granule_shift == GRANULE_SHIFT
            && (GRANULE_SHIFT..=EXTENT_SHIFT_MAX).contains(&self.log.extent_shift)
            && u64::from(self.log.slots) >= SLOTS_MIN
            && self.data_size != 0
            && self.data_size.is_multiple_of(u64::from(self.block_size))
            && u64::from(self.log.extents) == self.data_size.div_ceil(1 << self.log.extent_shift)
            && self.leg_size.is_multiple_of(BLOCK_BYTES)
            && self.data_offset.is_multiple_of(DATA_ALIGN)
            && self.data_offset >= BITMAP_OFFSET + self.bitmap_len()
            && data_end.is_some_and(|end| end <= self.leg_size.saturating_sub(BLOCK_BYTES))
    }
}

/// Data offset of a leg and the room behind it, up to the third superblock copy.
fn data_area(leg_size: u64) -> (u64, u64) {
    let pages = leg_size.div_ceil(PAGE_BITS << GRANULE_SHIFT).max(1);
    let bitmap = (pages * 2 * BLOCK_BYTES).saturating_mul(BITMAP_GROWTH);
    let data_offset = BITMAP_OFFSET.saturating_add(bitmap).next_multiple_of(DATA_ALIGN);
    (data_offset, leg_size.saturating_sub(data_offset).saturating_sub(BLOCK_BYTES))
}

/// Extents shrink with the array, so that a small one is not copied whole after a crash.
fn log_geometry(data_size: u64, max_crash_resync: Option<u64>) -> Result<LogGeometry, LayoutError> {
    let least = SLOTS_MIN << GRANULE_SHIFT;
    let bound = max_crash_resync.unwrap_or((data_size / 4).clamp(least, MAX_CRASH_RESYNC_DEFAULT));
    if bound < least {
        return Err(LayoutError::CrashResync { asked: bound, least });
    }
    let mut extent_shift = EXTENT_SHIFT_MAX;
    let too_coarse = |shift: u32| data_size >> shift < EXTENTS_WANTED || bound >> shift < SLOTS_MIN;
    while extent_shift > GRANULE_SHIFT && too_coarse(extent_shift) {
        extent_shift -= 1;
    }
    let extents = data_size.div_ceil(1 << extent_shift);
    if extents >= EXTENTS_MAX {
        return Err(LayoutError::TooLarge(data_size));
    }
    let slots = (bound >> extent_shift).min(SLOTS_MAX).min(extents.max(SLOTS_MIN));
    let slots = u16::try_from(slots).expect("bounded by SLOTS_MAX");
    let extents = u32::try_from(extents).expect("bounded by EXTENTS_MAX");
    Ok(LogGeometry { slots, extent_shift, extents })
}
