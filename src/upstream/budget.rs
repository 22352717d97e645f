//! What second questions may cost.
//!
//! Pure. Retries and hedges together are paid from tokens: each first question deposits `share`, time deposits a
//! floor of 50 a second, and at most a burst of 20 is saved up (RULES "Budgets and bounds"). A dry budget denies; the
//! question then lives by patience and stale.
//!
//! Invariant: over any span, withdrawals ≤ share × first questions + floor × span + burst.

use std::time::Duration;

use crate::clock::Moment;
use crate::limits::{BUDGET_BURST, BUDGET_FLOOR_PER_SECOND, DOWN_ASKS_PER_SECOND, REFRESHES_PER_SECOND};

/// Tokens that refill with time, and by deposits.
#[derive(Clone, Debug)]
pub struct Budget {
    tokens: f64,
    per_second: f64,
    burst: f64,
    filled_at: Moment,
}

impl Budget {
    /// For second questions: a floor of 50 a second, burst 20.
    pub fn second_questions(now: Moment) -> Self {
        Self::new(BUDGET_FLOOR_PER_SECOND, BUDGET_BURST, now)
    }

    /// For names asked while the whole group is down: 10 a second.
    pub fn down_asks(now: Moment) -> Self {
        Self::new(DOWN_ASKS_PER_SECOND, DOWN_ASKS_PER_SECOND, now)
    }

    /// For names asked behind stale answers: 100 a second.
    pub fn refreshes(now: Moment) -> Self {
        Self::new(REFRESHES_PER_SECOND, REFRESHES_PER_SECOND, now)
    }

    /// Full, refilling with `per_second` up to `burst`.
    pub fn new(per_second: f64, burst: f64, now: Moment) -> Self {
        Self { tokens: burst, per_second, burst, filled_at: now }
    }

    fn fill(&mut self, now: Moment) {
        let seconds = now.since(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + seconds * self.per_second).min(self.burst);
        self.filled_at = self.filled_at.max(now);
    }

    /// A first question was asked: its share is put in.
    pub fn deposit(&mut self, share: f64, now: Moment) {
        self.fill(now);
        self.tokens = (self.tokens + share).min(self.burst);
    }

    /// Takes the price of one question, where it is there.
    #[must_use]
    pub fn withdraw(&mut self, now: Moment) -> bool {
        self.fill(now);
        let granted = self.tokens >= 1.0;
        if granted {
            self.tokens -= 1.0;
        }
        granted
    }

    /// What is at hand.
    pub fn tokens(&self, now: Moment) -> f64 {
        (self.tokens + now.since(self.filled_at).as_secs_f64() * self.per_second).min(self.burst)
    }

    /// When one question would be granted, if none is before.
    pub fn next_at(&self, now: Moment) -> Moment {
        let missing = (1.0 - self.tokens(now)).max(0.0);
        // A little later, so that rounding does not make it a little too early.
        if missing == 0.0 { now } else { now + Duration::from_secs_f64(missing / self.per_second + 1e-6) }
    }

    /// Would one question be granted?
    pub fn has_one(&self, now: Moment) -> bool {
        self.tokens(now) >= 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_of_twenty_is_granted_and_one_more_is_not() {
        let mut b = Budget::second_questions(Moment::ZERO);
        assert!((0..20).all(|_| b.withdraw(Moment::ZERO)));
        assert!(!b.withdraw(Moment::ZERO));
        assert!(b.withdraw(Moment::from_millis(20)), "the floor is 50 a second");
        assert!(!b.withdraw(Moment::from_millis(39)));
    }

    proptest! {
        #[test]
        fn withdrawals_stay_within_share_and_floor_and_burst(steps in proptest::collection::vec((0u64..50, any::<bool>()), 1..400)) {
            let (mut b, mut now) = (Budget::second_questions(Moment::ZERO), Moment::ZERO);
            let (mut firsts, mut seconds) = (0.0, 0.0);
            for (millis, first) in steps {
                now = now + std::time::Duration::from_millis(millis);
                if first { b.deposit(0.3, now); firsts += 1.0; } else if b.withdraw(now) { seconds += 1.0; }
                let span = now.since(Moment::ZERO).as_secs_f64();
                prop_assert!(seconds <= 0.3 * firsts + 50.0 * span + 20.0 + 1e-6);
            }
        }
    }
}
