//! What is measured: every question of a client with what it got and when, questions upstream by the second, tiers.
//!
//! Pure. All that is shown and judged comes from here; it grows with the questions asked, which the scenario bounds.

use std::time::Duration;

use super::names::Truth;
use crate::wire::{edns, rcode, reply};

/// What a client got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// What is true of the name, without a word that it is old.
    Fresh,
    /// The same, stale.
    Stale,
    /// That the name, or its record, is not there, although it is; or another address.
    Denied,
    /// SERVFAIL or another error.
    Failed,
    /// No reply.
    Nothing,
}

impl Got {
    /// Is it what is true of the name?
    pub fn is_answer(self) -> bool {
        matches!(self, Got::Fresh | Got::Stale)
    }

    /// The word in reasons.
    pub fn word(self) -> &'static str {
        match self {
            Got::Fresh => "fresh",
            Got::Stale => "stale",
            Got::Denied => "denied",
            Got::Failed => "SERVFAIL",
            Got::Nothing => "no reply",
        }
    }
}

/// What a reply is to a question of which this is true. Every client of a drill speaks EDNS, so that a stale answer
/// says that it is one (RFC 8914 §4.4, §4.20).
pub fn judge(bytes: &[u8], truth: Truth) -> Got {
    let Ok(reply) = reply::check(bytes) else { return Got::Failed };
    let stale = edns::ede_codes(reply.options()).any(|code| matches!(code, 3 | 19));
    let has = |data: &[u8]| reply.answers().iter().any(|r| reply.data(r) == data);
    let right = match (truth, reply.rcode()) {
        (Truth::Address { address, .. }, rcode::NOERROR) => has(&address),
        (Truth::Other, rcode::NOERROR) => true,
        (Truth::NoData, rcode::NOERROR) => reply.answers().is_empty(),
        (Truth::NxDomain, rcode::NXDOMAIN) => true,
        (_, rcode::NOERROR | rcode::NXDOMAIN) => false,
        _ => return Got::Failed,
    };
    match (right, stale) {
        (true, false) => Got::Fresh,
        (true, true) => Got::Stale,
        (false, _) => Got::Denied,
    }
}

/// One question of a client.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// When it came.
    pub at: Duration,
    /// When it was replied to, after that; meaningless where it got nothing.
    pub took: Duration,
    /// The load that it belongs to.
    pub load: u16,
    /// The group that answers for it.
    pub group: u16,
    /// What came of it.
    pub got: Got,
}

/// Which tier a group uses from a time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Using {
    /// From when on.
    pub at: Duration,
    /// The group.
    pub group: usize,
    /// The tier, from 0.
    pub tier: usize,
    /// Is no server of the group fit?
    pub dark: bool,
}

/// All that was measured.
#[derive(Clone, Debug, Default)]
pub struct Tape {
    /// In the order in which they came.
    pub asked: Vec<Asked>,
    /// Questions sent upstream in each second, probes among them.
    pub upstream: Vec<u32>,
    /// In the order of time; changes alone.
    pub using: Vec<Using>,
}

/// Questions of a span, summed up.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    /// Questions.
    pub asked: usize,
    /// Answered fresh.
    pub fresh: usize,
    /// Answered stale.
    pub stale: usize,
    /// Times to the reply, in order.
    pub took: Vec<Duration>,
}

impl Sum {
    /// A quantile of the times to the reply, by the nearest rank; zero where there is none.
    pub fn quantile(&self, q: f64) -> Duration {
        let rank = (self.took.len() as f64 * q).ceil() as usize;
        self.took.get(rank.max(1) - 1).copied().unwrap_or_default()
    }

    /// Share of the questions that were answered; all where none was asked.
    pub fn answered(&self) -> f64 {
        self.share(self.fresh + self.stale)
    }

    /// So many as a share of the questions.
    pub fn share(&self, n: usize) -> f64 {
        if self.asked == 0 { 1.0 } else { n as f64 / self.asked as f64 }
    }
}

impl Tape {
    /// For a drill of so long.
    pub fn new(length: Duration) -> Self {
        Self { upstream: vec![0; length.as_secs() as usize + 1], ..Self::default() }
    }

    /// A question went upstream.
    pub fn on_sent(&mut self, now: Duration) {
        if let Some(n) = self.upstream.get_mut(now.as_secs() as usize) {
            *n += 1;
        }
    }

    /// A group stands otherwise than before?
    pub fn on_using(&mut self, using: Using) {
        let last = self.using.iter().rev().find(|u| u.group == using.group);
        if last.is_none_or(|u| (u.tier, u.dark) != (using.tier, using.dark)) {
            self.using.push(using);
        }
    }

    /// The questions of a span.
    pub fn within(&self, from: Duration, until: Duration) -> &[Asked] {
        let at = |t: Duration| self.asked.partition_point(|a| a.at < t);
        &self.asked[at(from)..at(until).max(at(from))]
    }

    /// Those of a span that `counts` picks, summed up.
    pub fn sum(&self, from: Duration, until: Duration, counts: &dyn Fn(&Asked) -> bool) -> Sum {
        let mut sum = Sum::default();
        for asked in self.within(from, until).iter().filter(|a| counts(a)) {
            sum.asked += 1;
            match asked.got {
                Got::Fresh => sum.fresh += 1,
                Got::Stale => sum.stale += 1,
                _ => {}
            }
            if asked.got != Got::Nothing {
                sum.took.push(asked.took);
            }
        }
        sum.took.sort_unstable();
        sum
    }

    /// Questions upstream in each second of a span.
    pub fn sent(&self, from: Duration, until: Duration) -> &[u32] {
        let end = (until.as_nanos().div_ceil(1_000_000_000) as usize).min(self.upstream.len());
        &self.upstream[(from.as_secs() as usize).min(end)..end]
    }

    /// How a group stands at a time.
    pub fn using(&self, group: usize, at: Duration) -> Option<Using> {
        self.using.iter().rev().find(|u| u.group == group && u.at <= at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(at: u64, took: u64, got: Got) -> Asked {
        Asked { at: Duration::from_secs(at), took: Duration::from_millis(took), load: 0, group: 0, got }
    }

    #[test]
    fn a_span_has_its_beginning_and_not_its_end() {
        let mut tape = Tape::new(Duration::from_secs(10));
        tape.asked = vec![asked(1, 1, Got::Fresh), asked(2, 2, Got::Stale), asked(3, 9, Got::Failed)];
        tape.asked.push(asked(4, 0, Got::Nothing));
        let secs = Duration::from_secs;
        let sum = tape.sum(secs(2), secs(4), &|_| true);
        assert_eq!((sum.asked, sum.fresh, sum.stale, sum.took.len()), (2, 0, 1, 2));
        let all = tape.sum(secs(0), secs(10), &|_| true);
        assert_eq!((all.asked, all.answered()), (4, 0.5));
        assert_eq!((all.quantile(0.5), all.quantile(0.99)), (Duration::from_millis(2), Duration::from_millis(9)));
        assert_eq!(Sum::default().quantile(0.99), Duration::ZERO);
    }

    #[test]
    fn a_group_that_stands_as_before_is_not_noted_again() {
        let mut tape = Tape::new(Duration::from_secs(1));
        let using = |at, tier| Using { at: Duration::from_secs(at), group: 0, tier, dark: false };
        [using(0, 0), using(1, 0), using(2, 1)].into_iter().for_each(|u| tape.on_using(u));
        assert_eq!(tape.using.len(), 2);
        assert_eq!(tape.using(0, Duration::from_secs(1)).map(|u| u.tier), Some(0));
    }
}
