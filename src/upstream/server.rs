//! One server of a group: what the configuration says of it, and what was learned.
//!
//! Pure. The judges ([`super::breaker`], [`super::health`], [`super::latency`]) each hold their part; the group asks
//! them and draws the conclusions.

use std::time::Duration;

use super::ServerSettings;
use super::breaker::Breaker;
use super::budget::Budget;
use super::family;
use super::health::{Health, State};
use super::latency::Latency;
use super::loops::Loop;
use crate::clock::Moment;
use crate::limits::{SILENT_AFTER_MIN, SILENT_AFTER_MIN_UNKNOWN, SPEAKING_SPAN};

/// What a question to a server is for. The word is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskKind {
    /// The first one for a client.
    First,
    /// Another one after a failure.
    Retry,
    /// Another one while the first is overdue.
    Hedge,
    /// A probe, or a copy of a live question that nobody waits for.
    Probe,
    /// For a client that was answered stale.
    Refresh,
}

impl AskKind {
    /// All of them, in the order of their counters.
    pub const ALL: [AskKind; 5] = [AskKind::First, AskKind::Retry, AskKind::Hedge, AskKind::Probe, AskKind::Refresh];

    /// The word in logs, metrics and explanations.
    pub fn word(self) -> &'static str {
        match self {
            AskKind::First => "first",
            AskKind::Retry => "retry",
            AskKind::Hedge => "hedge",
            AskKind::Probe => "probe",
            AskKind::Refresh => "refresh",
        }
    }
}

/// Tokens that must be there before a question goes out.
pub(super) const QUESTION_ROOM: f64 = 2.0;

/// One server and what was learned of it.
#[derive(Debug)]
pub struct Server {
    /// What the configuration says.
    pub settings: ServerSettings,
    /// Its tier, from 0.
    pub tier: usize,
    pub(super) breaker: Breaker,
    pub(super) health: Health,
    pub(super) latency: Latency,
    pub(super) silent_since: Option<Moment>,
    /// Was it told that it is down?
    pub(super) announced_down: bool,
    /// When it was last found unfit, or its probe failed.
    pub(super) unfit_at: Option<Moment>,
    /// Its last well-formed reply.
    pub(super) answered_at: Option<Moment>,
    /// Its last packet, whatever it said.
    pub(super) heard_at: Option<Moment>,
    /// Since when there is no route to it.
    pub(super) unreachable_at: Option<Moment>,
    /// Is its address family broken?
    pub(super) left_out: bool,
    pub(super) loops: Loop,
    pub(super) probe_at_once: bool,
    pub(super) probed_at: Option<Moment>,
    /// How long its slowest probe of late took.
    pub(super) probe_took: Duration,
    pub(super) probe_turn: usize,
    pub(super) copied_at: Option<Moment>,
    /// Probes and copies that it failed in a row.
    pub(super) unwaited_failed: u32,
    pub(super) no_edns_until: Moment,
    pub(super) rate: Option<Budget>,
    pub(super) asked: [u64; AskKind::ALL.len()],
}

impl Server {
    pub(super) fn new(settings: ServerSettings, tier: usize, now: Moment) -> Self {
        let rate = (settings.packets_per_second > 0).then(|| {
            let per_second = f64::from(settings.packets_per_second);
            Budget::new(per_second, (per_second / 10.0).max(2.0), now)
        });
        Self {
            settings,
            tier,
            breaker: Breaker::default(),
            health: Health::default(),
            latency: Latency::default(),
            silent_since: None,
            announced_down: false,
            unfit_at: None,
            answered_at: None,
            heard_at: None,
            unreachable_at: None,
            left_out: false,
            loops: Loop::default(),
            probe_at_once: false,
            probed_at: None,
            probe_took: Duration::ZERO,
            probe_turn: 0,
            copied_at: None,
            unwaited_failed: 0,
            no_edns_until: Moment::ZERO,
            rate,
            asked: [0; AskKind::ALL.len()],
        }
    }

    /// Does it get first questions?
    pub fn is_fit(&self) -> bool {
        self.judged_fit() && !self.left_out && !self.loops.is_found()
    }

    fn judged_fit(&self) -> bool {
        self.silent_since.is_none() && !self.health.is_down()
    }

    /// Is it convicted or left out, and not only silent?
    pub(super) fn is_given_up(&self) -> bool {
        self.health.is_down() || self.left_out || self.loops.is_found()
    }

    /// May a question go to it at all?
    pub(super) fn takes_questions(&self, now: Moment) -> bool {
        !self.loops.is_found() && self.has_room(now)
    }

    /// Is it silent? Once found so it is until its next packet.
    pub(super) fn is_silent(&self, hedge_after: Duration, only_client: bool, now: Moment) -> bool {
        let quiet_min = self.quiet_min(hedge_after);
        let probe_overdue = self.silent_since.is_some()
            || self.is_probed_since_quiet() && self.probed_at.is_some_and(|at| now.since(at) >= quiet_min);
        self.breaker.is_silent(quiet_min, only_client, probe_overdue, now)
    }

    /// Would it be silent, were it not for who says so?
    pub(super) fn is_suspect(&self, hedge_after: Duration, now: Moment) -> bool {
        self.breaker.is_suspect(self.quiet_min(hedge_after), now)
    }

    /// How long nothing must have come from it. One whose pace nobody knows yet may be a slow one: behind a satellite
    /// every server would be silent at start.
    fn quiet_min(&self, hedge_after: Duration) -> Duration {
        let known = !self.latency.p50().is_zero() || !self.probe_took.is_zero();
        let least = if known { SILENT_AFTER_MIN } else { SILENT_AFTER_MIN_UNKNOWN };
        (hedge_after * 3).max(self.probe_took * 2).max(least)
    }

    /// Did a probe go out since the last packet?
    pub(super) fn is_probed_since_quiet(&self) -> bool {
        self.breaker.quiet_since().is_some_and(|since| self.probed_at >= Some(since))
    }

    pub(super) fn seen(&self) -> family::Seen {
        family::Seen {
            address: self.settings.address,
            unfit_since: match self.judged_fit() {
                true => self.unreachable_at,
                // What was silent is so since it fell quiet, not since that was noticed.
                false => self.breaker.quiet_since().filter(|_| self.silent_since.is_some()).or(self.unfit_at),
            },
            unreachable: self.unreachable_at.is_some(),
            in_doubt: self.breaker.in_doubt() || self.heard_at.is_none(),
            heard_at: self.heard_at,
        }
    }

    /// A probe was answered or not. Where several were out the time counts from the last one.
    pub(super) fn on_probe_ended(&mut self, answered: bool, now: Moment) {
        if let Some(at) = self.probed_at.filter(|_| answered) {
            self.probe_took = now.since(at).max(self.probe_took.mul_f64(0.7));
        }
    }

    /// A packet came.
    pub(super) fn on_heard(&mut self, now: Moment) {
        self.breaker.on_packet(now);
        self.heard_at = Some(now);
        self.unreachable_at = None;
    }

    /// Nothing is held against it any more; what is out is still counted.
    pub(super) fn forgive(&mut self) {
        self.breaker.forgive();
        self.health = Health::default();
        self.latency = Latency::default();
        self.probe_took = Duration::ZERO;
        self.silent_since = None;
        self.unreachable_at = None;
        self.loops.ask_again();
        self.probe_at_once = true;
    }

    /// Is there room for a question, and for one packet more: it may have to be asked again over TCP?
    pub(super) fn has_room(&self, now: Moment) -> bool {
        self.rate.as_ref().is_none_or(|r| r.tokens(now) >= QUESTION_ROOM)
    }

    /// Did anything come from it of late?
    pub(super) fn has_spoken_lately(&self, now: Moment) -> bool {
        self.heard_at.is_some_and(|at| now.since(at) <= SPEAKING_SPAN)
    }

    pub(super) fn has_spoken_since_unfit(&self) -> bool {
        self.answered_at > self.unfit_at
    }

    /// Its state in one word, and the reason in a few.
    pub fn state(&self) -> (&'static str, &'static str) {
        match self.health.state() {
            _ if self.loops.is_found() => ("loops", "leads back to evenkeel"),
            State::Down { by, .. } => ("down", by.word()),
            _ if self.silent_since.is_some() => ("silent", "questions overdue, nothing came"),
            _ if self.left_out => ("left_out", "its address family leads nowhere"),
            State::Unknown => ("unknown", "nothing came from it yet"),
            State::Fit => ("fit", "answers"),
        }
    }

    /// Since when it gets no first questions; `None` while it does, and where that is not known.
    pub fn unfit_since(&self) -> Option<Moment> {
        let down = match self.health.state() {
            State::Down { since, .. } => Some(since),
            _ => None,
        };
        // What fell silent first was convicted later.
        let judged = [self.silent_since, down].into_iter().flatten().min();
        judged.or(self.unreachable_at.filter(|_| self.left_out))
    }

    /// Its last well-formed reply.
    pub fn answered_at(&self) -> Option<Moment> {
        self.answered_at
    }

    /// Its last packet, whatever it said.
    pub fn heard_at(&self) -> Option<Moment> {
        self.heard_at
    }

    /// Its latency.
    pub fn latency(&self) -> &Latency {
        &self.latency
    }

    /// Questions by [`AskKind`].
    pub fn asked(&self) -> &[u64; AskKind::ALL.len()] {
        &self.asked
    }

    /// A well-formed answer came, `took` after the question. One that comes too late to be of use does not acquit.
    pub(super) fn on_answer(&mut self, took: Duration, in_time: bool, rise: u32, now: Moment) {
        self.on_heard(now);
        self.latency.on_answer(took);
        self.answered_at = Some(now);
        if in_time { self.health.on_answer(rise) } else { self.health.on_late_answer() }
    }
}
