//! Fast judgement of one server, from live questions alone.
//!
//! Pure. Two signals, since either alone misses a fault:
//!
//! - **Silence** catches the hard outage. A question is overdue once it has waited its hedge delay. The server is
//!   silent when at least 5 questions are overdue and nothing at all came from it for max(50 ms, 3 × hedge delay);
//!   five questions in a row that found its port closed say the same at once. Its first packet ends silence. One
//!   lost packet is one overdue question, never more.
//! - **Faults** catch the gray failure: a question that this server failed, or answered late, and that another server
//!   answered. What nobody answered is no fault. The last [`WINDOW`] judged questions within [`WINDOW_SPAN`] count; at
//!   least [`FAULTS_MIN`] faults, half of all, from 2 zones and 2 clients convict (one client or one zone convicts
//!   nobody; where there is only one client, zones alone count).

use std::collections::VecDeque;
use std::time::Duration;

use super::{ClientHash, ZoneHash};
use crate::clock::Moment;
use crate::limits::{SILENT_AFTER_MIN, SILENT_OVERDUE_MIN};

/// Judged questions that are looked back on.
pub const WINDOW: usize = 32;
/// How far back they count.
pub const WINDOW_SPAN: Duration = Duration::from_secs(10);
/// Faults below which nobody is convicted.
pub const FAULTS_MIN: usize = 8;

/// How one question to a server ended, once that is clear.
#[derive(Clone, Copy, Debug)]
pub struct Judged {
    /// Did the server fail what another answered?
    pub fault: bool,
    /// The zone of the question.
    pub zone: ZoneHash,
    /// Who asked.
    pub client: ClientHash,
    /// When it was clear.
    pub at: Moment,
}

/// What the window says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// Judged questions.
    pub judged: usize,
    /// Faults among them.
    pub faults: usize,
    /// Different zones among the faults.
    pub zones: usize,
    /// Different clients among the faults.
    pub clients: usize,
}

impl Tally {
    /// Share of faults, 0 where nothing was judged.
    pub fn share(&self) -> f64 {
        if self.judged == 0 { 0.0 } else { self.faults as f64 / self.judged as f64 }
    }

    /// Is this enough to convict? `only_client`: did only one client ask the group of late?
    pub fn convicts(&self, only_client: bool) -> bool {
        self.faults >= FAULTS_MIN && self.share() >= 0.5 && self.zones >= 2 && (only_client || self.clients >= 2)
    }
}

/// What is known of one server from live questions.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    outstanding: u32,
    overdue: u32,
    /// When the first question went out to which, or since which, no packet came.
    quiet_since: Option<Moment>,
    ports_closed: u32,
    window: VecDeque<Judged>,
}

impl Breaker {
    /// What was learned, for another life of the group: questions that are out end in the old one.
    pub fn learned(&self) -> Self {
        Self { outstanding: 0, ..self.clone() }
    }

    /// A question went out.
    pub fn on_sent(&mut self, now: Moment) {
        // A server that nobody asked was not silent meanwhile; one that was found silent stays so.
        if self.outstanding == 0 && self.overdue < SILENT_OVERDUE_MIN {
            self.quiet_since = Some(now);
        }
        self.outstanding += 1;
        self.quiet_since.get_or_insert(now);
    }

    /// Any packet came.
    pub fn on_packet(&mut self, now: Moment) {
        self.overdue = 0;
        self.ports_closed = 0;
        self.quiet_since = (self.outstanding > 0).then_some(now);
    }

    /// A question has waited its hedge delay.
    pub fn on_overdue(&mut self) {
        self.overdue = self.overdue.saturating_add(1);
    }

    /// The server's port was found closed, or its host unreachable.
    pub fn on_port_closed(&mut self) {
        self.ports_closed = self.ports_closed.saturating_add(1);
    }

    /// A question ended, however it did.
    pub fn on_end(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
    }

    /// Questions under way.
    pub fn outstanding(&self) -> u32 {
        self.outstanding
    }

    /// Are questions overdue, or was the port found closed, since the last packet?
    pub fn in_doubt(&self) -> bool {
        self.overdue > 0 || self.ports_closed > 0
    }

    /// Is the server silent?
    pub fn is_silent(&self, hedge_after: Duration, now: Moment) -> bool {
        let quiet_min = (hedge_after * 3).max(SILENT_AFTER_MIN);
        self.ports_closed >= SILENT_OVERDUE_MIN
            || self.overdue >= SILENT_OVERDUE_MIN
                && self.quiet_since.is_some_and(|since| now.since(since) >= quiet_min)
    }

    /// It is clear how a question ended.
    pub fn on_judged(&mut self, judged: Judged) {
        if self.window.len() == WINDOW {
            self.window.pop_front();
        }
        self.window.push_back(judged);
    }

    /// What the window says at `now`.
    pub fn tally(&self, now: Moment) -> Tally {
        let recent = || self.window.iter().filter(|j| now.since(j.at) <= WINDOW_SPAN);
        let faults = || recent().filter(|j| j.fault);
        Tally {
            judged: recent().count(),
            faults: faults().count(),
            zones: different(faults().map(|j| j.zone.0)),
            clients: different(faults().map(|j| j.client.0)),
        }
    }

    /// The clients in the window at `now`.
    pub fn clients(&self, now: Moment) -> impl Iterator<Item = ClientHash> {
        self.window.iter().filter(move |j| now.since(j.at) <= WINDOW_SPAN).map(|j| j.client)
    }

    /// Forgets the judged questions: after a conviction, and after an acquittal.
    pub fn forget(&mut self) {
        self.window.clear();
    }
}

fn different(values: impl Iterator<Item = u32>) -> usize {
    let mut seen = [0u32; WINDOW];
    let mut count = 0;
    for v in values {
        if !seen[..count].contains(&v) {
            seen[count] = v;
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEDGE: Duration = Duration::from_millis(20);

    #[test]
    fn four_overdue_questions_are_not_silence_but_five_are_after_three_hedge_delays() {
        let mut b = Breaker::default();
        (0..5).for_each(|n| b.on_sent(Moment::from_millis(n)));
        (0..4).for_each(|_| b.on_overdue());
        assert!(!b.is_silent(HEDGE, Moment::from_secs(1)));
        b.on_overdue();
        assert!(!b.is_silent(HEDGE, Moment::from_millis(59)));
        assert!(b.is_silent(HEDGE, Moment::from_millis(60)));
        b.on_packet(Moment::from_millis(61));
        assert!(!b.is_silent(HEDGE, Moment::from_secs(9)), "the first packet ends it");
    }

    #[test]
    fn the_time_in_which_nobody_asked_is_no_silence() {
        let mut b = Breaker::default();
        b.on_sent(Moment::ZERO);
        b.on_overdue();
        b.on_end();
        let later = Moment::from_secs(100);
        (0..4).for_each(|_| b.on_sent(later));
        (0..4).for_each(|_| b.on_overdue());
        assert!(!b.is_silent(HEDGE, later + Duration::from_millis(59)));
        assert!(b.is_silent(HEDGE, later + Duration::from_millis(60)));
        (0..4).for_each(|_| b.on_end());
        b.on_sent(later + Duration::from_secs(1));
        assert!(b.is_silent(HEDGE, later + Duration::from_secs(1)), "to be asked does not end it");
    }

    #[test]
    fn what_is_out_does_not_go_over_to_another_life_of_the_group() {
        let mut b = Breaker::default();
        (0..5).for_each(|_| b.on_sent(Moment::ZERO));
        (0..5).for_each(|_| b.on_overdue());
        let new = b.learned();
        assert_eq!(new.outstanding(), 0);
        assert!(new.is_silent(HEDGE, Moment::from_secs(1)));
    }

    #[test]
    fn a_short_hedge_delay_makes_nobody_silent_before_50_ms() {
        let mut b = Breaker::default();
        b.on_sent(Moment::ZERO);
        (0..9).for_each(|_| b.on_overdue());
        assert!(!b.is_silent(Duration::from_millis(10), Moment::from_millis(49)));
        assert!(b.is_silent(Duration::from_millis(10), Moment::from_millis(50)));
    }

    #[test]
    fn a_closed_port_is_silence_at_the_fifth_time() {
        let mut b = Breaker::default();
        (0..4).for_each(|_| b.on_port_closed());
        assert!(!b.is_silent(HEDGE, Moment::ZERO));
        b.on_port_closed();
        assert!(b.is_silent(HEDGE, Moment::ZERO));
    }

    #[test]
    fn one_client_or_one_zone_convicts_nobody() {
        for (what, faults, good, zones, clients, only_client, want) in [
            ("seven faults", 7, 0, 7, 7, false, false),
            ("eight faults", 8, 0, 7, 7, false, true),
            ("one zone", 20, 0, 1, 7, false, false),
            ("one client of several", 20, 0, 7, 1, false, false),
            ("the only client", 20, 0, 7, 1, true, true),
            ("fewer faults than half", 8, 9, 7, 7, false, false),
            ("half", 8, 8, 7, 7, false, true),
        ] {
            let mut b = Breaker::default();
            for n in 0..faults + good {
                b.on_judged(Judged {
                    fault: n < faults,
                    zone: ZoneHash(n % zones),
                    client: ClientHash(n % clients),
                    at: Moment::ZERO,
                });
            }
            assert_eq!(b.tally(Moment::ZERO).convicts(only_client), want, "{what}");
            assert!(!b.tally(Moment::from_secs(11)).convicts(only_client), "{what}: old faults do not count");
        }
    }
}
