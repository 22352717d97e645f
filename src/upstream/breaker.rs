//! Fast judgement of one server, from live questions alone.
//!
//! Pure. Two signals, since either alone misses a fault:
//!
//! - **Silence** catches the hard outage. A question is overdue once it has waited its hedge delay. The server is
//!   silent when at least 5 questions are overdue and nothing at all came from it for max(50 ms, 3 × hedge delay);
//!   five questions in a row that found its port closed say the same at once. Its first packet ends silence. One
//!   lost packet is one overdue question, never more. Where fewer than three are left without one zone's,
//!   or without one of several clients', it may be them: then a probe must be overdue too.
//! - **Faults** catch the gray failure: a question that this server failed, or answered late, and that another server
//!   answered. What nobody answered is no fault. The last [`WINDOW`] judged questions within [`WINDOW_SPAN`] count, of
//!   one zone or one of several clients at most [`WINDOW_SHARE`]. At least [`FAULTS_MIN`] faults, half of all,
//!   convict, and they must still do so ([`FAULTS_LEFT_MIN`], half of what is left) without any one zone's and any one
//!   client's: one client or one zone convicts nobody, however loud it is. Where there is only one client, zones alone
//!   count.

use std::collections::VecDeque;
use std::time::Duration;

use super::{ClientHash, ZoneHash};
use crate::clock::Moment;
use crate::limits::SILENT_OVERDUE_MIN;

/// Judged questions that are looked back on.
pub const WINDOW: usize = 64;
/// Of them, questions of one zone, and of one of several clients.
pub const WINDOW_SHARE: usize = 16;
/// How far back they count.
pub const WINDOW_SPAN: Duration = Duration::from_secs(10);
/// Faults below which nobody is convicted.
pub const FAULTS_MIN: usize = 6;
/// Faults that must be left without the worst zone's, and without the worst client's.
pub const FAULTS_LEFT_MIN: usize = 4;

/// Overdue questions whose zone and client are kept.
const WITNESSES_MAX: usize = 16;
/// Of them, those that must be left without the loudest zone's, and without the loudest client's.
const WITNESSES_LEFT_MIN: usize = 3;

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
}

impl Tally {
    fn of<'a>(judged: impl Iterator<Item = &'a Judged>) -> Self {
        judged.fold(Self::default(), |t, j| Self { judged: t.judged + 1, faults: t.faults + usize::from(j.fault) })
    }

    /// Share of faults, 0 where nothing was judged.
    pub fn share(&self) -> f64 {
        if self.judged == 0 { 0.0 } else { self.faults as f64 / self.judged as f64 }
    }

    fn is_damning(&self, faults_min: usize) -> bool {
        self.faults >= faults_min && self.share() >= 0.5
    }
}

/// What is known of one server from live questions.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    outstanding: u32,
    overdue: u32,
    /// When the first question went out to which, or since which, no packet came.
    quiet_since: Option<Moment>,
    /// Whose questions are overdue: the first of them.
    witnesses: Vec<(ZoneHash, ClientHash)>,
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
        self.witnesses.clear();
        self.ports_closed = 0;
        self.quiet_since = (self.outstanding > 0).then_some(now);
    }

    /// A question has waited its hedge delay.
    pub fn on_overdue(&mut self, zone: ZoneHash, client: ClientHash) {
        self.overdue = self.overdue.saturating_add(1);
        if self.witnesses.len() < WITNESSES_MAX {
            self.witnesses.push((zone, client));
        }
    }

    /// Are enough questions overdue without those of the loudest zone, and without those of the loudest client?
    fn is_witnessed(&self, only_client: bool) -> bool {
        let zone_left = left_without_loudest(self.witnesses.iter().map(|&(zone, _)| zone));
        let client_left = left_without_loudest(self.witnesses.iter().map(|&(_, client)| client));
        zone_left >= WITNESSES_LEFT_MIN && (only_client || client_left >= WITNESSES_LEFT_MIN)
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

    /// Is the server silent, where it must have been quiet for `quiet_min`? `probe_overdue`: has a probe that was sent
    /// since the last packet waited as long?
    pub fn is_silent(&self, quiet_min: Duration, only_client: bool, probe_overdue: bool, now: Moment) -> bool {
        self.ports_closed >= SILENT_OVERDUE_MIN
            || self.is_suspect(quiet_min, now) && (probe_overdue || self.is_witnessed(only_client))
    }

    /// Would it be silent, were it not for who says so?
    pub fn is_suspect(&self, quiet_min: Duration, now: Moment) -> bool {
        self.overdue >= SILENT_OVERDUE_MIN && self.quiet_since.is_some_and(|since| now.since(since) >= quiet_min)
    }

    /// Since when no packet came although questions are out.
    pub fn quiet_since(&self) -> Option<Moment> {
        self.quiet_since
    }

    /// It is clear how a question ended. `only_client`: did only one client ask the group of late?
    pub fn on_judged(&mut self, judged: Judged, only_client: bool) {
        let alike = |j: &Judged| j.zone == judged.zone || !only_client && j.client == judged.client;
        if self.window.iter().filter(|j| alike(j)).count() >= WINDOW_SHARE {
            let oldest = self.window.iter().position(alike);
            oldest.map(|at| self.window.remove(at));
        } else if self.window.len() == WINDOW {
            self.window.pop_front();
        }
        self.window.push_back(judged);
    }

    /// What the window says at `now`.
    pub fn tally(&self, now: Moment) -> Tally {
        Tally::of(self.recent(now))
    }

    /// Is what the window says at `now` enough to convict?
    pub fn convicts(&self, only_client: bool, now: Moment) -> bool {
        let without_worst = |alike: &dyn Fn(&Judged, &Judged) -> bool| {
            let faults = || self.recent(now).filter(|j| j.fault);
            let worst = faults().max_by_key(|j| faults().filter(|other| alike(j, other)).count());
            worst.is_some_and(|w| Tally::of(self.recent(now).filter(|j| !alike(w, j))).is_damning(FAULTS_LEFT_MIN))
        };
        self.tally(now).is_damning(FAULTS_MIN)
            && without_worst(&|a, b| a.zone == b.zone)
            && (only_client || without_worst(&|a, b| a.client == b.client))
    }

    fn recent(&self, now: Moment) -> impl Iterator<Item = &Judged> {
        self.window.iter().filter(move |j| now.since(j.at) <= WINDOW_SPAN)
    }

    /// Forgets everything but what is out.
    pub fn forgive(&mut self) {
        *self = Self { outstanding: self.outstanding, ..Self::default() };
    }

    /// Forgets the judged questions: after a conviction, and after an acquittal.
    pub fn forget(&mut self) {
        self.window.clear();
    }
}

/// How many are left without those that occur most often.
fn left_without_loudest<T: PartialEq>(all: impl ExactSizeIterator<Item = T> + Clone) -> usize {
    let loudest = all.clone().map(|one| all.clone().filter(|other| *other == one).count()).max();
    all.len() - loudest.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET_MIN: Duration = Duration::from_millis(60);

    #[test]
    fn four_overdue_questions_are_not_silence_but_five_are_after_a_quiet_time() {
        let mut b = Breaker::default();
        (0..5).for_each(|n| b.on_sent(Moment::from_millis(n)));
        (0..4).for_each(|_| overdue(&mut b));
        assert!(!b.is_silent(QUIET_MIN, true, true, Moment::from_secs(1)));
        overdue(&mut b);
        assert!(!b.is_silent(QUIET_MIN, true, true, Moment::from_millis(59)));
        assert!(b.is_silent(QUIET_MIN, true, true, Moment::from_millis(60)));
        b.on_packet(Moment::from_millis(61));
        assert!(!b.is_silent(QUIET_MIN, true, true, Moment::from_secs(9)), "the first packet ends it");
    }

    #[test]
    fn the_time_in_which_nobody_asked_is_no_silence() {
        let mut b = Breaker::default();
        b.on_sent(Moment::ZERO);
        overdue(&mut b);
        b.on_end();
        let later = Moment::from_secs(100);
        (0..4).for_each(|_| b.on_sent(later));
        (0..4).for_each(|_| overdue(&mut b));
        assert!(!b.is_silent(QUIET_MIN, true, true, later + Duration::from_millis(59)));
        assert!(b.is_silent(QUIET_MIN, true, true, later + Duration::from_millis(60)));
        (0..4).for_each(|_| b.on_end());
        b.on_sent(later + Duration::from_secs(1));
        assert!(b.is_silent(QUIET_MIN, true, true, later + Duration::from_secs(1)), "to be asked does not end it");
    }

    #[test]
    fn what_is_out_does_not_go_over_to_another_life_of_the_group() {
        let mut b = Breaker::default();
        (0..5).for_each(|_| b.on_sent(Moment::ZERO));
        (0..5).for_each(|_| overdue(&mut b));
        let new = b.learned();
        assert_eq!(new.outstanding(), 0);
        assert!(new.is_silent(QUIET_MIN, true, true, Moment::from_secs(1)));
    }

    #[test]
    fn a_closed_port_is_silence_at_the_fifth_time() {
        let mut b = Breaker::default();
        (0..4).for_each(|_| b.on_port_closed());
        assert!(!b.is_silent(QUIET_MIN, true, true, Moment::ZERO));
        b.on_port_closed();
        assert!(b.is_silent(QUIET_MIN, true, true, Moment::ZERO));
    }

    #[test]
    fn what_one_zone_or_one_of_several_clients_says_needs_a_probe_that_is_overdue_too() {
        for (what, zones, clients, only_client, want) in [
            ("several zones of the only client", 5, 1, true, true),
            ("several zones and clients", 5, 5, false, true),
            ("a loud client and two questions of others", 5, 2, false, false),
            ("one of several clients", 5, 1, false, false),
            ("one zone", 1, 5, false, false),
        ] {
            let mut b = Breaker::default();
            b.on_sent(Moment::ZERO);
            (0..5).for_each(|n| b.on_overdue(ZoneHash(n % zones), ClientHash(n % clients)));
            let now = Moment::from_millis(60);
            assert_eq!(b.is_silent(QUIET_MIN, only_client, false, now), want, "{what}");
            assert!(b.is_suspect(QUIET_MIN, now) && b.is_silent(QUIET_MIN, only_client, true, now), "{what}");
        }
    }

    // complaints 12 and 15: one failure counted once per waiter, and name-scoped failures, moved whole servers.
    #[test]
    fn one_client_or_one_zone_convicts_nobody_however_loud_it_is() {
        for (what, faults, good, zones, clients, only_client, want) in [
            ("five faults", 5, 0, 7, 7, false, false),
            ("six faults", 6, 0, 7, 7, false, true),
            ("one zone", 20, 0, 1, 7, false, false),
            ("one client of several", 20, 0, 7, 1, false, false),
            ("the only client", 20, 0, 7, 1, true, true),
            ("fewer faults than half", 8, 9, 7, 7, false, false),
            ("half", 8, 8, 8, 8, false, true),
        ] {
            let mut b = Breaker::default();
            for n in 0..faults + good {
                b.on_judged(judged(n < faults, n % zones, n % clients), only_client);
            }
            assert_eq!(b.convicts(only_client, Moment::ZERO), want, "{what}");
            assert!(!b.convicts(only_client, Moment::from_secs(11)), "{what}: old faults do not count");
        }
    }

    #[test]
    fn a_tenants_faults_do_not_drown_what_other_clients_see() {
        let mut b = Breaker::default();
        for n in 0..1000 {
            b.on_judged(judged(true, n, 1), false);
            if n % 5 == 0 {
                b.on_judged(judged(false, n, 2 + n % 3), false);
            }
        }
        b.on_judged(judged(true, 7, 2), false);
        assert!(!b.convicts(false, Moment::ZERO), "{:?}", b.tally(Moment::ZERO));
        for n in 0..30 {
            b.on_judged(judged(true, 5000 + n, 2 + n % 3), false);
        }
        assert!(b.convicts(false, Moment::ZERO), "the others see it too");
    }

    fn judged(fault: bool, zone: u32, client: u32) -> Judged {
        Judged { fault, zone: ZoneHash(zone), client: ClientHash(client), at: Moment::ZERO }
    }

    fn overdue(b: &mut Breaker) {
        b.on_overdue(ZoneHash(1), ClientHash(1));
    }
}
