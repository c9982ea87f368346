//! Latencies in SPDK's buckets, for tools that read its histograms.
//!
//! A value of `n` significant bits falls into range `n - granularity` (0 when there are fewer); each range has
//! `2^granularity` buckets of equal width. Ranges below the lowest and above the highest one that are kept count in its first
//! and last bucket.

use super::OpKind;

/// What to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistogramConfig {
    /// One kind of operation; all when absent.
    pub kind: Option<OpKind>,
    /// Buckets of each range, as a power of two: 1 to 12.
    pub granularity: u32,
    /// Lowest value of interest in nanoseconds.
    pub min_nanos: u64,
    /// Values of interest are below this.
    pub max_nanos: u64,
}

impl Default for HistogramConfig {
    fn default() -> Self {
        Self { kind: None, granularity: 7, min_nanos: 1000, max_nanos: 120_000_000_000 }
    }
}

impl HistogramConfig {
    /// Whether it makes sense: it names a granularity of 1 to 12 and a range that is not empty.
    pub fn is_valid(&self) -> bool {
        (1..=12).contains(&self.granularity) && self.min_nanos < self.max_nanos
    }

    fn range_of(&self, value: u64) -> u32 {
        (u64::BITS - value.leading_zeros()).saturating_sub(self.granularity)
    }
}

/// Counts in SPDK's buckets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeHistogram {
    config: HistogramConfig,
    min_range: u32,
    max_range: u32,
    counts: Vec<u64>,
}

impl RangeHistogram {
    /// An empty one.
    ///
    /// # Panics
    /// When the config is not valid: the caller's mistake.
    pub fn new(config: HistogramConfig) -> Self {
        assert!(config.is_valid(), "{config:?}");
        let min_range = config.range_of(config.min_nanos);
        let max_range = config.range_of(config.max_nanos - 1);
        let counts = vec![0; ((max_range - min_range + 1) as usize) << config.granularity];
        Self { config, min_range, max_range, counts }
    }

    /// What is counted.
    pub fn config(&self) -> HistogramConfig {
        self.config
    }

    /// The lowest range and the highest.
    pub fn ranges(&self) -> (u32, u32) {
        (self.min_range, self.max_range)
    }

    /// The counts, range by range.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    pub(super) fn record(&mut self, kind: OpKind, nanos: u64) {
        if self.config.kind.is_some_and(|wanted| wanted != kind) {
            return;
        }
        let per_range = 1u64 << self.config.granularity;
        let range = self.config.range_of(nanos);
        let index = match range {
            _ if range < self.min_range => 0,
            _ if range > self.max_range => self.counts.len() - 1,
            _ => {
                let within = (nanos >> range.saturating_sub(1)) & (per_range - 1);
                ((range - self.min_range) as usize * per_range as usize) + within as usize
            }
        };
        self.counts[index] += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        if self.config == other.config {
            self.counts.iter_mut().zip(&other.counts).for_each(|(sum, more)| *sum += more);
        }
    }

    /// Where a bucket ends, in nanoseconds: its values are below.
    fn end_of(&self, index: usize) -> u64 {
        let granularity = self.config.granularity;
        let range = self.min_range + u32::try_from(index >> granularity).expect("few ranges");
        let within = (index as u64 & ((1 << granularity) - 1)) + 1;
        if range == 0 { within } else { (1 << (range + granularity - 1)) + (within << (range - 1)) }
    }

    /// How many values are in buckets that end at or below each of `borders` (nanoseconds); then how many there are.
    pub fn below(&self, borders: &[u64]) -> Vec<u64> {
        let up_to = |border: u64| {
            let within =
                self.counts.iter().enumerate().take_while(|(index, _)| self.end_of(*index) <= border);
            within.map(|(_, count)| count).sum()
        };
        borders.iter().map(|border| up_to(*border)).chain([self.counts.iter().sum()]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(granularity: u32, min_nanos: u64, max_nanos: u64) -> RangeHistogram {
        RangeHistogram::new(HistogramConfig { kind: None, granularity, min_nanos, max_nanos })
    }

    #[test]
    fn each_value_lies_before_its_buckets_end_and_not_before_the_one_before() {
        let shape = histogram(4, 1, u64::MAX);
        assert_eq!(shape.ranges(), (0, 60));
        for value in (0..400).chain((9..64).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 77])) {
            let mut one = shape.clone();
            one.record(OpKind::Read, value);
            let index = one.counts.iter().position(|count| *count == 1).expect("counted");
            assert!(index == 0 || one.end_of(index - 1) <= value, "{value} in bucket {index}");
            // The last bucket ends beyond 64 bits.
            assert!(index == one.counts.len() - 1 || value < one.end_of(index), "{value} in bucket {index}");
        }
    }

    #[test]
    fn what_is_outside_counts_at_the_edges() {
        let mut edges = histogram(7, 1000, 120_000_000_000);
        assert_eq!(edges.ranges(), (3, 30), "1 us has 10 bits, 2 minutes have 37");
        edges.record(OpKind::Read, 5);
        edges.record(OpKind::Read, u64::MAX);
        assert_eq!((edges.counts[0], edges.counts[edges.counts.len() - 1]), (1, 1));
    }

    #[test]
    fn borders_and_kinds_are_heeded() {
        let mut writes =
            RangeHistogram::new(HistogramConfig { kind: Some(OpKind::Write), ..HistogramConfig::default() });
        for micros in [50, 150, 250] {
            writes.record(OpKind::Write, micros * 1000);
            writes.record(OpKind::Read, micros * 1000);
        }
        assert_eq!(writes.below(&[100_000, 200_000, 1_000_000]), [1, 2, 3, 3]);
    }
}
