//! The last good answers of guarded names, and the holds on them.
//!
//! Pure; behind one short lock, off the hit path. A guarded question's last good answer is kept apart from the cache,
//! so that no eviction takes it. Rules (RULES "Guard and freeze"):
//!
//! - An answer is protected once the question has had good ones for `min_good`, from the first to the end of the last
//!   one's TTL, and until it is older than what may be served. What is good is said by
//!   [`Data::good`](crate::cache::entry::Data): records of the type, and of addresses one that can be routed.
//!   Signatures that have run out end it.
//! - A hold begins with the first answer that would have taken its place, when no other tier still has a good one. It
//!   lasts `hold`, or until it is released, or until a good answer comes.
//! - When it is over nothing is protected: the next negative answer is taken and the question begins anew.
//! - A question is name, type, DO and CD. One with CD is protected by what is known of the one without too.
//! - A question belongs to the group that gave its last good answer: another group's word counts at once.
//!
//! Invariants: at most [`GUARDED_MAX`] questions and [`GUARDED_BYTES_MAX`] bytes, of which what is protected goes last;
//! a hold ends. Where nothing is guarded no lock is taken.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::GuardSettings;
use crate::cache::entry::{Entry, GroupStamp};
use crate::cache::key::{Key, Question};
use crate::clock::Moment;
use crate::limits::{GUARDED_BYTES_MAX, GUARDED_MAX, STALE_AGE_MAX};
use crate::wire::Name;
use crate::wire::pattern::Patterns;

/// Holds that are told one by one; beyond them they are only counted.
const SHOWN_MAX: usize = 100;
/// Changes that wait to be told.
const CHANGES_MAX: usize = 256;

/// A hold on one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// When the first negative answer came.
    pub since: Moment,
    /// When the next one is taken.
    pub until: Moment,
}

/// What is kept of one question.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its last good answer.
    pub entry: Arc<Entry>,
    /// When the first good answer in a row came.
    pub first_good: Moment,
    /// When the last one did.
    pub last_good: Moment,
    /// The hold on it.
    pub hold: Option<Hold>,
}

/// Something that an operator should know of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuardChange {
    /// Its last good answers are held.
    Held(Name, Duration),
    /// It has good ones again.
    Good(Name),
    /// The hold was over, and the negative answer was taken.
    Gone(Name),
    /// An operator ended the hold.
    Released(Name),
}

/// A hold as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The name.
    pub name: Name,
    /// The type.
    pub qtype: u16,
    /// The hold.
    pub hold: Hold,
}

#[derive(Clone, Copy, Debug)]
struct Terms {
    hold: Duration,
    min_good: Duration,
}

#[derive(Default)]
struct Table {
    terms: Patterns<Terms>,
    known: HashMap<Key, Known>,
    bytes: usize,
    /// Holds that began since the start.
    held_ever: u64,
    /// Names of which it was told that they are held, and the end of the last hold on each.
    told: HashMap<Box<[u8]>, Moment>,
    changes: Vec<GuardChange>,
}

/// The guarded questions of the process.
#[derive(Default)]
pub struct Guards {
    table: Mutex<Table>,
    /// Is there any pattern at all?
    any: AtomicBool,
    /// Holds that began or ended.
    revision: AtomicU64,
}

impl Guards {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_idle(&self) -> bool {
        !self.any.load(Ordering::Acquire)
    }

    fn revise(&self) {
        self.revision.fetch_add(1, Ordering::Relaxed);
    }

    /// Goes up with each hold that begins or ends.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }

    /// Puts other guards in force. What no pattern names any more is forgotten.
    pub fn set(&self, guards: &[GuardSettings]) {
        let terms = guards.iter().flat_map(|g| {
            let terms = Terms { hold: g.hold, min_good: g.min_good };
            g.names.iter().map(move |pattern| (pattern.clone(), terms))
        });
        let mut table = self.table();
        table.terms = Patterns::new(terms);
        self.any.store(!table.terms.is_empty(), Ordering::Release);
        let Table { terms, known, bytes, .. } = &mut *table;
        known.retain(|_, k| {
            let stays = terms.find(k.entry.name()).is_some();
            if !stays {
                k.entry.end_hold();
                *bytes -= k.entry.bytes();
            }
            stays
        });
    }

    /// The last good answer of a question, where nothing negative of `group` may take its place now. `max_age`: how
    /// far past its TTL an answer of the group may serve.
    pub fn protected(
        &self,
        key: Key,
        question: &Question<'_>,
        (group, max_age): (GroupStamp, Duration),
        now: Moment,
    ) -> Option<Arc<Entry>> {
        if self.is_idle() {
            return None;
        }
        let table = self.table();
        let known = table.find(key, question, group)?;
        let terms = table.terms.find(question.name)?;
        known.is_protected(*terms, max_age, now).then(|| known.entry.clone())
    }

    /// The last good answer of a question that is held now: for what the cache has lost.
    pub fn held(&self, key: Key, question: &Question<'_>, group: GroupStamp, now: Moment) -> Option<Arc<Entry>> {
        if self.is_idle() {
            return None;
        }
        let table = self.table();
        table.find(key, question, group).filter(|k| k.hold.is_some_and(|h| now < h.until)).map(|k| k.entry.clone())
    }

    /// A good answer was stored. That ends a hold.
    pub fn on_good(&self, key: Key, entry: &Arc<Entry>, now: Moment) {
        if self.is_idle() {
            return;
        }
        let mut table = self.table();
        if table.terms.find(entry.name()).is_none() {
            return;
        }
        let before = table.known.remove(&key);
        table.bytes -= before.as_ref().map_or(0, |k| k.entry.bytes());
        let before = before.filter(|k| k.entry.is_like(entry));
        if let Some(held) = before.as_ref().filter(|k| k.hold.is_some()) {
            held.entry.end_hold();
            table.say_of_held(entry.name(), GuardChange::Good);
            self.revise();
        }
        let same_group = |k: &Known| k.entry.data().map(|d| d.group) == entry.data().map(|d| d.group);
        // From when it came, as its TTL is counted.
        let came = entry.data().map_or(now, |d| d.stored);
        let first_good = before.filter(same_group).map_or(came, |k| k.first_good);
        table.put(key, Known { entry: entry.clone(), first_good, last_good: came, hold: None }, now);
    }

    /// A negative answer came that may not take the place of the last good one: the hold begins, where it has not.
    pub fn hold(&self, key: Key, question: &Question<'_>, now: Moment) {
        let mut table = self.table();
        let Table { terms, known, .. } = &mut *table;
        let Some(terms) = terms.find(question.name).copied() else { return };
        let Some(known) = known.get_mut(&key).filter(|k| k.entry.is_for(question) && k.hold.is_none()) else {
            return;
        };
        let until = now + terms.hold;
        known.hold = Some(Hold { since: now, until });
        known.entry.hold_until(until);
        table.held_ever += 1;
        self.revise();
        // One line a name, whatever its types.
        let told = table.told.insert(question.name.into(), until);
        if told.is_none_or(|until| now >= until) {
            table.say(question.name, |name| GuardChange::Held(name, terms.hold));
        }
    }

    /// A negative answer has taken the place of what was known.
    pub fn on_negative(&self, key: Key, question: &Question<'_>) {
        if self.is_idle() {
            return;
        }
        let mut table = self.table();
        if !table.known.get(&key).is_some_and(|k| k.entry.is_for(question)) {
            return;
        }
        let Some(known) = table.forget(key) else { return };
        if known.hold.is_some() {
            table.say_of_held(question.name, GuardChange::Gone);
            self.revise();
        }
    }

    /// Ends the holds on a folded name now: the next negative answer is taken. Returns how many there were.
    pub fn release(&self, name: &[u8], now: Moment) -> u64 {
        let mut table = self.table();
        let mut released = 0;
        for known in table.known.values_mut().filter(|k| k.entry.name() == name) {
            if let Some(hold) = known.hold.as_mut().filter(|h| now < h.until) {
                hold.until = now;
                known.entry.end_hold();
                released += 1;
            }
        }
        if released > 0 {
            table.say_of_held(name, GuardChange::Released);
            self.revise();
        }
        released
    }

    /// Forgets what `doomed` picks.
    pub fn flush(&self, doomed: &dyn Fn(&Entry) -> bool) {
        let mut table = self.table();
        let keys: Vec<Key> = table.known.iter().filter(|(_, k)| doomed(&k.entry)).map(|(key, _)| *key).collect();
        for key in keys {
            table.forget(key);
        }
        self.revise();
    }

    /// Names that are held now, and holds that began since the start.
    pub fn count(&self, now: Moment) -> (u64, u64) {
        let table = self.table();
        let held = table.known.values().filter(|k| k.hold.is_some_and(|h| now < h.until));
        let names: HashSet<&[u8]> = held.map(|k| k.entry.name()).collect();
        (names.len() as u64, table.held_ever)
    }

    /// The holds, the oldest first, at most a hundred.
    pub fn shown(&self, now: Moment) -> Vec<Shown> {
        let table = self.table();
        let mut shown: Vec<Shown> = table
            .known
            .values()
            .filter_map(|k| {
                let hold = k.hold.filter(|h| now < h.until)?;
                Some(Shown { name: Name::from_wire(k.entry.name())?, qtype: k.entry.qtype(), hold })
            })
            .collect();
        shown.sort_by(|a, b| {
            (a.hold.since, a.name.as_wire(), a.qtype).cmp(&(b.hold.since, b.name.as_wire(), b.qtype))
        });
        shown.truncate(SHOWN_MAX);
        shown
    }

    /// What is kept of one question: for `explain`.
    pub fn known(&self, key: Key, question: &Question<'_>) -> Option<Known> {
        self.table().known.get(&key).filter(|k| k.entry.is_for(question)).cloned()
    }

    /// Everything that is kept: for a snapshot.
    pub fn all(&self) -> Vec<Known> {
        self.table().known.values().cloned().collect()
    }

    /// Puts back what an earlier process kept, where nothing is known of the question yet. Says whether it was.
    pub fn restore(&self, key: Key, known: Known, now: Moment) -> bool {
        let mut table = self.table();
        if let Some(here) = table.known.get_mut(&key).filter(|k| k.entry.is_like(&known.entry)) {
            // It has been good since the start, and was so before.
            here.first_good = here.first_good.min(known.first_good);
            return false;
        }
        if table.known.contains_key(&key) || table.terms.find(known.entry.name()).is_none() {
            return false;
        }
        if let Some(hold) = known.hold {
            known.entry.hold_until(hold.until);
            table.told.insert(known.entry.name().into(), hold.until);
        }
        table.put(key, known, now)
    }

    /// What changed since the last call.
    pub fn take_changes(&self) -> Vec<GuardChange> {
        std::mem::take(&mut self.table().changes)
    }
}

impl Known {
    fn is_protected(&self, terms: Terms, max_age: Duration, now: Moment) -> bool {
        let Some(data) = self.entry.data().filter(|d| now < d.signed_until()) else { return false };
        if let Some(hold) = self.hold {
            return now < hold.until;
        }
        let ends = data.stored + Duration::from_secs(data.ttl.into());
        // Where nothing is served stale a guard protects all the same: it was asked for.
        let kept_until = ends + max_age.max(STALE_AGE_MAX.default);
        terms.hold > Duration::ZERO && ends.min(now).since(self.first_good) >= terms.min_good && now < kept_until
    }
}

impl Table {
    fn find(&self, key: Key, question: &Question<'_>, group: GroupStamp) -> Option<&Known> {
        let known = self.known.get(&key)?;
        let fits = known.entry.is_for(question) && known.entry.data().is_some_and(|d| d.group == group);
        fits.then_some(known)
    }

    fn put(&mut self, key: Key, known: Known, now: Moment) -> bool {
        let bytes = known.entry.bytes();
        if self.known.len() >= GUARDED_MAX || self.bytes + bytes > GUARDED_BYTES_MAX {
            self.make_room(now);
            if self.known.len() >= GUARDED_MAX || self.bytes + bytes > GUARDED_BYTES_MAX {
                return false;
            }
        }
        self.bytes += bytes;
        if let Some(old) = self.known.insert(key, known) {
            self.bytes -= old.entry.bytes();
        }
        true
    }

    /// A tenth of what is not protected goes, what was good the longest ago first: a flood of new names takes nobody's
    /// place who has been good for long.
    fn make_room(&mut self, now: Moment) {
        let terms = |k: &Known| self.terms.find(k.entry.name()).copied();
        let is_kept = |k: &Known| terms(k).is_some_and(|t| k.is_protected(t, Duration::ZERO, now));
        let mut ages: Vec<(Moment, Key)> =
            self.known.iter().filter(|(_, k)| !is_kept(k)).map(|(key, k)| (k.last_good, *key)).collect();
        ages.sort_unstable();
        ages.truncate(ages.len().div_ceil(10));
        for (_, key) in ages {
            self.forget(key);
        }
    }

    fn forget(&mut self, key: Key) -> Option<Known> {
        let known = self.known.remove(&key)?;
        known.entry.end_hold();
        self.bytes -= known.entry.bytes();
        Some(known)
    }

    /// The last hold on a name has ended, or one of them: it is told once.
    fn say_of_held(&mut self, name: &[u8], change: impl FnOnce(Name) -> GuardChange) {
        if self.told.remove(name).is_some() {
            self.say(name, change);
        }
    }

    fn say(&mut self, name: &[u8], change: impl FnOnce(Name) -> GuardChange) {
        if self.changes.len() < CHANGES_MAX
            && let Some(name) = Name::from_wire(name)
        {
            self.changes.push(change(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::entry::{Data, Kind, Packed};
    use crate::cache::key::Keys;
    use crate::cache::store::MapStore;
    use crate::cache::{Cache, key::OwnedQuestion};

    const GROUP: GroupStamp = GroupStamp(1);
    const DAY: Duration = Duration::from_secs(86_400);

    struct World {
        cache: Cache,
        now: Moment,
    }

    impl World {
        /// Guards of `*.test` and of `x.test` alone, the one for a minute and the other for an hour.
        fn new() -> Self {
            let cache = Cache::new(Arc::new(MapStore::default()), Keys::new([0; 16]));
            let guard = |name: &str, hold| GuardSettings {
                names: vec![name.parse().unwrap()],
                hold: Duration::from_secs(hold),
                min_good: Duration::from_secs(600),
            };
            cache.guards().set(&[guard("*.test", 60), guard("x.test", 3600)]);
            Self { cache, now: Moment::from_secs(1000) }
        }

        fn pass(&mut self, seconds: u64) {
            self.now = self.now + Duration::from_secs(seconds);
        }

        fn keep(&self, name: &str, kind: Kind, group: GroupStamp) -> bool {
            self.keep_packed(name, Packed::of_a_minute(kind), group)
        }

        fn keep_packed(&self, name: &str, packed: Packed, group: GroupStamp) -> bool {
            let (key, question) = self.question(name);
            let data = Data::new(packed, 0, group, self.now);
            let entry = Arc::new(Entry::with_data(&question.view(), data));
            self.cache.keep(key, &question.view(), entry, DAY, self.now)
        }

        fn good(&self, name: &str) {
            assert!(self.keep(name, Kind::Positive, GROUP));
        }

        /// Good answers for so long, the last of which has run out now.
        fn good_for(&mut self, name: &str, seconds: u64) {
            self.good(name);
            self.pass(seconds - 60);
            self.good(name);
            self.pass(60);
        }

        /// A negative answer came, as the pursuit deals with it. Says whether it was taken.
        fn deny(&self, name: &str) -> bool {
            let (key, question) = self.question(name);
            if self.cache.guards().protected(key, &question.view(), (GROUP, DAY), self.now).is_some() {
                self.cache.guards().hold(key, &question.view(), self.now);
                assert!(!self.keep(name, Kind::NxDomain, GROUP), "{name} is protected");
                return false;
            }
            assert!(self.keep(name, Kind::NxDomain, GROUP), "{name}");
            true
        }

        fn is_held(&self, name: &str) -> bool {
            let (key, question) = self.question(name);
            let kept = self.cache.look_held(key, &question.view(), GROUP, self.now);
            let cached = self.cache.look(key, &question.view()).is_some_and(|e| e.held(self.now).is_some());
            assert_eq!(kept.is_some(), cached, "{name}");
            cached
        }

        fn question(&self, name: &str) -> (Key, OwnedQuestion) {
            let name: Name = name.parse().unwrap();
            let question = Question { name: name.as_wire(), qtype: 1, dnssec_ok: false, cd: false };
            (self.cache.key(&question), question.to_owned())
        }

        fn is_known(&self, name: &str) -> bool {
            let (key, question) = self.question(name);
            self.cache.guards().known(key, &question.view()).is_some()
        }

        fn changes(&self) -> Vec<String> {
            let said = self.cache.guards().take_changes();
            said.iter()
                .map(|c| match c {
                    GuardChange::Held(name, span) => format!("held {name} {}", span.as_secs()),
                    GuardChange::Good(name) => format!("good {name}"),
                    GuardChange::Gone(name) => format!("gone {name}"),
                    GuardChange::Released(name) => format!("released {name}"),
                })
                .collect()
        }
    }

    fn wire(name: &str) -> Box<[u8]> {
        name.parse::<Name>().unwrap().as_wire().into()
    }

    #[test]
    fn a_name_that_was_good_for_long_is_held_for_exactly_its_hold_and_then_gone() {
        let mut w = World::new();
        w.good_for("a.test", 600);
        assert!(!w.deny("a.test") && w.is_held("a.test"));
        w.pass(59);
        assert!(!w.deny("a.test") && w.is_held("a.test"), "what comes again does not begin it anew");
        assert_eq!(w.cache.guards().count(w.now), (1, 1));
        w.pass(1);
        assert!(!w.is_held("a.test"));
        assert_eq!(w.cache.guards().count(w.now), (0, 1));
        assert!(w.deny("a.test"));
        assert_eq!(w.changes(), ["held a.test. 60", "gone a.test."]);
        w.good_for("a.test", 599);
        assert!(w.deny("a.test"), "it begins anew");
    }

    #[test]
    fn what_was_good_for_less_or_is_not_guarded_or_is_of_another_group_is_gone_at_once() {
        let mut w = World::new();
        let mut w2 = World::new();
        w.good_for("a.test", 599);
        assert!(w.deny("a.test"));
        w.good_for("b.other", 600);
        assert!(w.deny("b.other"));
        w2.good_for("c.test", 600);
        assert!(w2.keep("c.test", Kind::NxDomain, GroupStamp(2)));
        assert_eq!((w.changes(), w2.changes()), (vec![], vec![]));
        w.good("d.test");
        w.pass(3600);
        assert!(w.deny("d.test"), "one answer is no hour of them");
    }

    #[test]
    fn good_answers_end_a_hold_and_the_time_that_a_name_was_good_goes_on() {
        let mut w = World::new();
        w.good_for("a.test", 700);
        assert!(!w.deny("a.test"));
        w.pass(10);
        w.good("a.test");
        assert!(!w.is_held("a.test"));
        assert_eq!(w.changes(), ["held a.test. 60", "good a.test."]);
        assert!(!w.deny("a.test"), "it is protected again at once");
    }

    #[test]
    fn a_release_takes_the_next_negative_answer_and_tells_how_many_were_held() {
        let mut w = World::new();
        let name: Name = "x.test".parse().unwrap();
        w.good_for("x.test", 700);
        assert_eq!(w.cache.guards().release(name.as_wire(), w.now), 0);
        assert!(!w.deny("x.test"));
        assert_eq!(w.cache.guards().shown(w.now).len(), 1);
        w.pass(30 * 60);
        assert!(w.is_held("x.test"), "the pattern that fits best counts");
        assert_eq!(w.cache.guards().release(name.as_wire(), w.now), 1);
        assert!(!w.is_held("x.test"));
        assert_eq!(w.cache.guards().release(name.as_wire(), w.now), 0);
        assert!(w.deny("x.test"));
        assert_eq!(w.changes(), ["held x.test. 3600", "released x.test."]);
    }

    #[test]
    fn what_the_cache_loses_is_still_known_and_what_is_flushed_or_no_longer_guarded_is_not() {
        let mut w = World::new();
        let (key, question) = w.question("a.test");
        w.good_for("a.test", 700);
        w.deny("a.test");
        let lost = Cache::new(Arc::new(MapStore::default()), Keys::new([0; 16]));
        lost.guards().set(&[GuardSettings { names: vec!["*.test".parse().unwrap()], ..GuardSettings::default() }]);
        for known in w.cache.guards().all() {
            assert!(lost.guards().restore(key, known.clone(), w.now) && !lost.guards().restore(key, known, w.now));
        }
        assert!(lost.look(key, &question.view()).is_none());
        assert!(lost.look_held(key, &question.view(), GROUP, w.now).is_some());
        lost.flush(&|_| true);
        assert!(lost.look_held(key, &question.view(), GROUP, w.now).is_none());
        w.cache.guards().set(&[]);
        assert!(!w.is_held("a.test"));
    }

    #[test]
    fn what_may_not_be_served_any_more_is_not_protected_either() {
        for (later, want) in [(86_399, true), (86_400, false)] {
            let mut w = World::new();
            w.good_for("a.test", 700);
            w.pass(later);
            assert_eq!(!w.deny("a.test"), want, "{later}");
        }
        let mut w = World::new();
        let (key, question) = w.question("a.test");
        for at in [0, 640] {
            w.now = Moment::from_secs(1000 + at);
            let signed_until = Moment::from_secs(1720);
            let packed = Packed { signed_until, ..Packed::of_a_minute(Kind::Positive) };
            let entry = Entry::with_data(&question.view(), Data::new(packed, 0, GROUP, w.now));
            assert!(w.cache.keep(key, &question.view(), Arc::new(entry), DAY, w.now));
        }
        w.pass(70);
        assert!(!w.deny("a.test"));
        w.pass(10);
        assert!(w.deny("a.test"), "its signatures have run out");
    }

    #[test]
    fn what_is_asked_without_validation_is_protected_by_what_was_validated() {
        let mut w = World::new();
        w.good_for("a.test", 700);
        let (_, question) = w.question("a.test");
        let unchecked = Question { cd: true, ..question.view() };
        let key = w.cache.key(&unchecked);
        assert!(w.cache.look_protected(key, &unchecked, (GROUP, DAY), w.now).is_some());
        w.deny("a.test");
        assert!(w.cache.look_held(key, &unchecked, GROUP, w.now).is_some());
        let signed = Question { dnssec_ok: true, ..question.view() };
        assert!(w.cache.look_held(w.cache.key(&signed), &signed, GROUP, w.now).is_none());
    }

    #[test]
    fn types_of_one_name_are_told_once_and_a_lapsed_hold_swallows_nothing() {
        let mut w = World::new();
        w.good_for("a.test", 700);
        assert!(!w.deny("a.test"));
        w.pass(30);
        w.cache.guards().table().told.insert(wire("b.test"), w.now);
        w.good_for("b.test", 700);
        assert!(!w.deny("b.test"));
        assert_eq!(w.changes(), ["held a.test. 60", "held b.test. 60"]);
    }

    #[test]
    fn what_is_restored_lengthens_the_time_that_a_name_was_good() {
        let mut w = World::new();
        w.good_for("a.test", 700);
        let known = w.cache.guards().all().remove(0);
        let mut again = World::new();
        again.now = w.now;
        again.good("a.test");
        let (key, question) = again.question("a.test");
        again.cache.restore_guarded(key, &question.view(), known, DAY, again.now);
        again.pass(60);
        assert!(!again.deny("a.test"));
    }

    #[test]
    fn what_was_denied_before_a_restored_answer_was_read_does_not_stand_above_it() {
        let mut w = World::new();
        w.good_for("a.test", 700);
        assert!(!w.deny("a.test"));
        let known = w.cache.guards().all().remove(0);
        let again = World::new();
        let again = World { now: w.now, ..again };
        assert!(again.deny("a.test"), "nothing is known yet");
        let (key, question) = again.question("a.test");
        again.cache.restore_guarded(key, &question.view(), known, DAY, again.now);
        assert!(again.is_held("a.test"));
    }

    #[test]
    fn a_hold_that_good_answers_ended_is_counted_no_more_and_does_not_end_what_they_began() {
        let mut w = World::new();
        w.good_for("a.test", 700);
        assert!(!w.deny("a.test"));
        w.good("a.test");
        assert_eq!(w.cache.guards().count(w.now), (0, 1));
        w.pass(60);
        assert!(!w.deny("a.test"), "it is protected, and not for what was left");
    }

    #[test]
    fn another_groups_good_answer_begins_anew_and_one_that_leads_nowhere_is_none() {
        let mut w = World::new();
        w.good("a.test");
        w.pass(600);
        assert!(w.keep("a.test", Kind::Positive, GroupStamp(2)));
        assert!(w.keep("a.test", Kind::NxDomain, GroupStamp(2)), "of that group it is known for no time");
        let nowhere = Packed { good: false, ..Packed::of_a_minute(Kind::Positive) };
        assert!(w.keep_packed("b.test", nowhere, GROUP));
        assert!(!w.is_known("a.test") && !w.is_known("b.test"));
    }

    #[test]
    fn a_hold_of_no_time_holds_nothing() {
        let mut w = World::new();
        let none =
            GuardSettings { names: vec!["*.test".parse().unwrap()], hold: Duration::ZERO, ..Default::default() };
        w.cache.guards().set(&[none]);
        w.good_for("a.test", 700);
        assert!(w.deny("a.test"));
    }

    #[test]
    fn a_release_is_of_its_name_alone_and_the_types_of_a_name_are_told_once() {
        let mut w = World::new();
        let name: Name = "a.test".parse().unwrap();
        let aaaa = Question { name: name.as_wire(), qtype: 28, dnssec_ok: false, cd: false };
        for pause in [640, 60] {
            let data = Data::new(Packed::of_a_minute(Kind::Positive), 0, GROUP, w.now);
            let entry = Arc::new(Entry::with_data(&aaaa, data));
            assert!(w.cache.keep(w.cache.key(&aaaa), &aaaa, entry, DAY, w.now));
            ["a.test", "b.test"].into_iter().for_each(|name| w.good(name));
            w.pass(pause);
        }
        assert!(!w.deny("a.test") && !w.deny("b.test"));
        w.pass(1);
        w.cache.guards().hold(w.cache.key(&aaaa), &aaaa, w.now);
        assert_eq!(w.changes(), ["held a.test. 60", "held b.test. 60"]);
        assert_eq!(w.cache.guards().release(name.as_wire(), w.now), 2);
        assert!(!w.is_held("a.test") && w.is_held("b.test"));
    }

    #[test]
    fn what_is_no_longer_guarded_is_held_no_more_and_takes_no_room() {
        let mut w = World::new();
        w.good_for("a.test", 700);
        assert!(!w.deny("a.test"));
        w.cache.guards().set(&[]);
        assert!(!w.is_held("a.test") && !w.is_known("a.test"));
        assert_eq!(w.cache.guards().table().bytes, 0);
        assert!(w.deny("a.test"));
    }

    #[test]
    fn large_answers_are_bounded_by_their_bytes() {
        let mut w = World::new();
        for n in 0..400 {
            w.now = w.now + Duration::from_millis(1);
            let large = Packed { wire: vec![0; 60_000], ..Packed::of_a_minute(Kind::Positive) };
            assert!(w.keep_packed(&format!("n{n}.test"), large, GROUP));
        }
        let bytes = w.cache.guards().table().bytes;
        assert!((GUARDED_BYTES_MAX * 8 / 10..=GUARDED_BYTES_MAX).contains(&bytes), "{bytes}");
    }

    #[test]
    fn it_is_bounded_and_what_was_good_the_longest_ago_goes_first() {
        let mut w = World::new();
        w.good_for("old.test", 700);
        w.good_for("long.test", 700);
        w.deny("old.test");
        for n in 0..GUARDED_MAX + 5 {
            w.now = w.now + Duration::from_millis(1);
            w.good(&format!("n{n}.test"));
        }
        let all = w.cache.guards().all();
        assert!(all.len() <= GUARDED_MAX && all.len() > GUARDED_MAX * 8 / 10, "{}", all.len());
        let (held, _) = w.cache.guards().count(w.now);
        assert_eq!(held, 1, "what is held stays");
        assert!(!w.deny("long.test"), "and so does what was good for long");
        let bytes: usize = all.iter().map(|k| k.entry.bytes()).sum();
        assert_eq!(w.cache.guards().table().bytes, bytes);
        assert!(!w.is_known("n0.test") && w.is_known(&format!("n{}.test", GUARDED_MAX + 4)));
        w.cache.guards().flush(&|_| true);
        assert_eq!(w.cache.guards().table().bytes, 0);
    }
}
