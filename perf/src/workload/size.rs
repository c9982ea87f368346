//! Sizes in bytes as people write them: `512`, `4k`, `1m`, `2g`.

use core::fmt;
use core::str::FromStr;

use thiserror::Error;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

/// Not a size.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no size: use bytes, or a number with k, m, g or t (powers of 1024)")]
pub struct ByteSizeError(String);

const UNITS: [(char, u32); 4] = [('t', 40), ('g', 30), ('m', 20), ('k', 10)];

impl ByteSize {
    /// So many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// In bytes.
    pub fn bytes(&self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let lower = text.trim().to_ascii_lowercase();
        let bare = lower.trim_end_matches("ib").trim_end_matches('b');
        let (number, shift) = UNITS
            .iter()
            .find_map(|(letter, shift)| Some((bare.strip_suffix(*letter)?, *shift)))
            .unwrap_or((bare, 0));
        let parsed = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
        parsed.map(Self).ok_or_else(|| ByteSizeError(text.to_owned()))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (letter, shift) in UNITS {
            if self.0 > 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{letter}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse_as_they_are_shown() {
        for (text, bytes) in [("512", 512), ("4k", 4096), ("64KiB", 65_536), ("1M", 1 << 20), ("3g", 3 << 30)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for bytes in [0, 1, 1023, 1024, 1536, 1 << 20, 5 << 30, u64::MAX] {
            assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
        }
        for bad in ["", "k", "-1", "4.5k", "99999999t", "4x"] {
            bad.parse::<ByteSize>().expect_err(bad);
        }
    }
}
