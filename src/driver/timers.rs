//! When the pursuits of one cell want to be looked at again: one heap, and one task that keeps the time.
//!
//! Pure. A pursuit is set as often as it likes; what was set is not taken back, and whoever has gone by then is not
//! found. Most pursuits are over long before their time: setting one costs a push, and the task is woken only where an
//! earlier time than all others is set. The task begins with the first that is set and ends when none is.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::clock::Moment;
use crate::resolve::desk::PursuitId;

/// A time that is always due: somebody has news for the pursuit.
const AT_ONCE: Moment = Moment::ZERO;

#[derive(Debug, Default)]
pub(super) struct Timers {
    set: Mutex<Set>,
    earlier: Notify,
}

#[derive(Debug, Default)]
struct Set {
    times: BinaryHeap<Reverse<(Moment, PursuitId)>>,
    kept: bool,
}

/// One that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) id: PursuitId,
    /// Somebody has news for it: its own time need not have come.
    pub(super) told: bool,
}

impl Timers {
    /// Sets a time. Says whether the caller must begin to keep the time: nobody does.
    #[must_use]
    pub(super) fn set(&self, id: PursuitId, at: Moment) -> bool {
        let mut set = self.locked();
        let earlier = set.times.peek().is_none_or(|Reverse((first, _))| at < *first);
        set.times.push(Reverse((at, id)));
        let begins = !std::mem::replace(&mut set.kept, true);
        if earlier && !begins {
            self.earlier.notify_one();
        }
        begins
    }

    /// There is news for a pursuit. One that has set no time yet looks by itself.
    pub(super) fn tell(&self, id: PursuitId) {
        let mut set = self.locked();
        set.times.push(Reverse((AT_ONCE, id)));
        if set.kept {
            self.earlier.notify_one();
        }
    }

    /// Takes all that are due.
    pub(super) fn take_due(&self, now: Moment, due: &mut Vec<Due>) {
        let mut set = self.locked();
        while let Some(Reverse((at, id))) = set.times.peek().copied().filter(|Reverse((at, _))| *at <= now) {
            set.times.pop();
            due.push(Due { id, told: at == AT_ONCE });
        }
    }

    /// The next time that is set; where there is none, the task that keeps the time ends.
    pub(super) fn next_or_end(&self) -> Option<Moment> {
        let mut set = self.locked();
        let next = set.times.peek().map(|Reverse((at, _))| *at);
        set.kept = next.is_some();
        next
    }

    /// Waits for a time that is earlier than all others.
    pub(super) async fn earlier(&self) {
        self.earlier.notified().await;
    }

    fn locked(&self) -> MutexGuard<'_, Set> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_secs(seconds)
    }

    fn due(timers: &Timers, now: u64) -> Vec<(u64, bool)> {
        let mut due = Vec::new();
        timers.take_due(at(now), &mut due);
        due.into_iter().map(|d| (d.id.0, d.told)).collect()
    }

    #[test]
    fn each_is_due_at_its_time_in_the_order_of_times() {
        let timers = Timers::default();
        assert!(timers.set(PursuitId(1), at(30)), "the first one begins to keep the time");
        assert!(!timers.set(PursuitId(2), at(10)) && !timers.set(PursuitId(3), at(20)));
        assert_eq!(timers.next_or_end(), Some(at(10)));
        assert_eq!(due(&timers, 9), []);
        assert_eq!(due(&timers, 20), [(2, false), (3, false)]);
        timers.tell(PursuitId(1));
        assert_eq!(due(&timers, 20), [(1, true)], "its own time is still to come");
        assert_eq!(due(&timers, 30), [(1, false)]);
    }

    #[test]
    fn the_time_is_kept_while_anything_is_set() {
        let timers = Timers::default();
        timers.tell(PursuitId(1));
        assert!(timers.set(PursuitId(1), at(5)), "who is told something keeps no time");
        assert_eq!(due(&timers, 5), [(1, true), (1, false)]);
        assert!(!timers.set(PursuitId(2), at(6)), "it is kept yet");
        assert_eq!(due(&timers, 6), [(2, false)]);
        assert_eq!(timers.next_or_end(), None);
        assert!(timers.set(PursuitId(3), at(7)), "nobody keeps it any more");
    }

    #[tokio::test]
    async fn only_a_time_earlier_than_all_others_wakes_who_keeps_it() {
        let timers = Timers::default();
        assert!(timers.set(PursuitId(1), at(5)));
        let woken = || futures_util::FutureExt::now_or_never(timers.earlier()).is_some();
        assert!(!timers.set(PursuitId(2), at(5)) && !timers.set(PursuitId(3), at(9)));
        assert!(!woken());
        assert!(!timers.set(PursuitId(4), at(4)));
        assert!(woken());
        timers.tell(PursuitId(3));
        assert!(woken());
    }
}
