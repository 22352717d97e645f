//! Which tier of a group is in use.
//!
//! Pure. Told of each tier's fitness; answers with a tier, and a [`Shift`] when it changes.
//!
//! Down at once: a tier with no fit server is left in the same call. Up late: a better tier must have had a fit
//! server for the hold in force without a break, and must have answered after it: who was not asked at the end of its
//! hold may have fallen silent meanwhile. Then its share of first questions grows over `ramp`. All tiers
//! unfit: the tier in use stays the one that is asked first, and every tier is asked in turn, since our own judgement
//! may be what is broken.
//!
//! Invariant, but for a freeze: `in_use` is never worse than the best tier that has been fit for the hold in force and
//! answered then.

use std::time::Duration;

use super::damp::Damp;
use crate::clock::Moment;

/// Number of tiers.
pub const TIERS: usize = 3;

/// How a tier stands. A tier without servers is [`Fitness::Empty`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fitness {
    /// No server.
    Empty,
    /// At least one fit server.
    Fit,
    /// None of its servers is fit.
    Unfit,
}

/// A change of the tier in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shift {
    /// The tier that was in use, from 0.
    pub from: usize,
    /// The tier that is.
    pub to: usize,
    /// Why.
    pub why: Why,
}

/// Why the tier in use changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// No server of the tier was fit.
    Unfit,
    /// A better tier had been fit for the hold.
    Held,
}

impl Why {
    /// The word in logs, metrics and explanations.
    pub fn word(self) -> &'static str {
        match self {
            Why::Unfit => "unfit",
            Why::Held => "held",
        }
    }
}

/// The settings that the judgement needs.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long a better tier must have been fit.
    pub hold: Duration,
    /// Over how long its share grows.
    pub ramp: Duration,
    /// Does each flap double the hold?
    pub damp: bool,
}

/// The tier in use and what decides about the next.
#[derive(Clone, Debug)]
pub struct Tiers {
    in_use: usize,
    fit_since: [Option<Moment>; TIERS],
    /// The tier from which traffic comes back, and since when.
    ramp_from: Option<(usize, Moment)>,
    /// Was the tier in use taken again, so that leaving it is a flap?
    retaken: bool,
    /// The tier that was taken again and left again last.
    flapped: usize,
    damp: Damp,
}

impl Tiers {
    /// Begins with the best tier that has servers.
    pub fn new(fitness: [Fitness; TIERS]) -> Self {
        let in_use = fitness.iter().position(|f| *f != Fitness::Empty).unwrap_or(0);
        Self { in_use, fit_since: [None; TIERS], ramp_from: None, retaken: false, flapped: 0, damp: Damp::default() }
    }

    /// Goes on with a tier that was in use in another life, where it has servers.
    pub fn resume(&mut self, tier: usize, fitness: [Fitness; TIERS]) {
        if fitness.get(tier).is_some_and(|f| *f != Fitness::Empty) {
            self.take(tier, None);
        }
    }

    /// The tier in use, from 0.
    pub fn in_use(&self) -> usize {
        self.in_use
    }

    /// The hold in force.
    pub fn hold(&self, pace: Pace, now: Moment) -> Duration {
        if pace.damp { self.damp.hold(pace.hold, now) } else { pace.hold }
    }

    /// Learns how the tiers stand, and when a fit server of each answered last. While it is frozen no better tier is
    /// taken for its hold alone.
    pub fn on_fitness(
        &mut self,
        fitness: [Fitness; TIERS],
        answered: [Option<Moment>; TIERS],
        (pace, is_frozen): (Pace, bool),
        now: Moment,
    ) -> Option<Shift> {
        if self.flapped < self.in_use && fitness[self.flapped] != Fitness::Fit {
            self.damp.on_unfit(pace.hold, now);
        }
        for (since, fitness) in self.fit_since.iter_mut().zip(fitness) {
            *since = (fitness == Fitness::Fit).then(|| since.unwrap_or(now));
        }
        let hold = self.hold(pace, now);
        let fit = |t: usize| fitness[t] == Fitness::Fit;
        let held =
            |t: usize| self.fit_since[t].is_some_and(|s| now.since(s) >= hold && answered[t] >= Some(s + hold));
        let from = self.in_use;
        if let Some(better) = (0..from).find(|t| held(*t) && !is_frozen) {
            self.take(better, Some((from, now)));
            self.retaken = true;
            return Some(Shift { from, to: better, why: Why::Held });
        }
        if fit(from) {
            return None;
        }
        // Nothing better has held, so the next worse one is taken; a better one within its hold beats none at all.
        let to = (from + 1..TIERS).find(|t| fit(*t)).or_else(|| (0..from).find(|t| fit(*t)))?;
        if self.retaken {
            self.damp.on_flap(pace.hold, now);
            self.flapped = from;
        }
        self.retaken = to < from;
        self.take(to, None);
        Some(Shift { from, to, why: Why::Unfit })
    }

    fn take(&mut self, tier: usize, ramp_from: Option<(usize, Moment)>) {
        self.in_use = tier;
        self.ramp_from = ramp_from;
    }

    /// The tier for one first question; `draw` is a random number in 0..1. While traffic comes back to a better tier,
    /// its share is the part of `ramp` that has passed.
    pub fn pick(&self, fitness: [Fitness; TIERS], pace: Pace, draw: f64, now: Moment) -> usize {
        if let Some((from, since)) = self.ramp_from
            && fitness[from] == Fitness::Fit
            && draw * pace.ramp.as_secs_f64() > now.since(since).as_secs_f64()
        {
            return from;
        }
        self.in_use
    }

    /// Time went by unseen: no tier has been fit for any.
    pub fn restart_holds(&mut self, now: Moment) {
        self.fit_since = self.fit_since.map(|s| s.map(|_| now));
    }

    /// A tier broke within its hold, without being unfit: it has been fit for no time.
    pub fn restart_hold(&mut self, tier: usize, now: Moment) {
        self.fit_since[tier] = self.fit_since[tier].map(|_| now);
    }

    /// A jump of the clock, a suspend, a change of the network: no tier has been fit for any time, and flaps before it
    /// count no more.
    pub fn forgive(&mut self, now: Moment) {
        self.damp = Damp::default();
        self.retaken = false;
        self.restart_holds(now);
    }

    /// When a tier's hold is over, where it is better than the one in use and fit.
    pub fn hold_ends(&self, tier: usize, pace: Pace, now: Moment) -> Option<Moment> {
        let since = self.fit_since[tier].filter(|_| tier < self.in_use)?;
        Some(since + self.hold(pace, now))
    }
}

#[cfg(test)]
mod tests {
    use super::Fitness::{Empty, Fit, Unfit};
    use super::*;
    use proptest::prelude::*;

    const PACE: Pace = Pace { hold: Duration::from_secs(10), ramp: Duration::from_secs(10), damp: true };

    /// Every fit tier answers all the time.
    fn on(t: &mut Tiers, fitness: [Fitness; TIERS], now: Moment) -> Option<Shift> {
        t.on_fitness(fitness, [Some(now); TIERS], (PACE, false), now)
    }

    #[test]
    fn a_tier_without_a_fit_server_is_left_in_the_same_call() {
        let mut t = Tiers::new([Fit; 3]);
        let shift = on(&mut t, [Unfit, Fit, Fit], Moment::from_secs(1));
        assert_eq!(shift, Some(Shift { from: 0, to: 1, why: Why::Unfit }));
        assert_eq!(on(&mut t, [Unfit, Unfit, Fit], Moment::from_secs(1)).unwrap().to, 2);
    }

    // A drill found it: 20 s of every 40 s silent, and the primary was taken again every other time.
    #[test]
    fn a_primary_that_goes_on_flapping_is_taken_again_once_and_then_not_before_it_holds() {
        let mut t = Tiers::new([Fit; 3]);
        let mut taken = 0;
        for second in 0..600 {
            let primary = if second % 40 < 20 { Unfit } else { Fit };
            let shift = on(&mut t, [primary, Fit, Fit], Moment::from_secs(second));
            taken += usize::from(shift.is_some_and(|s| s.to == 0));
        }
        assert_eq!(taken, 1);
        let back = (600..700).find(|s| on(&mut t, [Fit; 3], Moment::from_secs(*s)).is_some());
        assert!(back.is_some_and(|s| s <= 620), "{back:?}: once it holds it is used again");
    }

    #[test]
    fn while_it_is_frozen_no_tier_moves_up_and_moves_down_go_on() {
        let mut t = Tiers::new([Fit; 3]);
        let frozen = |t: &mut Tiers, fitness, now: u64| {
            let now = Moment::from_secs(now);
            t.on_fitness(fitness, [Some(now); TIERS], (PACE, true), now).map(|s| s.to)
        };
        assert_eq!(frozen(&mut t, [Unfit, Fit, Fit], 1), Some(1));
        assert_eq!(frozen(&mut t, [Fit, Fit, Fit], 2), None);
        assert_eq!(frozen(&mut t, [Fit, Fit, Fit], 1000), None);
        assert_eq!(frozen(&mut t, [Fit, Unfit, Fit], 1001), Some(2));
        assert_eq!(frozen(&mut t, [Fit, Unfit, Unfit], 1002), Some(0), "nobody else is there");
        assert_eq!(frozen(&mut t, [Unfit, Fit, Unfit], 1003), Some(1));
        frozen(&mut t, [Fit, Fit, Unfit], 1004);
        assert_eq!(on(&mut t, [Fit, Fit, Unfit], Moment::from_secs(2000)).unwrap().to, 0, "once it is over");
    }

    #[test]
    fn a_better_tier_is_taken_again_at_exactly_hold_without_a_break() {
        let mut t = Tiers::new([Fit; 3]);
        on(&mut t, [Unfit, Fit, Fit], Moment::from_secs(1));
        assert_eq!(on(&mut t, [Fit; 3], Moment::from_secs(5)), None);
        assert_eq!(on(&mut t, [Fit; 3], Moment::from_millis(14_999)), None);
        assert_eq!(t.hold_ends(0, PACE, Moment::from_secs(6)), Some(Moment::from_secs(15)));
        assert_eq!(on(&mut t, [Fit; 3], Moment::from_secs(15)), Some(Shift { from: 1, to: 0, why: Why::Held }));
    }

    #[test]
    fn who_has_not_answered_after_its_hold_is_not_taken_again() {
        let mut t = Tiers::new([Fit; 3]);
        on(&mut t, [Unfit, Fit, Fit], Moment::from_secs(1));
        on(&mut t, [Fit; 3], Moment::from_secs(5));
        let mut answered = |millis, now| {
            t.on_fitness(
                [Fit; 3],
                [Some(Moment::from_millis(millis)), None, None],
                (PACE, false),
                Moment::from_secs(now),
            )
        };
        assert_eq!(answered(14_999, 30), None);
        assert_eq!(answered(15_000, 30).unwrap().to, 0);
    }

    #[test]
    fn a_break_starts_the_hold_anew() {
        let mut t = Tiers::new([Fit; 3]);
        for (s, primary) in [(1, Unfit), (2, Fit), (11, Unfit), (12, Fit), (21, Fit)] {
            on(&mut t, [primary, Fit, Fit], Moment::from_secs(s));
        }
        assert_eq!(t.in_use(), 1);
        on(&mut t, [Fit; 3], Moment::from_secs(22));
        assert_eq!(t.in_use(), 0);
    }

    #[test]
    fn a_flapping_primary_moves_traffic_once_while_each_up_phase_is_shorter_than_hold() {
        let mut t = Tiers::new([Fit; 3]);
        let shifts = (0..600)
            .filter(|s| on(&mut t, [if s % 3 == 0 { Unfit } else { Fit }, Fit, Fit], Moment::from_secs(*s)).is_some())
            .count();
        assert_eq!(shifts, 1);
    }

    // Who is in use and unfit with all others flaps no more: a long outage leaves no penalty.
    #[test]
    fn while_nobody_is_fit_flaps_are_forgotten() {
        let mut t = Tiers::new([Fit; 3]);
        for (s, primary) in [(1, Unfit), (2, Fit), (12, Fit), (13, Unfit), (14, Fit), (34, Fit)] {
            on(&mut t, [primary, Fit, Fit], Moment::from_secs(s));
        }
        assert_eq!((t.in_use(), t.hold(PACE, Moment::from_secs(34)).as_secs()), (0, 20));
        for s in 35..100 {
            on(&mut t, [Unfit; 3], Moment::from_secs(s));
        }
        assert_eq!(t.hold(PACE, Moment::from_secs(100)), PACE.hold);
    }

    #[test]
    fn each_flap_doubles_the_hold() {
        let mut t = Tiers::new([Fit; 3]);
        let mut now = Moment::from_secs(1);
        for hold in [10, 20, 40] {
            on(&mut t, [Unfit, Fit, Fit], now);
            assert_eq!(t.hold(PACE, now).as_secs(), hold);
            on(&mut t, [Fit; 3], now);
            now = now + Duration::from_secs(hold);
            assert!(on(&mut t, [Fit; 3], now).is_some());
        }
    }

    #[test]
    fn traffic_comes_back_by_its_share_of_the_ramp() {
        let mut t = Tiers::new([Fit; 3]);
        on(&mut t, [Unfit, Fit, Fit], Moment::ZERO);
        on(&mut t, [Fit; 3], Moment::ZERO);
        on(&mut t, [Fit; 3], Moment::from_secs(10));
        for (s, draw, want) in [(10, 0.01, 1), (13, 0.29, 0), (13, 0.31, 1), (20, 0.99, 0)] {
            assert_eq!(t.pick([Fit; 3], PACE, draw, Moment::from_secs(s)), want, "{s} {draw}");
        }
        assert_eq!(t.pick([Fit, Unfit, Fit], PACE, 0.99, Moment::from_secs(10)), 0, "a dead tier gets no share");
    }

    #[test]
    fn with_nothing_fit_the_tier_in_use_stays() {
        let mut t = Tiers::new([Fit, Fit, Empty]);
        on(&mut t, [Unfit, Fit, Empty], Moment::ZERO);
        assert_eq!(on(&mut t, [Unfit, Unfit, Empty], Moment::from_secs(1)), None);
        assert_eq!(t.in_use(), 1);
        assert_eq!(on(&mut t, [Fit, Unfit, Empty], Moment::from_secs(2)).unwrap().to, 0);
    }

    proptest! {
        #[test]
        fn the_tier_in_use_is_fit_where_any_is_and_never_worse_than_one_that_held(
            steps in proptest::collection::vec((0u64..8_000, 0u8..8), 1..200),
        ) {
            let mut t = Tiers::new([Fit; 3]);
            let mut now = Moment::ZERO;
            let mut fit_since = [None; 3];
            for (millis, bits) in steps {
                now = now + Duration::from_millis(millis);
                let fitness = [0, 1, 2].map(|n| if bits & 1 << n != 0 { Fit } else { Unfit });
                on(&mut t, fitness, now);
                for n in 0..3 { fit_since[n] = (fitness[n] == Fit).then(|| fit_since[n].unwrap_or(now)); }
                let hold = t.hold(PACE, now);
                prop_assert!(bits == 0 || fitness[t.in_use()] == Fit);
                for (n, since) in fit_since.iter().enumerate() {
                    if since.is_some_and(|s: Moment| now.since(s) >= hold) { prop_assert!(t.in_use() <= n); }
                }
            }
        }
    }
}
