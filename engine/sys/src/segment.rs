//! Bytes to send on a socket, owned until they are sent.

use crate::pool::Buf;

/// Bytes to send, owned by whoever sends them until they are gone.
#[derive(Clone, Debug)]
pub enum Segment {
    /// Up to [`Segment::INLINE_MAX`] bytes by value: headers, digests, padding.
    Inline {
        /// The bytes; only the first `len` count.
        bytes: [u8; Segment::INLINE_MAX],
        /// How many of them to send.
        len: u8,
    },
    /// A shared frame, sent without a copy in user space.
    Frame(Buf),
}

impl Segment {
    /// The longest inline segment: a basic header segment, an additional header segment and two digests.
    pub const INLINE_MAX: usize = 64;

    /// An inline segment.
    ///
    /// # Panics
    /// When `bytes` is longer than [`Segment::INLINE_MAX`].
    pub fn inline(bytes: &[u8]) -> Self {
        let mut array = [0; Self::INLINE_MAX];
        array[..bytes.len()].copy_from_slice(bytes);
        Self::Inline { bytes: array, len: u8::try_from(bytes.len()).expect("INLINE_MAX fits in u8") }
    }

    /// The bytes to send.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Inline { bytes, len } => &bytes[..usize::from(*len)],
            Self::Frame(buf) => buf,
        }
    }
}
