//! CRC32C digests and padding (RFC 7143 sections 11.2.3 and 13.1).

/// Bytes that pad a data segment of `len` bytes to a multiple of four.
pub const fn padding(len: usize) -> usize {
    len.wrapping_neg() & 3
}

/// CRC32C of `bytes`, continued from `crc` (zero to begin).
pub fn append(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}

/// What follows a data segment on the wire: padding and, with a digest, its four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    bytes: [u8; 7],
    len: usize,
}

impl Trailer {
    /// The trailer of `data`; `digest` says whether the session has data digests.
    pub fn of(data: &[u8], digest: Digest) -> Self {
        Self::of_parts([data, &[]], digest)
    }

    /// The trailer of data that are in two places.
    pub fn of_parts(parts: [&[u8]; 2], digest: Digest) -> Self {
        let data_len = parts[0].len() + parts[1].len();
        let pad = padding(data_len);
        let mut bytes = [0; 7];
        let mut len = pad;
        if digest == Digest::Crc32c && data_len > 0 {
            let crc = append(append(append(0, parts[0]), parts[1]), &bytes[..pad]);
            bytes[pad..pad + 4].copy_from_slice(&crc.to_le_bytes());
            len += 4;
        }
        Self { bytes, len }
    }

    /// The bytes to send; may be empty.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Whether a header or data segment carries a digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Digest {
    /// None.
    #[default]
    None,
    /// CRC32C.
    Crc32c,
}

impl Digest {
    /// Bytes on the wire.
    pub const fn len(self) -> usize {
        match self {
            Self::None => 0,
            Self::Crc32c => 4,
        }
    }

    /// As the keys of a login name it (RFC 7143 section 13.1).
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Crc32c => "CRC32C",
        }
    }

    /// True without a digest.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_7143_appendix_a_4() {
        //= rfc7143#appendix-A.4: 32 bytes of zeroes give aa 36 91 8a on the wire.
        assert_eq!(append(0, &[0; 32]).to_le_bytes(), [0xaa, 0x36, 0x91, 0x8a]);
        assert_eq!(append(0, &[0xff; 32]).to_le_bytes(), [0x43, 0xab, 0xa8, 0x62]);
    }

    #[test]
    fn a_trailer_pads_to_four_and_covers_the_padding() {
        assert_eq!(Trailer::of(b"", Digest::Crc32c).as_bytes(), b"");
        assert_eq!(Trailer::of(b"abc", Digest::None).as_bytes(), [0]);
        assert_eq!(Trailer::of_parts([b"a", b"bc"], Digest::Crc32c), Trailer::of(b"abc", Digest::Crc32c));
        let trailer = Trailer::of(b"abc", Digest::Crc32c);
        assert_eq!(trailer.as_bytes()[1..], append(0, b"abc\0").to_le_bytes());
    }
}
