//! What stands above an answer: the last known good, and another server's word.
//!
//! Pure. Three reasons to doubt an answer that is no good one ([`Data::good`]): a guard protects the name's last good
//! answer, everything is frozen, or its server turns against many names at once ([`crate::upstream::turned`]).

use std::sync::Arc;

use super::{Answer, DENIED_PAUSE, Pursuit, Step};
use crate::cache::entry::{Data, Entry};
use crate::clock::Moment;
use crate::limits::TRY_TIMEOUT;
use crate::resolve::attempt::AttemptId;
use crate::upstream::Group;
use crate::upstream::group::AskKind;
use crate::wire::edns::code;

impl<W> Pursuit<W> {
    /// What may not be taken for this answer, without more: a guarded name's last good answer, or in a freeze whatever
    /// good one can be served.
    pub(super) fn stands_above(&self, data: &Data, group: &Group, now: Moment) -> Option<Arc<Entry>> {
        if data.good {
            return None;
        }
        self.brief.guarded.clone().or_else(|| self.known_good(group, now).filter(|_| group.is_frozen(now)))
    }

    /// A good answer that can be served stale.
    pub(super) fn known_good(&self, group: &Group, now: Moment) -> Option<Arc<Entry>> {
        self.servable(group, now).filter(|e| e.data().is_some_and(|d| d.good))
    }

    /// A good answer of this group that can be served stale.
    pub(super) fn knows_good(&self, group: &Group, now: Moment) -> bool {
        let stamp = self.brief.group;
        self.known_good(group, now).is_some_and(|e| e.data().is_some_and(|d| d.group == stamp))
    }

    /// Is another server to be asked before this answer is taken? Tells the group of the names that a server turns
    /// against, and of what others say of them.
    pub(super) fn is_doubted(&mut self, id: AttemptId, data: &Data, group: &mut Group, now: Moment) -> bool {
        let server = self.attempts[id.0].server;
        if let Some((turned, _)) = self.turned.filter(|(turned, told)| *turned != server && !told) {
            self.turned = Some((turned, true));
            group.on_second_opinion(turned, data.good, now);
        }
        if data.good {
            return false;
        }
        let guarded = self.brief.guarded.is_some();
        if self.turned.is_none() && self.knows_good(group, now) {
            group.on_turned(server, self.brief.question.view().name, now);
            if group.wants_second_opinion(server, now) {
                self.turned = Some((server, false));
                return true;
            }
        }
        guarded
    }

    /// Until when a second opinion on what `tier` said is worth waiting for: now, where there is none to be had.
    /// Another server is asked, one after the other and of another tier first. Where the budget has nothing left it is
    /// asked for again, for as long as an attempt would have been waited for.
    pub(super) fn second_opinion_until(&mut self, tier: usize, group: &mut Group, now: Moment) -> Moment {
        let out = self.worth_waiting_until(tier, true, group, now);
        if out > now {
            return out;
        }
        // For a name that is not guarded, or is held already, one other server is enough.
        let is_held = self.brief.guarded.as_ref().is_some_and(|e| e.held(now).is_some());
        let once = self.brief.guarded.is_none() || is_held;
        let enough = once && self.attempts.iter().filter(|a| !a.is_copy()).count() > 1;
        let Some(server) = group.another(&self.asked, tier, is_held, now).filter(|_| !enough) else { return now };
        if is_held {
            // All that is held is asked again and again: half of the budget is left to those who wait.
            if !group.allows_spare_second(now) {
                return now;
            }
            self.send(server, AskKind::Retry, group, now);
            return self.worth_waiting_until(tier, true, group, now);
        }
        if now >= self.denied_until {
            if group.allows_second(self.brief.client, self.denied_until == Moment::ZERO, now) {
                self.send(server, AskKind::Retry, group, now);
                return self.worth_waiting_until(tier, true, group, now);
            }
            self.denied_until = now + DENIED_PAUSE;
        }
        *self.doubted_since.get_or_insert(now) + TRY_TIMEOUT.1
    }

    /// The last good answer goes out: where a guard protects it that is a hold, in a freeze it is as if nobody had
    /// answered.
    pub(super) fn keep_last_good(&mut self, good: Arc<Entry>, group: &mut Group, now: Moment) {
        if self.brief.guarded.is_none() {
            return self.fail(Some(code::STALE), [].into(), true, group, now);
        }
        self.failed = true;
        self.pending = None;
        self.steps.push_back(Step::Hold);
        self.reply_to_all(Answer::Stale(good));
    }
}
