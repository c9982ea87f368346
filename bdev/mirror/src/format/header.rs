//! The header of every metadata block: each block describes itself.
//!
//! The checksum is CRC32C over array uuid, block address and the block with the checksum field zeroed, so
//! that a block of another array, or one that was written to another place, fails even when it is whole. Uuid
//! and address are stored as well, so that the failure can be named.

use thiserror::Error;
use uuid::Uuid;

use super::field::fields;
use super::{Block, is_zero};

/// Bytes of the header; the rest of the block is payload.
pub const HEADER_LEN: usize = 64;
/// Bytes of payload in a block.
pub const PAYLOAD_LEN: usize = super::BLOCK_SIZE - HEADER_LEN;
/// `GEML`, as little-endian bytes.
pub const MAGIC: u32 = u32::from_le_bytes(*b"GEML");
/// The format version that this code writes and the newest that it reads.
pub const VERSION: u16 = 1;

/// The largest sequence number that is believed.
pub const SEQ_MAX: u64 = 1 << 62;

fields! {
    /// The header's fields.
    HEADER_FIELDS from 0;
    MAGIC_FIELD: 4, "magic: the bytes `GEML`";
    KIND: 2, "block kind: 1 superblock, 2 unit state, 3 intent log, 4 bad ranges, 5 bitmap";
    VERSION_FIELD: 2, "format version: 1";
    CRC: 4, "CRC32C over array uuid, address and this block with this field zeroed";
    RESERVED: 4, "zero";
    SEQ: 8, "sequence number, rising with every write of the structure";
    GENERATION: 8, "config generation in which the block was written";
    ARRAY: 16, "array uuid";
    ADDRESS: 8, "byte offset of this block on its device";
    RESERVED_2: 8, "zero";
}
const _: () = assert!(RESERVED_2.end() == HEADER_LEN && RESERVED.len == 4);

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum BlockKind {
    /// Superblock.
    Superblock = 1,
    /// Logical-unit state: persistent reservations, LUN map.
    UnitState = 2,
    /// Intent-log transaction.
    IntentLog = 3,
    /// Bad ranges.
    BadRanges = 4,
    /// Page of the out-of-sync bitmap.
    Bitmap = 5,
}

/// The decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the block holds.
    pub kind: BlockKind,
    /// Sequence number of the structure.
    pub seq: u64,
    /// Config generation of the writer.
    pub generation: u64,
}

/// Whose block it is and where it lives: the seed of its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Array uuid.
    pub array: Uuid,
    /// Byte offset on the metadata device.
    pub address: u64,
}

/// Why a block is not what was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// All zeroes: never written.
    #[error("the block is blank")]
    Blank,
    /// Something else lives here.
    #[error("the block does not carry the magic number")]
    NotOurs,
    /// Torn, rotten, or half overwritten.
    #[error("the block's checksum does not match: torn or corrupt")]
    Corrupt,
    /// Whole, of another array.
    #[error("the block belongs to array {0}")]
    OtherArray(Uuid),
    /// Whole, written to the wrong place.
    #[error("the block was written for byte offset {0}")]
    Misdirected(u64),
    /// Whole, of another kind.
    #[error("the block is of kind {0}")]
    OtherKind(u16),
    /// Whole, of a newer format.
    #[error("the block has format version {0}; this program reads version {VERSION}: use a newer one")]
    Version(u16),
}

fn checksum(at: At, block: &Block) -> u32 {
    let crc = crc32c::crc32c(at.array.as_bytes());
    let crc = crc32c::crc32c_append(crc, &at.address.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &block[..CRC.offset]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, &block[CRC.end()..])
}

/// Writes the header around a payload that is already in place, and the checksum over both.
pub fn seal(block: &mut Block, header: Header, at: At) {
    block[..HEADER_LEN].fill(0);
    MAGIC_FIELD.put(block, &MAGIC.to_le_bytes());
    KIND.put(block, &(header.kind as u16).to_le_bytes());
    VERSION_FIELD.put(block, &VERSION.to_le_bytes());
    SEQ.put(block, &header.seq.to_le_bytes());
    GENERATION.put(block, &header.generation.to_le_bytes());
    ARRAY.put(block, at.array.as_bytes());
    ADDRESS.put(block, &at.address.to_le_bytes());
    let crc = checksum(at, block);
    CRC.put(block, &crc.to_le_bytes());
}

/// Checks that `block` is whole, of this kind, and of this array and place.
///
/// # Errors
/// The first thing that is wrong; [`HeaderError::Corrupt`] before anything that a corrupt block merely
/// claims.
pub fn open(block: &Block, kind: BlockKind, at: At) -> Result<Header, HeaderError> {
    let (header, array) = open_any_array(block, kind, at.address)?;
    if array == at.array { Ok(header) } else { Err(HeaderError::OtherArray(array)) }
}

/// The sequence number that a damaged block says it has.
pub fn claimed_seq(block: &Block) -> u64 {
    SEQ.u64(block)
}

/// [`open`] for whoever does not know the array yet: gives the array uuid that the block names.
///
/// # Errors
/// As [`open`], except [`HeaderError::OtherArray`].
pub fn open_any_array(block: &Block, kind: BlockKind, address: u64) -> Result<(Header, Uuid), HeaderError> {
    if MAGIC_FIELD.u32(block) != MAGIC {
        return Err(if is_zero(block) { HeaderError::Blank } else { HeaderError::NotOurs });
    }
    let at = At { array: ARRAY.uuid(block), address: ADDRESS.u64(block) };
    if CRC.u32(block) != checksum(at, block) {
        return Err(HeaderError::Corrupt);
    }
    if VERSION_FIELD.u16(block) != VERSION {
        return Err(HeaderError::Version(VERSION_FIELD.u16(block)));
    }
    if at.address != address {
        return Err(HeaderError::Misdirected(at.address));
    }
    if KIND.u16(block) != kind as u16 {
        return Err(HeaderError::OtherKind(KIND.u16(block)));
    }
    let header = Header { kind, seq: SEQ.u64(block), generation: GENERATION.u64(block) };
    // Nobody writes that often: such a number would only make arithmetic behind it overflow.
    if header.seq > SEQ_MAX { Err(HeaderError::Corrupt) } else { Ok((header, at.array)) }
}
