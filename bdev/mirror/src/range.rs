//! Runs of bytes in the data area of an array, and their rounding to a unit (granule, extent).
//!
//! All positions are bytes from the start of the *data area*, the same on both legs whatever their data
//! offsets are.

use core::fmt;

/// A run of bytes in the data area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// Number of bytes; may be zero.
    pub len: u64,
}

impl ByteRange {
    /// The run of `len` bytes at `start`.
    pub const fn new(start: u64, len: u64) -> Self {
        Self { start, len }
    }

    /// One past the last byte, saturating: a range past the end of all addresses is caught by the first bound
    /// check.
    pub const fn end(self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// True when it holds no byte.
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// True when the two runs share a byte.
    pub const fn overlaps(self, other: Self) -> bool {
        self.len != 0 && other.len != 0 && self.start < other.end() && other.start < self.end()
    }

    /// The units of `1 << shift` bytes that it touches, even in part.
    pub const fn touched(self, shift: u32) -> UnitRange {
        if self.len == 0 {
            return UnitRange { first: self.start >> shift, count: 0 };
        }
        let first = self.start >> shift;
        UnitRange { first, count: ((self.end() - 1) >> shift) - first + 1 }
    }

    /// The units of `1 << shift` bytes that it covers whole. In an area of `area` bytes whose last unit is
    /// short, a range that reaches the end covers that unit.
    pub const fn covered(self, shift: u32, area: u64) -> UnitRange {
        let first = self.start.div_ceil(1 << shift);
        let past = if self.end() >= area { area.div_ceil(1 << shift) } else { self.end() >> shift };
        UnitRange { first, count: past.saturating_sub(first) }
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.start, self.len)
    }
}

/// A run of equal units: granules of the bitmap or extents of the intent log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitRange {
    /// First unit.
    pub first: u64,
    /// Number of units.
    pub count: u64,
}

impl UnitRange {
    /// One past the last unit.
    pub const fn end(self) -> u64 {
        self.first + self.count
    }

    /// Its bytes, cut off at the end of an area of `area` bytes.
    pub fn bytes(self, shift: u32, area: u64) -> ByteRange {
        let start = (self.first << shift).min(area);
        ByteRange::new(start, (self.end() << shift).min(area) - start)
    }

    /// The units, in order.
    pub fn iter(self) -> core::ops::Range<u64> {
        self.first..self.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touched_rounds_out_and_covered_rounds_in() {
        let range = ByteRange::new(100, 200);
        assert_eq!(range.touched(6), UnitRange { first: 1, count: 4 });
        assert_eq!(range.covered(6, 1000), UnitRange { first: 2, count: 2 });
        assert_eq!(ByteRange::new(64, 1).touched(6), UnitRange { first: 1, count: 1 });
        assert_eq!(ByteRange::new(65, 62).covered(6, 1000).count, 0);
        assert_eq!(ByteRange::new(64, 0).touched(6).count, 0);
    }

    #[test]
    fn a_range_to_the_end_covers_the_short_last_unit() {
        assert_eq!(ByteRange::new(64, 36).covered(6, 100), UnitRange { first: 1, count: 1 });
        assert_eq!(UnitRange { first: 1, count: 1 }.bytes(6, 100), ByteRange::new(64, 36));
        assert_eq!(ByteRange::new(64, 35).covered(6, 100).count, 0);
    }
}
