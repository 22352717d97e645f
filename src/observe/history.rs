//! The last hour, in samples of ten seconds.
//!
//! A task beside the way ([`EVERY`]) reads the same sums that a scrape reads and keeps what they grew by, with each
//! server's latency and state at that moment. Nothing on the way of a query knows of it. From it come the charts of
//! the page and of `top`, and what is said of the last minute.
//!
//! Bounds: [`SLOTS`] samples of 88 bytes; for each of at most [`SERVERS_MAX`] servers 5 bytes a sample, for each group
//! that has one of them 1. With two servers that is 36 KiB, with 64 about 150 KiB. Rings grow as samples come. A server
//! that a reload takes away takes its samples with it. Time in which no sample was taken (the machine slept) stands as
//! samples in which nothing happened.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::metrics::{ANSWER_BOUNDS, Source, Totals};
use super::status::SERVER_STATES;
use crate::clock::Moment;

/// Time from one sample to the next.
pub const EVERY: Duration = Duration::from_secs(10);
/// Samples that are kept: an hour.
pub const SLOTS: usize = 360;
/// Servers of which samples are kept, in the order of groups and tiers.
pub const SERVERS_MAX: usize = 64;
/// Samples that make the last minute, besides what came since the last one.
const LAST_MINUTE: usize = 5;

/// How one server stands as a sample is taken.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerSample {
    /// Its group.
    pub group: String,
    /// Its name in the group.
    pub server: String,
    /// The group's tier in use, from 1; 0 is none.
    pub tier_in_use: u8,
    /// Its latency as estimated.
    pub latency: Option<Duration>,
    /// Its state, one of [`SERVER_STATES`].
    pub state: &'static str,
}

/// The last hour's samples.
#[derive(Debug)]
pub struct History {
    rings: Mutex<Rings>,
}

#[derive(Debug)]
struct Rings {
    slots: VecDeque<Slot>,
    /// The sums at the last sample, and when it was taken.
    seen: Totals,
    at: Moment,
    groups: BTreeMap<String, GroupRing>,
}

/// What came within one sample.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    answers: [u32; Source::ALL.len()],
    within: [u32; ANSWER_BOUNDS.len() + 1],
    stale_seconds: u64,
}

#[derive(Debug, Default)]
struct GroupRing {
    tiers: VecDeque<u8>,
    servers: BTreeMap<String, ServerRing>,
}

#[derive(Debug, Default)]
struct ServerRing {
    /// Milliseconds; not a number where the server was not fit, or its latency not known.
    latency: VecDeque<f32>,
    states: VecDeque<u8>,
}

impl History {
    /// Begins with nothing.
    pub fn new(now: Moment) -> Self {
        let rings = Rings { slots: VecDeque::new(), seen: Totals::default(), at: now, groups: BTreeMap::new() };
        Self { rings: Mutex::new(rings) }
    }

    /// Takes a sample.
    pub fn sample(&self, totals: Totals, servers: &[ServerSample], now: Moment) {
        let mut rings = self.rings();
        let passed = now.since(rings.at).as_millis() + EVERY.as_millis() / 2;
        let missed = (passed / EVERY.as_millis()).clamp(1, SLOTS as u128) as usize - 1;
        let slot = Slot::grown(&rings.seen, &totals);
        for _ in 0..missed {
            push(&mut rings.slots, Slot::default());
        }
        push(&mut rings.slots, slot);
        rings.sample_servers(&servers[..servers.len().min(SERVERS_MAX)], missed);
        (rings.seen, rings.at) = (totals, now);
    }

    /// What came within the last minute, by the sums as they stand: the last samples and what came since.
    pub fn last_minute(&self, totals: Totals, now: Moment) -> LastMinute {
        let rings = self.rings();
        let mut sum = Slot::grown(&rings.seen, &totals);
        let before = rings.slots.iter().rev().take(LAST_MINUTE);
        let seconds = now.since(rings.at).as_secs_f64() + before.len() as f64 * EVERY.as_secs_f64();
        before.for_each(|slot| sum.add(slot));
        let of = |source: Source| u64::from(sum.answers[source as usize]);
        let stale = of(Source::Stale);
        LastMinute {
            seconds: (seconds * 10.0).round() / 10.0,
            answers: Source::ALL.into_iter().map(|source| (source.word(), of(source))).collect(),
            stale_age_seconds: (stale > 0).then(|| sum.stale_seconds / stale),
            p50_ms: sum.within_ms(50),
            p99_ms: sum.within_ms(99),
        }
    }

    /// All of it, as status shows it; the last sample ended at `until_unix`, where `wall` is this moment.
    pub fn shown(&self, now: Moment, wall: i64) -> HistoryStatus {
        let rings = self.rings();
        let column = |source: Source| rings.slots.iter().map(|slot| slot.answers[source as usize]).collect();
        let age = |slot: &Slot| match slot.answers[Source::Stale as usize] {
            0 => None,
            stale => Some(slot.stale_seconds / u64::from(stale)),
        };
        HistoryStatus {
            every_seconds: EVERY.as_secs(),
            until_unix: wall.saturating_sub_unsigned(now.since(rings.at).as_secs()),
            answers: Source::ALL.into_iter().map(|source| (source.word(), column(source))).collect(),
            stale_age_seconds: rings.slots.iter().map(age).collect(),
            groups: rings.groups.iter().map(|(name, ring)| ring.shown(name)).collect(),
        }
    }

    fn rings(&self) -> MutexGuard<'_, Rings> {
        // A panic between two samples leaves all rings whole.
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rings {
    fn sample_servers(&mut self, servers: &[ServerSample], missed: usize) {
        let mut old = std::mem::take(&mut self.groups);
        for sample in servers {
            let mut known = old.get_mut(&sample.group);
            let group = self.groups.entry(sample.group.clone()).or_insert_with(|| {
                let mut tiers = known.as_mut().map(|ring| std::mem::take(&mut ring.tiers)).unwrap_or_default();
                (0..missed).for_each(|_| push(&mut tiers, 0));
                push(&mut tiers, sample.tier_in_use);
                GroupRing { tiers, servers: BTreeMap::new() }
            });
            let mut server = known.and_then(|ring| ring.servers.remove(&sample.server)).unwrap_or_default();
            for _ in 0..missed {
                push(&mut server.latency, f32::NAN);
                push(&mut server.states, NO_STATE);
            }
            let latency = sample.latency.filter(|_| sample.state == "fit");
            push(&mut server.latency, latency.map_or(f32::NAN, |d| d.as_secs_f32() * 1e3));
            let state = SERVER_STATES.iter().position(|word| *word == sample.state);
            push(&mut server.states, state.map_or(NO_STATE, |n| n as u8));
            group.servers.insert(sample.server.clone(), server);
        }
    }
}

impl Slot {
    fn grown(from: &Totals, to: &Totals) -> Self {
        let less = |to: u64, from: u64| u32::try_from(to.saturating_sub(from)).unwrap_or(u32::MAX);
        Self {
            answers: std::array::from_fn(|n| less(to.answers[n], from.answers[n])),
            within: std::array::from_fn(|n| less(to.within[n], from.within[n])),
            stale_seconds: to.stale_micros.saturating_sub(from.stale_micros) / 1_000_000,
        }
    }

    fn add(&mut self, other: &Slot) {
        for (sum, n) in self.answers.iter_mut().zip(other.answers) {
            *sum = sum.saturating_add(n);
        }
        for (sum, n) in self.within.iter_mut().zip(other.within) {
            *sum = sum.saturating_add(n);
        }
        self.stale_seconds += other.stale_seconds;
    }

    /// The least bound in milliseconds within which so many of a hundred answers came; `None` without answers, and
    /// where it is beyond the last bound.
    fn within_ms(&self, percent: u64) -> Option<f64> {
        let all: u64 = self.within.iter().map(|n| u64::from(*n)).sum();
        let mut seen = 0;
        let bucket = self.within.iter().position(|n| {
            seen += u64::from(*n);
            seen > 0 && seen * 100 >= all * percent
        })?;
        ANSWER_BOUNDS.get(bucket).map(|bound| bound.as_secs_f64() * 1e3)
    }
}

impl GroupRing {
    fn shown(&self, name: &str) -> GroupHistory {
        GroupHistory {
            name: name.to_owned(),
            tiers: self.tiers.iter().map(|tier| char::from(b'0' + tier % 10)).collect(),
            servers: self.servers.iter().map(|(name, ring)| ring.shown(name)).collect(),
        }
    }
}

impl ServerRing {
    fn shown(&self, name: &str) -> ServerHistory {
        let rounded = |ms: f32| (f64::from(ms) * 1e3).round() / 1e3;
        ServerHistory {
            name: name.to_owned(),
            latency_ms: self.latency.iter().map(|ms| (!ms.is_nan()).then(|| rounded(*ms))).collect(),
            states: self.states.iter().map(|n| STATE_LETTERS.get(usize::from(*n)).copied().unwrap_or('-')).collect(),
        }
    }
}

/// A letter for each of [`SERVER_STATES`]; "-" is no sample.
pub const STATE_LETTERS: [char; SERVER_STATES.len()] = ['u', 'f', 's', 'd', 'l', 'o'];
const NO_STATE: u8 = u8::MAX;

fn push<T>(ring: &mut VecDeque<T>, value: T) {
    if ring.len() >= SLOTS {
        ring.pop_front();
    }
    ring.push_back(value);
}

/// What came within the last minute.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LastMinute {
    /// Its length: less than a minute after the start, up to 70 s else.
    pub seconds: f64,
    /// Answers by where they came from.
    pub answers: BTreeMap<&'static str, u64>,
    /// How far past their TTL stale answers were, on average.
    pub stale_age_seconds: Option<u64>,
    /// Half of the answers came within so many milliseconds: an upper bound, the end of a bucket.
    pub p50_ms: Option<f64>,
    /// And 99 of a hundred within these.
    pub p99_ms: Option<f64>,
}

/// The last hour, the oldest sample first.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct HistoryStatus {
    /// Seconds from one sample to the next.
    pub every_seconds: u64,
    /// The end of the last sample, in seconds since 1970.
    pub until_unix: i64,
    /// Answers of each sample by where they came from.
    pub answers: BTreeMap<&'static str, Vec<u32>>,
    /// How far past their TTL the stale ones were, on average.
    pub stale_age_seconds: Vec<Option<u64>>,
    /// Groups, by name.
    pub groups: Vec<GroupHistory>,
}

/// One group's hour. It may have fewer samples than answers have: they end together.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct GroupHistory {
    /// Its name.
    pub name: String,
    /// The tier in use, a digit a sample; 0 is none.
    pub tiers: String,
    /// Its servers, by name.
    pub servers: Vec<ServerHistory>,
}

/// One server's hour.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ServerHistory {
    /// Its name in the group.
    pub name: String,
    /// Its latency as estimated, while it was fit.
    pub latency_ms: Vec<Option<f64>>,
    /// Its state, one of [`STATE_LETTERS`] a sample.
    pub states: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Moment = Moment::from_secs(1000);

    fn at(slot: u64) -> Moment {
        START + EVERY * slot as u32
    }

    fn totals(fresh: u64, stale: u64, stale_seconds: u64) -> Totals {
        let mut totals = Totals::default();
        totals.answers[Source::Fresh as usize] = fresh;
        totals.answers[Source::Stale as usize] = stale;
        totals.within[1] = fresh;
        totals.within[5] = stale;
        totals.stale_micros = stale_seconds * 1_000_000;
        totals
    }

    fn server(name: &str, state: &'static str) -> ServerSample {
        ServerSample {
            group: "default".into(),
            server: name.into(),
            tier_in_use: 1,
            latency: Some(Duration::from_micros(2500)),
            state,
        }
    }

    #[test]
    fn a_sample_is_what_the_sums_grew_by() {
        let history = History::new(START);
        for (slot, fresh, stale) in [(1, 10, 0), (2, 15, 2), (3, 15, 2)] {
            history.sample(totals(fresh, stale, stale * 7), &[server("a", "fit")], at(slot));
        }
        let shown = history.shown(at(3) + Duration::from_secs(4), 5000);
        assert_eq!(shown.answers["fresh"], [10, 5, 0]);
        assert_eq!(shown.answers["stale"], [0, 2, 0]);
        assert_eq!(shown.stale_age_seconds, [None, Some(7), None]);
        assert_eq!(shown.until_unix, 4996);
        let group = &shown.groups[0];
        assert_eq!((group.tiers.as_str(), group.servers[0].states.as_str()), ("111", "fff"));
        assert_eq!(group.servers[0].latency_ms, [Some(2.5); 3]);
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let history = History::new(START);
        for slot in 1..=SLOTS as u64 + 5 {
            history.sample(totals(slot, 0, 0), &[server("a", "fit")], at(slot));
        }
        let shown = history.shown(at(365), 0);
        assert_eq!(shown.answers["fresh"].len(), SLOTS);
        assert_eq!(shown.stale_age_seconds.len(), SLOTS);
        let ring = &shown.groups[0].servers[0];
        assert_eq!((ring.latency_ms.len(), ring.states.len(), shown.groups[0].tiers.len()), (SLOTS, SLOTS, SLOTS));
        assert!(size_of::<Slot>() <= 88, "{}: the head of this file says 88", size_of::<Slot>());
    }

    #[test]
    fn a_server_has_no_latency_while_it_is_not_fit_and_no_samples_once_it_is_gone() {
        let history = History::new(START);
        history.sample(totals(0, 0, 0), &[server("a", "fit"), server("b", "fit")], at(1));
        history.sample(totals(0, 0, 0), &[server("a", "silent"), server("b", "fit")], at(2));
        let shown = history.shown(at(2), 0);
        assert_eq!(shown.groups[0].servers[0].latency_ms, [Some(2.5), None]);
        assert_eq!(shown.groups[0].servers[0].states, "fs");
        history.sample(totals(0, 0, 0), &[server("b", "fit"), server("c", "fit")], at(3));
        let names: Vec<_> = history.shown(at(3), 0).groups[0].servers.clone();
        assert_eq!(names.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(names.iter().map(|s| s.states.len()).collect::<Vec<_>>(), [3, 1]);
    }

    #[test]
    fn time_that_went_by_unseen_is_empty() {
        let history = History::new(START);
        history.sample(totals(3, 0, 0), &[server("a", "fit")], at(1));
        history.sample(totals(5, 0, 0), &[server("a", "fit")], at(4));
        let shown = history.shown(at(4), 0);
        assert_eq!(shown.answers["fresh"], [3, 0, 0, 2]);
        assert_eq!(shown.groups[0].servers[0].states, "f--f");
        assert_eq!(shown.groups[0].tiers, "1001");
        history.sample(totals(5, 0, 0), &[], at(1_000_000));
        assert_eq!(history.shown(at(1_000_000), 0).answers["fresh"].len(), SLOTS);
    }

    #[test]
    fn servers_are_bounded() {
        let history = History::new(START);
        let many: Vec<ServerSample> = (0..SERVERS_MAX + 9).map(|n| server(&format!("s{n}"), "fit")).collect();
        history.sample(totals(0, 0, 0), &many, at(1));
        assert_eq!(history.shown(at(1), 0).groups[0].servers.len(), SERVERS_MAX);
    }

    #[test]
    fn the_last_minute_is_the_last_samples_and_what_came_since() {
        let history = History::new(START);
        let minute = history.last_minute(totals(4, 1, 30), START + Duration::from_secs(2));
        assert_eq!((minute.seconds, minute.answers["fresh"], minute.stale_age_seconds), (2.0, 4, Some(30)));
        for slot in 1..=20 {
            history.sample(totals(slot * 10, 0, 0), &[], at(slot));
        }
        let minute = history.last_minute(totals(203, 0, 0), at(20) + Duration::from_secs(3));
        assert_eq!((minute.seconds, minute.answers["fresh"], minute.stale_age_seconds), (53.0, 53, None));
        assert_eq!((minute.p50_ms, minute.p99_ms), (Some(1.0), Some(1.0)));
    }

    #[test]
    fn of_a_hundred_answers_one_slow_one_is_beyond_the_99th_and_two_are_not() {
        for (slow, p99) in [(0, Some(1.0)), (1, Some(1.0)), (2, Some(150.0))] {
            let minute = History::new(START).last_minute(totals(100 - slow, slow, 0), START);
            assert_eq!((minute.p50_ms, minute.p99_ms), (Some(1.0), p99), "{slow} slow ones");
        }
        assert_eq!(History::new(START).last_minute(totals(0, 0, 0), START).p99_ms, None);
    }
}
