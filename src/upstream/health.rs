//! Slow judgement of one server: unknown, fit, down, and the way back.
//!
//! Pure. `fall` failed probes in a row convict; so does live evidence, by the group's word ([`Health::convict`]). Who
//! was convicted by probes is acquitted by `rise` passed probes in a row; who was convicted by live evidence only by
//! `rise` passed copies of live questions, which no client waits for: a server that answers probes but not questions
//! must not come back by passing probes. Unknown is usable: start never waits for probes.
//!
//! A probe passes by NOERROR and NXDOMAIN; SERVFAIL and REFUSED are inconclusive; silence fails.

use crate::clock::Moment;

/// How a server stands by slow judgement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing has come from it yet. Usable.
    #[default]
    Unknown,
    /// It answers.
    Fit,
    /// It gets no first questions.
    Down {
        /// What convicted it, and so what acquits it.
        by: Evidence,
        /// Since when.
        since: Moment,
    },
}

/// What a server was convicted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// `fall` probes failed.
    Probes,
    /// It was silent for a second while questions were out.
    Silence,
    /// It failed questions that another server answered.
    Faults,
}

impl Evidence {
    /// The word in logs, metrics and explanations.
    pub fn word(self) -> &'static str {
        match self {
            Evidence::Probes => "probes failed",
            Evidence::Silence => "silent",
            Evidence::Faults => "failed what others answered",
        }
    }

    fn is_live(self) -> bool {
        self != Evidence::Probes
    }
}

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// NOERROR or NXDOMAIN.
    Passed,
    /// SERVFAIL, REFUSED or another RCODE: it is there, but says nothing of how it resolves.
    Inconclusive,
    /// Nothing, or nothing usable, came.
    Failed,
}

/// One server's record.
#[derive(Clone, Debug, Default)]
pub struct Health {
    state: State,
    failed_probes: u32,
    passed: u32,
}

impl Health {
    /// How it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Is it down?
    pub fn is_down(&self) -> bool {
        matches!(self.state, State::Down { .. })
    }

    /// Does it wait for copies of live questions?
    pub fn wants_copies(&self) -> bool {
        matches!(self.state, State::Down { by, .. } if by.is_live())
    }

    /// Did the last probe fail, or did nothing come from it yet?
    pub fn in_doubt(&self) -> bool {
        self.failed_probes > 0 || self.state == State::Unknown
    }

    /// Did the last probe fail?
    pub fn has_failed_probes(&self) -> bool {
        self.failed_probes > 0
    }

    /// A probe ended.
    pub fn on_probe(&mut self, probe: Probe, fall: u32, rise: u32, now: Moment) {
        match probe {
            Probe::Passed => {
                self.failed_probes = 0;
                match self.state {
                    State::Unknown => self.state = State::Fit,
                    State::Down { by: Evidence::Probes, .. } => self.pass(rise),
                    _ => {}
                }
            }
            Probe::Inconclusive => self.failed_probes = 0,
            Probe::Failed => {
                self.failed_probes = self.failed_probes.saturating_add(1);
                match self.state {
                    State::Down { by: Evidence::Probes, .. } => self.passed = 0,
                    State::Down { .. } => {}
                    _ if self.failed_probes >= fall => self.convict(Evidence::Probes, now),
                    _ => {}
                }
            }
        }
    }

    /// A well-formed answer to a live question came in time.
    pub fn on_answer(&mut self, rise: u32) {
        self.failed_probes = 0;
        match self.state {
            State::Unknown => self.state = State::Fit,
            State::Down { .. } => self.pass(rise),
            State::Fit => {}
        }
    }

    /// A well-formed answer came, too late to be of use: the server is there, and nothing acquits it.
    pub fn on_late_answer(&mut self) {
        self.passed = 0;
        if self.state == State::Unknown {
            self.state = State::Fit;
        }
    }

    /// A live question to a server that is down failed.
    pub fn on_failure(&mut self) {
        self.passed = 0;
    }

    fn pass(&mut self, rise: u32) {
        self.passed += 1;
        if self.passed >= rise {
            self.state = State::Fit;
            self.passed = 0;
        }
    }

    /// The server is down from here on; a server that is down stays convicted by what convicted it first.
    pub fn convict(&mut self, by: Evidence, now: Moment) {
        if !self.is_down() {
            self.state = State::Down { by, since: now };
            self.passed = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment::from_secs(1);

    #[test]
    fn two_failed_probes_are_not_enough_but_three_are() {
        let mut h = Health::default();
        (0..2).for_each(|_| h.on_probe(Probe::Failed, 3, 3, NOW));
        assert_eq!(h.state(), State::Unknown);
        h.on_probe(Probe::Failed, 3, 3, NOW);
        assert_eq!(h.state(), State::Down { by: Evidence::Probes, since: NOW });
    }

    #[test]
    fn failed_probes_count_in_a_row_only() {
        let mut h = Health::default();
        for p in [
            Probe::Failed,
            Probe::Failed,
            Probe::Passed,
            Probe::Failed,
            Probe::Failed,
            Probe::Inconclusive,
            Probe::Failed,
        ] {
            h.on_probe(p, 3, 3, NOW);
        }
        assert_eq!(h.state(), State::Fit);
    }

    #[test]
    fn who_was_convicted_by_probes_is_acquitted_by_three_probes_in_a_row() {
        let mut h = down(Evidence::Probes);
        for p in [Probe::Passed, Probe::Passed, Probe::Failed, Probe::Passed, Probe::Passed] {
            h.on_probe(p, 3, 3, NOW);
        }
        assert!(h.is_down());
        h.on_probe(Probe::Passed, 3, 3, NOW);
        assert_eq!(h.state(), State::Fit);
    }

    #[test]
    fn who_was_convicted_by_live_evidence_does_not_come_back_by_probes() {
        for by in [Evidence::Silence, Evidence::Faults] {
            let mut h = down(by);
            (0..100).for_each(|_| h.on_probe(Probe::Passed, 3, 3, NOW));
            assert!(h.is_down() && h.wants_copies(), "{by:?}");
            (0..2).for_each(|_| h.on_answer(3));
            h.on_failure();
            (0..2).for_each(|_| h.on_answer(3));
            assert!(h.is_down(), "{by:?}: in a row");
            h.on_answer(3);
            assert_eq!(h.state(), State::Fit, "{by:?}");
        }
    }

    #[test]
    fn a_late_answer_makes_a_server_known_and_acquits_nobody() {
        let mut h = Health::default();
        h.on_late_answer();
        assert_eq!(h.state(), State::Fit);
        let mut h = down(Evidence::Faults);
        (0..2).for_each(|_| h.on_answer(3));
        h.on_late_answer();
        (0..2).for_each(|_| h.on_answer(3));
        assert!(h.is_down(), "in a row");
    }

    #[test]
    fn servfail_to_a_probe_neither_convicts_nor_acquits() {
        let mut h = Health::default();
        (0..10).for_each(|_| h.on_probe(Probe::Inconclusive, 3, 3, NOW));
        assert_eq!(h.state(), State::Unknown);
        let mut h = down(Evidence::Probes);
        (0..10).for_each(|_| h.on_probe(Probe::Inconclusive, 3, 3, NOW));
        assert!(h.is_down());
    }

    fn down(by: Evidence) -> Health {
        let mut h = Health::default();
        h.convict(by, NOW);
        h
    }
}
