//! The ratio of two targets' medians over interleaved rounds, with a confidence interval. Pure.

use engine::Prng;

/// Resamples of a bootstrap.
const RESAMPLES: usize = 10_000;
/// On each side of the interval, this share of the resamples is outside.
const TAIL: f64 = 0.025;

/// A ratio and its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// Median of the second over median of the first.
    pub value: f64,
    /// The interval's lower end.
    pub low: f64,
    /// The interval's upper end.
    pub high: f64,
}

impl Ratio {
    /// What the interval says.
    pub fn verdict(&self) -> Verdict {
        if self.low > 1.0 {
            Verdict::Larger
        } else if self.high < 1.0 {
            Verdict::Smaller
        } else {
            Verdict::NotTold
        }
    }
}

/// What an interval says of two targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The second one's figure is larger.
    Larger,
    /// The second one's figure is smaller.
    Smaller,
    /// The rounds do not tell them apart.
    NotTold,
}

/// The median; not a number of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        even if even.is_multiple_of(2) => f64::midpoint(sorted[middle - 1], sorted[middle]),
        _ => sorted[middle],
    }
}

/// The ratio over rounds, each of which measured both targets one after the other: what the machine did to a round, it did to
/// both, and so rounds are resampled as pairs (percentile bootstrap). None where there is no round, or a median of zero.
pub fn ratio(rounds: &[(f64, f64)], seed: u64) -> Option<Ratio> {
    let of = |rounds: &[(f64, f64)]| {
        let (first, second): (Vec<f64>, Vec<f64>) = rounds.iter().copied().unzip();
        median(&second) / median(&first)
    };
    let value = of(rounds);
    if !value.is_finite() {
        return None;
    }
    let mut prng = Prng::from_seed(seed);
    let mut resample = || {
        let one = |_| rounds[usize::try_from(prng.below(rounds.len() as u64)).expect("a round")];
        of(&(0..rounds.len()).map(one).collect::<Vec<_>>())
    };
    let mut ratios: Vec<f64> = (0..RESAMPLES).map(|_| resample()).collect();
    ratios.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place in a list"
    )]
    let tail = (RESAMPLES as f64 * TAIL) as usize;
    Some(Ratio { value, low: ratios[tail], high: ratios[RESAMPLES - 1 - tail] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0, 2.0, 3.0])), (2.0, 2.5));
        assert!(median(&[]).is_nan() && ratio(&[], 1).is_none());
        assert!(ratio(&[(0.0, 1.0)], 1).is_none());
    }

    #[test]
    fn the_interval_holds_the_ratio_and_narrows_with_rounds() {
        let rounds = |count: u64| {
            let mut prng = Prng::from_seed(3);
            let mut noise = move || 1.0 + prng.below(400) as f64 / 1000.0;
            (0..count).map(|_| (100.0 * noise(), 150.0 * noise())).collect::<Vec<_>>()
        };
        let (few, many) = (ratio(&rounds(7), 1).expect("rounds"), ratio(&rounds(200), 1).expect("rounds"));
        assert!(many.low <= 1.5 && 1.5 <= many.high && many.verdict() == Verdict::Larger, "{many:?}");
        assert!(many.high - many.low < few.high - few.low, "{few:?} {many:?}");
        assert_eq!(ratio(&rounds(7), 1), Some(few), "the seed decides");
    }

    #[test]
    fn a_machine_that_is_slow_for_both_tells_nothing_of_either() {
        let rounds: Vec<(f64, f64)> = [10.0, 20.0, 5.0, 14.0, 9.0].map(|speed| (speed, speed)).to_vec();
        let same = ratio(&rounds, 1).expect("rounds");
        assert_eq!((same, same.verdict()), (Ratio { value: 1.0, low: 1.0, high: 1.0 }, Verdict::NotTold));
    }
}
