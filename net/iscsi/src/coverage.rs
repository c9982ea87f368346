//! Which bytes of a buffer have arrived.
//!
//! What arrives in order from the beginning needs no memory but two numbers.

use alloc::vec::Vec;

/// No end takes segments that are shorter at the most, in bytes (RFC 7143 section 13.12).
const SEGMENT_MIN: usize = 512;
/// Pieces that may be apart whatever the length.
const PIECES: usize = 16;

/// See the module. Ranges are half open and never overlap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coverage {
    start: u32,
    /// Everything from the start to here is there.
    end: u32,
    /// What is there beyond that, in order, apart from each other.
    beyond: Vec<(u32, u32)>,
}

impl Coverage {
    /// Nothing yet, of a buffer's part that begins at `start`.
    pub(crate) fn from(start: u32) -> Self {
        Self { start, end: start, beyond: Vec::new() }
    }

    /// True when some of the range is there, or lies before the start.
    pub(crate) fn overlaps(&self, from: u32, to: u32) -> bool {
        let next = self.beyond.partition_point(|(_, end)| *end <= from);
        from < to && (from < self.end || self.beyond.get(next).is_some_and(|(start, _)| *start < to))
    }

    /// The range is there now; no part of it was.
    pub(crate) fn add(&mut self, from: u32, to: u32) {
        if from >= to {
            return;
        }
        if from == self.end {
            self.end = to;
            if self.beyond.first().is_some_and(|(start, _)| *start == to) {
                self.end = self.beyond.remove(0).1;
            }
            return;
        }
        // It joins what it touches.
        let at = self.beyond.partition_point(|(start, _)| *start < from);
        let to = match self.beyond.get(at) {
            Some((start, _)) if *start == to => self.beyond.remove(at).1,
            _ => to,
        };
        match at.checked_sub(1).and_then(|before| self.beyond.get_mut(before)) {
            Some((_, end)) if *end == from => *end = to,
            _ => self.beyond.insert(at, (from, to)),
        }
    }

    /// True when it is in more pieces than the shortest segments can be, of `len` bytes (RFC 7143 section 13.12): memory has a limit.
    pub(crate) fn is_scattered(&self, len: u32) -> bool {
        self.beyond.len() > PIECES + len as usize / SEGMENT_MIN
    }

    /// How many bytes are there.
    pub(crate) fn len(&self) -> u32 {
        let beyond: u32 = self.beyond.iter().map(|(start, end)| end - start).sum();
        self.end - self.start + beyond
    }

    /// The end of what is there without a gap.
    pub(crate) fn front(&self) -> u32 {
        self.end
    }

    /// What is missing up to `to`.
    pub(crate) fn gaps(&self, to: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        let starts = self.beyond.iter().map(|(start, _)| *start).chain([to]);
        let ends = core::iter::once(self.end).chain(self.beyond.iter().map(|(_, end)| *end));
        ends.zip(starts).map(move |(from, until)| (from, until.min(to))).filter(|(from, until)| from < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(coverage: &Coverage, to: u32) -> Vec<(u32, u32)> {
        coverage.gaps(to).collect()
    }

    #[test]
    fn ranges_in_any_order_join() {
        let mut coverage = Coverage::from(100);
        assert_eq!(gaps(&coverage, 400), [(100, 400)]);
        coverage.add(300, 400);
        coverage.add(200, 250);
        assert_eq!(gaps(&coverage, 400), [(100, 200), (250, 300)]);
        assert_eq!((coverage.len(), coverage.front()), (150, 100));
        assert!(coverage.overlaps(240, 260) && coverage.overlaps(0, 1) && !coverage.overlaps(250, 300));
        assert!(!coverage.overlaps(320, 320));
        coverage.add(100, 200);
        assert_eq!(gaps(&coverage, 400), [(250, 300)]);
        coverage.add(250, 300);
        assert_eq!((gaps(&coverage, 400), coverage.len()), (Vec::new(), 300));
        assert_eq!(gaps(&coverage, 500), [(400, 500)]);
    }

    #[test]
    fn pieces_that_touch_are_one_and_there_is_an_end_to_those_that_do_not() {
        let mut coverage = Coverage::from(0);
        for at in (1..1000).rev() {
            coverage.add(at * 512, at * 512 + 512);
            assert_eq!(coverage.beyond.len(), 1);
        }
        coverage.add(0, 512);
        assert_eq!((coverage.front(), coverage.beyond.len()), (512_000, 0));
        let mut coverage = Coverage::from(0);
        let mut pieces = (1_u32..).map(|at| (at * 2, at * 2 + 1));
        while !coverage.is_scattered(8192) {
            let (from, to) = pieces.next().expect("endless");
            assert!(!coverage.overlaps(from - 1, to - 1) || from == 0);
            coverage.add(from, to);
        }
        assert_eq!(coverage.beyond.len(), 33);
        assert!(coverage.overlaps(2, 3) && coverage.overlaps(65, 67) && !coverage.overlaps(65, 66));
    }
}
