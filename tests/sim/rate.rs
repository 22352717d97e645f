//! A bound on counts over every window at once.

use evenkeel::clock::Moment;

/// Holds where, over any window, what was counted is at most `per_second` × its length + what was allowed in it +
/// `burst`. It is looked at over all windows that end at each count: the level is a sum over the run, and its least
/// value so far begins the worst window.
#[derive(Clone, Debug)]
pub struct Rate {
    level: f64,
    least: f64,
    per_second: f64,
    burst: f64,
    at: Moment,
}

impl Rate {
    pub fn new(per_second: f64, burst: f64) -> Self {
        Self { level: 0.0, least: 0.0, per_second, burst, at: Moment::ZERO }
    }

    /// So much more may be counted.
    pub fn allow(&mut self, more: f64) {
        self.level -= more;
    }

    /// One more. Says whether the bound holds.
    pub fn count(&mut self, now: Moment) -> bool {
        self.level -= self.per_second * now.since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.least = self.least.min(self.level);
        self.level += 1.0;
        self.level - self.least <= self.burst + 1e-6
    }
}
