//! Which bytes of a buffer have arrived.
//!
//! What arrives in order from the beginning needs no memory but two numbers.

use alloc::vec::Vec;

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
        from < to && (from < self.end || self.beyond.iter().any(|(start, end)| from < *end && *start < to))
    }

    /// The range is there now; no part of it was.
    pub(crate) fn add(&mut self, from: u32, to: u32) {
        if from >= to {
            return;
        }
        if from != self.end {
            let at = self.beyond.partition_point(|(start, _)| *start < from);
            return self.beyond.insert(at, (from, to));
        }
        self.end = to;
        while self.beyond.first().is_some_and(|(start, _)| *start == self.end) {
            self.end = self.beyond.remove(0).1;
        }
    }

    /// How many bytes are there.
    pub(crate) fn len(&self) -> u32 {
        let beyond: u32 = self.beyond.iter().map(|(start, end)| end - start).sum();
        self.end - self.start + beyond
    }

    /// The end of the last range that is there.
    pub(crate) fn reach(&self) -> u32 {
        self.beyond.last().map_or(self.end, |(_, end)| *end)
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
        assert_eq!((coverage.len(), coverage.reach()), (150, 400));
        assert!(coverage.overlaps(240, 260) && coverage.overlaps(0, 1) && !coverage.overlaps(250, 300));
        assert!(!coverage.overlaps(320, 320));
        coverage.add(100, 200);
        assert_eq!(gaps(&coverage, 400), [(250, 300)]);
        coverage.add(250, 300);
        assert_eq!((gaps(&coverage, 400), coverage.len()), (Vec::new(), 300));
        assert_eq!(gaps(&coverage, 500), [(400, 500)]);
    }
}
