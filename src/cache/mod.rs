//! What was answered before, and how long that may be said again.
//!
//! Pure but for the map itself, which lives behind [`store::Store`]. A [`Key`] finds an [`Entry`]; an entry holds the
//! last good answer as the packet that came, and beside it the last failure. [`freshness`] is the arithmetic of
//! fresh, stale and gone; [`ahead`] says what is asked again before it runs out; [`guard`] says what may take the
//! place of what; [`front`] is the worker's own small copy of what it hits most; [`snapshot`] is the form in which it
//! outlives the process.
//!
//! Invariants: a failure never overwrites data; data never outlives its TTL by more than `max_age` towards a client;
//! the map's own clock decides nothing.

pub mod ahead;
pub mod entry;
pub mod freshness;
pub mod front;
pub mod guard;
pub mod key;
mod prefetch;
pub mod snapshot;
pub mod store;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Moment;
use crate::wire::edns;
use entry::{Entry, Failure, GroupStamp};
use freshness::{Freeze, StaleSettings, Standing};
use guard::table::{Guards, Known};
use key::{Key, Keys, Question};
use store::Store;

/// How the cache is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// Bytes of all entries, overhead included.
    pub max_bytes: u64,
    /// Do the addresses of one RRset turn on every hit?
    pub rotate: bool,
    /// Is what is asked often asked again before it runs out?
    pub refresh_ahead: bool,
    /// Is the cache kept in the state directory, where there is one?
    pub snapshot: bool,
    /// Pause between two snapshots.
    pub snapshot_every: Duration,
}

/// The one cache of the process.
pub struct Cache {
    keys: Keys,
    store: Arc<dyn Store>,
    /// Data stored before this counts as expired: set where the wall clock jumped ahead of ours.
    due_before: AtomicU64,
    guards: Guards,
    /// The beginning and the end of the freeze; zeros where there is none.
    frozen: [AtomicU64; 2],
    /// Answers that were stored since the start.
    changes: AtomicU64,
    /// Held while what lies under a key is looked at and changed: what is restored must not take the place of what came
    /// in between.
    changing: [Mutex<()>; CHANGING],
}

/// Keys that can be changed at once.
const CHANGING: usize = 64;

impl Cache {
    /// A cache over `store`, with its own secret for keys.
    pub fn new(store: Arc<dyn Store>, keys: Keys) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            keys,
            store,
            due_before: zero(),
            guards: Guards::default(),
            frozen: [zero(), zero()],
            changes: zero(),
            changing: std::array::from_fn(|_| Mutex::new(())),
        }
    }

    /// The key of a question.
    pub fn key(&self, question: &Question<'_>) -> Key {
        self.keys.key(question)
    }

    /// The entry of a question, where there is one. A colliding key is a miss.
    pub fn look(&self, key: Key, question: &Question<'_>) -> Option<Arc<Entry>> {
        self.store.get(key).filter(|e| e.is_for(question))
    }

    /// Stores an entry with an answer unless [`guard::may_replace`] forbids it. Says whether it was stored.
    pub fn keep(&self, key: Key, question: &Question<'_>, entry: Arc<Entry>, max_age: Duration, now: Moment) -> bool {
        let _alone = self.alone_with(key);
        let old = self.look(key, question);
        if let Some(new) = entry.data().filter(|d| !d.good)
            && self.guards.protected(key, question, (new.group, max_age), now).is_some()
        {
            return false;
        }
        if let (Some(had), Some(new)) = (&old, entry.data()) {
            if !guard::may_replace(had, new, max_age, now)
                || self.is_frozen(now) && guard::is_frozen_out(had, new, max_age, now)
            {
                return false;
            }
            if let Some((tier, until)) = guard::inherits(had, new, max_age, now) {
                entry.vouch(tier, until);
            }
        }
        if let Some(new) = entry.data() {
            entry.ahead.follow(key, new, old.as_ref().and_then(|had| Some((&had.ahead, had.data()?))));
        }
        match entry.data() {
            Some(data) if data.good => self.guards.on_good(key, &entry, now),
            _ => self.guards.on_negative(key, question),
        }
        self.changes.fetch_add(1, Ordering::Relaxed);
        self.store.put(key, entry);
        // Where the store weighs and evicts later, front copies must let go of the old answer now.
        if let Some(old) = old {
            old.let_go();
        }
        true
    }

    /// Puts an entry of an earlier process where no answer is. A failure that is remembered already stands beside it.
    /// Says whether it was put.
    pub fn restore(&self, key: Key, question: &Question<'_>, entry: Arc<Entry>) -> bool {
        let _alone = self.alone_with(key);
        // Almost always there is nothing, and that is no question for a name that the store should hear of.
        let old = if self.store.has(key) { self.look(key, question) } else { None };
        if old.as_ref().is_some_and(|had| had.data().is_some()) {
            return false;
        }
        if let Some(had) = &old {
            entry.inherit_failure(had);
        }
        self.store.put(key, entry);
        if let Some(old) = old {
            old.let_go();
        }
        true
    }

    /// Puts back what an earlier process kept of a guarded question, and its last good answer where it can be served.
    pub fn restore_guarded(&self, key: Key, question: &Question<'_>, known: Known, max_age: Duration, now: Moment) {
        let entry = known.entry.clone();
        let _alone = self.alone_with(key);
        let old = self.look(key, question);
        if !self.guards.restore(key, known, now) {
            return;
        }
        // A good answer that came since the start is newer: the name is well.
        let stored = |e: &Entry| e.data().map(|d| d.stored);
        if old.as_ref().is_some_and(|old| old.data().is_some_and(|d| d.good) && stored(old) > stored(&entry)) {
            return;
        }
        let stands = entry.data().is_some_and(|d| d.standing(max_age, Moment::ZERO, now) != Standing::Gone);
        // What may not take its place may not have come before it either, nor a copy that does not know of its hold.
        let group = entry.data().map_or(GroupStamp(0), |d| d.group);
        let protected = || self.guards.protected(key, question, (group, max_age), now).is_some();
        if entry.held(now).is_some() || stands && (old.is_none() || protected()) {
            if let Some(old) = &old {
                entry.inherit_failure(old);
            }
            self.store.put(key, entry);
            old.iter().for_each(|old| old.let_go());
        }
    }

    /// Remembers a failure beside what is stored; makes an entry for it where nothing is.
    pub fn fail(&self, key: Key, question: &Question<'_>, failure: Failure) {
        let _alone = self.alone_with(key);
        match self.look(key, question) {
            Some(entry) => entry.remember(failure),
            None => {
                // An answer may come in between: the failure then stands beside it.
                let new = Arc::new(Entry::with_failure(question, failure.clone()));
                let there = self.store.put_new(key, new.clone());
                if !Arc::ptr_eq(&there, &new) && there.is_for(question) {
                    there.remember(failure);
                }
            }
        }
    }

    /// Remembers that `group`, in its life of so many `healings`, could not answer: for 1 s at first, doubling to 30 s
    /// (RFC 9520 §3.2). `ede` is our own INFO-CODE, none where the server's, in `kept_edes`, say it all.
    pub fn remember(
        &self,
        key: Key,
        question: &Question<'_>,
        (ede, kept_edes): (Option<u16>, Box<[u8]>),
        (group, healings): (GroupStamp, u32),
        now: Moment,
    ) {
        let before = self.look(key, question).map_or(0, |e| e.failures_in_a_row(group, healings));
        let failure = Failure {
            until: now + freshness::failure_span(before + 1),
            group,
            count: before + 1,
            healings,
            ede: ede.or_else(|| edns::ede_codes(&kept_edes).next()).unwrap_or(edns::code::OTHER),
            kept_edes: match ede {
                Some(ede) => edns::with_code(ede, &kept_edes),
                None => kept_edes,
            },
        };
        self.fail(key, question, failure);
    }

    /// The guarded names.
    pub fn guards(&self) -> &Guards {
        &self.guards
    }

    /// The entry of a question that a guard holds, whatever the cache has of it.
    pub fn look_held(&self, key: Key, question: &Question<'_>, group: GroupStamp, now: Moment) -> Option<Arc<Entry>> {
        let held = |key, q: &Question<'_>| self.guards.held(key, q, group, now).filter(|e| e.held(now).is_some());
        held(key, question).or_else(|| self.of_validated(question, held))
    }

    /// The last good answer of a question, where a guard protects it. See [`Guards::protected`].
    pub fn look_protected(
        &self,
        key: Key,
        question: &Question<'_>,
        of: (GroupStamp, Duration),
        now: Moment,
    ) -> Option<Arc<Entry>> {
        let protected = |key, q: &Question<'_>| self.guards.protected(key, q, of, now);
        protected(key, question).or_else(|| self.of_validated(question, protected))
    }

    /// What was validated may serve who asks without validation.
    fn of_validated<T>(
        &self,
        question: &Question<'_>,
        look: impl FnOnce(Key, &Question<'_>) -> Option<T>,
    ) -> Option<T> {
        let validated = Question { cd: false, ..*question };
        question.cd.then(|| look(self.key(&validated), &validated)).flatten()
    }

    /// Begins a freeze, or ends it.
    pub fn set_freeze(&self, freeze: Option<Freeze>) {
        let Freeze { since, until } = freeze.unwrap_or(Freeze { since: Moment::ZERO, until: Moment::ZERO });
        self.frozen[0].store(since.as_nanos(), Ordering::Relaxed);
        self.frozen[1].store(until.as_nanos(), Ordering::Release);
    }

    /// The freeze in force.
    pub fn freeze(&self, now: Moment) -> Option<Freeze> {
        let until = Moment::from_nanos(self.frozen[1].load(Ordering::Acquire));
        let since = Moment::from_nanos(self.frozen[0].load(Ordering::Relaxed));
        Some(Freeze { since, until }).filter(|f| f.holds(now))
    }

    /// A group's settings of stale answers as they are in force now.
    pub fn in_force(&self, settings: StaleSettings, now: Moment) -> StaleSettings {
        StaleSettings { max_age: Freeze::max_age(self.freeze(now), settings.max_age, now), ..settings }
    }

    /// Is nothing good to be given up now?
    pub fn is_frozen(&self, now: Moment) -> bool {
        self.freeze(now).is_some()
    }

    /// Everything stored before `now` counts as expired from here on; nothing is dropped.
    pub fn make_due(&self, now: Moment) {
        self.due_before.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// Data stored before this counts as expired.
    pub fn due_before(&self) -> Moment {
        Moment::from_nanos(self.due_before.load(Ordering::Relaxed))
    }

    /// Drops what `doomed` picks, guarded or not, and returns how many entries that were.
    pub fn flush(&self, doomed: &dyn Fn(&Entry) -> bool) -> u64 {
        self.guards.flush(doomed);
        self.store.remove_if(doomed)
    }

    /// Calls `each` with every entry; does not count as a use.
    pub fn for_each(&self, each: &mut dyn FnMut(&Entry)) {
        self.store.for_each(&mut |entry| each(entry));
    }

    /// Answers that were stored since the start; what was restored is not among them.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    fn alone_with(&self, key: Key) -> MutexGuard<'_, ()> {
        self.changing[(key.0 >> 64) as usize % CHANGING].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes and entries at hand, and entries evicted for room since the start.
    pub fn census(&self) -> store::Census {
        self.store.census()
    }

    /// Work that the store puts off; called a few times a second.
    pub fn upkeep(&self) {
        self.store.upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::entry::{Data, Kind, Packed};
    use crate::cache::guard::GuardSettings;
    use crate::cache::guard::table::Hold;
    use crate::cache::store::MapStore;

    const DAY: Duration = Duration::from_secs(86_400);
    const QUESTION: Question<'static> =
        Question { name: b"\x03www\x04test\0", qtype: 1, dnssec_ok: false, cd: false };

    fn keep(cache: &Cache, kind: Kind, tier: u8, now: Moment) -> bool {
        keep_of(cache, kind, tier, GroupStamp(1), now)
    }

    fn keep_of(cache: &Cache, kind: Kind, tier: u8, group: GroupStamp, now: Moment) -> bool {
        let packed = Packed::of_a_minute(kind);
        let entry = Arc::new(Entry::with_data(&QUESTION, Data::new(packed, tier, group, now)));
        cache.keep(cache.key(&QUESTION), &QUESTION, entry, DAY, now)
    }

    fn kind(cache: &Cache) -> Kind {
        cache.look(cache.key(&QUESTION), &QUESTION).unwrap().data().unwrap().kind
    }

    // complaint 10: a secondary's NXDOMAIN took the place of internal names.
    #[test]
    fn a_lower_tiers_denial_is_not_stored_where_a_better_tier_has_ever_given_records() {
        let cache = Cache::new(Arc::new(MapStore::default()), Keys::new([0; 16]));
        let at = Moment::from_secs;
        assert!(keep(&cache, Kind::Positive, 0, at(0)));
        assert!(!keep(&cache, Kind::NxDomain, 1, at(100)));
        assert!(keep(&cache, Kind::Positive, 2, at(200)), "the tertiary's records are stored");
        assert!(!keep(&cache, Kind::NxDomain, 1, at(300)), "and the primary's are remembered");
        assert_eq!(kind(&cache), Kind::Positive);
        assert!(keep(&cache, Kind::NxDomain, 0, at(300)), "the primary's own word counts");
    }

    #[test]
    fn in_a_freeze_only_what_is_good_takes_the_place_of_what_is_good_and_can_be_served() {
        let at = Moment::from_secs;
        let frozen = || {
            let cache = Cache::new(Arc::new(MapStore::default()), Keys::new([0; 16]));
            cache.set_freeze(Some(Freeze { since: at(0), until: at(200_000) }));
            keep(&cache, Kind::Positive, 0, at(0));
            cache
        };
        let cache = frozen();
        assert!(!keep(&cache, Kind::NxDomain, 0, at(100)) && !keep(&cache, Kind::NoData, 0, at(100)));
        assert!(keep(&cache, Kind::Positive, 0, at(100)), "an address may change");
        assert!(keep(&cache, Kind::NxDomain, 0, at(200_000)), "once it is over");
        assert!(!keep_of(&frozen(), Kind::NxDomain, 0, GroupStamp(2), at(100)), "nor does another group's word");
        assert!(keep(&frozen(), Kind::NxDomain, 0, at(60 + 86_400)), "what cannot be served any more");
    }

    #[test]
    fn what_guards_knew_is_put_back_where_it_can_be_served_and_nothing_newer_is_there() {
        let at = Moment::from_secs;
        let entry = |stored| {
            let data = Data::new(Packed::of_a_minute(Kind::Positive), 0, GroupStamp(1), at(stored));
            Arc::new(Entry::with_data(&QUESTION, data))
        };
        // Is it there, and how often has the name failed?
        let restored = |held: bool, there: Option<u64>, now| {
            let cache = Cache::new(Arc::new(MapStore::default()), Keys::new([0; 16]));
            let key = cache.key(&QUESTION);
            cache.guards().set(&[GuardSettings { names: vec!["www.test".parse().unwrap()], ..Default::default() }]);
            if let Some(stored) = there {
                cache.restore(key, &QUESTION, entry(stored));
                cache.remember(key, &QUESTION, (Some(22), [].into()), (GroupStamp(1), 0), at(now));
            }
            let (kept, hold) = (entry(10), held.then_some(Hold { since: at(10), until: at(1 << 20) }));
            let known = Known { entry: kept.clone(), first_good: at(10), last_good: at(10), hold };
            cache.restore_guarded(key, &QUESTION, known, DAY, at(now));
            let found = cache.look(key, &QUESTION)?;
            Some((Arc::ptr_eq(&found, &kept), found.failures_in_a_row(GroupStamp(1), 0)))
        };
        assert_eq!(restored(false, None, 100), Some((true, 0)));
        assert_eq!(restored(false, None, 100_000), None, "too old");
        assert_eq!(restored(true, None, 100_000), Some((true, 0)), "too old, and held");
        assert_eq!(restored(true, Some(10), 100), Some((true, 1)), "a copy of it that knows of no hold");
        assert_eq!(restored(true, Some(20), 100), Some((false, 1)), "what came since");
    }

    // complaints 6 and 7: a failure took the place of what was good.
    #[test]
    fn a_failure_stands_beside_the_data() {
        let cache = Cache::new(Arc::new(MapStore::default()), Keys::new([0; 16]));
        keep(&cache, Kind::Positive, 0, Moment::ZERO);
        let key = cache.key(&QUESTION);
        cache.remember(key, &QUESTION, (Some(22), [].into()), (GroupStamp(1), 0), Moment::ZERO);
        assert_eq!(kind(&cache), Kind::Positive);
        assert!(cache.look(key, &QUESTION).unwrap().has_failed(GroupStamp(1), 0, Moment::from_millis(999)));
    }
}
