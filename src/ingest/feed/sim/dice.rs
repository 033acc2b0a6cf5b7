//! The random generator: a seeded PCG and the few distributions of the market, all in integers.
//!
//! The same seed gives the same draws on every machine: no logarithm or exponential of the platform takes part.
//! Cost: some 2 ns a draw.

use rand::{Rng, SeedableRng};
use rand_distr::Distribution;
use rand_distr::weighted::WeightedAliasIndex;
use rand_pcg::Pcg64Mcg;

/// Quantiles 0/64, 1/64 … 64/64 of a log-normal of median 256 and sigma 1, the ends cut at 0.4 % and 99.6 %:
/// `256 × exp(normal quantile)`. Its mean is 1.63 medians.
const LOG_NORMAL: [u16; 65] = [
    18, 30, 40, 48, 55, 62, 69, 75, 81, 87, 93, 99, 105, 112, 118, 124, 130, 137, 143, 150, 157, 164, 171, 179, 186,
    194, 202, 210, 219, 228, 237, 246, 256, 266, 277, 288, 300, 312, 325, 338, 352, 367, 383, 400, 417, 436, 457, 479,
    503, 528, 556, 587, 622, 660, 703, 752, 809, 876, 956, 1057, 1187, 1368, 1649, 2206, 3631,
];

/// A seeded random generator.
pub(super) struct Dice(Pcg64Mcg);

impl Dice {
    /// The generator of this seed; `stream` distinguishes the users of one seed.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        // The odd constant is 2^64 over the golden ratio: neighbouring seeds and streams start far apart.
        Self(Pcg64Mcg::seed_from_u64(seed ^ stream.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
    }

    /// A number from 0 to `bound - 1`. The bias of the product is below `bound / 2^32`, which no chart shows.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        (((self.0.next_u64() >> 32) * u64::from(bound)) >> 32) as u32
    }

    /// A number from `least` to `most`, both included.
    pub(super) fn between(&mut self, least: u32, most: u32) -> u32 {
        least + self.below(most - least + 1)
    }

    /// True `chances` times in 1024.
    pub(super) fn chance(&mut self, chances: i64) -> bool {
        i64::from(self.below(1024)) < chances
    }

    /// A log-normal size around `median`, at least 1.
    pub(super) fn size(&mut self, median: i64) -> i64 {
        let bits = self.below(64 * 256);
        let (at, part) = ((bits >> 8) as usize, i64::from(bits & 0xFF));
        let (low, high) = (i64::from(LOG_NORMAL[at]), i64::from(LOG_NORMAL[at + 1]));
        let factor = low * 256 + (high - low) * part;
        (median * factor / (256 * 256)).max(1)
    }

    /// A weighted index.
    pub(super) fn pick(&mut self, weights: &WeightedAliasIndex<u64>) -> usize {
        weights.sample(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_log_normal_around_the_median() {
        let mut dice = Dice::new(7, 0);
        let mut sizes: Vec<i64> = (0..20_000).map(|_| dice.size(1000)).collect();
        sizes.sort_unstable();
        let (low, median, high) = (sizes[3173], sizes[10_000], sizes[16_827]);
        assert!((950..=1050).contains(&median), "median {median}");
        // One sigma to either side is a factor of e.
        assert!((345..=390).contains(&low) && (2580..=2860).contains(&high), "sigma from {low} to {high}");
        assert!((0..1000).all(|_| dice.size(1) >= 1));
    }

    #[test]
    fn bounds_are_kept_and_reached() {
        let mut dice = Dice::new(1, 1);
        let rolls: Vec<u32> = (0..1000).map(|_| dice.between(3, 5)).collect();
        assert_eq!((rolls.iter().min(), rolls.iter().max()), (Some(&3), Some(&5)));
        assert!(!(0..1000).any(|_| dice.chance(0)) && (0..1000).all(|_| dice.chance(1024)));
    }
}
