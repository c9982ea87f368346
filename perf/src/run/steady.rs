//! Whether a rate has settled: the criteria of SNIA's Solid State Storage Performance Test Specification over the last five windows.

/// Windows that are looked at.
pub const WINDOWS: usize = 5;
/// Largest and smallest rate may differ by this share of the mean.
const RANGE_MAX: f64 = 0.20;
/// The line of best fit may rise or fall over the windows by this share of the mean.
const SLOPE_MAX: f64 = 0.10;

/// What the last windows say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Steadiness {
    /// There are not enough windows.
    TooShort,
    /// Within the bounds.
    Steady(Spread),
    /// Beyond them.
    Unsteady(Spread),
}

/// How far windows differ, as shares of their mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Largest less smallest.
    pub range: f64,
    /// How far the line of best fit rises or falls from the first to the last.
    pub slope: f64,
}

impl Steadiness {
    /// Of these windows' rates, the oldest first.
    pub fn of(rates: &[f64]) -> Self {
        let Some(last) = rates.len().checked_sub(WINDOWS).map(|first| &rates[first..]) else {
            return Self::TooShort;
        };
        let spread = Spread::of(last);
        // A rate of zero is no steady state: the comparison is false for what is no number.
        let within = spread.range <= RANGE_MAX && spread.slope <= SLOPE_MAX;
        if within { Self::Steady(spread) } else { Self::Unsteady(spread) }
    }

    /// As results show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooShort => "too-short",
            Self::Steady(_) => "steady",
            Self::Unsteady(_) => "unsteady",
        }
    }
}

impl Spread {
    fn of(rates: &[f64]) -> Self {
        let places = || (0_u32..).map(f64::from);
        let count = places().nth(rates.len()).unwrap_or_default();
        let mean = rates.iter().sum::<f64>() / count;
        let middle = (count - 1.0) / 2.0;
        let (top, bottom) = places().zip(rates).fold((0.0, 0.0), |(top, bottom), (place, rate)| {
            (top + (place - middle) * (rate - mean), bottom + (place - middle).powi(2))
        });
        let largest = rates.iter().copied().fold(f64::MIN, f64::max);
        let smallest = rates.iter().copied().fold(f64::MAX, f64::min);
        Self { range: (largest - smallest) / mean, slope: (top / bottom * (count - 1.0)).abs() / mean }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_neither_jumps_nor_drifts_is_steady() {
        let name = |rates: &[f64]| Steadiness::of(rates).name();
        assert_eq!(name(&[100.0; 4]), "too-short");
        assert_eq!(name(&[100.0, 104.0, 97.0, 101.0, 99.0]), "steady");
        assert_eq!(name(&[9.0, 100.0, 104.0, 97.0, 101.0, 99.0]), "steady", "what is older does not count");
        assert_eq!(name(&[100.0, 130.0, 97.0, 101.0, 99.0]), "unsteady", "a jump");
        assert_eq!(name(&[94.0, 97.0, 100.0, 103.0, 106.0]), "unsteady", "a drift");
        assert_eq!(name(&[0.0; 5]), "unsteady", "nothing happens");
    }
}
