//! The one source of randomness of a drill.
//!
//! Pure. SplitMix64 (Steele, Lea, Flood 2014): small, and the same numbers for the same seed in every version of every
//! library.

use std::time::Duration;

/// Random numbers from a seed.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The numbers of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5eed_5eed_5eed_5eed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A whole number below `n`; 0 where that is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.bits() % n.max(1)
    }

    /// True in so many of all cases.
    pub fn happens(&mut self, share: f64) -> bool {
        share >= 1.0 || self.unit() < share
    }

    /// A span between two.
    pub fn span(&mut self, least: Duration, most: Duration) -> Duration {
        least + most.saturating_sub(least).mul_f64(self.unit())
    }

    /// Time to the next of events that come `per_second` times a second, independently.
    pub fn pause(&mut self, per_second: f64) -> Duration {
        Duration::from_secs_f64((-(1.0 - self.unit()).ln() / per_second).clamp(1e-6, 3600.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_row_of_numbers_and_another_seed_another() {
        let row = |seed| {
            let mut chance = Chance::new(seed);
            (0..4).map(|_| chance.bits()).collect::<Vec<_>>()
        };
        assert_eq!(row(1), row(1));
        assert_ne!(row(1), row(2));
    }

    #[test]
    fn pauses_come_to_the_rate_that_was_asked_for() {
        let mut chance = Chance::new(1);
        let span: Duration = (0..10_000).map(|_| chance.pause(50.0)).sum();
        assert!((span.as_secs_f64() - 200.0).abs() < 10.0, "{span:?}");
    }
}
