//! Whether one client alone asks a group, and what each takes of its budget.
//!
//! Pure. One client convicts nobody, unless it is the only one: a machine with one program must find out about a dead
//! server too. And where the budget of second questions is scarce, one client that took more than half of it of late
//! gets none until others had theirs. A fixed few are remembered, whoever comes.

use std::time::Duration;

use super::ClientHash;
use crate::clock::Moment;
use crate::limits::CLIENTS_SEEN_SPAN;

/// Clients whose spending is remembered.
const SPENDERS_MAX: usize = 16;
/// Spending halves over this.
const HALF_LIFE: Duration = Duration::from_secs(1);

/// Who asked of late.
#[derive(Clone, Debug, Default)]
pub struct Clients {
    /// The last two different clients, the last first.
    last: [Option<(ClientHash, Moment)>; 2],
    spent: Vec<(ClientHash, f64)>,
    decayed_at: Moment,
}

impl Clients {
    /// A client asked.
    pub fn on_asked(&mut self, client: ClientHash, now: Moment) {
        match self.last {
            [Some((last, _)), _] if last == client => {}
            [_, Some((before, _))] if before == client => self.last.swap(0, 1),
            _ => self.last = [None, self.last[0]],
        }
        self.last[0] = Some((client, now));
    }

    /// Did only one client ask in the last minute?
    pub fn is_only(&self, now: Moment) -> bool {
        self.last[1].is_none_or(|(_, at)| now.since(at) > CLIENTS_SEEN_SPAN)
    }

    /// A second question went out for a client.
    pub fn on_spent(&mut self, client: ClientHash, now: Moment) {
        self.decay(now);
        match self.spent.iter_mut().find(|(c, _)| *c == client) {
            Some((_, n)) => *n += 1.0,
            None => {
                if self.spent.len() == SPENDERS_MAX {
                    let least = (0..SPENDERS_MAX).min_by(|a, b| self.spent[*a].1.total_cmp(&self.spent[*b].1));
                    least.map(|at| self.spent.swap_remove(at));
                }
                self.spent.push((client, 1.0));
            }
        }
    }

    /// Did this client, one of several, take more than half of what was spent of late?
    pub fn is_greedy(&mut self, client: ClientHash, now: Moment) -> bool {
        if self.is_only(now) {
            return false;
        }
        self.decay(now);
        let all: f64 = self.spent.iter().map(|(_, n)| n).sum();
        let own = self.spent.iter().find(|(c, _)| *c == client).map_or(0.0, |(_, n)| *n);
        own > GREEDY_MIN && own > all / 2.0
    }

    fn decay(&mut self, now: Moment) {
        let factor = (-now.since(self.decayed_at).as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2();
        self.decayed_at = self.decayed_at.max(now);
        self.spent.retain_mut(|(_, n)| {
            *n *= factor;
            *n > 0.01
        });
    }
}

/// Second questions of late below which nobody is greedy.
const GREEDY_MIN: f64 = 5.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_the_only_one_until_another_asks_and_a_minute_after_it() {
        let mut c = Clients::default();
        let at = Moment::from_secs;
        c.on_asked(ClientHash(1), at(1));
        assert!(c.is_only(at(1)));
        c.on_asked(ClientHash(2), at(2));
        for s in 3..63 {
            c.on_asked(ClientHash(1), at(s));
            assert!(!c.is_only(at(s)), "{s}");
        }
        assert!(c.is_only(at(63)));
    }

    #[test]
    fn who_took_more_than_half_of_late_is_greedy_and_alone_nobody_is() {
        let mut c = Clients::default();
        let now = Moment::from_secs(9);
        c.on_asked(ClientHash(1), now);
        (0..20).for_each(|_| c.on_spent(ClientHash(1), now));
        assert!(!c.is_greedy(ClientHash(1), now), "alone");
        c.on_asked(ClientHash(2), now);
        assert!(c.is_greedy(ClientHash(1), now) && !c.is_greedy(ClientHash(2), now));
        assert!(!c.is_greedy(ClientHash(1), now + Duration::from_secs(3)), "it is forgotten");
        (0..100).for_each(|n| c.on_spent(ClientHash(n), now));
        assert!(c.spent.len() <= SPENDERS_MAX);
    }
}
