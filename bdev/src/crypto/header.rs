//! What lies before the data: two slots that each hold the whole header. Pure: bytes in, bytes out.
//!
//! All numbers are little-endian. A slot has 4096 bytes, of which the first sector counts and the others are zeroes, so that a write
//! that tears at a sector leaves the old slot or the new one.
//!
//! ```text
//!   0  magic "GEMELCRY"        16  uuid of the device        44  slot, 0 or 1
//!   8  version, 1              32  sequence                  48  bytes before the data
//!  12  cipher, 1: AES-256-XTS  40  bytes of a block          56  the media key, wrapped (72 bytes)
//!                                                           508  CRC-32C of the bytes before it
//! ```
//!
//! Invariant: at rest both slots hold the same header. The header of the higher sequence is the one that counts; the other is written
//! again when the device is opened, because it may hold a media key that was given up.

use thiserror::Error;
use uuid::Uuid;

use super::key::{MediaKey, UserKey, WRAPPED_LEN};

/// Bytes before the data.
pub(super) const RESERVED: u64 = 1 << 20;
/// Bytes of a slot.
pub(super) const SLOT_LEN: usize = 4096;
/// Bytes of a slot that count.
const SECTOR: usize = 512;
const MAGIC: [u8; 8] = *b"GEMELCRY";
const VERSION: u32 = 1;
/// AES-256-XTS, the only cipher there is.
const CIPHER: u32 = 1;
/// Bytes that the wrapping key depends on: all that comes before the wrapped key, the slot's number aside.
const BOUND: usize = 56;
const SUM: usize = SECTOR - 4;

/// One of the two places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    First,
    Second,
}

impl Slot {
    pub(super) const BOTH: [Self; 2] = [Self::First, Self::Second];

    pub(super) fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    /// Where it begins, in bytes.
    pub(super) fn offset(self) -> u64 {
        match self {
            Self::First => 0,
            Self::Second => 64 << 10,
        }
    }

    fn number(self) -> u32 {
        self as u32
    }
}

/// Why there is no header to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoHeader {
    /// Nothing but zeroes.
    #[error("it is blank: it was never formatted")]
    Blank,
    /// Bytes of somebody else.
    #[error("it holds other data and no crypto header")]
    Foreign,
    /// A header was there.
    #[error("both copies of its crypto header are damaged")]
    Damaged,
    /// A header that this version does not know.
    #[error("its crypto header is of version {0}, and this node knows version {VERSION}")]
    Version(u32),
    /// A cipher that this version does not know.
    #[error("its crypto header names cipher {0}, which this node does not know")]
    Cipher(u32),
}

/// A header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) uuid: Uuid,
    /// Rises with each change.
    pub(super) sequence: u64,
    /// Bytes of a block, which is the data unit of the cipher.
    pub(super) block_size: u32,
    wrapped: [u8; WRAPPED_LEN],
}

/// The headers of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) header: Header,
    /// Where it is.
    pub(super) slot: Slot,
    /// Whether the other slot holds the same.
    pub(super) other: OtherSlot,
}

/// What the slot beside the newest header holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OtherSlot {
    /// The same header.
    Same,
    /// An older one, or nothing of use.
    Stale,
}

impl Header {
    /// A header that holds `media`, for `user` alone.
    pub(super) fn new(uuid: Uuid, sequence: u64, block_size: u32, media: &MediaKey, user: &UserKey) -> Self {
        let mut header = Self { uuid, sequence, block_size, wrapped: [0; WRAPPED_LEN] };
        header.wrapped = user.wrap(media, &header.bound());
        header
    }

    /// The media key; `None` for another user's.
    pub(super) fn unwrap(&self, user: &UserKey) -> Option<MediaKey> {
        user.unwrap(&self.wrapped, &self.bound())
    }

    fn bound(&self) -> [u8; BOUND] {
        let mut bytes = [0; BOUND];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&CIPHER.to_le_bytes());
        bytes[16..32].copy_from_slice(self.uuid.as_bytes());
        bytes[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.block_size.to_le_bytes());
        bytes[48..56].copy_from_slice(&RESERVED.to_le_bytes());
        bytes
    }

    /// The header as it lies in a slot.
    pub(super) fn encode(&self, slot: Slot) -> [u8; SLOT_LEN] {
        let mut bytes = [0; SLOT_LEN];
        bytes[..BOUND].copy_from_slice(&self.bound());
        bytes[44..48].copy_from_slice(&slot.number().to_le_bytes());
        bytes[BOUND..BOUND + WRAPPED_LEN].copy_from_slice(&self.wrapped);
        let sum = crc32c::crc32c(&bytes[..SUM]);
        bytes[SUM..SECTOR].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8], slot: Slot) -> Result<Self, NoHeader> {
        let sector = bytes.get(..SECTOR).ok_or(NoHeader::Foreign)?;
        let u32_at = |at: usize| u32::from_le_bytes(sector[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(sector[at..at + 8].try_into().expect("eight bytes"));
        if sector[..8] != MAGIC {
            let blank = sector.iter().all(|byte| *byte == 0);
            return Err(if blank { NoHeader::Blank } else { NoHeader::Foreign });
        }
        if u32_at(SUM) != crc32c::crc32c(&sector[..SUM]) {
            return Err(NoHeader::Damaged);
        }
        match (u32_at(8), u32_at(12)) {
            (VERSION, CIPHER) => {}
            (VERSION, cipher) => return Err(NoHeader::Cipher(cipher)),
            (version, _) => return Err(NoHeader::Version(version)),
        }
        let block_size = u32_at(40);
        if u32_at(44) != slot.number() || u64_at(48) != RESERVED || ![512, 4096].contains(&block_size) {
            return Err(NoHeader::Damaged);
        }
        Ok(Self {
            uuid: Uuid::from_bytes(sector[16..32].try_into().expect("16 bytes")),
            sequence: u64_at(32),
            block_size,
            wrapped: sector[BOUND..BOUND + WRAPPED_LEN].try_into().expect("a wrapped key"),
        })
    }
}

/// Looks at the bytes before the data.
///
/// # Errors
/// There is no header, or none that can be used.
pub(super) fn look(reserved: &[u8]) -> Result<Found, NoHeader> {
    let decode = |slot: Slot| {
        let at = usize::try_from(slot.offset()).expect("inside the reserved bytes");
        Header::decode(reserved.get(at..).unwrap_or_default(), slot)
    };
    match Slot::BOTH.map(decode) {
        [Ok(first), Ok(second)] if first == second => {
            Ok(Found { header: first, slot: Slot::First, other: OtherSlot::Same })
        }
        // Nobody writes two of one sequence, nor puts one device's header beside another's.
        [Ok(first), Ok(second)] if first.sequence == second.sequence || first.uuid != second.uuid => {
            Err(NoHeader::Damaged)
        }
        [Ok(first), Ok(second)] if first.sequence < second.sequence => Ok(Found::stale(second, Slot::Second)),
        // What a newer version wrote may be newer than what can be read.
        [Ok(_), Err(why @ (NoHeader::Version(_) | NoHeader::Cipher(_)))]
        | [Err(why @ (NoHeader::Version(_) | NoHeader::Cipher(_))), Ok(_)] => Err(why),
        [Ok(first), _] => Ok(Found::stale(first, Slot::First)),
        [Err(_), Ok(second)] => Ok(Found::stale(second, Slot::Second)),
        [Err(first), Err(second)] => Err(nothing(first, second, reserved)),
    }
}

/// What to say of two slots without a header.
fn nothing(first: NoHeader, second: NoHeader, reserved: &[u8]) -> NoHeader {
    let blank = || reserved.iter().all(|byte| *byte == 0);
    match (first, second) {
        (why @ (NoHeader::Version(_) | NoHeader::Cipher(_)), _)
        | (_, why @ (NoHeader::Version(_) | NoHeader::Cipher(_))) => why,
        (NoHeader::Damaged, _) | (_, NoHeader::Damaged) => NoHeader::Damaged,
        (NoHeader::Blank, NoHeader::Blank) if blank() => NoHeader::Blank,
        _ => NoHeader::Foreign,
    }
}

impl Found {
    fn stale(header: Header, slot: Slot) -> Self {
        Self { header, slot, other: OtherSlot::Stale }
    }
}

#[cfg(test)]
#[path = "header_tests.rs"]
mod tests;
