//! Things with shares: `read:70,write:30`, `4k:70,64k:30`.

use core::fmt;
use core::str::FromStr;

use engine::Prng;
use thiserror::Error;

/// Values, each with its share. Never empty, and no share is zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weighted<T> {
    entries: Vec<(T, u32)>,
    total: u64,
}

/// Not a list of values with shares.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WeightedError {
    /// A value is none, with the reason in words.
    #[error("{0}")]
    Value(String),
    /// A share is no whole number above zero.
    #[error("{0:?} is no share: use a whole number above zero, as in NAME:70")]
    Share(String),
    /// A value is named twice.
    #[error("{0} is named twice")]
    Twice(String),
}

impl<T> Weighted<T> {
    /// The one value, always.
    pub fn only(value: T) -> Self {
        Self { entries: vec![(value, 1)], total: 1 }
    }

    /// The values.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|(value, _)| value)
    }

    /// One of the values, each as often as its share says.
    pub fn pick(&self, prng: &mut Prng) -> &T {
        let [(first, _)] = self.entries.as_slice() else { return self.pick_of_many(prng) };
        first
    }

    fn pick_of_many(&self, prng: &mut Prng) -> &T {
        let mut at = prng.below(self.total);
        let one = self.entries.iter().find(|(_, share)| {
            let share = u64::from(*share);
            let here = at < share;
            at = at.wrapping_sub(share);
            here
        });
        &one.expect("the shares' sum is the total").0
    }
}

impl<T: FromStr<Err: fmt::Display> + PartialEq + fmt::Display> FromStr for Weighted<T> {
    type Err = WeightedError;

    fn from_str(text: &str) -> Result<Self, WeightedError> {
        let mut entries: Vec<(T, u32)> = Vec::new();
        for part in text.split(',') {
            let (name, share) = part.trim().split_once(':').unwrap_or((part.trim(), "1"));
            let value: T = name.parse().map_err(|error: T::Err| WeightedError::Value(error.to_string()))?;
            let share = share.trim_end_matches('%').parse().ok().filter(|share| *share > 0);
            let share = share.ok_or_else(|| WeightedError::Share(part.to_owned()))?;
            if entries.iter().any(|(other, _)| *other == value) {
                return Err(WeightedError::Twice(value.to_string()));
            }
            entries.push((value, share));
        }
        let total = entries.iter().map(|(_, share)| u64::from(*share)).sum();
        Ok(Self { entries, total })
    }
}

impl<T: fmt::Display> fmt::Display for Weighted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(only, _)] = self.entries.as_slice() {
            return only.fmt(f);
        }
        for (index, (value, share)) in self.entries.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{value}:{share}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ByteSize, Kind};
    use super::*;

    #[test]
    fn lists_parse_or_are_refused() {
        let show = |text: &str| text.parse::<Weighted<Kind>>().map(|mix| mix.to_string());
        assert_eq!(show("read:70,write:30").as_deref(), Ok("read:70,write:30"));
        assert_eq!(show("read:70%, write:30%").as_deref(), Ok("read:70,write:30"));
        assert_eq!(show("write:5").as_deref(), Ok("write"));
        assert_eq!(show("read,write:0"), Err(WeightedError::Share("write:0".into())));
        assert_eq!(show("read,read:2"), Err(WeightedError::Twice("read".into())));
        assert!(matches!(show("reed"), Err(WeightedError::Value(_))));
        assert!(matches!(show(""), Err(WeightedError::Value(_))));
        assert_eq!("4k:70,64k:30".parse::<Weighted<ByteSize>>().expect("sizes").to_string(), "4k:70,64k:30");
    }
}
