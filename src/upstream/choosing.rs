//! Who is asked, and whether: the group's decisions about one question.
//!
//! Pure. Nothing here is learned; what a decision costs is taken from its budget at once, and who is told no may ask
//! again later.

use super::bulkhead::{Bound, Permit};
use super::group::{Belief, Group};
use super::server::QUESTION_ROOM;
use super::tier::TIERS;
use super::zones::Zone;
use super::{ClientHash, Order, ServerId};
use crate::clock::Moment;
use crate::limits::{ATTEMPTS_PER_SERVER, BUDGET_BURST, COPY_EVERY, GUARD_ASK_EVERY};

impl Group {
    /// The zone of a folded name, as far as it is known.
    pub fn zone_of(&self, name: &[u8], now: Moment) -> Zone {
        self.zones.of(name, now)
    }

    /// Takes room for a pursuit of a folded name.
    pub fn enter(&mut self, name: &[u8], client: ClientHash, now: Moment) -> Result<Permit, Bound> {
        self.clients.on_asked(client, now);
        let zone = self.zones.of(name, now);
        self.bulkhead.enter(zone, client, self.settings.in_flight_max, self.settings.per_zone_in_flight_max)
    }

    /// A question found no room and none was made for it.
    pub fn on_rejected(&mut self, bound: Bound) {
        self.bulkhead.on_rejected(bound);
    }

    /// May one more name be asked behind a stale answer? All that come back at once must not be a herd.
    #[must_use]
    pub fn allows_refresh(&mut self, now: Moment) -> bool {
        self.refreshes.withdraw(now)
    }

    /// May one more name be asked ahead of the end of its answer? Takes the price of a refresh and of a second
    /// question; half of what can be saved up of those is left to retries and hedges. A denial is no sign of trouble:
    /// it is not counted.
    #[must_use]
    pub fn allows_ahead(&mut self, name: &[u8], now: Moment) -> bool {
        self.belief() == Belief::Healthy
            && !self.zone_of(name, now).is_failing
            && self.second_questions.tokens(now) >= BUDGET_BURST / 2.0 + 1.0
            && self.refreshes.withdraw(now)
            && self.allows_spare_second(now)
    }

    /// May a second question go out that nobody waits for? Takes its price, and leaves half of what can be saved up.
    #[must_use]
    pub fn allows_spare_second(&mut self, now: Moment) -> bool {
        self.second_questions.tokens(now) >= BUDGET_BURST / 2.0 + 1.0 && self.second_questions.withdraw(now)
    }

    /// Gives room back.
    pub fn leave(&mut self, permit: Permit) {
        self.bulkhead.leave(permit);
    }

    /// May one more name be asked while the group is down?
    #[must_use]
    pub fn allows_while_down(&mut self, now: Moment) -> bool {
        self.down_asks.withdraw(now)
    }

    /// Whom to ask next; `asked[id]` is how often this pursuit has asked each server already, `draw` and `draw2` are
    /// random numbers in 0..1. `None` where every server was asked as often as it may be.
    ///
    /// Fit servers of the tier in use come first, then fit ones of worse tiers, then of better ones (within their
    /// hold), then unfit ones; then, by the fewest attempts, those that were asked before.
    pub fn plan(&mut self, asked: &[u8], draw: f64, draw2: f64, now: Moment) -> Option<ServerId> {
        let open: Vec<usize> = (0..self.servers.len())
            .filter(|i| asked[*i] < ATTEMPTS_PER_SERVER && self.servers[*i].takes_questions(now))
            .collect();
        let fewest = open.iter().map(|i| asked[*i]).min()?;
        if self.dark {
            self.turn = self.turn.wrapping_add(1);
            let least: Vec<usize> = open.into_iter().filter(|i| asked[*i] == fewest).collect();
            return Some(ServerId::nth(least[self.turn % least.len()]));
        }
        let first = asked.iter().all(|n| *n == 0);
        let in_use = self.tiers.in_use();
        let lead = if first { self.tiers.pick(self.fitness(), self.pace(), draw, now) } else { in_use };
        let rank = |i: usize| {
            let s = &self.servers[i];
            let tier = match s.tier {
                t if t == lead => 0,
                t if t > in_use => t,
                t => TIERS + t,
            };
            (asked[i], !s.is_fit(), tier)
        };
        let best = open.iter().map(|i| rank(*i)).min()?;
        let alike: Vec<usize> = open.into_iter().filter(|i| rank(*i) == best).collect();
        Some(ServerId::nth(self.choose(&alike, draw, draw2)))
    }

    /// Of servers that are alike: the first as listed, or of two at random the better by latency and load.
    fn choose(&self, alike: &[usize], draw: f64, draw2: f64) -> usize {
        if self.settings.order == Order::Listed || alike.len() == 1 {
            return alike[0];
        }
        let at = |draw: f64, n: usize| ((draw * n as f64) as usize).min(n - 1);
        let one = at(draw, alike.len());
        // The second draw is among the others.
        let two = (one + 1 + at(draw2, alike.len() - 1)) % alike.len();
        let cost = |i: usize| {
            let s = &self.servers[alike[i]];
            s.latency.p50().as_micros().max(100) * u128::from(s.breaker.outstanding() + 1)
        };
        alike[if cost(two) < cost(one) { two } else { one }]
    }

    /// A fit server of a better tier than `tier` that was not asked.
    pub fn fit_better(&self, asked: &[u8], tier: usize, now: Moment) -> Option<ServerId> {
        (0..self.servers.len())
            .filter(|i| asked[*i] == 0 && self.servers[*i].tier < tier)
            .filter(|i| self.servers[*i].is_fit() && self.servers[*i].takes_questions(now))
            .min_by_key(|i| self.servers[*i].tier)
            .map(ServerId::nth)
    }

    /// A fit server that was not asked, for a second opinion on what `tier` said: of another tier first, or each in its
    /// turn.
    pub fn another(&self, asked: &[u8], tier: usize, in_turn: bool, now: Moment) -> Option<ServerId> {
        let open = (0..self.servers.len())
            .filter(|i| asked[*i] == 0 && self.servers[*i].is_fit() && self.servers[*i].takes_questions(now));
        if in_turn {
            let open: Vec<usize> = open.collect();
            let turn = now.as_nanos() / GUARD_ASK_EVERY.as_nanos() as u64;
            return open.get(turn as usize % open.len().max(1)).map(|i| ServerId::nth(*i));
        }
        open.min_by_key(|i| (self.servers[*i].tier == tier, self.servers[*i].tier)).map(ServerId::nth)
    }

    /// Must what this server says of names that were good be asked of another one too?
    pub fn wants_second_opinion(&self, server: ServerId, now: Moment) -> bool {
        self.turned.wants_second_opinion(server, now)
    }

    /// A server of a better tier than `tier` that was not asked and, though not fit, has spoken of late.
    pub fn speaking_better(&self, asked: &[u8], tier: usize, now: Moment) -> Option<ServerId> {
        (0..self.servers.len())
            .filter(|i| asked[*i] == 0 && self.servers[*i].tier < tier)
            .filter(|i| self.servers[*i].has_spoken_lately(now) && self.servers[*i].takes_questions(now))
            .min_by_key(|i| self.servers[*i].tier)
            .map(ServerId::nth)
    }

    /// When a server that may still be asked, but for its packets a second, has room.
    pub fn room_at(&self, asked: &[u8], now: Moment) -> Option<Moment> {
        let left = |i: &usize| asked[*i] < ATTEMPTS_PER_SERVER && !self.servers[*i].loops.is_found();
        let full = (0..self.servers.len()).filter(left).filter_map(|i| self.servers[i].rate.as_ref());
        full.map(|rate| rate.has_at(QUESTION_ROOM, now)).filter(|at| *at > now).min()
    }

    /// May a second question go out for a client? Takes its price. Where little is left, one of several clients that
    /// took more than half of late gets none. `count_denial`: a pursuit that asks again after a denial is not counted
    /// once more.
    #[must_use]
    pub fn allows_second(&mut self, client: ClientHash, count_denial: bool, now: Moment) -> bool {
        let scarce = self.second_questions.tokens(now) < BUDGET_BURST / 2.0;
        let granted = !(scarce && self.clients.is_greedy(client, now)) && self.second_questions.withdraw(now);
        if granted {
            self.clients.on_spent(client, now);
        }
        self.budget_denied += u64::from(!granted && count_denial);
        granted
    }

    /// A server that is due for a copy of a live question, not among those `asked`: convicted, silent, or of a better
    /// tier within its hold, whose fitness would be unseen else.
    pub fn copy_to(&mut self, asked: &[u8], now: Moment) -> Option<ServerId> {
        if self.dark {
            return None;
        }
        let due = (0..self.servers.len()).find(|i| {
            let s = &self.servers[*i];
            asked[*i] == 0
                && (s.health.wants_copies() || s.silent_since.is_some() || s.is_fit() && s.tier < self.tiers.in_use())
                && s.copied_at.is_none_or(|at| now.since(at) >= COPY_EVERY)
                && s.takes_questions(now)
        })?;
        self.servers[due].copied_at = Some(now);
        Some(ServerId::nth(due))
    }
}
