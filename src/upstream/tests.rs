//! What a group concludes from what it is told, where no judge alone decides it.

use std::time::Duration;

use super::group::{AskKind, Belief, Change};
use super::health::{Evidence, Probe};
use super::{ClientHash, Group, GroupSettings, Order, ServerId, ServerSettings, ZoneHash};
use crate::cache::freshness::Freeze;
use crate::clock::Moment;
use crate::limits::BUDGET_BURST;
use crate::wire::Name;

const QUICK: Duration = Duration::from_millis(2);
const LATE: Duration = Duration::from_millis(400);
const PRIMARY: ServerId = ServerId(0);

/// One server a tier, all of which have answered, at the moment zero.
fn group() -> Group {
    let server = |n: u8| vec![ServerSettings::at(([192, 0, 2, n], 53).into())];
    let settings =
        GroupSettings { tiers: [server(0), server(1), server(2)], order: Order::Listed, ..GroupSettings::default() };
    let mut group = Group::new(settings, Moment::ZERO);
    for n in 0..3 {
        (0..8).for_each(|_| answer(&mut group, ServerId(n), QUICK, Moment::ZERO));
    }
    group.take_changes();
    group
}

fn answer(group: &mut Group, server: ServerId, took: Duration, now: Moment) {
    group.on_sent(server, AskKind::First, now);
    group.on_reply(server, took, true, now);
}

/// `count` questions of as many zones and clients, which the server failed or answered.
fn judge(group: &mut Group, server: ServerId, fault: bool, count: u32, now: Moment) {
    (0..count).for_each(|n| group.on_judged(server, fault, ZoneHash(n), ClientHash(n), now));
}

/// The primary is convicted by live evidence and the others stand well beside it.
fn without_primary(now: Moment) -> Group {
    let mut group = group();
    judge(&mut group, ServerId(1), false, 16, now);
    judge(&mut group, PRIMARY, true, 16, now);
    assert_eq!(group.tier_in_use(), 1);
    group
}

fn wire(name: &str) -> Vec<u8> {
    name.parse::<Name>().unwrap().as_wire().to_vec()
}

/// A probe that was sent and ended in that second.
fn probe(group: &mut Group, server: ServerId, probe: Probe, second: u64) {
    group.on_probe(server, probe, Moment::from_secs(second), Moment::from_secs(second));
}

fn is_down(group: &Group, server: ServerId) -> bool {
    group.server(server).health.is_down()
}

/// Weighs each second to `until`, and answers what no client waits for as `answers` says for each second.
fn pass(group: &mut Group, from: u64, until: u64, answers: impl Fn(u64) -> bool) {
    for second in from..until {
        let now = Moment::from_secs(second);
        group.weigh(now);
        group.on_copy(PRIMARY, answers(second).then_some(QUICK), now);
    }
}

#[test]
fn an_empty_configuration_means_these_defaults() {
    let config = crate::config::Config::default();
    assert_eq!(config.groups.len(), 1);
    assert_eq!(config.groups[0].settings, GroupSettings::default());
}

#[test]
fn two_copies_that_fail_in_a_row_break_a_hold_and_one_does_not() {
    for (what, failed, taken) in [("none", 0..0, true), ("one", 8..9, true), ("two in a row", 7..9, false)] {
        let mut group = without_primary(Moment::ZERO);
        // Up at the third second, held for ten.
        pass(&mut group, 1, 15, |second| !failed.contains(&second));
        assert_eq!(group.tier_in_use() == 0, taken, "{what}");
    }
}

#[test]
fn a_copy_that_fails_within_the_hold_makes_a_probe_due() {
    let mut group = without_primary(Moment::ZERO);
    pass(&mut group, 1, 5, |_| true);
    assert!(!is_down(&group, PRIMARY));
    let now = Moment::from_millis(5_100);
    group.probes_due(0.5, now);
    group.on_probe(PRIMARY, Probe::Passed, now, now);
    let soon = now + Duration::from_millis(300);
    assert!(!group.probes_due(0.5, soon).iter().any(|due| due.server == PRIMARY && !due.is_copy));
    group.on_copy(PRIMARY, None, soon);
    assert!(group.probes_due(0.5, soon).iter().any(|due| due.server == PRIMARY && !due.is_copy));
}

// complaint 16: a gray server comes back since it answers something.
#[test]
fn answers_that_come_too_late_acquit_nobody() {
    let mut group = without_primary(Moment::ZERO);
    for second in 1..20 {
        group.on_copy(PRIMARY, Some(LATE), Moment::from_secs(second));
    }
    assert!(is_down(&group, PRIMARY));
    pass(&mut group, 20, 23, |_| true);
    assert!(!is_down(&group, PRIMARY), "three in time do");
}

// A satellite: everybody's answers take twice as long as the longest hedge delay.
#[test]
fn behind_a_long_line_copies_acquit_all_the_same() {
    const FAR: Duration = Duration::from_millis(600);
    let mut group = group();
    for n in 0..3 {
        (0..64).for_each(|_| answer(&mut group, ServerId(n), FAR, Moment::ZERO));
    }
    judge(&mut group, ServerId(1), false, 16, Moment::ZERO);
    judge(&mut group, PRIMARY, true, 16, Moment::ZERO);
    assert!(is_down(&group, PRIMARY));
    for second in 1..4 {
        group.on_copy(PRIMARY, Some(FAR + LATE), Moment::from_secs(second));
    }
    assert!(!is_down(&group, PRIMARY));
    for second in 4..16 {
        group.on_copy(PRIMARY, Some(FAR + LATE), Moment::from_secs(second));
    }
    assert_eq!(group.tier_in_use(), 0, "nor do they break a hold");
}

#[test]
fn one_bad_server_breaks_no_hold_that_another_one_of_its_tier_keeps() {
    let at = |n: u8| ServerSettings::at(([192, 0, 2, n], 53).into());
    let tiers = [vec![at(0), at(1)], vec![at(2)], vec![]];
    let mut group = Group::new(GroupSettings { tiers, ..GroupSettings::default() }, Moment::ZERO);
    for n in 0..3 {
        answer(&mut group, ServerId(n), QUICK, Moment::ZERO);
    }
    judge(&mut group, ServerId(2), false, 16, Moment::ZERO);
    judge(&mut group, ServerId(0), true, 16, Moment::ZERO);
    judge(&mut group, ServerId(1), true, 16, Moment::ZERO);
    assert_eq!(group.tier_in_use(), 1);
    for second in 1..20 {
        let now = Moment::from_secs(second);
        group.on_copy(ServerId(1), Some(QUICK), now);
        // The other one comes back too, and fails every copy from then on.
        group.on_copy(ServerId(0), (second < 4).then_some(QUICK), now);
    }
    assert_eq!(group.tier_in_use(), 0);
}

// A probe's time-out may be longer than the pause between probes.
#[test]
fn a_probe_that_was_sent_before_the_last_answer_came_convicts_nobody() {
    let mut group = group();
    let at = Moment::from_secs;
    for n in 0..3 {
        group.on_probe(PRIMARY, Probe::Passed, at(2 + n), at(2 + n));
        group.on_probe(PRIMARY, Probe::Failed, at(1), at(2 + n));
    }
    assert!(!is_down(&group, PRIMARY));
    (0..3).for_each(|n| group.on_probe(PRIMARY, Probe::Failed, at(5 + n), at(6 + n)));
    assert!(is_down(&group, PRIMARY));
}

#[test]
fn a_group_rests_until_its_next_probe_and_only_while_all_is_well() {
    let mut well = group();
    let until = well.rests_until(Moment::from_secs(1)).expect("all have answered");
    assert_eq!(until, Moment::from_secs(9), "a tenth before a fit server's ten seconds");
    assert!(well.probes_due(0.0, until).iter().any(|due| due.server == PRIMARY));

    probe(&mut well, PRIMARY, Probe::Failed, 9);
    assert_eq!(well.rests_until(Moment::from_secs(9)), None, "one is in doubt");
    let away = without_primary(Moment::from_secs(1));
    assert_eq!(away.rests_until(Moment::from_secs(1)), None, "one is down, another tier in use");
    let mut again = group();
    again.on_discontinuity(Moment::from_secs(1));
    assert_eq!(again.rests_until(Moment::from_secs(1)), None, "a probe is wanted at once");
}

// RULES: REFUSED to a probe is inconclusive. A forwarder that refuses the root answers what is asked of it.
#[test]
fn who_refuses_the_configured_probe_is_acquitted_by_one_that_was_answered_live() {
    let mut group = group();
    group.on_answered(&wire("www.test"), Some(1));
    (0..3).for_each(|s| probe(&mut group, PRIMARY, Probe::Failed, s));
    assert!(is_down(&group, PRIMARY));
    for second in 3..40 {
        let now = Moment::from_secs(second);
        group.weigh(now);
        for due in group.probes_due(0.5, now).iter().filter(|due| due.server == PRIMARY) {
            let passes = due.name.as_wire() == wire("www.test");
            group.on_probe(PRIMARY, if passes { Probe::Passed } else { Probe::Inconclusive }, now, now);
        }
    }
    assert!(!is_down(&group, PRIMARY));
}

#[test]
fn without_a_probe_question_nobody_is_waited_for() {
    let mut group = group();
    group.settings.health.probes.clear();
    group.on_discontinuity(Moment::from_secs(1));
    assert!(group.wants_probes(Moment::from_secs(2)));
    assert_eq!(group.probes_due(0.5, Moment::from_secs(2)), []);
    assert!(!group.wants_probes(Moment::from_secs(2)), "the prober would turn for ever");
}

#[test]
fn a_failure_rate_that_is_alike_on_all_servers_convicts_nobody() {
    let mut group = group();
    for n in 0..16 {
        for server in 0..3 {
            group.on_judged(ServerId(server), true, ZoneHash(n), ClientHash(n), Moment::ZERO);
        }
    }
    assert!((0..3).all(|n| !is_down(&group, ServerId(n))), "{:?}", group.take_changes());
    judge(&mut group, ServerId(1), false, 64, Moment::ZERO);
    judge(&mut group, PRIMARY, true, 1, Moment::ZERO);
    assert!(is_down(&group, PRIMARY), "another one does better");
}

#[test]
fn an_overdue_question_of_a_failing_zone_silences_no_server() {
    for (what, fails, want) in [("failing zones", true, Belief::Healthy), ("other zones", false, Belief::Silent)] {
        let mut group = group();
        let name = |n: u32| wire(&format!("a{n}.z{}.test", n % 5));
        (0..40).filter(|_| fails).for_each(|n| group.on_unanswered(&name(n), Moment::ZERO));
        for server in 0..3 {
            for zone in 0..5 {
                group.on_sent(ServerId(server), AskKind::First, Moment::ZERO);
                group.on_overdue(ServerId(server), &name(zone), ClientHash(zone), Moment::ZERO);
            }
        }
        group.weigh(Moment::from_millis(200));
        assert_eq!(group.belief(), want, "{what}");
    }
}

#[test]
fn the_first_answer_makes_a_failing_zone_one_like_any_other() {
    let mut group = group();
    let name = |n: u32| wire(&format!("a{n}.dead.test"));
    (0..8).for_each(|n| group.on_unanswered(&name(n), Moment::ZERO));
    assert!(group.zone_of(&name(9), Moment::ZERO).is_failing);
    group.on_answered(&name(3), None);
    assert!(!group.zone_of(&name(9), Moment::ZERO).is_failing);
}

#[test]
fn two_servers_that_fail_together_take_no_third_one_of_their_family_along() {
    let at = |a: &str| ServerSettings::at(a.parse().unwrap());
    let v6 = ["[2001:db8::1]:53", "[2001:db8::2]:53", "[2001:db8::3]:53"];
    let tiers = [v6.map(at).into(), vec![at("192.0.2.1:53")], vec![]];
    let mut group = Group::new(GroupSettings { tiers, ..GroupSettings::default() }, Moment::ZERO);
    probe(&mut group, ServerId(2), Probe::Passed, 1);
    for second in 2..5 {
        (0..2).for_each(|n| probe(&mut group, ServerId(n), Probe::Failed, second));
    }
    let states = [0, 1, 2].map(|n| group.server(ServerId(n)).state().0);
    assert_eq!(states, ["down", "down", "fit"]);
}

// complaint 18: penalties that outlast the network that caused them.
#[test]
fn when_the_network_changes_nothing_is_held_against_anybody() {
    let mut group = without_primary(Moment::ZERO);
    (0..8).for_each(|n| group.on_unanswered(&wire(&format!("r{n}.dead.test")), Moment::ZERO));
    let dead = &wire("x.dead.test");
    assert!(group.zone_of(dead, Moment::ZERO).is_failing);
    // Two flaps: the hold has grown.
    pass(&mut group, 1, 20, |_| true);
    judge(&mut group, ServerId(1), false, 16, Moment::from_secs(20));
    judge(&mut group, PRIMARY, true, 16, Moment::from_secs(20));
    let now = Moment::from_secs(21);
    assert!(is_down(&group, PRIMARY) && group.hold(now) > group.settings().health.hold);
    let healings = group.healings();

    group.on_discontinuity(now);
    assert!(!is_down(&group, PRIMARY), "the server");
    assert_eq!(group.hold(now), group.settings().health.hold, "its flaps");
    assert!(!group.zone_of(dead, now).is_failing, "the zone");
    assert_ne!(group.healings(), healings, "failures that are remembered");
    assert!(group.server(PRIMARY).latency().p95().is_none(), "its pace");
    assert_eq!(group.tier_in_use(), 1, "traffic waits for the hold all the same");
    let due = group.probes_due(0.5, now);
    assert!((0..3).all(|n| due.iter().any(|d| d.server == ServerId(n))), "all are probed at once: {due:?}");
}

#[test]
fn who_was_not_weighed_for_a_while_was_asleep_and_no_tier_held() {
    let mut group = without_primary(Moment::ZERO);
    pass(&mut group, 1, 5, |_| true);
    pass(&mut group, 30, 38, |_| true);
    assert_eq!(group.tier_in_use(), 1);
    pass(&mut group, 38, 42, |_| true);
    assert_eq!(group.tier_in_use(), 0);
}

#[test]
fn where_a_hold_is_over_and_nobody_asked_the_tier_is_probed_at_once() {
    let mut group = without_primary(Moment::ZERO);
    pass(&mut group, 1, 5, |_| true);
    let over = Moment::from_millis(14_500);
    (5..=14).for_each(|second| group.weigh(Moment::from_secs(second)));
    group.probes_due(0.5, Moment::from_secs(12));
    group.weigh(over);
    assert_eq!(group.tier_in_use(), 1, "it has not answered since");
    let due = group.probes_due(0.5, over);
    assert!(due.iter().any(|d| d.server == PRIMARY && !d.is_copy), "{due:?}");
    group.on_probe(PRIMARY, Probe::Passed, over, over);
    assert_eq!(group.tier_in_use(), 0);
}

#[test]
fn a_group_is_dark_when_nobody_is_fit_and_asked_little_when_all_are_down() {
    let mut group = group();
    for n in 0..3 {
        let server = ServerId(n);
        (0..5).for_each(|_| group.on_sent(server, AskKind::First, Moment::from_secs(1)));
        (0..5).for_each(|_| group.on_port_closed(server, false, Moment::from_secs(1)));
    }
    assert_eq!((group.belief(), group.is_spared(false), group.is_spared(true)), (Belief::Silent, false, true));
    group.weigh(Moment::from_millis(2_100));
    assert_eq!((group.belief(), group.is_spared(false)), (Belief::Down, true));
    assert!(group.take_changes().contains(&Change::Down(PRIMARY, Evidence::Silence)));
    answer(&mut group, ServerId(2), QUICK, Moment::from_secs(3));
    assert_eq!(group.belief(), Belief::Healthy);
}

#[test]
fn a_second_opinion_is_had_of_a_fit_server_of_another_tier_first() {
    let group = group();
    let another = |group: &Group, asked: &[u8], tier| group.another(asked, tier, false, Moment::ZERO);
    assert_eq!(another(&group, &[1, 0, 0], 0), Some(ServerId(1)));
    assert_eq!(another(&group, &[0, 0, 1], 2), Some(PRIMARY));
    assert_eq!(another(&group, &[0, 0, 0], 0), Some(ServerId(1)));
    assert_eq!(another(&group, &[0, 1, 1], 0), Some(PRIMARY), "where there is no other");
    assert_eq!(another(&group, &[1, 1, 1], 0), None);
    let group = without_primary(Moment::ZERO);
    assert_eq!(another(&group, &[0, 1, 0], 1), Some(ServerId(2)));
}

#[test]
fn a_server_that_is_alone_is_doubted_by_nobody() {
    let mut group = Group::new(
        GroupSettings {
            tiers: [vec![ServerSettings::at(([192, 0, 2, 0], 53).into())], vec![], vec![]],
            ..GroupSettings::default()
        },
        Moment::ZERO,
    );
    (0..40).for_each(|n| group.on_turned(PRIMARY, &wire(&format!("n{n}.z{}.test", n % 5)), Moment::ZERO));
    assert!(!group.wants_second_opinion(PRIMARY, Moment::ZERO));
}

#[test]
fn what_is_asked_ahead_is_paid_from_refreshes_too_and_not_of_a_failing_zone() {
    let mut group = group();
    let name = wire("www.test");
    assert!((0..5).all(|_| group.allows_ahead(&name, Moment::ZERO)));
    assert_eq!((0..200).filter(|_| group.allows_refresh(Moment::ZERO)).count(), 95);
    let mut group = self::group();
    (0..8).for_each(|n| group.on_unanswered(&wire(&format!("a{n}.dead.test")), Moment::ZERO));
    assert!(!group.allows_ahead(&wire("a9.dead.test"), Moment::ZERO) && group.allows_ahead(&name, Moment::ZERO));
}

#[test]
fn a_group_with_new_settings_is_frozen_as_it_was_and_takes_no_better_tier() {
    let now = Moment::from_secs(1);
    let mut old = without_primary(now);
    let freeze = Freeze { since: now, until: Moment::from_secs(1000) };
    old.set_freeze(Some(freeze));
    let later = Moment::from_secs(900);
    let (group, _) = Group::adopt(old.settings().clone(), &mut old, later);
    assert!(group.is_frozen(later));
    assert_eq!(group.max_age(later), old.settings().stale.max_age + Duration::from_secs(899));
}

#[test]
fn second_questions_are_denied_once_their_budget_is_spent() {
    let mut group = group();
    // What first questions have brought so far is the burst, and no more.
    let granted = (0..100).filter(|_| group.allows_second(ClientHash(1), true, Moment::ZERO)).count();
    assert_eq!((granted, group.budget_denied()), (BUDGET_BURST as usize, 100 - BUDGET_BURST as u64));
    (0..12).for_each(|_| group.on_sent(PRIMARY, AskKind::First, Moment::ZERO));
    let granted = (0..100).filter(|_| group.allows_second(ClientHash(1), true, Moment::ZERO)).count();
    assert_eq!(granted, 3, "0.3 for each first question");
}

#[test]
fn one_of_several_clients_that_took_most_gets_no_second_question_while_they_are_scarce() {
    let mut group = group();
    let (greedy, other) = (ClientHash(1), ClientHash(2));
    for client in [greedy, other] {
        let permit = group.enter(b"\x01a\x04test\0", client, Moment::ZERO).unwrap();
        group.leave(permit);
    }
    let granted = (0..100).filter(|_| group.allows_second(greedy, true, Moment::ZERO)).count();
    assert!((5..=15).contains(&granted), "{granted} of a burst of twenty");
    assert!(group.allows_second(other, true, Moment::ZERO));
    assert!(group.budget_denied() >= 85);
    assert!(!group.allows_second(greedy, false, Moment::ZERO));
    let denied = group.budget_denied();
    assert!(!group.allows_second(greedy, false, Moment::ZERO));
    assert_eq!(group.budget_denied(), denied, "one that asks again is not counted again");
}
