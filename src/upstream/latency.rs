//! How long a server takes to answer, and what follows from it.
//!
//! Pure. It is called latency and not round-trip time, since a forwarder's answer waits for others behind it: a slow
//! answer says little about the path. The estimate is a percentile of the last [`SAMPLES`] answers, so that a few
//! slow names neither move it far nor vanish from it.

use std::time::Duration;

/// Answers that the estimate looks back on.
pub const SAMPLES: usize = 64;
/// Answers below which nothing is known yet.
pub const SAMPLES_MIN: usize = 8;

/// The last answers' latencies.
#[derive(Clone, Debug, Default)]
pub struct Latency {
    micros: Vec<u32>,
    next: usize,
    p50: Duration,
    p95: Duration,
}

impl Latency {
    /// Learns one answer's latency.
    pub fn on_answer(&mut self, took: Duration) {
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        if self.micros.len() < SAMPLES {
            self.micros.push(micros);
        } else {
            self.micros[self.next] = micros;
        }
        self.next = (self.next + 1) % SAMPLES;
        // Every answer counts while few are known; sorting 64 numbers each eighth answer after that is cheap enough.
        if self.micros.len() < SAMPLES || self.next.is_multiple_of(8) {
            let mut sorted = self.micros.clone();
            sorted.sort_unstable();
            let at = |share: usize| Duration::from_micros(sorted[(sorted.len() - 1) * share / 100].into());
            (self.p50, self.p95) = (at(50), at(95));
        }
    }

    /// Are there enough answers to go by?
    pub fn is_known(&self) -> bool {
        self.micros.len() >= SAMPLES_MIN
    }

    /// The median; zero while no answer came.
    pub fn p50(&self) -> Duration {
        self.p50
    }

    /// The 95th percentile, while enough answers are known.
    pub fn p95(&self) -> Option<Duration> {
        self.is_known().then_some(self.p95)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_answers_are_not_enough_but_eight_are() {
        let mut l = Latency::default();
        (0..7).for_each(|_| l.on_answer(Duration::from_millis(5)));
        assert_eq!(l.p95(), None);
        l.on_answer(Duration::from_millis(5));
        assert_eq!(l.p95(), Some(Duration::from_millis(5)));
    }

    #[test]
    fn old_answers_are_forgotten() {
        let mut l = Latency::default();
        (0..100).for_each(|_| l.on_answer(Duration::from_millis(500)));
        (0..64).for_each(|_| l.on_answer(Duration::from_millis(2)));
        assert_eq!((l.p50(), l.p95()), (Duration::from_millis(2), Some(Duration::from_millis(2))));
    }

    #[test]
    fn one_slow_answer_in_twenty_is_seen_at_the_95th_percentile_only() {
        let mut l = Latency::default();
        (0..64).for_each(|n| l.on_answer(Duration::from_millis(if n % 10 == 0 { 80 } else { 2 })));
        assert_eq!((l.p50(), l.p95()), (Duration::from_millis(2), Some(Duration::from_millis(80))));
    }
}
