//! What came, and what follows from it.
//!
//! Pure. Every `on_*` notes one event where it belongs and ends in [`Group::weigh`], which draws the conclusions: who
//! is silent and who is down, which tier is in use, whether it is dark.

use std::time::Duration;

use super::breaker::Judged;
use super::change::Change;
use super::group::Group;
use super::health::{Evidence, Probe, State};
use super::server::{AskKind, Server};
use super::tier::TIERS;
use super::{ClientHash, ServerId, ZoneHash, family, hedge, loops};
use crate::clock::Moment;
use crate::limits::{DOWN_AFTER_SILENT, HEDGE_AFTER, NO_EDNS_SPAN, WEIGHED_GAP_MAX};
use crate::wire::Name;

/// Probes and copies that a server must fail in a row to break its tier's hold.
const HOLD_BREAKS_AT: u32 = 2;
/// Answered questions that are kept for copies.
const SAMPLES_MAX: usize = 4;

impl Group {
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

    /// A server says of a folded name that it is not there, or empty, and it was good before.
    pub fn on_turned(&mut self, server: ServerId, name: &[u8], now: Moment) {
        if self.servers.len() > 1 {
            self.turned.on_turned(server, name, now);
        }
    }

    /// Another server was asked for a name that `server` had turned against: is it `good` there?
    pub fn on_second_opinion(&mut self, server: ServerId, good: bool, now: Moment) {
        if self.turned.on_second_opinion(server, good, now) {
            self.changes.push(Change::Suspect(server));
        }
    }

    /// A question of a loop probe came in at our own door. Says whether it was one of this group.
    pub fn on_came_in(&mut self, name: &[u8], now: Moment) -> bool {
        let Some(token) = loops::token(name) else { return false };
        let Some(at) = self.servers.iter_mut().position(|s| s.loops.on_came_in(token)) else { return false };
        self.servers[at].unfit_at = Some(now);
        self.changes.push(Change::Loops(ServerId::nth(at)));
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
        let (rise, in_time) = (self.settings.health.rise, took <= self.late_after());
        let s = self.at(server);
        s.breaker.on_end();
        if usable {
            s.on_answer(took, in_time, rise, now);
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
        let late_after = self.late_after();
        self.on_unwaited(server, took.is_some_and(|took| took <= late_after), now);
        let s = self.at(server);
        match took {
            Some(took) => {
                s.on_answer(took, took <= late_after, rise, now);
                self.on_spoken();
            }
            None => s.health.on_failure(),
        }
        self.weigh(now);
    }

    /// A probe that was sent at `begun` ended. Where an answer has come since, its failure is of a time that is over: a
    /// server that has just come back is not taken away by what was asked while it was gone.
    pub fn on_probe(&mut self, server: ServerId, probe: Probe, begun: Moment, now: Moment) {
        if probe == Probe::Failed && self.server(server).answered_at() > Some(begun) {
            return;
        }
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

    /// How long an answer may take to be of use: behind a long line, twice what the quickest server takes.
    fn late_after(&self) -> Duration {
        let medians = self.servers.iter().map(|s| s.latency.p50()).filter(|p50| !p50.is_zero());
        HEDGE_AFTER.max.max(medians.min().unwrap_or_default() * 2)
    }

    /// A question that no client waits for was answered in time or not. Two failures in a row of a fit server of a
    /// better tier, where no other one of its tier stands well: its tier has not held without a break. One packet may
    /// be lost, and a hold can be ten minutes.
    fn on_unwaited(&mut self, server: ServerId, in_time: bool, now: Moment) {
        let in_use = self.tiers.in_use();
        let s = self.at(server);
        s.unwaited_failed = if in_time { 0 } else { s.unwaited_failed.saturating_add(1) };
        if s.unwaited_failed == 0 || s.tier >= in_use || !s.is_fit() {
            return;
        }
        s.probe_at_once = true;
        let (tier, breaks) = (s.tier, s.unwaited_failed >= HOLD_BREAKS_AT);
        let stands = |s: &Server| s.tier == tier && s.is_fit() && s.unwaited_failed == 0 && s.has_spoken_lately(now);
        if breaks && !self.servers.iter().any(stands) {
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
                self.changes.push(Change::LoopsNoMore(ServerId::nth(i)));
            }
            match (s.silent_since, s.is_silent(hedge_after, only_client, now)) {
                (None, true) => {
                    s.silent_since = Some(now);
                    s.unfit_at = Some(now);
                    // Whether it is down in a second a probe shall have had its say in.
                    s.probe_at_once |= !s.is_probed_since_quiet();
                    if !was_down {
                        self.changes.push(Change::Silent(ServerId::nth(i)));
                    }
                }
                (Some(_), false) => {
                    s.silent_since = None;
                    if !was_down {
                        self.changes.push(Change::Spoke(ServerId::nth(i)));
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
        let frozen = self.is_frozen(now);
        if let Some(shift) = self.tiers.on_fitness(fitness, self.answered_by_tier(), (pace, frozen), now) {
            self.shifts[shift.why as usize] += 1;
            self.changes.push(Change::Shift(shift));
        }
        for s in self.servers.iter_mut().filter(|s| s.is_fit()) {
            // Its answer is all that its tier waits for.
            let ended = self.tiers.hold_ends(s.tier, pace, now).filter(|at| *at <= now);
            s.probe_at_once |= ended.is_some() && s.probed_at < ended;
        }
        if let Some(server) = self.turned.on_time(now) {
            self.changes.push(Change::SuspectNoMore(server));
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
                    self.changes.push(Change::Down(ServerId::nth(i), by));
                }
                State::Fit | State::Unknown if s.announced_down => {
                    s.announced_down = false;
                    s.breaker.forget();
                    self.changes.push(Change::Up(ServerId::nth(i)));
                }
                _ => {}
            }
        }
    }

    /// The last answer of a fit server of each tier.
    fn answered_by_tier(&self) -> [Option<Moment>; TIERS] {
        std::array::from_fn(|tier| {
            let fit = self.servers.iter().filter(|s| s.tier == tier && s.is_fit());
            fit.filter_map(|s| s.answered_at).max()
        })
    }
}
