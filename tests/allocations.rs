//! What the hit path allocates (nothing), and what a full cache takes (what it may).
#![allow(clippy::print_stdout, reason = "the figures")]

mod stand;

use std::sync::Arc;
use std::time::Duration;

use evenkeel::cache::front::{FRONT_ENTRY_BYTES, Front};
use evenkeel::cache::store::{MokaStore, OVERHEAD_BYTES, Store};
use evenkeel::serve::Outcome;
use stand::{CLIENT, STORED, TTL, door, entry, filled, name, query};

const MIB: u64 = 1 << 20;

#[test]
fn a_fresh_answer_and_a_stale_one_in_the_dark_allocate_nothing() {
    let cache = filled(Arc::new(MokaStore::new(64 * MIB)), 1000, 3);
    let mut door = door(cache, 64 * MIB);
    let mut out = [0; 1232];
    let queries: Vec<Vec<u8>> = (0..1000).map(|n| query(n, n % 2 == 0)).collect();
    let fresh = STORED + Duration::from_secs(10);
    let stale = STORED + Duration::from_secs(u64::from(TTL) + 10);
    for (what, now, warm_up) in [("fresh", fresh, true), ("stale", stale, true)] {
        let mut ask_all = |expect_reply: bool| {
            for q in &queries {
                match door.serve(q, CLIENT, &mut out, now) {
                    Outcome::Reply(n) => assert!(n > q.len() && out[7] == 3, "{what}"),
                    Outcome::ReplyAndOpen(..) => assert!(!expect_reply, "{what}: asked again within its pause"),
                    Outcome::Drop | Outcome::Open(_) => panic!("{what}: no answer"),
                }
            }
        };
        // The first round fills the front cache; the first stale one claims the asking, once for each name.
        if warm_up {
            ask_all(false);
        }
        let took = allocation_counter::measure(|| ask_all(true));
        assert_eq!((took.count_total, took.bytes_total), (0, 0), "{what}");
    }
}

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
        cache.upkeep();
        held = Some(cache);
    });
    let census = held.as_ref().unwrap().census();
    assert!(census.bytes <= max, "{census:?}");
    assert!(census.bytes > max / 2 && census.evicted > 0, "the cache is full: {census:?}");
    let bytes = took.bytes_current as u64;
    println!("heap {bytes} bytes for {} entries weighed as {} bytes", census.entries, census.bytes);
    assert!(bytes <= max + max / 4, "{bytes} bytes of heap for max_bytes {max}");
}

#[test]
fn an_entry_weighs_what_the_allocator_gives_for_it() {
    const N: u64 = 50_000;
    let mut kept = None;
    let mut own = 0;
    let took = allocation_counter::measure(|| {
        let store = MokaStore::new(1 << 40);
        for n in 0..N {
            let name = name(n);
            let question = evenkeel::cache::key::Question { name: &name, qtype: 1, dnssec_ok: false, cd: false };
            let entry = entry(&question, 1, STORED);
            own += entry.bytes() as u64;
            store.put(evenkeel::cache::key::Keys::new([7; 16]).key(&question), entry);
            if n % 256 == 0 {
                store.upkeep();
            }
        }
        store.upkeep();
        kept = Some(store);
    });
    let over = (took.bytes_current as u64).saturating_sub(own) / N;
    println!("an entry of {} bytes takes {over} bytes more; weighed as {OVERHEAD_BYTES}", own / N);
    // The allocator's own share is not seen here: about 110 bytes in six blocks.
    let (least, most) = (OVERHEAD_BYTES as u64 / 2, OVERHEAD_BYTES as u64);
    assert!((least..=most).contains(&over), "{over} bytes beside the entry, weighed as {OVERHEAD_BYTES}");
    assert!(FRONT_ENTRY_BYTES >= own / N, "a slot of the front keeps an entry alive");
}
