//! Flaps cost more each time.
//!
//! Pure. A flap is a tier that was taken again and left again. Each doubles the hold, up to 10 minutes; with quiet the
//! doublings are forgotten one by one, one for each span of twice the hold in force without a shift, in which the tier
//! that flapped was fit: what goes on flapping unused is not quiet.

use std::time::Duration;

use crate::clock::Moment;
use crate::limits::HOLD_DAMPED_MAX;

/// How often a group has flapped of late.
#[derive(Clone, Debug, Default)]
pub struct Damp {
    flaps: u32,
    since: Moment,
}

impl Damp {
    /// A tier that had been taken again was left.
    pub fn on_flap(&mut self, hold: Duration, now: Moment) {
        self.flaps = (self.flaps_at(hold, now) + 1).min(16);
        self.since = now;
    }

    /// The tier that flapped is unfit: quiet has not begun.
    pub fn on_unfit(&mut self, hold: Duration, now: Moment) {
        self.flaps = self.flaps_at(hold, now);
        self.since = now;
    }

    /// The hold in force.
    pub fn hold(&self, hold: Duration, now: Moment) -> Duration {
        doubled(hold, self.flaps_at(hold, now))
    }

    fn flaps_at(&self, hold: Duration, now: Moment) -> u32 {
        let (mut flaps, mut quiet) = (self.flaps, now.since(self.since));
        while flaps > 0 {
            let span = doubled(hold, flaps) * 2;
            if quiet < span || span.is_zero() {
                break;
            }
            quiet -= span;
            flaps -= 1;
        }
        flaps
    }
}

fn doubled(hold: Duration, flaps: u32) -> Duration {
    hold.saturating_mul(1 << flaps.min(16)).min(HOLD_DAMPED_MAX.max(hold))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_secs(10);

    #[test]
    fn each_flap_doubles_the_hold_to_ten_minutes() {
        let mut d = Damp::default();
        let mut holds = vec![];
        for n in 0..8 {
            holds.push(d.hold(HOLD, Moment::from_secs(n)).as_secs());
            d.on_flap(HOLD, Moment::from_secs(n));
        }
        assert_eq!(holds, [10, 20, 40, 80, 160, 320, 600, 600]);
    }

    #[test]
    fn while_what_flapped_is_unfit_it_is_not_quiet() {
        let mut d = Damp::default();
        d.on_flap(HOLD, Moment::ZERO);
        d.on_unfit(HOLD, Moment::from_secs(39));
        let at = |s| d.hold(HOLD, Moment::from_secs(s)).as_secs();
        assert_eq!([at(39), at(78), at(79)], [20, 20, 10]);
        d.on_unfit(HOLD, Moment::from_secs(79));
        assert_eq!(d.hold(HOLD, Moment::from_secs(79)), HOLD, "what quiet has forgotten stays so");
        let mut d = Damp::default();
        d.on_unfit(HOLD, Moment::from_secs(1));
        assert_eq!(d.hold(HOLD, Moment::from_secs(1)), HOLD);
    }

    #[test]
    fn quiet_of_twice_the_hold_forgets_one_flap() {
        let mut d = Damp::default();
        d.on_flap(HOLD, Moment::ZERO);
        d.on_flap(HOLD, Moment::ZERO);
        let at = |s| d.hold(HOLD, Moment::from_secs(s)).as_secs();
        assert_eq!([at(79), at(80), at(119), at(120)], [40, 20, 20, 10]);
    }
}
