//! Arithmetic of fresh, stale and gone, and of how long a failure counts.
//!
//! Pure. Times are [`Moment`]s, TTLs whole seconds.
//!
//! - An entry is stale at exactly stored + TTL and gone at exactly that + `max_age`.
//! - The TTL of a message is the smallest in it (OPT's is none). A TTL with its top bit set is large, and capped
//!   (RFC 8767 §4). Negative: min(SOA TTL, SOA MINIMUM, `max_negative_ttl`) (RFC 2308 §5).
//! - TTL 0 is given to those who wait and is not stored, unless `min_ttl` raises it.
//! - A failure counts 1 s, doubling with each that follows, to 30 s (RFC 9520 §3.2).

use std::time::Duration;

use crate::clock::Moment;
use crate::limits::{self, FAILURE_BACKOFF, STALE_RECENT};

/// Bounds of the time to live, in seconds. Whole messages are the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TtlSettings {
    /// A lower TTL is raised to this; 0 raises none.
    pub min: u32,
    /// A higher TTL is lowered to this.
    pub max: u32,
    /// The same for negative answers.
    pub negative_max: u32,
}

impl Default for TtlSettings {
    fn default() -> Self {
        let seconds = |d: Duration| d.as_secs() as u32;
        Self {
            min: seconds(limits::TTL_MIN.default),
            max: seconds(limits::TTL_MAX.default),
            negative_max: seconds(limits::TTL_NEGATIVE_MAX.default),
        }
    }
}

impl TtlSettings {
    /// What a record's TTL becomes in a positive message.
    pub fn positive(&self, ttl: u32) -> u32 {
        ttl.clamp(self.min.min(self.max), self.max)
    }

    /// What a record's TTL becomes in a negative message.
    pub fn negative(&self, ttl: u32) -> u32 {
        ttl.max(self.min).min(self.negative_max)
    }
}

/// When and how stale answers are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaleSettings {
    /// How long past its TTL an answer may serve; zero is never.
    pub max_age: Duration,
    /// TTL of a stale answer, in seconds.
    pub reply_ttl: u32,
    /// How long a client waits for a fresh answer.
    pub patience: Patience,
}

impl Default for StaleSettings {
    fn default() -> Self {
        Self {
            max_age: limits::STALE_AGE_MAX.default,
            reply_ttl: limits::STALE_REPLY_TTL.default.as_secs() as u32,
            patience: Patience::Auto,
        }
    }
}

/// A freeze: an operator's word that nothing good is to be given up for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freeze {
    /// When it began.
    pub since: Moment,
    /// When it ends by itself.
    pub until: Moment,
}

impl Freeze {
    /// Is it in force?
    pub fn holds(self, now: Moment) -> bool {
        now < self.until
    }

    /// How long past its TTL an answer may serve at `now`: in a freeze what could be served when it began can be served
    /// to its end. Zero stays zero: who serves nothing stale does not begin to.
    pub fn max_age(freeze: Option<Self>, max_age: Duration, now: Moment) -> Duration {
        match freeze {
            Some(freeze) if freeze.holds(now) && !max_age.is_zero() => max_age + now.since(freeze.since),
            _ => max_age,
        }
    }
}

/// How long a client with a stale answer at hand waits for a fresh one while the group is believed healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Twice the group's own p95 for names not in cache, within [`crate::limits::PATIENCE_AUTO`].
    Auto,
    /// This long.
    Fixed(Duration),
}

/// How an answer stands at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Within its TTL; stored this many whole seconds ago.
    Fresh {
        /// Seconds.
        age: u32,
    },
    /// Past its TTL by this much, and still servable.
    Stale {
        /// Time since the TTL ran out.
        past: Duration,
    },
    /// Past `max_age`.
    Gone,
}

/// How an answer stands that was stored at `stored` with `ttl` seconds. What was stored before `due_before` counts as
/// expired at that moment at the latest.
pub fn standing(stored: Moment, ttl: u32, max_age: Duration, due_before: Moment, now: Moment) -> Standing {
    let mut expires = stored + Duration::from_secs(u64::from(ttl));
    if stored < due_before {
        expires = expires.min(due_before);
    }
    if now < expires {
        return Standing::Fresh { age: now.since(stored).as_secs() as u32 };
    }
    let past = now.since(expires);
    if past < max_age { Standing::Stale { past } } else { Standing::Gone }
}

/// Is data that is `past` its TTL recent enough for the short patience: at most max(its TTL, 5 min)?
pub fn is_recent(past: Duration, ttl: u32) -> bool {
    past <= Duration::from_secs(u64::from(ttl)).max(STALE_RECENT)
}

/// How long the `count`th failure in a row counts; `count` starts at 1.
pub fn failure_span(count: u32) -> Duration {
    let (first, longest) = FAILURE_BACKOFF;
    first.saturating_mul(1 << count.saturating_sub(1).min(16)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn fresh_ends_at_exactly_stored_plus_ttl_and_stale_at_exactly_max_age_more() {
        let at = |millis| standing(Moment::from_secs(100), 60, DAY, Moment::ZERO, Moment::from_millis(millis));
        assert_eq!(at(100_000), Standing::Fresh { age: 0 });
        assert_eq!(at(159_999), Standing::Fresh { age: 59 });
        assert_eq!(at(160_000), Standing::Stale { past: Duration::ZERO });
        assert_eq!(at(160_000 + 86_399_999), Standing::Stale { past: Duration::from_millis(86_399_999) });
        assert_eq!(at(160_000 + 86_400_000), Standing::Gone);
    }

    #[test]
    fn max_age_zero_serves_nothing_stale() {
        assert_eq!(standing(Moment::ZERO, 1, Duration::ZERO, Moment::ZERO, Moment::from_secs(1)), Standing::Gone);
    }

    #[test]
    fn what_was_stored_before_a_clock_jump_is_due_and_not_gone() {
        let at =
            |stored, now| standing(Moment::from_secs(stored), 60, DAY, Moment::from_secs(50), Moment::from_secs(now));
        assert_eq!(at(49, 50), Standing::Stale { past: Duration::ZERO });
        assert_eq!(at(50, 51), Standing::Fresh { age: 1 });
    }

    #[test]
    fn in_a_freeze_max_age_counts_from_its_beginning() {
        let freeze = Some(Freeze { since: Moment::from_secs(100), until: Moment::from_secs(200) });
        let at = |freeze, max_age, now| {
            Freeze::max_age(freeze, Duration::from_secs(max_age), Moment::from_secs(now)).as_secs()
        };
        assert_eq!([at(freeze, 50, 100), at(freeze, 50, 199), at(freeze, 50, 200)], [50, 149, 50]);
        assert_eq!([at(freeze, 0, 150), at(None, 50, 150)], [0, 50]);
    }

    #[test]
    fn recent_is_the_greater_of_ttl_and_five_minutes() {
        for (past, ttl, want) in [(300, 60, true), (301, 60, false), (3600, 3600, true), (3601, 3600, false)] {
            assert_eq!(is_recent(Duration::from_secs(past), ttl), want, "{past} {ttl}");
        }
    }

    #[test]
    fn failures_double_from_one_second_to_thirty() {
        let spans: Vec<u64> = [1, 2, 3, 5, 6, 40].map(|n| failure_span(n).as_secs()).into();
        assert_eq!(spans, [1, 2, 4, 16, 30, 30]);
    }

    #[test]
    fn ttls_are_bounded_and_the_top_bit_is_large() {
        let t = TtlSettings { min: 5, max: 86_400, negative_max: 30 };
        assert_eq!([t.positive(0), t.positive(60), t.positive(u32::MAX)], [5, 60, 86_400]);
        assert_eq!([t.negative(0), t.negative(20), t.negative(900)], [5, 20, 30]);
        let t = TtlSettings { min: 60, max: 86_400, negative_max: 30 };
        assert_eq!(t.negative(0), 30, "max_negative_ttl binds min_ttl too");
    }

    proptest! {
        #[test]
        fn an_answer_goes_from_fresh_to_stale_to_gone_and_never_back(
            stored in 0u64..1 << 40,
            ttl in 0u32..100_000,
            max_age in 0u64..1 << 20,
            a in 0u64..1 << 50,
            b in 0u64..1 << 50,
        ) {
            let max_age = Duration::from_secs(max_age);
            let stand = |at| standing(Moment::from_nanos(stored), ttl, max_age, Moment::ZERO, Moment::from_nanos(at));
            let rank = |at: u64| match stand(stored + at) {
                Standing::Fresh { age } => { assert!(age < ttl); 0 }
                Standing::Stale { past } => { assert!(past < max_age); 1 }
                Standing::Gone => 2,
            };
            prop_assert!(rank(a.min(b)) <= rank(a.max(b)));
        }
    }
}
