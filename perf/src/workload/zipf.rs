//! Zipf's distribution over any number of ranks, without a table: rejection-inversion after W. Hörmann and G. Derflinger,
//! "Rejection-inversion to generate variates from monotone discrete distributions" (1996).

use engine::Prng;

/// Draws ranks from zero on: rank k with a frequency proportional to `(k + 1)^-theta`.
#[derive(Clone, Debug)]
pub struct Zipf {
    theta: f64,
    count: f64,
    /// Where the hat's integral begins and ends.
    first: f64,
    last: f64,
    /// A draw that is at most this far left of its rank is taken at once.
    squeeze: f64,
}

impl Zipf {
    /// Ranks `0..count`; `theta` is above zero.
    ///
    /// # Panics
    /// When there is no rank.
    #[expect(clippy::cast_precision_loss, reason = "more than 2^53 ranks are not told apart")]
    pub fn new(count: u64, theta: f64) -> Self {
        assert!(count > 0, "there is nothing to draw from");
        let mut zipf = Self { theta, count: count as f64, first: 0.0, last: 0.0, squeeze: 0.0 };
        zipf.first = zipf.integral(1.5) - 1.0;
        zipf.last = zipf.integral(zipf.count + 0.5);
        zipf.squeeze = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.density(2.0));
        zipf
    }

    /// One rank.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between one and the count")]
    pub fn sample(&self, prng: &mut Prng) -> u64 {
        loop {
            let area = self.last + unit(prng) * (self.first - self.last);
            let x = self.inverse(area);
            let rank = x.round().clamp(1.0, self.count);
            if rank - x <= self.squeeze || area >= self.integral(rank + 0.5) - self.density(rank) {
                return rank as u64 - 1;
            }
        }
    }

    fn density(&self, x: f64) -> f64 {
        (-self.theta * x.ln()).exp()
    }

    /// The integral of the density from one on: `(x^(1-theta) - 1) / (1-theta)`, and the logarithm where theta is one.
    fn integral(&self, x: f64) -> f64 {
        let log = x.ln();
        let power = (1.0 - self.theta) * log;
        // Near zero the quotient of two tiny numbers is one.
        if power.abs() > 1e-8 { power.exp_m1() / power * log } else { log * (1.0 + power / 2.0) }
    }

    fn inverse(&self, area: f64) -> f64 {
        let power = (area * (1.0 - self.theta)).max(-1.0);
        let log = if power.abs() > 1e-8 { power.ln_1p() / power * area } else { area * (1.0 - power / 2.0) };
        log.exp()
    }
}

/// A number from zero up to, and without, one.
#[expect(clippy::cast_precision_loss, reason = "53 bits are what a number of this kind holds")]
pub(crate) fn unit(prng: &mut Prng) -> f64 {
    (prng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// A permutation of `0..count`: popular ranks do not lie side by side.
#[derive(Clone, Debug)]
pub struct Scatter {
    count: u64,
    mask: u64,
    shift: u32,
}

impl Scatter {
    /// Of `0..count`.
    pub fn new(count: u64) -> Self {
        let bits = 64 - count.saturating_sub(1).leading_zeros();
        let mask = if bits == 0 { 0 } else { u64::MAX >> (64 - bits) };
        Self { count, mask, shift: (bits / 2).max(1) }
    }

    /// Where a rank lies. Each step is a bijection of the power of two that holds the count; what falls outside goes on.
    pub fn place(&self, rank: u64) -> u64 {
        let mut at = rank;
        loop {
            at = at.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) & self.mask;
            at ^= at >> self.shift;
            at = at.wrapping_mul(0xbf58_476d_1ce4_e5b9) & self.mask;
            if at < self.count {
                return at;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every rank's share of many draws against its probability, for exponents below, at and above one.
    #[test]
    fn ranks_are_drawn_as_often_as_they_should() {
        const RANKS: u32 = 1000;
        const DRAWS: u32 = 400_000;
        for theta in [0.2, 0.99, 1.0, 1.3] {
            let zipf = Zipf::new(u64::from(RANKS), theta);
            let mut prng = Prng::from_seed(17);
            let mut counts = vec![0_u32; RANKS as usize];
            for _ in 0..DRAWS {
                counts[zipf.sample(&mut prng) as usize] += 1;
            }
            let weight = |rank: u32| f64::from(rank + 1).powf(-theta);
            let total: f64 = (0..RANKS).map(weight).sum();
            // Pearson's statistic: about one for each degree of freedom, with a deviation of sqrt(2 / 999).
            let statistic: f64 = (0..RANKS)
                .map(|rank| {
                    let expected = f64::from(DRAWS) * weight(rank) / total;
                    (f64::from(counts[rank as usize]) - expected).powi(2) / expected
                })
                .sum();
            let each = statistic / f64::from(RANKS - 1);
            assert!((0.8..1.25).contains(&each), "theta {theta}: {each} for each degree of freedom");
        }
    }

    #[test]
    fn one_rank_and_very_many_are_in_range() {
        let mut prng = Prng::from_seed(1);
        assert_eq!(Zipf::new(1, 0.99).sample(&mut prng), 0);
        let many = Zipf::new(1 << 40, 0.5);
        assert!((0..10_000).all(|_| many.sample(&mut prng) < 1 << 40));
    }

    #[test]
    fn scattering_is_a_permutation() {
        for count in [1, 2, 3, 1000, 1024, 1025] {
            let scatter = Scatter::new(count);
            let places: BTreeSet<u64> = (0..count).map(|rank| scatter.place(rank)).collect();
            assert_eq!((places.len() as u64, places.last()), (count, Some(&(count - 1))), "of {count}");
        }
    }
}
