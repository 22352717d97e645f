//! What the hit path allocates: nothing.

#[allow(dead_code, reason = "a part of what tests and benches stand on")]
mod stand;

use std::sync::Arc;
use std::time::Duration;

use evenkeel::cache::front::Front;
use evenkeel::cache::store::{MapStore, MokaStore};
use evenkeel::clock::Moment;
use evenkeel::observe::metrics::Meters;
use evenkeel::serve::{Door, Outcome, Step};
use evenkeel::upstream::group::AskKind;
use evenkeel::upstream::{Group, GroupSettings, Outlook, ServerId, ServerSettings};
use stand::{CLIENT, STORED, TTL, door, filled, policy_over, query};

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
                let prepared = door.prepare(q);
                [Step::Entry, Step::Bytes].into_iter().for_each(|step| door.fetch(prepared, step));
                match door.serve_prepared(q, prepared, CLIENT, &mut out, now) {
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
fn near_its_end_an_answer_allocates_for_the_one_hit_that_asks_again_and_for_no_other() {
    let settings = GroupSettings {
        tiers: [vec![ServerSettings::at(([192, 0, 2, 53], 53).into())], vec![], vec![]],
        ..GroupSettings::default()
    };
    let mut group = Group::new(settings, Moment::ZERO);
    group.on_sent(ServerId(0), AskKind::First, Moment::ZERO);
    group.on_reply(ServerId(0), Duration::from_millis(1), true, Moment::ZERO);
    let outlook = Outlook::default();
    outlook.publish(&group);
    // moka's upkeep, which one look in 64 may bring on, is not what is measured.
    let cache = filled(Arc::new(MapStore::default()), 1000, 3);
    let front = Some(Front::new(64 * MIB, 1));
    let mut door = Door::new(policy_over(outlook), cache, front, Meters::default().own());
    let mut out = [0; 1232];
    let queries: Vec<Vec<u8>> = (0..1000).map(|n| query(n, true)).collect();
    let mut ask_all = |seconds: u64, opened: usize| {
        let now = STORED + Duration::from_secs(seconds);
        let mut open = |q: &Vec<u8>| matches!(door.serve(q, CLIENT, &mut out, now), Outcome::ReplyAndOpen(..));
        assert_eq!(queries.iter().filter(|q| open(q)).count(), opened, "{seconds}");
    };
    let end = u64::from(TTL);
    ask_all(end - 100, 0);
    for (seconds, opened) in [(end - 90, 0), (end - 20, 0), (end - 19, 1000), (end - 18, 0)] {
        let took = allocation_counter::measure(|| ask_all(seconds, opened));
        assert_eq!(took.count_total == 0, opened == 0, "{seconds}");
    }
}
