//! When a waiting client gets the stale answer.
//!
//! Pure. RULES "When a waiting client gets the stale answer", RFC 8767 §5:
//!
//! - At once where the group is dark, has not answered anything since the start, or failed for this name of late.
//! - Otherwise after the group's patience where the data is at most max(its TTL, 5 min) past its TTL, and after 1.8 s
//!   where it is older: old addresses are the likelier to be wrong.

use std::time::Duration;

use crate::cache::freshness::is_recent;
use crate::limits::PATIENCE_OLD;
use crate::upstream::group::Belief;

/// What the decision needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// What is believed of the group.
    pub belief: Belief,
    /// Did the last asking for this name fail, and is that remembered?
    pub failed_of_late: bool,
    /// The group's patience.
    pub patience: Duration,
    /// How far past its TTL the answer is.
    pub past: Duration,
    /// The TTL that it had, in seconds.
    pub ttl: u32,
}

/// How long a client waits before it gets the stale answer; zero is at once.
pub fn wait(c: Circumstances) -> Duration {
    if c.failed_of_late || c.belief != Belief::Healthy {
        Duration::ZERO
    } else if is_recent(c.past, c.ttl) {
        c.patience
    } else {
        PATIENCE_OLD.max(c.patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_circumstance_has_its_wait() {
        let calm = Circumstances {
            belief: Belief::Healthy,
            failed_of_late: false,
            patience: Duration::from_millis(200),
            past: Duration::from_secs(300),
            ttl: 60,
        };
        for (what, c, want_ms) in [
            ("healthy and recent", calm, 200),
            ("healthy and old", Circumstances { past: Duration::from_secs(301), ..calm }, 1800),
            (
                "healthy and within its long TTL",
                Circumstances { past: Duration::from_secs(3600), ttl: 3600, ..calm },
                200,
            ),
            ("down", Circumstances { belief: Belief::Down, ..calm }, 0),
            ("silent", Circumstances { belief: Belief::Silent, ..calm }, 0),
            ("untried", Circumstances { belief: Belief::Untried, ..calm }, 0),
            ("failed of late", Circumstances { failed_of_late: true, ..calm }, 0),
        ] {
            assert_eq!(wait(c).as_millis(), want_ms, "{what}");
        }
    }
}
