//! What the hit path allocates: nothing.

#[allow(dead_code, reason = "a part of what tests and benches stand on")]
mod stand;

use std::sync::Arc;
use std::time::Duration;

use evenkeel::cache::store::MokaStore;
use evenkeel::serve::Outcome;
use stand::{CLIENT, STORED, TTL, door, filled, query};

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
