//! When the second question goes out.
//!
//! Pure. A question is overdue when it has waited longer than a high percentile of its own server's latency: within
//! 10 … 300 ms, 20 ms while too little is known. Then another server is asked too; the first stays asked.

use std::time::Duration;

use super::HedgeSettings;
use super::latency::Latency;
use crate::limits::{ASK_AGAIN_AFTER, HEDGE_AFTER, TRY_TIMEOUT};

/// How long a question to a server with this latency waits before another is asked.
pub fn after(settings: &HedgeSettings, latency: &Latency) -> Duration {
    if let Some(fixed) = settings.after {
        return fixed;
    }
    // A quarter above the percentile: a server that keeps its pace is not asked twice for its own jitter.
    latency.p95().map_or(HEDGE_AFTER.default, |p95| (p95 * 5 / 4).clamp(HEDGE_AFTER.min, HEDGE_AFTER.max))
}

/// How long before the same server is asked again for the same question: four times the hedge delay, within
/// [`ASK_AGAIN_AFTER`]. Where every server loses packets, clients wait for this.
pub fn again_after(hedge_after: Duration) -> Duration {
    (hedge_after * 4).clamp(ASK_AGAIN_AFTER.0, ASK_AGAIN_AFTER.1)
}

/// How long an attempt is worth waiting for where another answer is at hand, or nobody is fit: four times the hedge
/// delay, within [`TRY_TIMEOUT`]. Its late answer is taken all the same.
pub fn try_timeout(hedge_after: Duration) -> Duration {
    (hedge_after * 4).clamp(TRY_TIMEOUT.0, TRY_TIMEOUT.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_follows_the_servers_own_latency_within_its_ends() {
        let auto = HedgeSettings { after: None, budget: 0.3 };
        for (latency_ms, want_ms) in [(1, 10), (20, 25), (100, 125), (900, 300)] {
            let mut l = Latency::default();
            (0..20).for_each(|_| l.on_answer(Duration::from_millis(latency_ms)));
            assert_eq!(after(&auto, &l), Duration::from_millis(want_ms), "{latency_ms}");
        }
        assert_eq!(after(&auto, &Latency::default()), Duration::from_millis(20));
        let fixed = HedgeSettings { after: Some(Duration::from_millis(77)), ..auto };
        assert_eq!(after(&fixed, &Latency::default()), Duration::from_millis(77));
    }

    #[test]
    fn a_try_lasts_between_300_ms_and_a_second() {
        let times = [10, 100, 300].map(|ms| try_timeout(Duration::from_millis(ms)).as_millis());
        assert_eq!(times, [300, 400, 1000]);
        let again = [10, 25, 26, 300].map(|ms| again_after(Duration::from_millis(ms)).as_millis());
        assert_eq!(again, [100, 100, 104, 1000]);
    }
}
