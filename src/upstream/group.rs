//! What a group has learned of its servers, and its decisions.
//!
//! Pure; behind one short lock. Events come in by `on_*`, every one of them ends in [`Group::weigh`], which draws the
//! conclusions and queues what changed for the log ([`Group::take_changes`]).
//!
//! - A server is fit unless it is down ([`super::health`]) or silent ([`super::breaker`]); unknown is fit.
//! - A server that was silent for a second is down.
//! - The group is **dark** when no server is fit and none has spoken since it was found unfit. The first well-formed
//!   reply ends darkness at once; only the choice of the tier waits for `rise` and `hold`.
//! - In the dark every server is asked in turn, a few questions a second: our own judgement may be what is broken.

use std::collections::VecDeque;
use std::time::Duration;

use super::breaker::Judged;
use super::budget::Budget;
use super::bulkhead::{Bound, Bulkhead, Permit};
use super::clients::Clients;
use super::health::{Evidence, Probe, State};
use super::latency::Latency;
use super::server::{QUESTION_ROOM, Server};
use super::tier::{Fitness, Pace, TIERS, Tiers};
use super::zones::{Zone, Zones};
use super::{ClientHash, GroupSettings, Order, ServerId, ZoneHash, family, hedge, loops};

pub use super::change::Change;
pub use super::outlook::Belief;
pub use super::server::AskKind;
use crate::cache::freshness::Patience;
use crate::clock::Moment;
use crate::limits::{
    ATTEMPTS_PER_SERVER, BUDGET_BURST, COPY_EVERY, DOWN_AFTER_SILENT, HEDGE_AFTER, NO_EDNS_SPAN, PATIENCE_AUTO,
    SPEAKING_SPAN, WEIGHED_GAP_MAX,
};
use crate::wire::Name;

/// Probes and copies that a server must fail in a row to break its tier's hold.
const HOLD_BREAKS_AT: u32 = 2;
/// Answered questions that are kept for copies.
const SAMPLES_MAX: usize = 4;

/// A group of servers: what was learned, and the settings in force.
#[derive(Debug)]
pub struct Group {
    pub(super) settings: GroupSettings,
    pub(super) servers: Vec<Server>,
    tiers: Tiers,
    second_questions: Budget,
    down_asks: Budget,
    refreshes: Budget,
    zones: Zones,
    clients: Clients,
    /// Live questions that were answered of late, for copies where no client asks.
    pub(super) samples: VecDeque<(Name, u16)>,
    /// Is nothing coming from any server of IPv4, of IPv6?
    broken_families: [bool; 2],
    bulkhead: Bulkhead,
    /// Time that names not in cache took.
    misses: Latency,
    pub(super) started: Moment,
    weighed_at: Moment,
    pub(super) answered: bool,
    pub(super) dark: bool,
    healings: u32,
    turn: usize,
    shifts: [u64; 2],
    budget_denied: u64,
    pub(super) changes: Vec<Change>,
}

impl Group {
    /// A group about which nothing is known.
    pub fn new(settings: GroupSettings, now: Moment) -> Self {
        let servers: Vec<Server> = settings
            .tiers
            .iter()
            .enumerate()
            .flat_map(|(tier, list)| list.iter().map(move |s| Server::new(s.clone(), tier, now)))
            .collect();
        let mut group = Self {
            settings,
            servers,
            tiers: Tiers::new([Fitness::Empty; TIERS]),
            second_questions: Budget::second_questions(now),
            down_asks: Budget::down_asks(now),
            refreshes: Budget::refreshes(now),
            zones: Zones::default(),
            clients: Clients::default(),
            samples: VecDeque::new(),
            broken_families: [false; 2],
            bulkhead: Bulkhead::default(),
            misses: Latency::default(),
            started: now,
            weighed_at: now,
            answered: false,
            dark: false,
            healings: 0,
            turn: 0,
            shifts: [0; 2],
            budget_denied: 0,
            changes: Vec::new(),
        };
        group.tiers = Tiers::new(group.fitness());
        group
    }

    /// A group with new settings that keeps what `old` learned of the servers that stay. Says whether any stays.
    pub fn adopt(settings: GroupSettings, old: &mut Group, now: Moment) -> (Self, bool) {
        let mut new = Self::new(settings, now);
        let mut any = false;
        for server in &mut new.servers {
            let same = |s: &Server| {
                s.settings.address == server.settings.address && s.settings.protocol == server.settings.protocol
            };
            let Some(known) = old.servers.iter().find(|s| same(s)) else { continue };
            any = true;
            server.breaker = known.breaker.learned();
            server.health = known.health.clone();
            server.latency = known.latency.clone();
            server.silent_since = known.silent_since;
            server.announced_down = known.announced_down;
            server.unfit_at = known.unfit_at;
            server.answered_at = known.answered_at;
            server.heard_at = known.heard_at;
            server.unreachable_at = known.unreachable_at;
            server.left_out = known.left_out;
            server.loops = known.loops.clone();
            server.no_edns_until = known.no_edns_until;
            server.asked = known.asked;
        }
        if any {
            let shape = |g: &Group| g.settings.tiers.each_ref().map(|t| t.is_empty());
            if shape(&new) == shape(old) {
                new.tiers = old.tiers.clone();
            }
            new.second_questions = old.second_questions.clone();
            new.down_asks = old.down_asks.clone();
            new.refreshes = old.refreshes.clone();
            new.zones = old.zones.clone();
            new.clients = old.clients.clone();
            new.samples = old.samples.clone();
            new.broken_families = old.broken_families;
            new.bulkhead.adopt_counters(&old.bulkhead);
            new.misses = old.misses.clone();
            (new.answered, new.dark) = (old.answered, old.dark);
            new.shifts = old.shifts;
            new.budget_denied = old.budget_denied;
            new.healings = old.healings;
            new.weigh(now);
        }
        (new, any)
    }

    /// The settings in force.
    pub fn settings(&self) -> &GroupSettings {
        &self.settings
    }

    /// The servers, by [`ServerId`].
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The server of an id that this group gave.
    pub fn server(&self, id: ServerId) -> &Server {
        &self.servers[usize::from(id.0)]
    }

    /// What is believed of the group as a whole.
    pub fn belief(&self) -> Belief {
        match () {
            () if self.dark && self.servers.iter().all(|s| s.health.is_down()) => Belief::Down,
            () if self.dark => Belief::Silent,
            () if !self.answered => Belief::Untried,
            () => Belief::Healthy,
        }
    }

    /// Is no server fit, and has none spoken since?
    pub fn is_dark(&self) -> bool {
        self.dark
    }

    /// May a better tier than `tier` know names that this one denies?
    pub fn has_better_view(&self, tier: usize) -> bool {
        !self.settings.same_view && self.servers.iter().any(|s| s.tier < tier)
    }

    /// How often the group has come back from the dark. A failure remembered before that counts no more.
    pub fn healings(&self) -> u32 {
        self.healings
    }

    /// The tier in use, from 0.
    pub fn tier_in_use(&self) -> usize {
        self.tiers.in_use()
    }

    /// The hold in force: how long a better tier must be fit before it is used again.
    pub fn hold(&self, now: Moment) -> Duration {
        self.tiers.hold(self.pace(), now)
    }

    /// Shifts so far: because a tier was unfit, because a better one held.
    pub fn shifts(&self) -> [u64; 2] {
        self.shifts
    }

    /// Second questions that the budget denied.
    pub fn budget_denied(&self) -> u64 {
        self.budget_denied
    }

    /// What is under way.
    pub fn bulkhead(&self) -> &Bulkhead {
        &self.bulkhead
    }

    /// How long a client with a stale answer waits for a fresh one while the group is believed healthy.
    pub fn patience(&self) -> Duration {
        match self.settings.stale.patience {
            Patience::Fixed(d) => d,
            Patience::Auto => {
                let (least, most) = PATIENCE_AUTO;
                self.misses.p95().map_or(least, |p95| (p95 * 2).clamp(least, most))
            }
        }
    }

    /// How long a question to a server waits before another server is asked too.
    pub fn hedge_after(&self, id: ServerId) -> Duration {
        hedge::after(&self.settings.hedge, &self.server(id).latency)
    }

    /// How long before the same server is asked again, where all others were asked.
    pub fn again_after(&self, id: ServerId) -> Duration {
        hedge::again_after(self.hedge_after(id))
    }

    /// How long an attempt is worth waiting for where another answer is at hand, or nobody is fit.
    pub fn try_timeout(&self, id: ServerId) -> Duration {
        hedge::try_timeout(self.hedge_after(id))
    }

    /// Should a question to this server carry OPT?
    pub fn takes_edns(&self, id: ServerId, now: Moment) -> bool {
        now >= self.server(id).no_edns_until
    }

    //------------ Deciding ------------------------------------------------------------------------------------------

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

    /// Gives room back.
    pub fn leave(&mut self, permit: Permit) {
        self.bulkhead.leave(permit);
    }

    /// May one more name be asked while the group is dark?
    #[must_use]
    pub fn allows_in_the_dark(&mut self, now: Moment) -> bool {
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
            return Some(id(least[self.turn % least.len()]));
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
        Some(id(self.choose(&alike, draw, draw2)))
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
            .map(id)
    }

    /// A server of a better tier than `tier` that was not asked and, though not fit, has spoken of late.
    pub fn speaking_better(&self, asked: &[u8], tier: usize, now: Moment) -> Option<ServerId> {
        let speaks = |s: &Server| s.heard_at.is_some_and(|at| now.since(at) <= SPEAKING_SPAN);
        (0..self.servers.len())
            .filter(|i| asked[*i] == 0 && self.servers[*i].tier < tier)
            .filter(|i| speaks(&self.servers[*i]) && self.servers[*i].takes_questions(now))
            .min_by_key(|i| self.servers[*i].tier)
            .map(id)
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
        Some(id(due))
    }

    //------------ Learning ------------------------------------------------------------------------------------------

    /// A question goes out whose packet was paid for ([`Group::allows_packet`], or by [`Group::probes_due`]).
    pub fn on_sent(&mut self, to: ServerId, kind: AskKind, now: Moment) {
        if kind == AskKind::First {
            self.second_questions.deposit(self.settings.hedge.budget, now);
        }
        let s = self.at(to);
        s.asked[kind as usize] += 1;
        if kind != AskKind::Probe {
            s.breaker.on_sent(now);
        }
    }

    /// May one more packet go to a server, by its `packets_per_second`? Takes its price.
    #[must_use]
    pub fn allows_packet(&mut self, to: ServerId, now: Moment) -> bool {
        self.at(to).rate.as_mut().is_none_or(|rate| rate.withdraw(now))
    }

    /// A packet came that ends no question: the server asks for TCP, or for a question without OPT.
    pub fn on_packet(&mut self, server: ServerId, now: Moment) {
        self.at(server).on_heard(now);
        self.weigh(now);
    }

    /// A live question has waited its hedge delay. In a failing zone that says nothing of the server.
    pub fn on_overdue(&mut self, server: ServerId, name: &[u8], client: ClientHash, now: Moment) {
        let zone = self.zones.of(name, now);
        if !zone.is_failing {
            self.at(server).breaker.on_overdue(zone.hash, client);
        }
        self.weigh(now);
    }

    /// Nobody has answered a folded name although a server that was asked has spoken since.
    pub fn on_unanswered(&mut self, name: &[u8], now: Moment) {
        self.zones.on_failed(name, now);
    }

    /// A folded name was answered, whatever the answer says. `sample`: the type, where it would do as a probe.
    pub fn on_answered(&mut self, name: &[u8], sample: Option<u16>) {
        self.zones.on_answered(name);
        if let Some(qtype) = sample
            && self.samples.back().is_none_or(|(last, _)| last.as_wire() != name)
            && let Some(name) = Name::from_wire(name)
        {
            if self.samples.len() == SAMPLES_MAX {
                self.samples.pop_front();
            }
            self.samples.push_back((name, qtype));
        }
    }

    /// A question of a loop probe came in at our own door. Says whether it was one of this group.
    pub fn on_came_in(&mut self, name: &[u8], now: Moment) -> bool {
        let Some(token) = loops::token(name) else { return false };
        let Some(at) = self.servers.iter_mut().position(|s| s.loops.on_came_in(token)) else { return false };
        self.servers[at].unfit_at = Some(now);
        self.changes.push(Change::Loops(id(at)));
        self.weigh(now);
        true
    }

    /// A live question ended without any packet: it was given up.
    pub fn on_given_up(&mut self, server: ServerId) {
        let s = self.at(server);
        s.breaker.on_end();
        s.health.on_failure();
    }

    /// A limit of our own ended a live question: that says nothing of the server.
    pub fn on_local(&mut self, server: ServerId) {
        self.at(server).breaker.on_end();
    }

    /// A live question found the port closed, or no route to the host.
    pub fn on_port_closed(&mut self, server: ServerId, unreachable: bool, now: Moment) {
        let s = self.at(server);
        s.unreachable_at = unreachable.then(|| s.unreachable_at.unwrap_or(now));
        s.breaker.on_end();
        s.breaker.on_port_closed();
        s.health.on_failure();
        self.weigh(now);
    }

    /// A packet came in reply to a live question, `took` after it was sent; `usable`: it answers the question.
    pub fn on_reply(&mut self, server: ServerId, took: Duration, usable: bool, now: Moment) {
        let rise = self.settings.health.rise;
        let s = self.at(server);
        s.breaker.on_end();
        if usable {
            s.on_answer(took, rise, now);
            self.on_spoken();
        } else {
            s.on_heard(now);
            s.health.on_failure();
        }
        self.weigh(now);
    }

    /// A copy of a live question, for which [`Group::on_sent`] was told [`AskKind::Probe`], was answered or not.
    pub fn on_copy(&mut self, server: ServerId, took: Option<Duration>, now: Moment) {
        let rise = self.settings.health.rise;
        self.on_unwaited(server, took.is_some_and(|took| took <= HEDGE_AFTER.max), now);
        let s = self.at(server);
        match took {
            Some(took) => {
                s.on_answer(took, rise, now);
                self.on_spoken();
            }
            None => s.health.on_failure(),
        }
        self.weigh(now);
    }

    /// A probe ended.
    pub fn on_probe(&mut self, server: ServerId, probe: Probe, now: Moment) {
        let (fall, rise) = (self.settings.health.fall, self.settings.health.rise);
        self.on_unwaited(server, probe != Probe::Failed, now);
        let s = self.at(server);
        s.on_probe_ended(probe != Probe::Failed, now);
        s.health.on_probe(probe, fall, rise, now);
        if probe == Probe::Failed {
            if !s.is_fit() {
                s.unfit_at = Some(now);
            }
        } else {
            s.on_heard(now);
            s.answered_at = Some(now);
            if probe == Probe::Passed {
                self.on_spoken();
            }
        }
        self.weigh(now);
    }

    /// A question that no client waits for was answered in time or not. Two failures in a row of a fit server of a
    /// better tier: its tier has not held without a break. One packet may be lost, and a hold can be ten minutes.
    fn on_unwaited(&mut self, server: ServerId, in_time: bool, now: Moment) {
        let in_use = self.tiers.in_use();
        let s = self.at(server);
        s.unwaited_failed = if in_time { 0 } else { s.unwaited_failed.saturating_add(1) };
        if s.unwaited_failed == 0 || s.tier >= in_use || !s.is_fit() {
            return;
        }
        s.probe_at_once = true;
        if s.unwaited_failed >= HOLD_BREAKS_AT {
            let tier = s.tier;
            self.tiers.restart_hold(tier, now);
        }
    }

    fn on_spoken(&mut self) {
        self.answered = true;
        if self.dark {
            self.dark = false;
            self.zones.forget();
            self.healings = self.healings.wrapping_add(1);
            self.changes.push(Change::Healed);
        }
    }

    /// It is clear how a live question to a server ended, where another server answered it or this one did.
    pub fn on_judged(&mut self, server: ServerId, fault: bool, zone: ZoneHash, client: ClientHash, now: Moment) {
        let only_client = self.clients.is_only(now);
        self.at(server).breaker.on_judged(Judged { fault, zone, client, at: now }, only_client);
        if !fault || self.server(server).health.is_down() {
            return;
        }
        let tally = self.server(server).breaker.tally(now);
        // A failure rate that is alike on all servers convicts nobody.
        let others_do_better = self.servers.iter().enumerate().any(|(i, s)| {
            let theirs = s.breaker.tally(now);
            i != usize::from(server.0) && s.is_fit() && theirs.judged > 0 && theirs.share() <= tally.share() / 2.0
        });
        if others_do_better && self.server(server).breaker.convicts(only_client, now) {
            let s = self.at(server);
            s.health.convict(Evidence::Faults, now);
            s.unfit_at = Some(now);
            self.weigh(now);
        }
    }

    /// A name that was not in cache was answered after `took`.
    pub fn on_miss_answered(&mut self, took: Duration) {
        self.misses.on_answer(took);
    }

    /// A server refused EDNS: it is asked without for an hour.
    pub fn on_edns_refused(&mut self, server: ServerId, now: Moment) {
        self.at(server).no_edns_until = now + NO_EDNS_SPAN;
    }

    /// The clock jumped, the machine was suspended, or the network changed: probes are due at once, holds start anew,
    /// and what was held against a server, a path or a zone counts no more.
    pub fn on_discontinuity(&mut self, now: Moment) {
        self.tiers.forgive(now);
        self.healings = self.healings.wrapping_add(1);
        self.zones.forget();
        for s in &mut self.servers {
            s.forgive();
        }
        self.weigh(now);
    }

    //------------ Concluding ----------------------------------------------------------------------------------------

    /// Draws the conclusions that time alone brings too: called at every event, and a few times a second.
    pub fn weigh(&mut self, now: Moment) {
        // The prober weighs a few times a second: who did not was asleep, and what is not seen is no fitness.
        if now.since(self.weighed_at) > WEIGHED_GAP_MAX {
            self.tiers.restart_holds(now);
        }
        self.weighed_at = now;
        let only_client = self.clients.is_only(now);
        for i in 0..self.servers.len() {
            let hedge_after = hedge::after(&self.settings.hedge, &self.servers[i].latency);
            let s = &mut self.servers[i];
            let (was_down, was_fit) = (s.health.is_down(), s.is_fit());
            if s.loops.on_time(now) {
                self.changes.push(Change::LoopsNoMore(id(i)));
            }
            match (s.silent_since, s.is_silent(hedge_after, only_client, now)) {
                (None, true) => {
                    s.silent_since = Some(now);
                    s.unfit_at = Some(now);
                    // Whether it is down in a second a probe shall have had its say in.
                    s.probe_at_once |= !s.is_probed_since_quiet();
                    if !was_down {
                        self.changes.push(Change::Silent(id(i)));
                    }
                }
                (Some(_), false) => {
                    s.silent_since = None;
                    if !was_down {
                        self.changes.push(Change::Spoke(id(i)));
                    }
                }
                (Some(since), true) if now.since(since) >= DOWN_AFTER_SILENT && !was_down => {
                    s.health.convict(Evidence::Silence, now);
                }
                (None, false) if s.is_suspect(hedge_after, now) => {
                    s.probe_at_once |= !s.is_probed_since_quiet();
                }
                _ => {}
            }
            if was_fit && !s.is_fit() {
                s.unfit_at = Some(now);
            }
        }
        self.weigh_families();
        self.announce();
        let fitness = self.fitness();
        let pace = self.pace();
        if let Some(shift) = self.tiers.on_fitness(fitness, self.answered_by_tier(), pace, now) {
            self.shifts[shift.why as usize] += 1;
            self.changes.push(Change::Shift(shift));
        }
        for s in self.servers.iter_mut().filter(|s| s.is_fit()) {
            // Its answer is all that its tier waits for.
            let ended = self.tiers.hold_ends(s.tier, pace, now).filter(|at| *at <= now);
            s.probe_at_once |= ended.is_some() && s.probed_at < ended;
        }
        let dark = !self.servers.iter().any(|s| s.is_fit() || s.has_spoken_since_unfit());
        if dark && !self.dark && !self.servers.is_empty() {
            self.dark = true;
            self.changes.push(Change::Dark);
        }
    }

    fn weigh_families(&mut self) {
        let seen: Vec<family::Seen> = self.servers.iter().map(Server::seen).collect();
        for v6 in [false, true] {
            let broken = family::is_broken(&seen, v6);
            for s in self.servers.iter_mut().filter(|s| s.settings.address.is_ipv6() == v6) {
                s.left_out = broken;
            }
            if broken != self.broken_families[usize::from(v6)] {
                self.broken_families[usize::from(v6)] = broken;
                self.changes.push(if broken { Change::FamilyBroken(v6) } else { Change::FamilyWorks(v6) });
            }
        }
    }

    /// Tells of servers that are down or up since the last call.
    fn announce(&mut self) {
        for (i, s) in self.servers.iter_mut().enumerate() {
            match s.health.state() {
                State::Down { by, .. } if !s.announced_down => {
                    s.announced_down = true;
                    s.breaker.forget();
                    self.changes.push(Change::Down(id(i), by));
                }
                State::Fit | State::Unknown if s.announced_down => {
                    s.announced_down = false;
                    s.breaker.forget();
                    self.changes.push(Change::Up(id(i)));
                }
                _ => {}
            }
        }
    }

    /// What changed since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    fn fitness(&self) -> [Fitness; TIERS] {
        std::array::from_fn(|tier| {
            let mut servers = self.servers.iter().filter(|s| s.tier == tier);
            let Some(first) = servers.next() else { return Fitness::Empty };
            if first.is_fit() || servers.any(Server::is_fit) { Fitness::Fit } else { Fitness::Unfit }
        })
    }

    /// The last answer of a fit server of each tier.
    fn answered_by_tier(&self) -> [Option<Moment>; TIERS] {
        std::array::from_fn(|tier| {
            let fit = self.servers.iter().filter(|s| s.tier == tier && s.is_fit());
            fit.filter_map(|s| s.answered_at).max()
        })
    }

    fn pace(&self) -> Pace {
        let h = &self.settings.health;
        Pace { hold: h.hold, ramp: h.ramp, damp: h.damp }
    }

    fn at(&mut self, id: ServerId) -> &mut Server {
        &mut self.servers[usize::from(id.0)]
    }
}

fn id(index: usize) -> ServerId {
    ServerId(index as u16)
}
