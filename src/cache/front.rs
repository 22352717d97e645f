//! A worker's own small copy of what it hits most, before the store.
//!
//! Pure. Eight-way sets of entries that the store owns. A look here costs two lines of memory and touches nothing that
//! another worker writes; moka alone costs 0.2 µs hot and over 1 µs cold. An entry that the store evicted or replaced
//! says so itself ([`Entry::is_gone`]) and is let go when it is met. One hit in 64 is also a look in the store, so
//! that its eviction policy hears of what is popular.
//!
//! Who has several questions at hand has what they need fetched before the first is answered: the set
//! ([`Front::fetch_set`]), then the entry, then its bytes. Each step finds in the processor's cache what the one before
//! asked for, and the waits for memory of a whole batch overlap.
//!
//! Tried, as medians over 20,000 names one by one and in batches, and over 1,000 (`cargo bench --bench core`, ns): two
//! ways 714, 582, 278; four 549, 460, 279; eight 484, 407, 287. More ways, fewer names that drive each other out to
//! the store. Fetching both lines of a set ahead gave nothing more (480, 419, 288).
//!
//! Bound: slots × [`FRONT_ENTRY_BYTES`] over all workers is at most 1/8 of the cache's bytes. An entry of more than
//! [`FRONT_ENTRY_BYTES_MAX`] takes no slot: one that the store let go of is kept alive until its slot is used again,
//! and large ones could together be a multiple of the whole cache.

use std::sync::Arc;

use super::Cache;
use super::entry::Entry;
use super::key::{Key, Question};
use super::prefetch::{prefetch, prefetch_all};

/// What one slot may keep alive after the store let go of it, in the mean.
pub const FRONT_ENTRY_BYTES: u64 = 256;
/// Bytes of an entry beyond which it takes no slot.
pub const FRONT_ENTRY_BYTES_MAX: usize = 8 * FRONT_ENTRY_BYTES as usize;
const WAYS: usize = 8;
const TELL_EVERY: u32 = 64;
const SETS_MAX: usize = 1 << 15;

#[derive(Default)]
#[repr(align(64))]
struct Set {
    tags: [u64; WAYS],
    entries: [Option<Arc<Entry>>; WAYS],
}

/// The front cache of one worker.
pub struct Front {
    sets: Box<[Set]>,
    /// The last entry that takes no slot.
    passing: Option<Arc<Entry>>,
    hits: u32,
}

impl Front {
    /// For one of `workers` before a cache of `max_bytes`.
    pub fn new(max_bytes: u64, workers: usize) -> Self {
        let slots = max_bytes / 8 / FRONT_ENTRY_BYTES / workers.max(1) as u64;
        let sets = (slots as usize / WAYS).clamp(1, SETS_MAX);
        // Round down: the bound holds.
        let sets = 1 << sets.ilog2();
        Self { sets: (0..sets).map(|_| Set::default()).collect(), passing: None, hits: 0 }
    }

    /// The entry of a question, from here or from the cache.
    pub fn look(&mut self, cache: &Cache, key: Key, question: &Question<'_>) -> Option<&Arc<Entry>> {
        let (tag, index) = (tag(key), self.index(key));
        let set = &mut self.sets[index];
        let mut found = None;
        for way in 0..WAYS {
            if set.tags[way] != tag {
                continue;
            }
            if set.entries[way].as_ref().is_some_and(|e| !e.is_gone() && e.is_for(question)) {
                found = Some(way);
                break;
            }
            set.tags[way] = 0;
            set.entries[way] = None;
        }
        if let Some(way) = found {
            self.hits = self.hits.wrapping_add(1);
            if self.hits.is_multiple_of(TELL_EVERY) {
                let _ = cache.look(key, question);
            }
            return self.sets[index].entries[way].as_ref();
        }
        let entry = cache.look(key, question)?;
        if entry.bytes() > FRONT_ENTRY_BYTES_MAX {
            return Some(self.passing.insert(entry));
        }
        let set = &mut self.sets[index];
        let way = set.tags.iter().position(|t| *t == 0).unwrap_or((key.0 >> 125) as usize % WAYS);
        set.tags[way] = tag;
        Some(set.entries[way].insert(entry))
    }

    /// Has the set fetched in which a key would lie.
    pub fn fetch_set(&self, key: Key) {
        prefetch(&self.sets[self.index(key)]);
    }

    /// Has the entry fetched that lies under a key; its set has come by now.
    pub fn fetch_entry(&self, key: Key) {
        if let Some(entry) = self.first(key) {
            prefetch_all(entry);
        }
    }

    /// Has the entry's bytes fetched; the entry has come by now.
    pub fn fetch_bytes(&self, key: Key) {
        if let Some(entry) = self.first(key) {
            entry.fetch();
        }
    }

    fn first(&self, key: Key) -> Option<&Entry> {
        let set = &self.sets[self.index(key)];
        let way = set.tags.iter().position(|t| *t == tag(key))?;
        set.entries[way].as_deref()
    }

    fn index(&self, key: Key) -> usize {
        key.0 as usize & (self.sets.len() - 1)
    }

    /// Number of slots.
    pub fn slots(&self) -> usize {
        self.sets.len() * WAYS
    }
}

/// Never 0, which marks an empty way.
fn tag(key: Key) -> u64 {
    (key.0 >> 64) as u64 | 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::entry::{Data, Failure, GroupStamp, Kind, Packed};
    use crate::cache::key::Keys;
    use crate::cache::store::MapStore;
    use crate::clock::Moment;
    use std::time::Duration;

    #[test]
    fn an_entry_that_was_let_go_is_not_found_again() {
        let cache = Cache::new(Arc::new(MapStore::default()), Keys::new([0; 16]));
        let question = Question { name: b"\x07example\x00", qtype: 1, dnssec_ok: false, cd: false };
        let key = cache.key(&question);
        let mut front = Front::new(1 << 20, 1);
        assert!(front.look(&cache, key, &question).is_none());
        let failure = Failure {
            until: Moment::NEVER,
            group: GroupStamp(1),
            count: 1,
            healings: 0,
            ede: 22,
            kept_edes: [].into(),
        };
        cache.fail(key, &question, failure);
        let entry = front.look(&cache, key, &question).unwrap().clone();
        cache.flush(&|_| true);
        assert!(entry.is_gone(), "a flush reaches front copies");
        assert!(front.look(&cache, key, &question).is_none());
    }

    #[test]
    fn a_large_entry_is_found_and_takes_no_slot() {
        for (bytes, keeps) in [(1000, true), (2048, false)] {
            let cache = Cache::new(Arc::new(MapStore::default()), Keys::new([0; 16]));
            let question = Question { name: b"\x07example\x00", qtype: 1, dnssec_ok: false, cd: false };
            let key = cache.key(&question);
            let packed = Packed {
                wire: vec![0; bytes],
                ttl_at: vec![],
                rotation: None,
                kept_edes: [].into(),
                kind: Kind::Positive,
                good: true,
                ttl: 60,
                signed_until: Moment::NEVER,
            };
            let entry = Entry::with_data(&question, Data::new(packed, 0, GroupStamp(1), Moment::ZERO));
            cache.keep(key, &question, Arc::new(entry), Duration::ZERO, Moment::ZERO);
            let mut front = Front::new(1 << 20, 1);
            assert!(front.look(&cache, key, &question).is_some());
            assert_eq!(front.sets.iter().any(|s| s.entries.iter().any(Option::is_some)), keeps, "{bytes}");
        }
    }

    #[test]
    fn all_fronts_together_take_an_eighth_at_most() {
        for (bytes, workers) in [(1 << 20, 1), (64 << 20, 4), (1 << 30, 3)] {
            let slots = Front::new(bytes, workers).slots() as u64;
            assert!(slots * FRONT_ENTRY_BYTES * workers as u64 <= bytes / 8, "{bytes} {workers}");
        }
    }
}
