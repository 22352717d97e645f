//! Scenarios of pursuits in virtual time: who answers what, what happens when, what the client must see.
//!
//! A small world in which time jumps to the next thing that happens. Servers are functions of time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::pursuit::{Answer, Ask, AttemptId, Brief, Pursuit, Step, Waiter};
use super::vet::{Fault, Verdict};
use crate::cache::entry::{Data, Entry, GroupStamp, Kind, Packed};
use crate::cache::freshness::Freeze;
use crate::cache::key::Question;
use crate::clock::Moment;
use crate::upstream::group::{AskKind, Belief, Change};
use crate::upstream::{ClientHash, Group, GroupSettings, Order, ServerId, ServerSettings};

const STAMP: GroupStamp = GroupStamp(1);
const MS: fn(u64) -> Duration = Duration::from_millis;

/// What a server does with a question.
#[derive(Clone)]
enum Does {
    Answers { after_ms: u64, kind: Kind },
    LeadsNowhere { after_ms: u64 },
    Silent,
    Fails { after_ms: u64, fault: Fault },
    Broken { after_ms: u64 },
    TruncatesThen(Box<Does>),
    RefusesOptThen(Box<Does>),
    ForgedUnlessTcp(Box<Does>),
}

fn answers(after_ms: u64) -> Does {
    Does::Answers { after_ms, kind: Kind::Positive }
}

fn denies(after_ms: u64) -> Does {
    Does::Answers { after_ms, kind: Kind::NxDomain }
}

//------------ What the client sees ----------------------------------------------------------------------------------

#[test]
fn a_healthy_primary_is_asked_once_and_answers() {
    let mut w = World::new(&[answers(5), answers(5), answers(5)]);
    let seen = w.ask("a.example", None);
    assert_eq!(seen.what, "fresh tier 0 after 5 ms");
    assert_eq!(seen.asks, ["first 0 at 0"]);
}

#[test]
fn a_silent_primary_costs_one_hedge_delay_and_not_a_time_out() {
    let mut w = World::new(&[Does::Silent, answers(2), answers(2)]);
    let seen = w.ask("a.example", None);
    assert_eq!(seen.what, "fresh tier 1 after 22 ms");
    assert_eq!(seen.asks, ["first 0 at 0", "hedge 1 at 20"]);
}

#[test]
fn two_silent_servers_cost_two_hedge_delays() {
    let mut w = World::new(&[Does::Silent, Does::Silent, answers(2)]);
    assert_eq!(w.ask("a.example", None).what, "fresh tier 2 after 42 ms");
}

#[test]
fn servfail_lame_and_a_closed_port_go_to_the_next_server_at_once() {
    for fault in [Fault::ServFail, Fault::Lame, Fault::PortClosed, Fault::Malformed, Fault::Refused] {
        let mut w = World::new(&[Does::Fails { after_ms: 1, fault }, answers(2), answers(2)]);
        let seen = w.ask("a.example", None);
        assert_eq!(seen.what, "fresh tier 1 after 3 ms", "{fault:?}");
        assert_eq!(seen.asks, ["first 0 at 0", "retry 1 at 1"], "{fault:?}");
    }
}

#[test]
fn a_name_whose_dnssec_is_broken_is_asked_nowhere_else() {
    let mut w = World::new(&[Does::Broken { after_ms: 0 }, answers(2), answers(2)]);
    let seen = w.ask("a.example", None);
    assert_eq!(seen.what, "failed after 0 ms");
    assert_eq!(seen.asks, ["first 0 at 0"]);
    assert_eq!(seen.remembered, 1);
}

#[test]
fn a_truncated_reply_is_asked_again_over_tcp_of_the_same_server() {
    let mut w = World::new(&[Does::TruncatesThen(Box::new(answers(3))), answers(2), answers(2)]);
    let seen = w.ask("a.example", None);
    assert_eq!(seen.what, "fresh tier 0 after 3 ms");
    assert_eq!(seen.asks, ["first 0 at 0", "first 0 over tcp at 0"]);
}

#[test]
fn where_tcp_fails_everywhere_the_client_gets_tc_and_nothing_is_stored() {
    let dead = Does::TruncatesThen(Box::new(Does::Fails { after_ms: 1, fault: Fault::Closed }));
    let mut w = World::new(&[dead.clone(), dead.clone(), dead]);
    let seen = w.ask("a.example", None);
    assert!(seen.what.starts_with("truncated"), "{}", seen.what);
    assert_eq!((seen.kept, seen.remembered), (0, 0));
}

#[test]
fn what_every_server_refuses_is_asked_of_each_once() {
    let fails = Does::Fails { after_ms: 1, fault: Fault::ServFail };
    let seen = World::new(&[fails.clone(), fails.clone(), fails]).ask("a.example", None);
    assert_eq!(seen.asks, ["first 0 at 0", "retry 1 at 1", "retry 2 at 2"]);
    assert_eq!(seen.what, "failed after 3 ms");
}

#[test]
fn nothing_that_comes_after_broken_dnssec_is_taken() {
    let seen = World::new(&[Does::Broken { after_ms: 30 }, answers(20), answers(2)]).ask("a.example", None);
    assert_eq!(seen.what, "failed after 30 ms");
    assert_eq!((seen.kept, seen.remembered), (0, 1));
}

#[test]
fn opt_is_left_out_from_then_on_only_where_the_question_is_answered_without_it() {
    let no = Does::Fails { after_ms: 1, fault: Fault::Refused };
    for (then, kept_on, want) in [(answers(2), false, "fresh tier 0 after 2 ms"), (no, true, "failed after 1 ms")] {
        let mut w = World::new(&[Does::RefusesOptThen(Box::new(then))]);
        let seen = w.ask("a.example", None);
        assert_eq!(seen.what, want);
        assert_eq!(w.group.takes_edns(ServerId(0), w.now), kept_on, "{want}");
    }
}

#[test]
fn where_forged_packets_come_the_question_goes_over_tcp() {
    let mut w = World::new(&[Does::ForgedUnlessTcp(Box::new(answers(3)))]);
    let seen = w.ask("a.example", None);
    assert_eq!(seen.what, "fresh tier 0 after 3 ms");
    assert_eq!(seen.asks, ["first 0 at 0", "first 0 over tcp at 0"]);
}

#[test]
fn a_limit_of_our_own_is_not_remembered() {
    let mut w = World::new(&[answers(2)]);
    w.settings.tiers[0][0].packets_per_second = 1;
    w.reset();
    assert_eq!(w.ask("a.example", None).what, "fresh tier 0 after 2 ms");
    let seen = w.ask_for("b.example", None, MS(900));
    assert_eq!((seen.what.as_str(), seen.remembered), ("failed after 900 ms", 0));
    assert_eq!(seen.asks, ["first 0 at 998"], "who may not be asked now may be soon");
}

#[test]
fn what_found_no_room_by_its_deadline_is_not_remembered_as_failed() {
    let mut w = World::new(&[answers(2)]);
    w.settings.tiers[0][0].packets_per_second = 1;
    w.settings.deadline = MS(900);
    w.reset();
    assert_eq!(w.ask_for("a.example", None, MS(900)).what, "fresh tier 0 after 2 ms");
    let seen = w.ask_for("b.example", None, MS(900));
    assert_eq!((seen.what.as_str(), seen.remembered), ("failed after 900 ms", 0));
}

#[test]
fn with_all_silent_a_new_name_fails_within_its_deadline_and_soon_at_once() {
    let mut w = World::new(&[Does::Silent, Does::Silent, Does::Silent]);
    let seen = w.ask("a.example", None);
    assert_eq!(seen.what, "failed after 4000 ms");
    assert!(seen.asks.len() <= 9, "three attempts a server: {:?}", seen.asks);
    for n in 0..20 {
        w.ask(&format!("n{n}.example"), None);
    }
    assert_eq!(w.group.belief(), Belief::Down);
    let seen = w.ask("z.example", None);
    assert_eq!(seen.asks.len(), 1, "one attempt in the dark: {:?}", seen.asks);
    assert!(seen.after <= MS(1000), "{:?}", seen.after);
}

#[test]
fn a_stale_answer_goes_out_when_patience_is_over_and_the_fresh_one_is_kept() {
    let mut w = World::new(&[answers(400), Does::Silent, Does::Silent]);
    let seen = w.ask("a.example", Some((Kind::Positive, 0)));
    assert_eq!(seen.what, "stale after 150 ms");
    assert_eq!(seen.kept, 1, "the pursuit goes on behind the stale answer");
}

#[test]
fn no_stale_answer_where_the_fresh_one_came_within_patience() {
    let mut w = World::new(&[answers(149), answers(149), answers(149)]);
    assert_eq!(w.ask("a.example", Some((Kind::Positive, 0))).what, "fresh tier 0 after 149 ms");
}

#[test]
fn a_pursuit_that_fails_gives_the_stale_answer_at_that_moment() {
    let fails = Does::Fails { after_ms: 1, fault: Fault::ServFail };
    let mut w = World::new(&[fails.clone(), fails.clone(), fails]);
    let seen = w.ask("a.example", Some((Kind::NxDomain, 0)));
    assert!(seen.what.starts_with("stale") && seen.after < MS(150), "{}", seen.what);
    assert_eq!(seen.remembered, 1);
}

//------------ Another tier may have another view --------------------------------------------------------------------

#[test]
fn a_lower_tiers_nxdomain_waits_for_the_primary_that_is_slow() {
    // The usual list: a company's resolver, then a public one that does not know internal names.
    let mut w = World::new(&[answers(90), denies(2), denies(2)]);
    assert_eq!(w.ask("a.internal", None).what, "fresh tier 0 after 90 ms");
}

#[test]
fn a_lower_tiers_nxdomain_is_taken_at_the_primarys_try_time_out_and_corrected_later() {
    let mut w = World::new(&[answers(1500), denies(2), denies(2)]);
    let seen = w.ask("a.internal", None);
    assert_eq!(seen.what, "fresh tier 1 after 300 ms");
    assert_eq!(seen.kept_ttls, [5, 60], "at most 5 s, then the primary's own");
}

#[test]
fn a_lower_tiers_nxdomain_is_better_than_servfail_at_the_deadline() {
    let mut w = World::new(&[answers(1500), denies(2), denies(2)]);
    assert_eq!(w.ask_for("a.internal", None, MS(100)).what, "fresh tier 1 after 100 ms");
}

#[test]
fn a_lower_tiers_nxdomain_never_stands_in_place_of_the_primarys_records() {
    for primary in [Does::Silent, answers(1500)] {
        let mut w = World::new(&[primary, denies(2), denies(2)]);
        w.warm_up();
        for n in 0..30 {
            let seen = w.ask(&format!("n{n}.internal"), Some((Kind::Positive, 0)));
            assert!(seen.what.starts_with("stale"), "{n}: {}", seen.what);
        }
    }
}

#[test]
fn with_the_same_view_a_lower_tiers_nxdomain_is_taken_at_once() {
    let mut w = World::new(&[answers(1500), denies(2), denies(2)]);
    w.settings.same_view = true;
    w.reset();
    assert_eq!(w.ask("a.example", None).what, "fresh tier 1 after 22 ms");
}

#[test]
fn a_fit_primary_that_was_not_asked_has_its_say_before_a_lower_tiers_nxdomain_is_taken() {
    let mut w = World::new(&[Does::Silent, denies(2), denies(2)]);
    for n in 0..30 {
        w.ask(&format!("n{n}.internal"), None);
    }
    assert_eq!(w.group.tier_in_use(), 1);
    w.servers[0] = answers(2);
    for _ in 0..5 {
        w.pass(MS(1000));
        w.ask("copies.internal", None);
    }
    assert_eq!(w.group.tier_in_use(), 1, "within its hold");
    assert_eq!(w.ask("late.internal", None).what, "fresh tier 0 after 4 ms");
}

//------------ Silence, and back -------------------------------------------------------------------------------------

#[test]
fn a_silent_primary_gets_no_first_questions_after_five_of_them() {
    let mut w = World::new(&[Does::Silent, answers(2), answers(2)]);
    for n in 0..10 {
        w.ask(&format!("n{n}.example"), None);
        w.pass(MS(10));
    }
    let seen = w.ask("z.example", None);
    assert_eq!(seen.what, "fresh tier 1 after 2 ms");
    assert!(w.changes.iter().any(|c| matches!(c, Change::Shift(s) if s.to == 1)));
}

#[test]
fn the_first_packet_ends_silence_without_hold() {
    let mut w = World::new(&[Does::Silent]);
    for n in 0..8 {
        w.ask_for(&format!("n{n}.example"), None, MS(100));
    }
    assert_eq!(w.group.belief(), Belief::Silent);
    w.servers[0] = answers(2);
    w.group.on_probe(ServerId(0), crate::upstream::health::Probe::Passed, w.now, w.now);
    assert_eq!(w.group.belief(), Belief::Healthy);
}

#[test]
fn after_darkness_the_first_answer_ends_it_at_once() {
    let mut w = World::new(&[Does::Silent, Does::Silent, Does::Silent]);
    for n in 0..20 {
        w.ask(&format!("n{n}.example"), None);
    }
    assert_eq!(w.group.belief(), Belief::Down);
    let healings = w.group.healings();
    w.servers = vec![answers(2), answers(2), answers(2)];
    w.pass(MS(200));
    assert!(w.ask("z.example", None).what.starts_with("fresh"));
    assert_eq!(w.group.belief(), Belief::Healthy);
    assert_eq!(w.group.healings(), healings + 1);
}

#[test]
fn a_server_a_little_slower_than_the_first_hedge_delay_is_not_taken_for_dead() {
    let mut w = World::new(&[answers(30), answers(2), answers(2)]);
    for n in 0..100 {
        w.ask(&format!("n{n}.z{n}.example"), None);
        w.pass(MS(10));
    }
    let seen = w.ask("z.example", None);
    assert_eq!(seen.what, "fresh tier 0 after 30 ms", "its own latency was learned");
}

#[test]
fn a_gray_server_loses_its_share_by_evidence_and_gets_it_back_by_copies_only() {
    let mut w = World::new(&[answers(1500), answers(2), answers(2)]);
    for n in 0..60 {
        w.ask(&format!("n{n}.z{n}.test"), None);
        w.pass(MS(10));
    }
    assert_eq!(w.group.server(ServerId(0)).state().0, "down");
    for _ in 0..50 {
        w.group.on_probe(ServerId(0), crate::upstream::health::Probe::Passed, w.now, w.now);
    }
    assert_eq!(w.group.server(ServerId(0)).state().0, "down", "probes do not acquit");
    w.servers[0] = answers(2);
    for n in 0..4 {
        w.pass(MS(1000));
        w.ask(&format!("c{n}.z{n}.test"), None);
    }
    assert_eq!(w.group.server(ServerId(0)).state().0, "fit");
}

#[test]
fn a_slow_server_that_nobody_beats_is_not_convicted() {
    let mut w = World::new(&[answers(400), answers(2), answers(2)]);
    w.settings.hedge.after = Some(MS(500));
    w.reset();
    for n in 0..60 {
        w.ask(&format!("n{n}.z{n}.test"), None);
    }
    assert_eq!(w.group.server(ServerId(0)).state().0, "fit");
}

#[test]
fn what_nobody_answers_convicts_nobody() {
    let fails = Does::Fails { after_ms: 1, fault: Fault::ServFail };
    let mut w = World::new(&[fails.clone(), fails.clone(), fails]);
    for n in 0..100 {
        w.ask(&format!("n{n}.z{n}.test"), None);
    }
    for id in 0..3 {
        assert_ne!(w.group.server(ServerId(id)).state().0, "down");
    }
    assert_eq!(w.group.tier_in_use(), 0);
}

#[test]
fn hedges_and_retries_stay_within_their_budget() {
    let mut w = World::new(&[Does::Fails { after_ms: 0, fault: Fault::ServFail }, answers(1), answers(1)]);
    w.settings.hedge.budget = 0.0;
    w.reset();
    let asks: usize = (0..100).map(|n| w.ask(&format!("n{n}.z{n}.test"), None).second).sum();
    let span = w.now.since(Moment::ZERO).as_secs_f64();
    assert!(asks as f64 <= 20.0 + 50.0 * span + 1.0, "{asks} in {span} s");
}

//------------ Last known good ---------------------------------------------------------------------------------------

const KNOWN: Option<(Kind, u8)> = Some((Kind::Positive, 0));

fn guarded(servers: &[Does]) -> World {
    let mut w = World::new(servers);
    w.warm_up();
    w.guarded = true;
    w
}

#[test]
fn a_guarded_name_that_vanishes_is_asked_of_every_tier_and_held_where_all_say_the_same() {
    let seen = guarded(&[denies(5), denies(5), denies(5)]).ask("a.example", KNOWN);
    assert_eq!(seen.what, "stale after 15 ms");
    assert_eq!(seen.asks, ["first 0 at 0", "retry 1 at 5", "retry 2 at 10"]);
    assert_eq!((seen.holds, seen.kept, seen.remembered), (1, 0, 0));
}

#[test]
fn where_one_tier_still_has_addresses_they_are_used() {
    let seen = guarded(&[denies(5), denies(5), answers(7)]).ask("a.example", KNOWN);
    assert_eq!(seen.what, "fresh tier 2 after 17 ms");
    assert_eq!((seen.holds, seen.kept), (0, 1));
}

#[test]
fn an_answer_that_leads_nowhere_is_doubted_as_a_denial_is() {
    let nowhere = Does::LeadsNowhere { after_ms: 5 };
    let seen = guarded(&[nowhere.clone(), answers(5)]).ask("a.example", KNOWN);
    assert_eq!(seen.what, "fresh tier 1 after 10 ms");
    let seen = guarded(&[nowhere.clone(), nowhere.clone()]).ask("a.example", KNOWN);
    assert_eq!((seen.what.as_str(), seen.holds, seen.kept), ("stale after 10 ms", 1, 0));
    let mut w = guarded(&[nowhere]);
    w.guarded = false;
    assert_eq!(w.ask("a.example", KNOWN).what, "fresh tier 0 after 5 ms", "a name that is not guarded");
}

#[test]
fn tiers_that_do_not_answer_do_not_end_what_is_known_and_nobody_waits_longer_than_patience() {
    let seen = guarded(&[denies(5), Does::Silent, Does::Silent]).ask("a.example", KNOWN);
    assert_eq!(seen.what, "stale after 150 ms");
    assert_eq!((seen.holds, seen.kept), (1, 0));
    let fails = Does::Fails { after_ms: 1, fault: Fault::ServFail };
    let seen = guarded(&[denies(5), fails.clone(), answers(5)]).ask("a.example", KNOWN);
    assert_eq!(seen.what, "fresh tier 2 after 11 ms", "one that fails is no second opinion");
    let seen = guarded(&[denies(5), fails.clone(), fails]).ask("a.example", KNOWN);
    assert_eq!((seen.what.as_str(), seen.holds), ("stale after 7 ms", 1));
    let seen = guarded(&[denies(5)]).ask("a.example", KNOWN);
    assert_eq!((seen.what.as_str(), seen.holds), ("stale after 5 ms", 1), "there is nobody else");
}

#[test]
fn a_late_good_answer_of_another_tier_is_kept_though_the_hold_has_begun() {
    let seen = guarded(&[denies(5), answers(900)]).ask("a.example", KNOWN);
    assert_eq!((seen.what.as_str(), seen.holds, seen.kept), ("stale after 150 ms", 1, 1));
}

#[test]
fn a_denial_that_comes_after_the_hold_has_begun_is_dropped() {
    let seen = guarded(&[denies(5), denies(900)]).ask("a.example", KNOWN);
    assert_eq!((seen.what.as_str(), seen.holds, seen.kept), ("stale after 150 ms", 1, 0));
}

#[test]
fn a_second_opinion_is_paid_for_and_waited_for_where_nothing_is_left() {
    let mut w = World::new(&[denies(5), answers(7)]);
    w.settings.hedge.budget = 0.0;
    w.reset();
    w.warm_up();
    w.guarded = true;
    while w.group.allows_second(ClientHash(2), false, w.now) {}
    let seen = w.ask("a.example", KNOWN);
    assert_eq!(seen.asks, ["first 0 at 0", "retry 1 at 55"]);
    assert_eq!((seen.what.as_str(), seen.holds), ("fresh tier 1 after 62 ms", 0));
}

#[test]
fn a_freeze_remembers_that_nothing_new_was_taken() {
    let mut w = World::new(&[denies(5)]);
    w.warm_up();
    w.group.set_freeze(Some(Freeze { since: w.now, until: w.now + Duration::from_secs(60) }));
    assert_eq!(w.ask("a.example", KNOWN).remembered, 1, "who asks next does not ask the servers too");
}

#[test]
fn of_names_that_are_not_guarded_one_other_server_is_asked() {
    let fails = Does::Fails { after_ms: 1, fault: Fault::ServFail };
    let mut w = World::new(&[denies(5), fails, answers(5)]);
    w.warm_up();
    let ask = |w: &mut World, n: usize| w.ask(&format!("n{n}.z{}.test", n % 5), KNOWN).asks.len();
    let asks: Vec<usize> = (0..25).map(|n| ask(&mut w, n)).collect();
    assert_eq!(asks, [vec![1; 19], vec![2; 6]].concat());
}

#[test]
fn what_an_earlier_pursuit_was_told_takes_no_good_answer_away() {
    let mut w = guarded(&[denies(5)]);
    w.group.set_freeze(Some(Freeze { since: w.now, until: w.now + Duration::from_secs(60) }));
    let question = Question { name: b"\x01a\x00", qtype: 1, dnssec_ok: false, cd: false };
    let now = w.now;
    let entry = |kind, group| Arc::new(Entry::with_data(&question, Data::new(packed(kind), 0, group, now)));
    for (what, kind, group, is_guarded, open) in [
        ("guarded", Kind::NxDomain, STAMP, true, true),
        ("frozen", Kind::NxDomain, STAMP, false, true),
        ("good", Kind::Positive, STAMP, true, false),
        ("frozen, another group's", Kind::NxDomain, GroupStamp(STAMP.0 + 1), false, true),
    ] {
        let known = entry(Kind::Positive, group);
        let (stale, guarded) = (Some(known.clone()), is_guarded.then_some(known));
        let brief = Brief {
            question: question.to_owned(),
            client: ClientHash(1),
            group: STAMP,
            stale,
            guarded,
            refresh: false,
        };
        let mut pursuit = Pursuit::<()>::new(brief, &w.group, now);
        pursuit.on_kept(&entry(kind, STAMP), &mut w.group, now);
        assert_eq!(pursuit.is_open(), open, "{what}");
    }
}

#[test]
fn of_each_name_one_opinion_counts_and_who_gives_it_has_not_turned() {
    let mut w = guarded(&[denies(5), denies(5), denies(5)]);
    for n in 0..39 {
        w.ask(&format!("n{n}.z{}.test", n % 5), KNOWN);
        let asked = n >= 19;
        assert_eq!(w.group.wants_second_opinion(ServerId(0), w.now), asked && n < 38, "{n}");
        w.pass(MS(50));
    }
    assert!((1..3).all(|n| !w.group.wants_second_opinion(ServerId(n), w.now)));
}

#[test]
fn a_name_that_is_not_guarded_is_gone_at_once() {
    let mut w = guarded(&[denies(5), answers(5), answers(5)]);
    w.guarded = false;
    let seen = w.ask("a.example", KNOWN);
    assert_eq!((seen.what.as_str(), seen.kept, seen.asks.len()), ("fresh tier 0 after 5 ms", 1, 1));
}

#[test]
fn in_a_freeze_nothing_negative_stands_in_place_of_what_is_good() {
    for (known, want, kept) in [
        (KNOWN, "stale after 5 ms", 0),
        (Some((Kind::NxDomain, 0)), "fresh tier 0 after 5 ms", 1),
        (None, "fresh tier 0 after 5 ms", 1),
    ] {
        let mut w = World::new(&[denies(5), answers(5)]);
        w.warm_up();
        w.group.set_freeze(Some(Freeze { since: w.now, until: w.now + Duration::from_secs(60) }));
        let seen = w.ask("a.example", known);
        assert_eq!((seen.what.as_str(), seen.kept, seen.holds), (want, kept, 0), "{known:?}");
        w.pass(Duration::from_secs(60));
        assert_eq!(w.ask("b.example", known).what, "fresh tier 0 after 5 ms", "{known:?} once it is over");
    }
}

#[test]
fn a_server_that_turns_against_many_names_is_checked_and_others_records_are_taken() {
    for (other, want, suspect) in [(answers(5), "fresh tier 1 after 10 ms", true), (denies(5), "fresh tier 0", false)]
    {
        let mut w = World::new(&[denies(5), other]);
        w.warm_up();
        let ask = |w: &mut World, n: usize| w.ask(&format!("n{n}.z{}.test", n % 5), KNOWN);
        for n in 0..19 {
            assert_eq!(ask(&mut w, n).asks.len(), 1, "{n}");
            w.pass(MS(50));
        }
        for n in 19..60 {
            let seen = ask(&mut w, n);
            assert!(n > 30 && !suspect || seen.what.starts_with(want), "{n}: {}", seen.what);
            assert!(n > 38 || seen.asks.len() == 2, "{n}: {:?}", seen.asks);
            w.pass(MS(50));
        }
        assert_eq!(w.changes.contains(&Change::Suspect(ServerId(0))), suspect);
        assert_eq!(w.group.is_suspected(ServerId(0)), suspect);
        assert_eq!(w.group.server(ServerId(0)).state().0, "fit", "it is asked as ever");
        let seen = ask(&mut w, 100);
        assert_eq!(seen.asks.len(), if suspect { 2 } else { 1 }, "{:?}", seen.asks);
        let unknown = w.ask("new.z1.test", None);
        assert_eq!(unknown.what, "fresh tier 0 after 5 ms", "what was never known is taken as it is said");
    }
}

#[test]
fn a_few_names_or_one_zone_are_nobodys_fault() {
    let mut w = World::new(&[denies(5), answers(5)]);
    w.warm_up();
    for n in 0..100 {
        assert_eq!(w.ask(&format!("n{n}.z{}.test", n % 2), KNOWN).asks.len(), 1);
        w.pass(MS(20));
    }
}

//------------ The world ---------------------------------------------------------------------------------------------

struct Seen {
    what: String,
    after: Duration,
    asks: Vec<String>,
    second: usize,
    kept: usize,
    kept_ttls: Vec<u32>,
    holds: usize,
    remembered: usize,
}

struct World {
    settings: GroupSettings,
    servers: Vec<Does>,
    group: Group,
    changes: Vec<Change>,
    /// Is what is known stale the last good answer of a guarded name?
    guarded: bool,
    now: Moment,
    seed: u64,
}

impl World {
    fn new(servers: &[Does]) -> Self {
        let settings = settings(servers.len());
        let group = Group::new(settings.clone(), Moment::ZERO);
        let (servers, now) = (servers.to_vec(), Moment::ZERO);
        Self { settings, servers, group, changes: vec![], guarded: false, now, seed: 7 }
    }

    fn reset(&mut self) {
        self.group = Group::new(self.settings.clone(), self.now);
    }

    fn pass(&mut self, span: Duration) {
        self.now = self.now + span;
        self.group.weigh(self.now);
    }

    /// Lets the group know that its servers answer.
    fn warm_up(&mut self) {
        let servers = self.servers.clone();
        self.servers = servers.iter().map(|_| answers(2)).collect();
        (0..3).for_each(|n| drop(self.ask(&format!("warm{n}.example"), None)));
        self.servers = servers;
    }

    fn ask(&mut self, name: &str, stale: Option<(Kind, u8)>) -> Seen {
        self.ask_for(name, stale, Duration::from_secs(4))
    }

    /// One client asks; time goes on until it has its answer. What is still out then goes on in the background of
    /// this call, so that late packets come at their time.
    fn ask_for(&mut self, name: &str, stale: Option<(Kind, u8)>, deadline: Duration) -> Seen {
        let name: crate::wire::Name = name.parse().unwrap();
        let question = Question { name: name.as_wire(), qtype: 1, dnssec_ok: false, cd: false };
        let begun = self.now;
        let stale = stale.map(|(kind, tier)| {
            let data = Data::new(packed(kind), tier, STAMP, self.now);
            Arc::new(Entry::with_data(&question, data))
        });
        let stale_at = if stale.is_some() { begun + self.group.patience() } else { Moment::NEVER };
        let guarded = stale.clone().filter(|_| self.guarded);
        let (question, client) = (question.to_owned(), ClientHash(1));
        let brief = Brief { question, client, group: STAMP, stale, guarded, refresh: false };
        let mut pursuit = Pursuit::new(brief, &self.group, begun);
        pursuit.join(Waiter { way: (), deadline: begun + deadline, stale_at });

        let mut seen = Seen {
            what: String::new(),
            after: Duration::ZERO,
            asks: vec![],
            second: 0,
            kept: 0,
            kept_ttls: vec![],
            holds: 0,
            remembered: 0,
        };
        let mut coming: BTreeMap<(Moment, usize), (AttemptId, Verdict)> = BTreeMap::new();
        let mut count = 0;
        let mut answered_at = None;
        for _ in 0..10_000 {
            self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let draw = (self.seed >> 11) as f64 / (1u64 << 53) as f64;
            let step = pursuit.next(&mut self.group, &mut || draw, self.now);
            self.changes.extend(self.group.take_changes());
            match step {
                Step::Ask(ask) => {
                    if ask.kind != AskKind::Probe {
                        let over = if ask.over_tcp { " over tcp" } else { "" };
                        let at = self.now.since(begun).as_millis();
                        seen.asks.push(format!("{} {}{over} at {at}", ask.kind.word(), ask.server.0));
                        seen.second += usize::from(matches!(ask.kind, AskKind::Hedge | AskKind::Retry));
                    }
                    if let Some((after, verdict)) = self.reply_of(ask) {
                        count += 1;
                        coming.insert((self.now + after, count), (ask.attempt, verdict));
                    }
                }
                Step::Reply(ways, answer) => {
                    assert_eq!((ways.len(), answered_at), (1, None), "one reply for one waiter");
                    seen.after = self.now.since(begun);
                    seen.what = format!("{} after {} ms", shown(&answer), seen.after.as_millis());
                    answered_at = Some(self.now);
                }
                Step::Keep(entry) => {
                    seen.kept += 1;
                    seen.kept_ttls.push(entry.data().unwrap().ttl);
                }
                Step::Hold => seen.holds += 1,
                Step::Remember(_) => seen.remembered += 1,
                Step::Tell(_) => unreachable!("there is one pursuit"),
                Step::Done => break,
                Step::Wait(wake) => {
                    assert!(wake > self.now, "a wait leads on");
                    let next = coming.keys().next().map(|(at, _)| *at).filter(|at| *at <= wake);
                    self.now = next.unwrap_or(wake);
                    if next.is_some() {
                        let (_, (attempt, verdict)) = coming.pop_first().unwrap();
                        pursuit.on_verdict(attempt, verdict, &mut self.group, self.now);
                    }
                }
            }
        }
        pursuit.give_up(&mut self.group, self.now);
        let answered_at = answered_at.expect("the client is answered");
        assert!(answered_at.since(begun) <= deadline, "by its deadline");
        // Background time does not count for the next question: clients do not wait for each other.
        self.now = answered_at.max(begun);
        seen
    }

    fn reply_of(&self, ask: Ask) -> Option<(Duration, Verdict)> {
        fn of(does: &Does, ask: Ask) -> Option<(Duration, Verdict)> {
            Some(match does {
                Does::Answers { after_ms, kind } => {
                    (MS(*after_ms), Verdict::Answer { packed: packed(*kind), storable: true })
                }
                Does::LeadsNowhere { after_ms } => {
                    let packed = Packed { good: false, ..packed(Kind::Positive) };
                    (MS(*after_ms), Verdict::Answer { packed, storable: true })
                }
                Does::Silent => return None,
                Does::Fails { after_ms, fault } => (MS(*after_ms), Verdict::Fault(*fault)),
                Does::Broken { after_ms } => (MS(*after_ms), Verdict::Broken([0, 15, 0, 2, 0, 6].into())),
                Does::TruncatesThen(_) if !ask.over_tcp => (MS(0), Verdict::Truncated),
                Does::RefusesOptThen(_) if ask.with_edns => (MS(0), Verdict::NoEdns),
                Does::ForgedUnlessTcp(_) if !ask.over_tcp => (MS(0), Verdict::Fault(Fault::Mismatched)),
                Does::TruncatesThen(then) | Does::RefusesOptThen(then) | Does::ForgedUnlessTcp(then) => {
                    return of(then, ask);
                }
            })
        }
        of(&self.servers[usize::from(ask.server.0)], ask)
    }
}

fn shown(answer: &Answer) -> String {
    match answer {
        Answer::Fresh(entry) => format!("fresh tier {}", entry.data().unwrap().tier),
        Answer::Stale(_) => "stale".into(),
        Answer::Failed { .. } => "failed".into(),
        Answer::Truncated => "truncated".into(),
    }
}

fn packed(kind: Kind) -> Packed {
    Packed::of_a_minute(kind)
}

fn settings(servers: usize) -> GroupSettings {
    let server = |n: usize| ServerSettings::at(([192, 0, 2, n as u8], 53).into());
    GroupSettings {
        tiers: std::array::from_fn(|t| (0..servers).filter(|n| *n == t).map(server).collect()),
        order: Order::Listed,
        ..GroupSettings::default()
    }
}
