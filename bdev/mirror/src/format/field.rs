//! Named byte ranges of a metadata block: the one source of encoder, decoder and the tables in `FORMAT.md`.
//!
//! `fields!` lays fields one behind the other, so that no offset is written by hand and none can overlap.

use uuid::Uuid;

use super::Block;

/// A field of a metadata block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// First byte.
    pub offset: usize,
    /// Length in bytes.
    pub len: usize,
    /// Its meaning, as printed in `FORMAT.md`.
    pub meaning: &'static str,
}

impl Field {
    pub(crate) const fn end(&self) -> usize {
        self.offset + self.len
    }

    /// The `index`-th of equal parts of `len` bytes.
    pub(crate) const fn part(&self, index: usize, len: usize) -> Self {
        assert!((index + 1) * len <= self.len);
        Self { offset: self.offset + index * len, len, meaning: self.meaning }
    }

    /// A field given relative to the start of this one.
    pub(crate) const fn inner(&self, relative: Self) -> Self {
        assert!(relative.end() <= self.len);
        Self { offset: self.offset + relative.offset, ..relative }
    }

    /// The field's bytes.
    pub(crate) fn of<'a>(&self, block: &'a Block) -> &'a [u8] {
        &block[self.offset..self.end()]
    }

    fn array<const N: usize>(&self, block: &Block) -> [u8; N] {
        self.of(block).try_into().expect("a field is read with its own length")
    }

    pub(crate) fn u8(&self, block: &Block) -> u8 {
        self.array::<1>(block)[0]
    }

    pub(crate) fn u16(&self, block: &Block) -> u16 {
        u16::from_le_bytes(self.array(block))
    }

    pub(crate) fn u32(&self, block: &Block) -> u32 {
        u32::from_le_bytes(self.array(block))
    }

    pub(crate) fn u64(&self, block: &Block) -> u64 {
        u64::from_le_bytes(self.array(block))
    }

    pub(crate) fn uuid(&self, block: &Block) -> Uuid {
        Uuid::from_bytes(self.array(block))
    }

    /// Writes the bytes; they have the field's length.
    pub(crate) fn put(&self, block: &mut Block, bytes: &[u8]) {
        block[self.offset..self.end()].copy_from_slice(bytes);
    }
}

/// Declares `Field` constants one behind the other from a start offset, and the table of all of them.
macro_rules! fields {
    ($(#[$doc:meta])* $table:ident from $start:expr; $($name:ident: $len:expr, $meaning:literal;)+) => {
        fields!(@lay $start; $($name: $len, $meaning;)+);
        $(#[$doc])*
        pub const $table: &[$crate::format::field::Field] = &[$($name),+];
    };
    (@lay $start:expr;) => {};
    (@lay $start:expr; $name:ident: $len:expr, $meaning:literal; $($rest:tt)*) => {
        const $name: $crate::format::field::Field =
            $crate::format::field::Field { offset: $start, len: $len, meaning: $meaning };
        fields!(@lay $name.end(); $($rest)*);
    };
}
pub(crate) use fields;
