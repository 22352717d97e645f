//! What a full cache takes: what it may. A program of its own, since what other threads free is not seen by the one
//! that counts.
#![allow(clippy::print_stdout, reason = "the figures")]

#[allow(dead_code, reason = "a part of what tests and benches stand on")]
mod stand;

use std::sync::Arc;

use evenkeel::cache::front::Front;
use evenkeel::cache::store::{MokaStore, Store};
use stand::{filled, name};

const MIB: u64 = 1 << 20;

#[test]
fn a_full_cache_takes_what_it_may() {
    let max = 8 * MIB;
    let mut front = Front::new(max, 1);
    let mut held = None;
    let took = allocation_counter::measure(|| {
        let store: Arc<dyn Store> = Arc::new(MokaStore::new(max));
        let cache = filled(store, 60_000, 2);
        for n in 0..60_000 {
            let name = name(n);
            let question = evenkeel::cache::key::Question { name: &name, qtype: 1, dnssec_ok: false, cd: false };
            let _ = front.look(&cache, cache.key(&question), &question);
        }
        // The store puts work off, and does so much of it at a time.
        (0..100).for_each(|_| cache.upkeep());
        held = Some(cache);
    });
    let census = held.as_ref().unwrap().census();
    assert!(census.bytes <= max, "{census:?}");
    assert!(census.bytes > max / 2 && census.evicted > 0, "the cache is full: {census:?}");
    let bytes = took.bytes_current as u64;
    println!("heap {bytes} bytes for {} entries weighed as {} bytes", census.entries, census.bytes);
    assert!(bytes <= max + max / 4, "{bytes} bytes of heap for max_bytes {max}");
}
