//! Scenarios of many questions at one desk, in virtual time: who gets a place, who yields, whom a flood convicts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::attempt::AttemptId;
use super::desk::{Desk, Opened, PursuitId, Request};
use super::pursuit::{Answer, Step, Waiter};
use super::vet::{Fault, Verdict};
use crate::cache::ahead::Ahead;
use crate::cache::entry::{Data, Entry, GroupStamp, Kind, Packed};
use crate::cache::key::{Keys, Question};
use crate::clock::Moment;
use crate::limits::{FAILING_ZONE_IN_FLIGHT_MAX, REFRESHES_PER_SECOND};
use crate::upstream::group::{AskKind, Belief, Change};
use crate::upstream::health::Probe;
use crate::upstream::{ClientHash, Group, GroupSettings, Order, ServerId, ServerSettings, loops};
use crate::wire::Name;

const MS: fn(u64) -> Duration = Duration::from_millis;
const CLIENT: u32 = 1;

//------------ Bulkheads ---------------------------------------------------------------------------------------------

// A random-subdomain flood under a zone that no server answers for, and nothing else.
#[test]
fn a_dead_zones_flood_alone_convicts_no_server_and_is_confined_to_its_zone() {
    let mut w = World::new(|name| if name.contains("dead") { Does::Silent } else { Does::Answers(2) });
    for n in 0..4000 {
        w.ask(&format!("r{n}.dead.example"), 7);
        w.pass(MS(1));
    }
    assert!(w.desk.group().zone_of(&wire("x.dead.example"), w.now).is_failing);
    assert!(w.desk.group().bulkhead().in_flight() <= FAILING_ZONE_IN_FLIGHT_MAX);
    let moved = |c: &Change| matches!(c, Change::Down(..) | Change::Shift(_) | Change::Dark);
    assert!(!w.changes.iter().any(moved), "{:?}", w.changes);
    let id = w.ask("www.example", CLIENT).unwrap();
    w.pass(MS(3));
    assert_eq!(w.seen[&id], "fresh after 2 ms");
    w.pass(Duration::from_secs(5));
    assert_eq!((w.desk.group().bulkhead().in_flight(), w.desk.under_way()), (0, 0), "permits come back");
}

// complaint 21: unbounded questions in flight where an upstream is slow.
#[test]
fn a_flood_of_a_dead_zone_drains_no_budget_that_others_need() {
    let mut w = World::new(|name| if name.contains("dead") { Does::Silent } else { Does::Answers(2) });
    for n in 0..3000 {
        w.ask(&format!("r{n}.dead.example"), 7);
        w.pass(MS(1));
    }
    let before = w.asked(&[AskKind::Hedge, AskKind::Retry]);
    for n in 0..1000 {
        w.ask(&format!("s{n}.dead.example"), 7);
        w.pass(MS(1));
    }
    assert_eq!(w.asked(&[AskKind::Hedge, AskKind::Retry]), before, "a failing zone costs no second question");
}

// complaint 22: too many waiting for ever, and local refusals that are cached.
#[test]
fn where_a_bound_is_full_the_oldest_hopeless_question_yields_and_is_not_remembered() {
    let mut w = World::new(|name| if name.contains("slow") { Does::Silent } else { Does::Answers(2) });
    w.settings.in_flight_max = 4;
    w.reset();
    let old: Vec<_> = (0..4).map(|n| w.ask(&format!("www.slow{n}.test"), CLIENT).unwrap()).collect();
    assert!(w.ask("www.good.test", CLIENT).is_none(), "none of them is hopeless yet");
    assert_eq!(w.desk.group().bulkhead().rejected()[0].1, 1);
    w.speaks();
    w.pass(MS(299));
    assert!(w.ask("www.good.test", CLIENT).is_none(), "299 ms are not enough");
    w.pass(MS(5));
    let id = w.ask("www.good.test", CLIENT).unwrap();
    assert_eq!(w.seen[&old[0]], "failed 0 after 304 ms", "EDE 0: a limit of ours");
    assert!(!w.seen.contains_key(&old[1]));
    w.pass(MS(3));
    assert_eq!(w.seen[&id], "fresh after 2 ms");
    assert_eq!(w.remembered, 0, "neither stored nor evidence");
}

// Found by the simulation: the oldest of all yielded, its zone's bound was full still, and its waiters were not told.
#[test]
fn where_group_and_zone_are_full_a_question_of_the_zone_yields() {
    let mut w = World::new(|_| Does::Silent);
    w.settings.in_flight_max = 5;
    w.settings.per_zone_in_flight_max = 4;
    w.reset();
    let other = w.ask("www.other.test", CLIENT).unwrap();
    let zone: Vec<_> = (0..4).map(|n| w.ask(&format!("r{n}.slow.test"), CLIENT).unwrap()).collect();
    w.speaks();
    w.pass(MS(300));
    assert!(w.ask("new.slow.test", CLIENT).is_some());
    assert_eq!(w.seen[&zone[0]], "failed 0 after 300 ms");
    assert!(!w.seen.contains_key(&other), "its place would have been of no use");
    assert_eq!(w.desk.group().bulkhead().in_flight(), 5);
}

#[test]
fn who_only_listens_on_is_bounded_too() {
    // The primary loses a quarter of what it is asked: too little to be convicted, and each is listened for.
    let mut w = World::by_server(|name, server| match name.contains("lost") && server == 0 {
        true => Does::Silent,
        false => Does::Answers(2),
    });
    w.settings.in_flight_max = 4;
    w.reset();
    for n in 0..240 {
        let word = if n % 4 == 0 { "lost" } else { "site" };
        w.ask(&format!("www.{word}{n}.test"), n % 5);
        w.pass(MS(10));
        assert!(w.desk.under_way() <= 9, "{}", w.desk.under_way());
    }
    assert_eq!(w.desk.group().tier_in_use(), 0, "{:?}", w.changes);
}

#[test]
fn the_same_question_is_one_pursuit_with_many_waiters() {
    let mut w = World::new(|_| Does::Answers(5));
    let ids: Vec<_> = (0..30).map(|_| w.ask("www.test", CLIENT).unwrap()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]));
    w.pass(MS(6));
    assert_eq!((w.answered, w.asked(&[AskKind::First])), (30, 1));
}

// An earlier pursuit of the question has failed, and listens on.
#[test]
fn a_late_answer_reaches_who_has_asked_again() {
    let mut w = World::new(|name| match name {
        n if n.starts_with("late.") => Does::Answers(3000),
        n if n.contains("dead") => Does::Silent,
        _ => Does::Answers(2),
    });
    for n in 0..100 {
        w.ask(&format!("r{n}.dead.example"), 7);
        w.pass(MS(10));
    }
    w.pass(Duration::from_secs(5));
    assert!(w.desk.group().zone_of(&wire("x.dead.example"), w.now).is_failing);
    let first = w.ask("late.dead.example", CLIENT).unwrap();
    w.pass(MS(2500));
    assert!(w.seen[&first].starts_with("failed"), "{}", w.seen[&first]);
    let second = w.ask("late.dead.example", CLIENT).unwrap();
    assert_ne!(first, second);
    w.pass(MS(502));
    assert_eq!(w.seen[&second], "fresh after 500 ms");
}

#[test]
fn who_joins_late_has_a_deadline_of_its_own() {
    let mut w = World::new(|_| Does::Answers(4500));
    w.ask("www.test", CLIENT);
    w.pass(MS(3900));
    let id = w.ask("www.test", CLIENT).unwrap();
    w.pass(MS(200));
    assert!(w.seen[&id].starts_with("failed"), "the first one at its deadline: {}", w.seen[&id]);
    w.pass(MS(500));
    assert!(w.seen[&id].starts_with("fresh"), "{}", w.seen[&id]);
    assert_eq!(w.answered, 2);
}

//------------ Evidence ----------------------------------------------------------------------------------------------

// complaint 12: one lost packet counted once per waiter.
#[test]
fn one_question_for_thirty_clients_is_evidence_once() {
    let mut w = World::new(|_| Does::Silent);
    w.probes_answer = false;
    w.speaks();
    for client in 0..30 {
        w.ask("www.test", client);
    }
    w.pass(Duration::from_secs(3));
    assert!(!w.changes.iter().any(|c| matches!(c, Change::Silent(_))), "{:?}", w.changes);
}

// A name that takes its time takes it at every server: who was asked second is not at fault for being second.
#[test]
fn names_that_are_slow_everywhere_convict_nobody() {
    let mut w = World::by_server(|name, server| match name.contains("slow") {
        true => Does::Answers(if server == 0 { 340 } else { 380 }),
        false => Does::Answers(2),
    });
    for n in 0..100 {
        w.ask(&format!("www.site{n}.test"), n % 5);
        w.pass(MS(5));
    }
    for n in 0..20 {
        w.ask(&format!("www.slow{n}.test"), n % 5);
        w.ask(&format!("www.quick{n}.test"), n % 5);
        w.pass(MS(200));
    }
    w.pass(Duration::from_secs(2));
    assert!(!w.changes.iter().any(|c| matches!(c, Change::Down(..))), "{:?}", w.changes);
}

#[test]
fn a_zone_is_told_of_what_nobody_has_answered_for_a_second() {
    let mut w = World::new(|name| if name.contains("dead") { Does::Silent } else { Does::Answers(2) });
    for n in 0..8 {
        w.ask(&format!("r{n}.dead.test"), n);
    }
    w.pass(MS(200));
    w.speaks();
    w.pass(MS(790));
    assert!(!w.desk.group().zone_of(&wire("x.dead.test"), w.now).is_failing);
    w.pass(MS(11));
    assert!(w.desk.group().zone_of(&wire("x.dead.test"), w.now).is_failing, "long before they end");
}

#[test]
fn a_question_is_judged_once_however_often_its_pursuit_goes_on() {
    let mut w = World::by_server(|name, server| match (name.contains("www"), server) {
        (true, 0) => Does::Fails(Fault::ServFail),
        _ => Does::Answers(2),
    });
    w.pass(MS(1));
    for n in 0..5 {
        w.ask(&format!("www.site{n}.test"), n);
    }
    w.pass(Duration::from_secs(3));
    assert!(!w.changes.iter().any(|c| matches!(c, Change::Down(..))), "five are not six: {:?}", w.changes);
    w.ask("www.site5.test", 5);
    w.pass(MS(100));
    assert!(w.changes.iter().any(|c| matches!(c, Change::Down(..))), "{:?}", w.changes);
}

//------------ Start -------------------------------------------------------------------------------------------------

// Found by the benchmark: behind a satellite every server was silent before its first answer could come.
#[test]
fn a_start_behind_slow_servers_finds_nobody_silent() {
    let mut w = World::new(|_| Does::Answers(300));
    w.pass(MS(1));
    let ids: Vec<_> = (0..100)
        .filter_map(|n| {
            let id = w.ask(&format!("www.site{n}.test"), n % 5);
            w.pass(MS(5));
            id
        })
        .collect();
    w.pass(Duration::from_secs(1));
    let seen: Vec<_> = ids.iter().map(|id| &w.seen[id]).collect();
    assert!(seen.len() == 100 && seen.iter().all(|s| *s == "fresh after 300 ms"), "{seen:?} {:?}", w.changes);
}

// The way to all of them becomes long at once: a full uplink, say. Silent they are, but not down.
#[test]
fn names_that_are_new_are_asked_while_all_servers_are_only_silent() {
    let mut w = World::new(|name| Does::Answers(if name.contains("far") { 300 } else { 2 }));
    for n in 0..50 {
        w.ask(&format!("www.site{n}.test"), n % 5);
        w.pass(MS(5));
    }
    let ids: Vec<_> = (0..100)
        .filter_map(|n| {
            let id = w.ask(&format!("www.far{n}.test"), n % 5);
            w.pass(MS(5));
            id
        })
        .collect();
    w.pass(Duration::from_secs(1));
    assert!(w.changes.contains(&Change::Dark), "{:?}", w.changes);
    let seen: Vec<_> = ids.iter().map(|id| &w.seen[id]).collect();
    assert!(seen.len() == 100 && seen.iter().all(|s| s.starts_with("fresh after 3")), "{seen:?}");
}

//------------ Recovery without a herd -------------------------------------------------------------------------------

#[test]
fn refreshes_go_out_at_no_more_than_the_groups_rate() {
    let mut w = World::new(|_| Does::Answers(1));
    let begun = (0..1000).filter(|n| w.refresh(&format!("n{n}.test"))).count();
    assert_eq!(begun, REFRESHES_PER_SECOND as usize);
    w.pass(MS(100));
    let more = (1000..2000).filter(|n| w.refresh(&format!("n{n}.test"))).count();
    assert_eq!(more, REFRESHES_PER_SECOND as usize / 10);
}

//------------ Ahead of the end --------------------------------------------------------------------------------------

#[test]
fn what_is_asked_ahead_is_paid_from_second_questions_and_leaves_half_of_them() {
    let mut w = World::warm(|_| Does::Answers(1));
    let begun = (0..100).filter(|n| w.ahead(&format!("n{n}.test"))).count();
    assert_eq!((begun, w.asked(&[AskKind::Refresh])), (10, 10));
    assert_eq!(w.desk.group().budget_denied(), 0, "a denial is no sign of trouble");
    w.pass(MS(100));
    assert_eq!((0..100).filter(|n| w.ahead(&format!("n{n}.test"))).count(), 5, "50 a second");
    let spare = w.desk.group_mut();
    assert!((0..10).all(|_| spare.allows_second(ClientHash(CLIENT), true, w.now)), "the other half");
}

#[test]
fn nothing_is_asked_ahead_before_a_first_answer_nor_once_the_servers_are_silent() {
    let mut w = World::new(|name| if name.contains("warm") { Does::Answers(2) } else { Does::Silent });
    assert!(!w.ahead("www.test"), "untried");
    w.ask("warm.test", CLIENT);
    w.pass(MS(5));
    assert!(w.ahead("www.test"), "healthy");
    w.probes_answer = false;
    for n in 0..100 {
        w.ask(&format!("www.site{n}.test"), n % 5);
        w.pass(MS(20));
    }
    assert_ne!(w.desk.group().belief(), Belief::Healthy);
    assert!(!w.ahead("www.other.test"));
}

#[test]
fn who_asks_while_it_is_asked_ahead_joins_and_the_other_way_round() {
    let mut w = World::warm(|_| Does::Answers(5));
    let before = w.packets[0];
    assert!(w.ahead("www.test"));
    let id = w.ask("www.test", CLIENT).unwrap();
    assert!(w.ahead("www.test"));
    w.pass(MS(10));
    assert_eq!((w.packets[0] - before, w.seen[&id].as_str()), (1, "fresh after 5 ms"));
}

#[test]
fn nobody_yields_to_what_is_asked_ahead_and_its_refusal_is_not_counted() {
    let mut w = World::warm(|name| if name.contains("slow") { Does::Silent } else { Does::Answers(2) });
    w.settings.in_flight_max = 4;
    w.rewarm();
    let old: Vec<_> = (0..4).map(|n| w.ask(&format!("www.slow{n}.test"), CLIENT).unwrap()).collect();
    w.speaks();
    w.pass(MS(310));
    assert!(!w.ahead("www.good.test"));
    assert!(old.iter().all(|id| !w.seen.contains_key(id)));
    assert_eq!(w.desk.group().bulkhead().rejected()[0].1, 0);
}

#[test]
fn where_another_question_would_be_made_room_for_what_is_asked_ahead_is_not() {
    let mut w = World::warm(|name| if name.contains("slow") { Does::Silent } else { Does::Answers(2) });
    w.settings.in_flight_max = 1;
    w.rewarm();
    w.ask("www.slow.test", CLIENT).unwrap();
    w.speaks();
    w.pass(MS(310));
    w.speaks();
    assert!(w.desk.group_mut().allows_ahead(&wire("www.good.test"), w.now), "nothing else is in its way");
    assert!(!w.ahead("www.good.test"));
    assert!(w.ask("www.good.test", CLIENT).is_some());
}

#[test]
fn what_is_asked_ahead_takes_the_price_of_one_refresh() {
    let mut w = World::warm(|_| Does::Answers(1));
    assert_eq!((0..100).filter(|n| w.ahead(&format!("n{n}.test"))).count(), 10);
    let left = (100..300).filter(|n| w.refresh(&format!("n{n}.test"))).count();
    assert_eq!(left, REFRESHES_PER_SECOND as usize - 10);
}

// Ten thousand popular names of one TTL that came in one moment: a process that starts, or a herd before it.
#[test]
fn ten_thousand_names_that_run_out_together_are_asked_ahead_one_by_one() {
    let mut w = World::warm(|_| Does::Answers(1));
    let ttl = Duration::from_secs(60);
    let mut windows: Vec<(Moment, String)> = (0..10_000)
        .map(|n| {
            let name = format!("n{n}.site{}.test", n % 100);
            let wire: Name = name.parse().unwrap();
            let question = Question { name: wire.as_wire(), qtype: 1, dnssec_ok: false, cd: false };
            let data = Data::new(Packed::of_a_minute(Kind::Positive), 0, GroupStamp(1), w.now);
            let ahead = Ahead::default();
            ahead.follow(w.keys.key(&question), &data, None);
            (ahead.begins().unwrap(), name)
        })
        .collect();
    windows.sort();
    let (begun, end) = (w.now, w.now + ttl);
    assert!(begun + ttl * 3 / 4 <= windows[0].0 && windows[9_999].0 < end - ttl / 20);
    let mut each_second = [0; 60];
    for (at, name) in windows {
        w.pass(w.now.until(at));
        if w.ahead(&name) {
            each_second[w.now.since(begun).as_secs() as usize] += 1;
        }
    }
    assert!(each_second.iter().all(|n| *n <= 60), "{each_second:?}");
    assert!(each_second.iter().sum::<u32>() > 400, "{each_second:?}");
    assert!(!w.changes.iter().any(|c| matches!(c, Change::Down(..) | Change::Dark)), "{:?}", w.changes);
}

//------------ One client, one zone ----------------------------------------------------------------------------------

// A tenant owns a thousand zones that the primary fails and the secondary answers; others ask for what works.
#[test]
fn a_tenant_who_owns_failing_zones_does_not_move_the_others() {
    let mut w = World::by_server(|name, server| match (name.contains("tenant"), server) {
        (true, 0) => Does::Fails(Fault::ServFail),
        _ => Does::Answers(2),
    });
    for n in 0..2000 {
        w.ask(&format!("a.tenant{}.test", n % 1000), 66);
        if n % 5 == 0 {
            w.ask(&format!("www.site{n}.test"), 1 + n % 3);
        }
        w.pass(MS(2));
    }
    assert_eq!(w.desk.group().tier_in_use(), 0, "{:?}", w.changes);
    assert!(!w.changes.iter().any(|c| matches!(c, Change::Down(..))), "{:?}", w.changes);
}

// The same where every server is silent for them, and the others ask too little to keep the servers talking.
#[test]
fn a_tenant_whose_zones_are_silent_everywhere_does_not_make_the_node_stale() {
    let mut w = World::new(|name| if name.contains("tenant") { Does::Silent } else { Does::Answers(2) });
    for n in 0..2000 {
        w.ask(&format!("a.tenant{}.test", n % 1000), 66);
        if n % 100 == 0 {
            w.ask(&format!("www.site{n}.test"), 1 + n % 3);
        }
        w.pass(MS(2));
    }
    assert_eq!((w.desk.group().tier_in_use(), w.desk.group().belief()), (0, Belief::Healthy), "{:?}", w.changes);
}

//------------ Gray, limited, looping --------------------------------------------------------------------------------

// complaint 16: up by its probes and unusable. A second of 100 questions a second is enough to see it.
#[test]
fn a_server_that_answers_probes_alone_loses_its_share_within_a_second() {
    let mut w = World::by_server(|_, server| if server == 0 { Does::Silent } else { Does::Answers(2) });
    for n in 0..100 {
        w.ask(&format!("a.site{n}.test"), 1 + n % 3);
        w.pass(MS(10));
    }
    assert_eq!(w.desk.group().server(ServerId(0)).state().0, "down", "{:?}", w.changes);
    let id = w.ask("b.site.test", CLIENT).unwrap();
    w.pass(MS(3));
    assert_eq!(w.seen[&id], "fresh after 2 ms");
    for _ in 0..30 {
        w.pass(Duration::from_secs(1));
    }
    assert_eq!(w.desk.group().server(ServerId(0)).state().0, "down", "probes alone acquit nobody");
}

// complaint 13: marked down for ever, since there was no way back without traffic.
#[test]
fn on_a_quiet_node_copies_of_what_was_asked_acquit_a_server() {
    let mut w = World::by_server(|_, server| if server == 0 { Does::Silent } else { Does::Answers(2) });
    for n in 0..100 {
        w.ask(&format!("a.site{n}.test"), 1 + n % 3);
        w.pass(MS(10));
    }
    w.does = Box::new(|_, _| Does::Answers(2));
    w.pass(Duration::from_secs(20));
    assert_eq!(w.desk.group().server(ServerId(0)).state().0, "fit", "{:?}", w.changes);
    assert_eq!(w.desk.group().tier_in_use(), 0);
}

// complaint 24: a cloud drops what is over its limit for an interface.
#[test]
fn packets_per_second_binds_questions_of_every_kind() {
    let mut w = World::by_server(|_, _| Does::Truncates);
    w.settings.tiers[0][0].packets_per_second = 50;
    w.reset();
    for n in 0..1000 {
        w.ask(&format!("n{n}.site{n}.test"), CLIENT);
        w.pass(MS(5));
    }
    let sent = w.packets[0];
    assert!((50..=50 * 5 + 5 + 1).contains(&sent), "{sent} packets in 5 s at 50 a second, burst 5");
}

#[test]
fn a_server_that_leads_back_here_is_left_out_and_taken_back_when_it_does_so_no_more() {
    let mut w = World::new(|_| Does::Answers(2));
    let asked = w.desk.group_mut().loop_probes_due(&mut || 77, w.now);
    assert_eq!(asked.len(), 3);
    assert_eq!(loops::token(asked[0].1.as_wire()), Some(77));
    assert!(w.open_named(&asked[0].1, CLIENT).is_none(), "it is refused and not forwarded");
    assert_eq!(w.desk.group().server(ServerId(0)).state().0, "loops");
    assert_eq!(w.desk.group().tier_in_use(), 1);
    let id = w.ask("www.test", CLIENT).unwrap();
    w.pass(MS(3));
    assert_eq!((w.seen[&id].as_str(), w.packets[0]), ("fresh after 2 ms", 0));
    w.pass(Duration::from_secs(61));
    assert_eq!(w.desk.group_mut().loop_probes_due(&mut || 78, w.now).len(), 1);
    w.pass(Duration::from_secs(6));
    assert_ne!(w.desk.group().server(ServerId(0)).state().0, "loops");
}

// complaint 27. Two servers of each family in one tier; IPv6 is dead.
#[test]
fn a_dead_address_family_is_left_out_before_each_of_its_servers_was_tried() {
    let mut w =
        World::by_server(|_, server| if server < 3 { Does::Fails(Fault::Unreachable) } else { Does::Answers(2) });
    let at = |a: &str| ServerSettings::at(a.parse().unwrap());
    w.settings.tiers = [
        vec![at("[2001:db8::1]:53")],
        vec![at("[2001:db8::2]:53"), at("[2001:db8::3]:53")],
        vec![at("192.0.2.1:53")],
    ];
    w.reset();
    for n in 0..10 {
        w.ask(&format!("n{n}.site{n}.test"), CLIENT);
        w.pass(MS(10));
    }
    let states = [0, 1, 2, 3].map(|n| w.desk.group().server(ServerId(n)).state().0);
    assert_eq!(w.desk.group().tier_in_use(), 2, "{states:?}");
    assert!(w.changes.contains(&Change::FamilyBroken(true)), "{:?}", w.changes);
    assert_eq!(w.packets[2], 0, "the third server of the dead family was not tried by any client");
}

//------------ After a restart ---------------------------------------------------------------------------------------

// Asked before the snapshot was read, while no server answers.
#[test]
fn who_asked_before_an_answer_was_restored_gets_it_at_once() {
    let hour = Duration::from_secs(3600);
    for (what, kind, group, age, want) in [
        ("stale", Kind::Positive, 1, hour, Some("stale after 40 ms")),
        ("fresh", Kind::Positive, 1, MS(0), Some("stale after 40 ms")),
        ("stale NXDOMAIN", Kind::NxDomain, 1, hour, Some("stale after 40 ms")),
        ("another group's", Kind::Positive, 0, hour, Some("stale after 40 ms")),
        ("another group's NXDOMAIN", Kind::NxDomain, 0, hour, None),
        ("too old", Kind::Positive, 1, hour * 25, None),
    ] {
        let mut w = World::new(|_| Does::Silent).at(Moment::from_secs(1_000_000));
        w.probes_answer = false;
        let id = w.ask("www.test", CLIENT).unwrap();
        w.pass(MS(40));
        w.restore("www.test", kind, group, age);
        assert_eq!(w.seen.get(&id).map(String::as_str), want, "{what}");
        assert!(!w.restore("www.test", kind, group, age) || want.is_none(), "{what}: it is offered once");
    }
}

#[test]
fn where_the_group_answers_a_restored_answer_is_waited_with() {
    let mut w = World::new(|name| if name.contains("slow") { Does::Answers(3000) } else { Does::Answers(2) })
        .at(Moment::from_secs(1_000_000));
    for n in 0..10 {
        w.ask(&format!("n{n}.test"), CLIENT);
        w.pass(MS(5));
    }
    let id = w.ask("www.slow", CLIENT).unwrap();
    w.pass(MS(40));
    w.restore("www.slow", Kind::Positive, 1, Duration::from_secs(120));
    assert!(!w.seen.contains_key(&id));
    w.pass(MS(200));
    assert_eq!(w.seen[&id], "stale after 150 ms", "the group's patience");
}

//------------ The world ---------------------------------------------------------------------------------------------

#[derive(Clone, Copy)]
enum Does {
    Answers(u64),
    Silent,
    Fails(Fault),
    Truncates,
}

enum Coming {
    Verdict(PursuitId, AttemptId, Verdict),
    Probed(ServerId, Probe),
    Copied(ServerId, Option<Duration>),
    Wake(PursuitId),
}

/// What a server, by its number, does with a question for a name.
type Behaviour = dyn Fn(&str, usize) -> Does;

struct World {
    settings: GroupSettings,
    does: Box<Behaviour>,
    desk: Desk<()>,
    keys: Keys,
    now: Moment,
    begun: BTreeMap<PursuitId, (Moment, String)>,
    seen: BTreeMap<PursuitId, String>,
    answered: usize,
    remembered: usize,
    packets: Vec<usize>,
    kinds: Vec<AskKind>,
    changes: Vec<Change>,
    coming: BTreeMap<(Moment, usize), Coming>,
    count: usize,
    turn_at: Moment,
    probes_answer: bool,
    seed: u64,
}

impl World {
    fn new(does: impl Fn(&str) -> Does + 'static) -> Self {
        Self::by_server(move |name, _| does(name))
    }

    /// Three servers, one a tier. Every server answers probes.
    fn by_server(does: impl Fn(&str, usize) -> Does + 'static) -> Self {
        let server = |n: usize| vec![ServerSettings::at(([192, 0, 2, n as u8], 53).into())];
        let settings = GroupSettings {
            tiers: [server(0), server(1), server(2)],
            order: Order::Listed,
            ..GroupSettings::default()
        };
        let desk = Desk::new(Group::new(settings.clone(), Moment::ZERO), GroupStamp(1));
        Self {
            settings,
            does: Box::new(does),
            desk,
            keys: Keys::new([5; 16]),
            now: Moment::ZERO,
            begun: BTreeMap::new(),
            seen: BTreeMap::new(),
            answered: 0,
            remembered: 0,
            packets: vec![0; 4],
            kinds: vec![],
            changes: vec![],
            coming: BTreeMap::new(),
            count: 0,
            turn_at: Moment::ZERO,
            probes_answer: true,
            seed: 9,
        }
    }

    /// The group has answered.
    fn warm(does: impl Fn(&str) -> Does + 'static) -> Self {
        let mut w = Self::new(does);
        w.rewarm();
        w
    }

    fn rewarm(&mut self) {
        self.reset();
        self.ask("warm.test", CLIENT);
        self.pass(Duration::from_secs(3));
    }

    /// The same, begun at another moment.
    fn at(mut self, now: Moment) -> Self {
        (self.now, self.turn_at) = (now, now);
        self.reset();
        self
    }

    /// An answer that came so long ago is there again. Is anybody offered it?
    fn restore(&mut self, name: &str, kind: Kind, group: u32, age: Duration) -> bool {
        let name = wire(name);
        let question = Question { name: &name, qtype: 1, dnssec_ok: false, cd: false };
        let data = Data::new(Packed::of_a_minute(kind), 0, GroupStamp(group), self.now - age);
        let entry = Arc::new(Entry::with_data(&question, data));
        let look = |_, asked: &Question<'_>| (asked.name == name).then(|| entry.clone());
        let nothing = |_, _: &Question<'_>| None;
        let offered = self.desk.offer_restored(None, (&look, &nothing), Moment::ZERO, self.now);
        offered.iter().for_each(|id| self.step(*id));
        !offered.is_empty()
    }

    fn reset(&mut self) {
        self.desk = Desk::new(Group::new(self.settings.clone(), self.now), GroupStamp(1));
    }

    /// A client asks; `None` where it was refused.
    fn ask(&mut self, name: &str, client: u32) -> Option<PursuitId> {
        self.open_named(&name.parse().unwrap(), client)
    }

    fn open_named(&mut self, name: &Name, client: u32) -> Option<PursuitId> {
        let waiter = Waiter { way: (), deadline: self.now + MS(4000), stale_at: Moment::NEVER };
        self.open(name, client, false, Some(waiter))
    }

    fn refresh(&mut self, name: &str) -> bool {
        self.open(&name.parse().unwrap(), CLIENT, false, None).is_some()
    }

    fn ahead(&mut self, name: &str) -> bool {
        self.open(&name.parse().unwrap(), CLIENT, true, None).is_some()
    }

    fn open(&mut self, name: &Name, client: u32, ahead: bool, waiter: Option<Waiter<()>>) -> Option<PursuitId> {
        let question = Question { name: name.as_wire(), qtype: 1, dnssec_ok: false, cd: false };
        let request = Request {
            key: self.keys.key(&question),
            question: Arc::new(question.to_owned()),
            client: ClientHash(client),
            stale: None,
            guarded: None,
            ahead,
            waiter,
        };
        match self.desk.open(request, self.now) {
            Opened::Joined(id) => Some(id),
            Opened::Refused(..) => None,
            Opened::Started(id, yielded) => {
                self.begun.insert(id, (self.now, name.to_string()));
                yielded.into_iter().for_each(|other| self.step(other));
                self.step(id);
                Some(id)
            }
        }
    }

    /// A packet of every server comes that is no answer to anything.
    fn speaks(&mut self) {
        (0..3).for_each(|n| self.desk.group_mut().on_packet(ServerId(n), self.now));
    }

    fn asked(&self, kinds: &[AskKind]) -> usize {
        self.kinds.iter().filter(|k| kinds.contains(k)).count()
    }

    fn come(&mut self, after: Duration, what: Coming) {
        self.count += 1;
        self.coming.insert((self.now + after, self.count), what);
    }

    fn step(&mut self, id: PursuitId) {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let draw = (self.seed >> 11) as f64 / (1u64 << 53) as f64;
        for step in self.desk.next(id, &mut || draw, self.now) {
            let (begun, name) = self.begun[&id].clone();
            match step {
                Step::Ask(ask) => {
                    self.packets[usize::from(ask.server.0)] += 1;
                    self.kinds.push(ask.kind);
                    let (after, verdict) = match (self.does)(&name, ask.server.0.into()) {
                        Does::Silent => continue,
                        Does::Fails(fault) => (1, Verdict::Fault(fault)),
                        Does::Truncates if !ask.over_tcp => (1, Verdict::Truncated),
                        Does::Truncates => (1, answer()),
                        Does::Answers(after) => (after, answer()),
                    };
                    self.come(MS(after), Coming::Verdict(id, ask.attempt, verdict));
                }
                Step::Reply(ways, answer) => {
                    self.answered += ways.len();
                    let what = match answer {
                        Answer::Fresh(_) => "fresh".to_owned(),
                        Answer::Stale(_) => "stale".to_owned(),
                        Answer::Failed { ede, .. } => format!("failed {}", ede.unwrap_or(u16::MAX)),
                        Answer::Truncated => "truncated".to_owned(),
                    };
                    self.seen.insert(id, format!("{what} after {} ms", self.now.since(begun).as_millis()));
                }
                Step::Remember(_) => self.remembered += 1,
                Step::Wait(at) => self.come(self.now.until(at), Coming::Wake(id)),
                Step::Tell(other) => self.step(other),
                Step::Keep(_) | Step::Hold | Step::Done => {}
            }
        }
        self.changes.extend(self.desk.group_mut().take_changes());
    }

    fn probe(&mut self) {
        self.desk.group_mut().weigh(self.now);
        for due in self.desk.group_mut().probes_due(0.5, self.now) {
            self.desk.group_mut().on_sent(due.server, AskKind::Probe, self.now);
            if !self.probes_answer {
                continue;
            }
            let does = (self.does)(&due.name.to_string(), due.server.0.into());
            let after = if let Does::Answers(after) = does { after } else { 2 };
            let what = match (due.is_copy, does) {
                (true, Does::Answers(after)) => Coming::Copied(due.server, Some(MS(after))),
                (true, _) => Coming::Copied(due.server, None),
                (false, Does::Fails(_)) => Coming::Probed(due.server, Probe::Failed),
                (false, _) => Coming::Probed(due.server, Probe::Passed),
            };
            self.come(MS(after), what);
        }
        self.changes.extend(self.desk.group_mut().take_changes());
    }

    /// Time goes on, with a prober's turn each 20 ms.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let turn = self.turn_at;
            let next = self.coming.keys().next().map_or(Moment::NEVER, |(at, _)| *at);
            if next.min(turn) > end {
                break;
            }
            self.now = self.now.max(next.min(turn));
            if next > turn {
                self.turn_at = turn + MS(20);
                self.probe();
                continue;
            }
            let Some((_, what)) = self.coming.pop_first() else { break };
            match what {
                Coming::Verdict(id, attempt, verdict) => {
                    self.desk.on_verdict(id, attempt, verdict, self.now);
                    self.step(id);
                }
                Coming::Wake(id) => self.step(id),
                Coming::Probed(server, probe) => self.desk.group_mut().on_probe(server, probe, self.now, self.now),
                Coming::Copied(server, took) => self.desk.group_mut().on_copy(server, took, self.now),
            }
        }
        self.now = end;
    }
}

fn answer() -> Verdict {
    let packed = Packed::of_a_minute(Kind::Positive);
    Verdict::Answer { packed, storable: true }
}

fn wire(name: &str) -> Vec<u8> {
    name.parse::<Name>().unwrap().as_wire().to_vec()
}
