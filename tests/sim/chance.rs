//! The one source of randomness of a world.
//!
//! SplitMix64 (Steele, Lea, Flood 2014): small, and the same numbers for the same seed on every machine and in every
//! version of every library.

use std::time::Duration;

/// Random numbers from a seed.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x5eed_5eed_5eed_5eed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// In 0..n.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub fn happens(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    pub fn between(&mut self, least: f64, most: f64) -> f64 {
        least + (most - least) * self.unit()
    }

    /// As likely in each power of ten: for what may be small or large.
    pub fn spread(&mut self, least: f64, most: f64) -> f64 {
        self.between(least.ln(), most.ln()).exp()
    }

    pub fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_micros((self.between(least as f64, most as f64) * 1000.0) as u64)
    }

    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize].clone()
    }

    /// Time to the next of events that come `per_second` times a second, independently.
    pub fn pause(&mut self, per_second: f64) -> Duration {
        Duration::from_secs_f64((-(1.0 - self.unit()).ln() / per_second).clamp(1e-6, 3600.0))
    }
}
