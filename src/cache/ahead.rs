//! When an answer that is asked for often is asked again before it runs out.
//!
//! Pure. Rules:
//!
//! - A window stands at the end of the TTL. It begins between 75 and 90 % of it, other for each name and each process:
//!   what came together is not asked together.
//! - Popular is what is asked twice within the window: the first hit marks, the second claims. So nobody keeps a name
//!   alive who does not ask for it, and before the window a hit writes nothing. An answer is claimed once; where the
//!   claim leads to nothing the name is asked at its expiry, like any other.
//! - An answer that came ahead and extends life by less than a quarter of the TTL before shows a server that is a cache
//!   itself: it gives what is left. That answer has no window, and of those that follow it 1, then 3, 7 and 15 have
//!   none, while that goes on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::entry::{Data, Kind};
use super::key::Key;
use crate::clock::Moment;
use crate::limits::AHEAD_TTL_MIN;

/// The window of one answer, and what was learned from those before it, in eight bytes.
///
/// The lowest bit tells that a hit was within, or, without a window, that it was claimed; the next three how often in a
/// row an answer that came ahead did not extend life; the next four how many answers that follow have no window. The
/// rest are the nanoseconds of the moment at which the window begins, to 256; all ones are none.
#[derive(Debug)]
pub struct Ahead(AtomicU64);

impl Default for Ahead {
    fn default() -> Self {
        Self(AtomicU64::new(NONE))
    }
}

impl Ahead {
    /// Is a hit at `now` within a window that nobody has claimed? The one comparison of the hit path.
    #[inline]
    pub fn is_open(&self, now: Moment) -> bool {
        now.as_nanos() | LEARNED >= self.0.load(Ordering::Relaxed) && self.begins().is_some()
    }

    /// Counts a hit. Of all hits in a window one is told yes, and never the first.
    pub fn claim(&self, now: Moment) -> bool {
        if !self.is_open(now) {
            return false;
        }
        let state = self.0.load(Ordering::Relaxed);
        let (is_second, next) = if state & MARK == 0 { (false, state | MARK) } else { (true, state | NONE | MARK) };
        // Who loses against a hit at the same time is not counted.
        self.0.compare_exchange(state, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() && is_second
    }

    /// When the window begins that nobody has claimed.
    #[inline]
    pub fn begins(&self) -> Option<Moment> {
        let from = self.0.load(Ordering::Relaxed) & NONE;
        (from != NONE).then(|| Moment::from_nanos(from))
    }

    fn was_claimed(&self) -> bool {
        self.0.load(Ordering::Relaxed) & (NONE | MARK) == NONE | MARK
    }

    /// How often in a row in vain, and how many that follow have no window.
    fn learned(&self) -> (u64, u64) {
        let state = self.0.load(Ordering::Relaxed);
        (state >> 1 & 7, state >> 4 & 15)
    }

    /// Sets the window of `data`, which is stored under `key` in the place of `old`.
    pub fn follow(&self, key: Key, data: &Data, old: Option<(&Ahead, &Data)>) {
        if data.kind != Kind::Positive {
            return;
        }
        let (mut futile, mut skip) = old.map(|(a, _)| a.learned()).unwrap_or_default();
        let was_ahead =
            old.filter(|(a, had)| a.was_claimed() && had.group == data.group && data.stored < expiry(had));
        let mut waits = skip > 0 || data.ttl < AHEAD_TTL_MIN;
        match was_ahead {
            Some((_, had)) if expiry(data) < expiry(had) + Duration::from_secs(had.ttl.into()) / 4 => {
                futile = (futile + 1).min(FUTILE_MAX);
                skip = (1 << futile) - 1;
                waits = true;
            }
            Some(_) => (futile, skip) = (0, 0),
            None => skip = skip.saturating_sub(1),
        }
        let from = if waits { NONE } else { window(key, data).as_nanos() & NONE };
        self.0.store(from | futile << 1 | skip << 4, Ordering::Relaxed);
    }
}

const LEARNED: u64 = 255;
const NONE: u64 = !LEARNED;
const MARK: u64 = 1;
const FUTILE_MAX: u64 = 4;

fn expiry(data: &Data) -> Moment {
    data.stored + Duration::from_secs(data.ttl.into())
}

fn window(key: Key, data: &Data) -> Moment {
    let share = 0.75 + 0.15 * f64::from((key.0 >> 40) as u16) / 65_536.0;
    data.stored + Duration::from_secs(data.ttl.into()).mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::entry::{GroupStamp, Packed};
    use proptest::prelude::*;

    #[test]
    fn the_second_hit_within_the_window_claims_and_no_other_does() {
        let ahead = opened(60, 0);
        let at = |ms| ahead.claim(Moment::from_millis(ms));
        assert!(!at(10_000) && !at(44_999), "before the window nothing counts");
        assert_eq!(ahead.begins(), Some(Moment::from_secs(45)));
        assert_eq!([45_000, 45_001, 45_002, 59_000].map(at), [false, true, false, false]);
        assert_eq!(ahead.begins(), None);
        assert!(!ahead.is_open(Moment::from_secs(1 << 30)));
    }

    #[test]
    fn only_positive_answers_of_five_seconds_or_more_have_a_window() {
        let begins = |kind, ttl| {
            let ahead = Ahead::default();
            ahead.follow(KEY, &data(kind, ttl, 0), None);
            ahead.begins().is_some()
        };
        assert!(!begins(Kind::Positive, 4) && begins(Kind::Positive, 5));
        assert!(!begins(Kind::NxDomain, 60) && !begins(Kind::NoData, 60));
    }

    #[test]
    fn an_answer_that_extends_life_by_less_than_a_quarter_of_the_ttl_waits() {
        for (ttl, extends) in [(9, false), (24, false), (25, true), (60, true)] {
            // Asked at 50 of 60 s.
            let (old, had) = (claimed(60, 0), data(Kind::Positive, 60, 0));
            let ahead = Ahead::default();
            ahead.follow(KEY, &data(Kind::Positive, ttl, 50), Some((&old, &had)));
            assert_eq!(ahead.begins().is_some(), extends, "{ttl}");
        }
    }

    #[test]
    fn what_was_asked_at_its_expiry_is_no_sign_of_a_cache() {
        for (asked_at, claimed_before) in [(60, true), (50, false)] {
            let old = if claimed_before { claimed(60, 0) } else { opened(60, 0) };
            let ahead = Ahead::default();
            ahead.follow(KEY, &data(Kind::Positive, 10, asked_at), Some((&old, &data(Kind::Positive, 60, 0))));
            assert!(ahead.begins().is_some(), "{asked_at}");
        }
    }

    #[test]
    fn another_groups_answer_shows_no_cache_and_one_that_extends_life_begins_the_count_anew() {
        let (old, had) = (claimed(60, 0), data(Kind::Positive, 60, 0));
        let follow = |new: &Data| {
            let ahead = Ahead::default();
            ahead.follow(KEY, new, Some((&old, &had)));
            ahead
        };
        let mut other = data(Kind::Positive, 10, 50);
        other.group = GroupStamp(2);
        assert!(follow(&other).begins().is_some());
        old.0.fetch_or(3 << 1, Ordering::Relaxed);
        assert_eq!(follow(&data(Kind::Positive, 10, 50)).learned(), (4, 15));
        assert_eq!(follow(&data(Kind::Positive, 60, 50)).learned(), (0, 0));
    }

    // A cache upstream gives 60 s, and what is left of them to who asks before they are over.
    #[test]
    fn behind_a_cache_it_is_tried_ever_less_often() {
        let (mut at, mut ahead, mut had) = (0, opened(60, 0), data(Kind::Positive, 60, 0));
        let mut tried = vec![];
        for period in 0..64 {
            if let Some(from) = ahead.begins() {
                tried.push(period);
                assert!(!ahead.claim(from) && ahead.claim(from + Duration::from_secs(1)));
                let left = data(Kind::Positive, 10, at + 50);
                let next = Ahead::default();
                next.follow(KEY, &left, Some((&ahead, &had)));
                assert_eq!(next.begins(), None, "what is left of it is not asked ahead");
                (ahead, had) = (next, left);
            }
            at += 60;
            let new = data(Kind::Positive, 60, at);
            let next = Ahead::default();
            next.follow(KEY, &new, Some((&ahead, &had)));
            (ahead, had) = (next, new);
        }
        assert_eq!(tried, [0, 2, 6, 14, 30, 46, 62]);
    }

    proptest! {
        #[test]
        fn the_window_begins_between_75_and_90_percent(key: u128, ttl in 5u32..604_800, stored in 0u64..1 << 40) {
            let mut data = data(Kind::Positive, ttl, 0);
            data.stored = Moment::from_nanos(stored);
            let after = window(Key(key), &data).since(data.stored).as_secs_f64() / f64::from(ttl);
            prop_assert!((0.749..0.901).contains(&after), "{}", after);
        }
    }

    /// Its window begins at 75 %.
    const KEY: Key = Key(0);

    fn data(kind: Kind, ttl: u32, stored: u64) -> Data {
        let packed = Packed { ttl, ..Packed::of_a_minute(kind) };
        Data::new(packed, 0, GroupStamp(1), Moment::from_secs(stored))
    }

    fn opened(ttl: u32, stored: u64) -> Ahead {
        let ahead = Ahead::default();
        ahead.follow(KEY, &data(Kind::Positive, ttl, stored), None);
        ahead
    }

    fn claimed(ttl: u32, stored: u64) -> Ahead {
        let ahead = opened(ttl, stored);
        let end = Moment::from_secs(stored + u64::from(ttl) - 1);
        assert!(!ahead.claim(end) && ahead.claim(end));
        ahead
    }
}
