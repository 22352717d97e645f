//! Who is asked although no client waits: probes, copies of live questions, questions that find loops.
//!
//! Pure. A fleet of thousands probes the same resolver, so probes are few and spread by a tenth: before the group's
//! first answer every 200 ms for a second; in the dark every second; in doubt every `every`; a fit server 10 s after
//! its last answer, so that one that answers live questions is not probed; one of a better tier within its hold
//! every `every`, since nobody else asks it. One that is suspected of silence is probed at once, but no more often than
//! every 200 ms.
//!
//! More than one question is asked of a server that is down, or whose probe has failed: the configured ones in turn,
//! and among them one that was answered live of late, since a resolver may answer the root from memory and nothing
//! else, or everything but that. A server that waits for copies gets one of those where clients have sent none for two
//! seconds, so that it comes back on a quiet node too.

use std::time::Duration;

use super::loops;
use super::server::Server;
use super::{Group, ServerId};
use crate::clock::Moment;
use crate::limits::{COPY_EVERY, PROBE_EVERY_DOWN, PROBE_EVERY_FIT, PROBE_EVERY_START, PROBE_START_SPAN};
use crate::wire::Name;

/// A question that is due without a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probing {
    /// Whom to ask.
    pub server: ServerId,
    /// What.
    pub name: Name,
    /// Its type.
    pub qtype: u16,
    /// Is it a copy of a live question, whose answer acquits as one to a client would?
    pub is_copy: bool,
}

impl Group {
    /// What is to be asked now, its packets paid for; `draw` is a random number in 0..1 that spreads probes by a tenth.
    pub fn probes_due(&mut self, draw: f64, now: Moment) -> Vec<Probing> {
        let mut due = Vec::new();
        for i in 0..self.servers.len() {
            let server = ServerId::nth(i);
            if let Some((name, qtype)) = self.copy_due(i, now)
                && self.allows_packet(server, now)
            {
                due.push(Probing { server, name, qtype, is_copy: true });
            }
            let (pause, from) = self.pace_of(&self.servers[i], now);
            let s = &self.servers[i];
            let at_once = s.probe_at_once && s.probed_at.is_none_or(|at| now.since(at) >= PROBE_EVERY_START);
            let is_due = at_once || from.is_none_or(|at| now.since(at) >= pause.mul_f64(0.9 + 0.2 * draw));
            if !is_due || !s.takes_questions(now) {
                continue;
            }
            let Some((name, qtype)) = self.probe_question(i) else {
                self.servers[i].probe_at_once = false;
                continue;
            };
            if !self.allows_packet(server, now) {
                continue;
            }
            let s = &mut self.servers[i];
            s.probe_at_once = false;
            s.probed_at = Some(now);
            s.probe_turn = s.probe_turn.wrapping_add(1);
            due.push(Probing { server, name, qtype, is_copy: false });
        }
        due
    }

    /// Until when nothing is due, as long as nobody asks: all are fit and beyond doubt, and the first tier is in use.
    /// `None` where the group is to be weighed as ever.
    pub fn rests_until(&self, now: Moment) -> Option<Moment> {
        let at_rest = |s: &Server| {
            s.is_fit()
                && !s.health.in_doubt()
                && !s.breaker.in_doubt()
                && !s.health.wants_copies()
                && !s.probe_at_once
        };
        if self.dark || self.tier_in_use() != 0 || !self.servers.iter().all(at_rest) {
            return None;
        }
        let next = |s: &Server| {
            let (pause, from) = self.pace_of(s, now);
            from.map(|at| at + pause.mul_f64(0.9))
        };
        self.servers.iter().map(next).min().flatten()
    }

    /// The pause between probes of a server, and since when it counts.
    fn pace_of(&self, s: &Server, now: Moment) -> (Duration, Option<Moment>) {
        let every = self.settings.health.every;
        let within_hold = s.tier < self.tier_in_use();
        let doubt = s.health.in_doubt() || s.breaker.in_doubt() || !s.is_fit() || within_hold;
        if !self.answered && now.since(self.started) < PROBE_START_SPAN {
            (PROBE_EVERY_START.min(every), s.probed_at)
        } else if self.dark || !self.answered {
            (PROBE_EVERY_DOWN.min(every), s.probed_at)
        } else if doubt {
            (every, s.probed_at)
        } else {
            (PROBE_EVERY_FIT.max(every), s.probed_at.max(s.answered_at))
        }
    }

    /// The next probe question of a server: the configured ones in turn, then one that was answered live.
    fn probe_question(&self, i: usize) -> Option<(Name, u16)> {
        let (s, probes) = (&self.servers[i], &self.settings.health.probes);
        let in_doubt = s.health.has_failed_probes() || s.health.is_down();
        let samples = usize::from(!self.samples.is_empty() && in_doubt);
        let turn = s.probe_turn % (probes.len() + samples).max(1);
        probes.get(turn).or_else(|| self.samples.get(s.probe_turn % self.samples.len().max(1))).cloned()
    }

    /// A copy for a server that waits for one, where no client's question has made one for a while.
    fn copy_due(&mut self, i: usize, now: Moment) -> Option<(Name, u16)> {
        let s = &mut self.servers[i];
        let due = !self.dark
            && s.health.wants_copies()
            && s.copied_at.is_none_or(|at| now.since(at) >= COPY_EVERY * 2)
            && s.takes_questions(now);
        let sample = self.samples.back().filter(|_| due)?.clone();
        s.copied_at = Some(now);
        Some(sample)
    }

    /// Is a probe wanted before the prober's next turn?
    pub fn wants_probes(&self, now: Moment) -> bool {
        let recent = |at: Moment| now.since(at) < PROBE_EVERY_START;
        self.servers.iter().any(|s| s.probe_at_once && s.takes_questions(now) && !s.probed_at.is_some_and(recent))
    }

    /// Questions that find loops, due now: the name of each, by server. `draw` gives random numbers.
    pub fn loop_probes_due(&mut self, draw: &mut dyn FnMut() -> u64, now: Moment) -> Vec<(ServerId, Name)> {
        let zone = self.settings.zones.first().cloned().unwrap_or_else(Name::root);
        let mut due = Vec::new();
        for i in 0..self.servers.len() {
            let server = ServerId::nth(i);
            if self.servers[i].loops.is_due(now)
                && let token = draw()
                && let Some(name) = loops::name(token, &zone)
                && self.allows_packet(server, now)
            {
                self.servers[i].loops.on_sent(token, now);
                due.push((server, name));
            }
        }
        due
    }
}
