//! What a pursuit tells the group of its attempts, each once; and the extended error that sums them up for clients.
//!
//! Pure. Only what another server answered is evidence against one; what nobody answered counts against the zone.

use std::time::Duration;

use super::Pursuit;
use crate::clock::Moment;
use crate::limits::HEDGE_AFTER;
use crate::resolve::attempt::{Attempt, Stage};
use crate::resolve::vet::Fault;
use crate::upstream::{Group, ServerId};
use crate::wire::edns::code;

/// From when on an answer of another server is late, where the one that was taken took so long: a name that takes its
/// time says nothing of who takes it too.
pub(super) fn late_after(settled_in: Duration) -> Duration {
    if settled_in <= HEDGE_AFTER.max { HEDGE_AFTER.max } else { settled_in * 2 }
}

impl<W> Pursuit<W> {
    /// The attempts that are still out, for a driver that ends: the group is told of each.
    pub fn give_up(&mut self, group: &mut Group, now: Moment) {
        for a in self.attempts.iter_mut().filter(|a| a.is_out()) {
            a.stage = Stage::Failed(Fault::TimedOut);
            match a.is_copy() {
                // What nobody answers is no evidence, nor what was cut short by a limit of ours.
                true if self.gives_way || self.settled_by.is_none() => {}
                true => group.on_copy(a.server, None, now),
                false if self.gives_way => group.on_local(a.server),
                false => group.on_given_up(a.server),
            }
        }
    }

    pub(super) fn took_of(&self, server: ServerId) -> Duration {
        let of = self.attempts.iter().rev().filter(|a| a.server == server && !a.is_copy());
        let mut took = of.filter_map(|a| if let Stage::Answered { took } = a.stage { Some(took) } else { None });
        took.next().unwrap_or_default()
    }

    /// Tells the group how the attempts on each server ended, once another server has answered or they answered
    /// themselves. An attempt that is out is judged when it is too late to be of use.
    pub(super) fn judge(&mut self, group: &mut Group, now: Moment) {
        let Some((settled_by, settled_in)) = self.settled_by else { return };
        let limit = late_after(settled_in);
        for a in self.attempts.iter_mut().filter(|a| !a.judged && !a.is_copy()) {
            // Only what another server answered is evidence: who was slow, and the first all the same, is not at fault.
            let by_another = a.server != settled_by;
            let fault = match a.stage {
                Stage::Answered { took } => took > limit && by_another,
                Stage::Failed(Fault::Local) => continue,
                Stage::Failed(_) => true,
                Stage::Out if now.since(a.sent_at) > limit => true,
                Stage::Out => continue,
            };
            a.judged = true;
            if fault && !by_another {
                continue;
            }
            group.on_judged(a.server, fault, self.zone, self.brief.client, now);
        }
    }

    pub(super) fn note_overdue(&mut self, group: &mut Group, now: Moment) {
        for a in &mut self.attempts {
            if a.is_out() && !a.overdue && now >= a.hedge_at {
                a.overdue = true;
                if !a.is_copy() {
                    group.on_overdue(a.server, self.brief.question.view().name, self.brief.client, now);
                }
            }
        }
    }

    /// What nobody has answered for a second, although a server that was asked has spoken since, counts against its
    /// zone: once for each pursuit, at that time or when it fails.
    pub(super) fn tell_unanswered(&mut self, group: &mut Group, now: Moment) {
        let spoke_since = |a: &Attempt| group.server(a.server).heard_at() >= Some(a.sent_at);
        let mut live = self.attempts.iter().filter(|a| !a.is_copy());
        let answered = || self.attempts.iter().any(|a| matches!(a.stage, Stage::Answered { .. }));
        if !self.told_unanswered && live.any(spoke_since) && !answered() {
            self.told_unanswered = true;
            group.on_unanswered(self.brief.question.view().name, now);
        }
    }

    /// The extended error of what happened so far, and whether only our own limits were at fault.
    pub(super) fn reason(&self) -> (u16, bool) {
        let faults = || {
            self.attempts.iter().filter(|a| !a.is_copy()).map(|a| match a.stage {
                Stage::Failed(fault) => fault,
                // It waited so long for room that nothing could come in time.
                Stage::Out if self.short_of_room && !a.overdue => Fault::Local,
                _ => Fault::TimedOut,
            })
        };
        // Without any attempt it was a limit of ours that let none out, or let it out too late.
        let local = self.short_of_room || faults().all(|f| f == Fault::Local);
        // The most telling one: a reply that was of no use says more than silence.
        let ede = faults().filter(|f| *f != Fault::Local).map(Fault::ede).max();
        (ede.unwrap_or(if local { code::OTHER } else { code::NO_REACHABLE_AUTHORITY }), local)
    }
}
