//! Where requests go.

use core::fmt;
use core::str::FromStr;

use thiserror::Error;

/// The exponent of a zipf distribution, from 0 (uniform) to 10. Equal exponents are equal texts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Theta(pub f64);

/// Where requests go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pattern {
    /// One after the other, from the beginning again at the end.
    Sequential,
    /// Everywhere alike.
    Random,
    /// The place of rank k is asked for with a frequency proportional to `k^-theta`.
    Zipf(Theta),
}

/// What YCSB and most papers take.
const THETA: f64 = 0.99;
const THETA_MAX: f64 = 10.0;

/// Not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no pattern: use sequential, random, zipf or zipf:THETA with a THETA above 0, at most 10")]
pub struct PatternError(String);

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        match text {
            "sequential" | "seq" => Ok(Self::Sequential),
            "random" | "rand" => Ok(Self::Random),
            "zipf" => Ok(Self::Zipf(Theta(THETA))),
            _ => {
                let theta = text.strip_prefix("zipf:").and_then(|theta| theta.parse::<f64>().ok());
                let theta = theta.filter(|theta| *theta > 0.0 && *theta <= THETA_MAX);
                theta.map(|theta| Self::Zipf(Theta(theta))).ok_or_else(|| PatternError(text.to_owned()))
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sequential => f.write_str("sequential"),
            Self::Random => f.write_str("random"),
            Self::Zipf(theta) => write!(f, "zipf:{}", theta.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_parse_as_they_are_shown() {
        for (text, shown) in
            [("seq", "sequential"), ("rand", "random"), ("zipf", "zipf:0.99"), ("zipf:1.2", "zipf:1.2")]
        {
            let pattern: Pattern = text.parse().expect(text);
            assert_eq!((pattern.to_string().as_str(), shown.parse()), (shown, Ok(pattern)));
        }
        for bad in ["", "zipf:", "zipf:0", "zipf:-1", "zipf:11", "zipf:NaN", "gauss"] {
            bad.parse::<Pattern>().expect_err(bad);
        }
    }
}
