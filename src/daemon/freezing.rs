//! A freeze: put in force, kept over a restart with the tiers in use, and ended.

use std::time::Duration;

use super::{Frozen, Running, lock};
use crate::cache::freshness::Freeze;
use crate::clock::{self, Moment};
use crate::observe::event::{Event, report};
use crate::upkeep::freeze::{self, TiersInUse};

impl Running {
    /// What an earlier process left of a freeze is in force again, and the tiers that were in use then.
    pub(super) fn take_up_freeze(&self) {
        let Some(state) = &self.state else { return };
        let now = clock::now();
        match freeze::kept(state, clock::wall(), now) {
            Ok(None) => {}
            Ok(Some((freeze, tiers))) => {
                for placed in &self.changing().placed {
                    if let Some(tier) = tiers.get(&placed.name).and_then(|t| t.checked_sub(1)) {
                        placed.cell.with(|group| group.resume_tier(tier.into()));
                    }
                }
                self.put_freeze(&mut lock(&self.frozen), Some(freeze));
                report(Event::Frozen { left: now.until(freeze.until), from_before: true });
            }
            Err(e) => {
                report(Event::StateUnavailable { reason: format!("the freeze that was kept is not used: {e}") })
            }
        }
    }

    pub(super) fn put_freeze(&self, frozen: &mut Frozen, freeze: Option<Freeze>) {
        frozen.freeze = freeze;
        self.cache.set_freeze(freeze);
        for placed in &self.changing().placed {
            placed.cell.with(|group| group.set_freeze(freeze));
        }
    }

    pub(super) fn tiers_in_use(&self) -> TiersInUse {
        let placed = self.changing().placed.clone();
        placed.iter().map(|p| (p.name.clone(), p.cell.with(|group| group.tier_in_use() as u8 + 1))).collect()
    }

    /// Freezes for so long; one in force is replaced, and counts from its own beginning. Says what is in the way of
    /// keeping it over a restart.
    pub(super) fn freeze_for(&self, span: Duration) -> Vec<String> {
        let now = clock::now();
        let since = self.cache.freeze(now).map_or(now, |f| f.since);
        let kept = {
            let mut frozen = lock(&self.frozen);
            self.put_freeze(&mut frozen, Some(Freeze { since, until: now + span }));
            report(Event::Frozen { left: span, from_before: false });
            frozen.tiers = self.tiers_in_use();
            self.keep_freeze(&frozen)
        };
        // What is known now is what the freeze is for. Where it cannot be written that has been reported.
        if let Some(snapshotter) = self.snapshotter.as_ref().filter(|_| self.changing().loaded.config.cache.snapshot)
        {
            let _ = snapshotter.write_now(self);
        }
        kept.err().into_iter().collect()
    }

    /// Keeps the freeze in force, and the tiers in use, for the next start.
    pub(super) fn keep_freeze(&self, frozen: &Frozen) -> Result<(), String> {
        let Some(freeze) = frozen.freeze else { return Ok(()) };
        let Some(state) = &self.state else {
            return Err("there is no state directory: a restart ends the freeze".to_owned());
        };
        freeze::keep(state, freeze, frozen.tiers.clone(), clock::wall(), clock::now())
            .map_err(|e| format!("{}: {e}: a restart ends the freeze", state.display()))
    }

    /// Ends the freeze that an operator takes back; false where there is none.
    pub(super) fn thaw_now(&self) -> bool {
        let mut frozen = lock(&self.frozen);
        let was = frozen.freeze.is_some();
        if was {
            self.end_freeze(&mut frozen, true);
        }
        was
    }

    /// Ends a freeze whose time is over, and keeps the tiers of one that goes on.
    pub(super) fn look_at_freeze(&self, now: Moment) {
        let mut frozen = lock(&self.frozen);
        let Some(freeze) = frozen.freeze else { return };
        if !freeze.holds(now) {
            return self.end_freeze(&mut frozen, false);
        }
        let tiers = self.tiers_in_use();
        if tiers != frozen.tiers {
            frozen.tiers = tiers;
            if let Err(reason) = self.keep_freeze(&frozen) {
                report(Event::StateUnavailable { reason });
            }
        }
    }

    pub(super) fn end_freeze(&self, frozen: &mut Frozen, by_command: bool) {
        self.put_freeze(frozen, None);
        self.state.iter().for_each(|state| freeze::forget(state));
        report(Event::Thawed { by_command });
    }
}
