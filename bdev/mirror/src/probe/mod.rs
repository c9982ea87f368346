//! What is on a device: nothing, one of our legs, a damaged one, or something of somebody else's.
//!
//! Pure: the caller reads the first [`HEAD_LEN`] and the last [`TAIL_LEN`] bytes and gives them here. Nothing
//! is ever written to a device that is not [`LegFound::Blank`] or the expected leg.

mod foreign;

#[cfg(test)]
mod tests;

use thiserror::Error;
use uuid::Uuid;

pub use foreign::ForeignContent;

use crate::format::layout::{LOG_OFFSET, Layout, MD_OFFSET, SUPERBLOCK_OFFSET};
use crate::format::{
    Access, BLOCK_BYTES, BLOCK_SIZE, Block, Chosen, Copies, Copy, Superblock, SuperblockError,
    copies::NoSuperblock, is_zero, unit_state::is_unused,
};

/// Bytes to read from the start of a device.
pub const HEAD_LEN: u64 = 256 << 10;
/// Bytes to read from its end.
pub const TAIL_LEN: u64 = 128 << 10;
const _: () = assert!(HEAD_LEN <= LOG_OFFSET && SUPERBLOCK_OFFSET + 2 * BLOCK_BYTES <= HEAD_LEN);

/// Start and end of a device, as read. Bytes that could not be read have to be given as all ones.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// Bytes of the device.
    pub leg_size: u64,
    /// The first [`HEAD_LEN`] bytes.
    pub head: &'a [u8],
    /// The last [`TAIL_LEN`] bytes, up to the end of the last whole block.
    pub tail: &'a [u8],
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LegFound {
    /// Start and end are all zeroes: free to format.
    Blank,
    /// A leg. The expected array's, if one was named.
    Leg(Box<FoundLeg>),
    /// Not usable as it is; the message says why. Nothing may be written.
    Refused(ProbeError),
}

/// A leg that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundLeg {
    /// Its superblock.
    pub superblock: Superblock,
    /// Which copy it was read from.
    pub from: Copy,
    /// See [`Chosen::newest`].
    pub newest: u64,
    /// What this program may do with it.
    pub access: Access,
}

/// Why a device is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProbeError {
    /// Too small to hold the metadata.
    #[error("the device has {0} bytes, too few for a leg")]
    TooSmall(u64),
    /// Somebody else's data.
    #[error(
        "the device holds {0}: give another one, or wipe its first 256 KiB and last 128 KiB if nobody needs the data"
    )]
    Foreign(ForeignContent),
    /// A leg of another array.
    #[error("the device is a leg of array {name} ({array}), not of the expected array {expected}")]
    OtherArray {
        /// The array that it belongs to.
        array: Uuid,
        /// That array's name.
        name: String,
        /// The array that was expected.
        expected: Uuid,
    },
    /// Both superblock slots damaged.
    #[error("both superblocks of the leg are damaged{}: restore them, or replace the leg", .tail.as_ref().map_or("", |_| " (the copy at the end is whole)"))]
    Torn {
        /// The third copy, if it is whole.
        tail: Option<Box<Superblock>>,
    },
    /// Of a newer or unknown format.
    #[error(transparent)]
    Unusable(SuperblockError),
    /// The device has shrunk below the leg on it.
    #[error("the leg needs {needed} bytes but the device has {leg_size}: it has shrunk")]
    Shrunk {
        /// The device's size.
        leg_size: u64,
        /// What the superblock says.
        needed: u64,
    },
}

/// Says what is on a device. `expected` is the array that it should belong to, where that is known.
///
/// # Panics
/// When the image's parts have not the lengths that the leg size asks for: the caller's mistake.
pub fn classify(image: &Image<'_>, expected: Option<Uuid>) -> LegFound {
    if image.leg_size < HEAD_LEN + TAIL_LEN {
        return LegFound::Refused(ProbeError::TooSmall(image.leg_size));
    }
    assert_eq!(
        (image.head.len() as u64, image.tail.len() as u64),
        (HEAD_LEN, TAIL_LEN),
        "head and tail of the device"
    );
    match image.copies().choose() {
        Ok(chosen) => check(image, chosen, expected),
        Err(NoSuperblock::Absent) => image.without_superblock(),
        Err(NoSuperblock::Torn { tail }) => LegFound::Refused(ProbeError::Torn { tail }),
        Err(NoSuperblock::Unusable(error)) => LegFound::Refused(ProbeError::Unusable(error)),
    }
}

fn check(image: &Image<'_>, chosen: Chosen, expected: Option<Uuid>) -> LegFound {
    let Chosen { superblock, from, newest } = chosen;
    if let Some(expected) = expected.filter(|expected| *expected != superblock.array) {
        let (array, name) = (superblock.array, superblock.name.as_str().to_owned());
        return LegFound::Refused(ProbeError::OtherArray { array, name, expected });
    }
    let needed = superblock.layout.leg_size;
    if image.leg_size < needed {
        return LegFound::Refused(ProbeError::Shrunk { leg_size: image.leg_size, needed });
    }
    let access = superblock.features.access();
    LegFound::Leg(Box::new(FoundLeg { superblock, from, newest, access }))
}

impl Image<'_> {
    fn copies(&self) -> Copies {
        let slot = |seq| self.head_block(Layout::superblock_slot(seq));
        let tail: &Block = self.tail[self.tail.len() - BLOCK_SIZE..].try_into().expect("a whole block");
        Copies::read(slot(0), slot(1), tail, self.leg_size)
    }

    fn head_block(&self, offset: u64) -> &Block {
        let offset = usize::try_from(offset).expect("inside the head");
        self.head[offset..offset + BLOCK_SIZE].try_into().expect("a whole block")
    }

    fn without_superblock(&self) -> LegFound {
        match foreign::look(self) {
            Some(content) => LegFound::Refused(ProbeError::Foreign(content)),
            None if is_unused(self.head) && is_zero(self.tail) => LegFound::Blank,
            None => LegFound::Refused(ProbeError::Foreign(ForeignContent::Unknown)),
        }
    }
}

const _: () = assert!(MD_OFFSET < SUPERBLOCK_OFFSET);
