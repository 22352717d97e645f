//! The bounded concurrent map under the cache, behind a narrow trait.
//!
//! [`MokaStore`] is the one that serves: it owns the bytes and decides what is evicted. [`MapStore`] is for tests and
//! the simulation: unbounded, in order, without a clock. Time is ours: moka is built without expiry, so that its clock
//! decides nothing; what is past its age is judged by [`super::freshness`] and goes when room is needed.
//!
//! Eviction policy: TinyLFU. `cargo bench --bench eviction`, Zipf 1.0 over 200,000 names with room for 20,000, hit
//! ratio of TinyLFU and LRU: 75.7 and 75.1 % alone, 73.4 and 72.5 % with a tenth of the questions a random-subdomain
//! flood, 65.3 and 63.8 % with half, 50.6 and 48.7 % with nine tenths. The gain is small and always on one side.
//! TinyLFU may not admit a name that is asked for the first time while the cache is full; that name is answered all
//! the same, and one that is asked again is kept as soon as by LRU: in the median its second question hits.

use std::collections::BTreeMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;

use super::entry::Entry;
use super::key::Key;

/// Bytes of RSS that moka and the allocator take for one entry beyond [`Entry::bytes`]. `cargo bench --bench eviction`
/// measured 250 in a cache that is filled once, and 380 in a full one in which answers of all sizes come and go: the
/// bound is for that one.
pub const OVERHEAD_BYTES: usize = 368;

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Bytes, overhead included.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
    /// Entries evicted for room since the start.
    pub evicted: u64,
}

/// A map from keys to entries.
pub trait Store: Send + Sync {
    /// The entry under a key; counts as a use.
    fn get(&self, key: Key) -> Option<Arc<Entry>>;
    /// Is there an entry under a key? Does not count as a use.
    fn has(&self, key: Key) -> bool;
    /// Puts an entry in the place of what was there. A bounded store may not keep it.
    fn put(&self, key: Key, entry: Arc<Entry>);
    /// Puts an entry where none is, and gives what is there then.
    fn put_new(&self, key: Key, entry: Arc<Entry>) -> Arc<Entry>;
    /// Removes what `doomed` picks; front copies let go of it. Returns how many.
    fn remove_if(&self, doomed: &dyn Fn(&Entry) -> bool) -> u64;
    /// Calls `each` with every entry; does not count as a use.
    fn for_each(&self, each: &mut dyn FnMut(&Arc<Entry>));
    /// What it holds.
    fn census(&self) -> Census;
    /// Work that was put off.
    fn upkeep(&self);
}

/// The low half of a key is as good as any hash of it, and moka keeps each key in an allocation of its own: a whole one
/// would take 16 bytes more.
fn half(key: Key) -> u64 {
    key.0 as u64
}

/// Keys are hashes under a secret.
#[derive(Default)]
pub struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        // Only u64 keys come here; this keeps the hasher right for anything else.
        for b in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*b);
        }
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// moka as the owner of the cache.
pub struct MokaStore {
    cache: moka::sync::Cache<u64, Arc<Entry>, BuildHasherDefault<KeyHasher>>,
    evicted: Arc<AtomicU64>,
}

impl MokaStore {
    /// Holds at most `max_bytes`, overhead included.
    pub fn new(max_bytes: u64) -> Self {
        Self::with_room(max_bytes, 0)
    }

    /// The same with places at once for as many entries as are to come, and fit: a map that grows moves all it has.
    pub fn with_room(max_bytes: u64, entries: u64) -> Self {
        Self::build(max_bytes, entries.min(max_bytes / OVERHEAD_BYTES as u64), EvictionPolicy::tiny_lfu())
    }

    /// The same with another eviction policy, for the bench that compares them.
    pub fn with_policy(max_bytes: u64, policy: EvictionPolicy) -> Self {
        Self::build(max_bytes, 0, policy)
    }

    fn build(max_bytes: u64, entries: u64, policy: EvictionPolicy) -> Self {
        let evicted = Arc::new(AtomicU64::new(0));
        let counter = evicted.clone();
        let cache = moka::sync::Cache::builder()
            .max_capacity(max_bytes)
            .initial_capacity(entries as usize)
            .eviction_policy(policy)
            .weigher(|_, entry: &Arc<Entry>| u32::try_from(entry.bytes() + OVERHEAD_BYTES).unwrap_or(u32::MAX))
            .eviction_listener(move |_, entry: Arc<Entry>, cause| {
                entry.let_go();
                if cause == RemovalCause::Size {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            })
            .build_with_hasher(BuildHasherDefault::default());
        Self { cache, evicted }
    }
}

impl Store for MokaStore {
    fn get(&self, key: Key) -> Option<Arc<Entry>> {
        self.cache.get(&half(key))
    }

    fn has(&self, key: Key) -> bool {
        self.cache.contains_key(&half(key))
    }

    fn put(&self, key: Key, entry: Arc<Entry>) {
        self.cache.insert(half(key), entry);
    }

    fn put_new(&self, key: Key, entry: Arc<Entry>) -> Arc<Entry> {
        self.cache.entry(half(key)).or_insert(entry).into_value()
    }

    fn remove_if(&self, doomed: &dyn Fn(&Entry) -> bool) -> u64 {
        let mut removed = 0;
        for (key, entry) in &self.cache {
            if doomed(&entry) {
                entry.let_go();
                self.cache.invalidate(&*key);
                removed += 1;
            }
        }
        removed
    }

    fn for_each(&self, each: &mut dyn FnMut(&Arc<Entry>)) {
        for (_, entry) in &self.cache {
            each(&entry);
        }
    }

    fn census(&self) -> Census {
        Census {
            bytes: self.cache.weighted_size(),
            entries: self.cache.entry_count(),
            evicted: self.evicted.load(Ordering::Relaxed),
        }
    }

    fn upkeep(&self) {
        self.cache.run_pending_tasks();
    }
}

/// An unbounded map, for tests and the simulation.
#[derive(Default)]
pub struct MapStore(Mutex<BTreeMap<Key, Arc<Entry>>>);

impl MapStore {
    fn map(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Arc<Entry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MapStore {
    fn get(&self, key: Key) -> Option<Arc<Entry>> {
        self.map().get(&key).cloned()
    }

    fn has(&self, key: Key) -> bool {
        self.map().contains_key(&key)
    }

    fn put(&self, key: Key, entry: Arc<Entry>) {
        if let Some(old) = self.map().insert(key, entry) {
            old.let_go();
        }
    }

    fn put_new(&self, key: Key, entry: Arc<Entry>) -> Arc<Entry> {
        self.map().entry(key).or_insert(entry).clone()
    }

    fn remove_if(&self, doomed: &dyn Fn(&Entry) -> bool) -> u64 {
        let mut map = self.map();
        let before = map.len();
        map.retain(|_, entry| {
            let goes = doomed(entry);
            if goes {
                entry.let_go();
            }
            !goes
        });
        (before - map.len()) as u64
    }

    fn for_each(&self, each: &mut dyn FnMut(&Arc<Entry>)) {
        self.map().values().for_each(each);
    }

    fn census(&self) -> Census {
        let map = self.map();
        let bytes = map.values().map(|e| (e.bytes() + OVERHEAD_BYTES) as u64).sum();
        Census { bytes, entries: map.len() as u64, evicted: 0 }
    }

    fn upkeep(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::entry::{Data, Failure, GroupStamp, Kind, Packed};
    use crate::cache::key::{Keys, Question};
    use crate::clock::Moment;

    #[test]
    fn moka_keeps_to_its_bytes_and_evicted_entries_let_go() {
        let store = MokaStore::new(1 << 20);
        let keys = Keys::new([3; 16]);
        let entries: Vec<_> = (0u32..20_000).map(|n| put(&store, &keys, n)).collect();
        store.upkeep();
        let census = store.census();
        assert!(census.bytes <= 1 << 20, "{census:?}");
        assert!(census.entries > 500 && census.evicted > 0, "{census:?}");
        let mut held = 0;
        store.for_each(&mut |entry| {
            assert!(!entry.is_gone());
            held += 1;
        });
        assert_eq!(held, census.entries);
        assert_eq!(entries.iter().filter(|e| !e.is_gone()).count() as u64, held);
    }

    #[test]
    fn both_stores_put_find_and_remove_alike() {
        for store in [&MokaStore::new(1 << 20) as &dyn Store, &MapStore::default()] {
            let keys = Keys::new([4; 16]);
            let entry = put(store, &keys, 7);
            let key = keys.key(&question(&name(7)));
            assert!(store.has(key) && store.get(key).is_some_and(|e| Arc::ptr_eq(&e, &entry)));
            let late = Arc::new(Entry::with_failure(&question(&name(7)), failure()));
            assert!(Arc::ptr_eq(&store.put_new(key, late), &entry), "what is there stays");
            let other = Arc::new(Entry::with_failure(&question(&name(9)), failure()));
            assert!(Arc::ptr_eq(&store.put_new(keys.key(&question(&name(9))), other.clone()), &other));
            assert_eq!(store.remove_if(&|e| e.name() == name(8)), 0);
            assert_eq!(store.remove_if(&|e| e.name() == name(7)), 1);
            assert!(!store.has(key) && store.get(key).is_none() && entry.is_gone());
        }
    }

    #[test]
    fn an_entry_weighs_what_it_holds() {
        let small = Entry::with_failure(&question(&name(1)), failure());
        let large = Entry::with_data(&question(&name(1)), data(4000));
        assert!(large.bytes() >= small.bytes() + 3000);
    }

    fn put(store: &dyn Store, keys: &Keys, n: u32) -> Arc<Entry> {
        let name = name(n);
        let question = question(&name);
        let entry = Arc::new(Entry::with_data(&question, data(100)));
        store.put(keys.key(&question), entry.clone());
        entry
    }

    fn name(n: u32) -> Vec<u8> {
        [&[8][..], format!("{n:08}").as_bytes(), &[0]].concat()
    }

    fn question(name: &[u8]) -> Question<'_> {
        Question { name, qtype: 1, dnssec_ok: false, cd: false }
    }

    fn failure() -> Failure {
        Failure { until: Moment::NEVER, group: GroupStamp(1), count: 1, healings: 0, ede: 22, kept_edes: [].into() }
    }

    fn data(bytes: usize) -> Data {
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
        Data::new(packed, 0, GroupStamp(1), Moment::ZERO)
    }
}
