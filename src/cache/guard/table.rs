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
mod tests;
